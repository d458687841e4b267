//! What the writer does when it is asked to: each order is one transaction, and is answered after it.

use jiff::Timestamp;

use super::{Write, halted_part};
use crate::audit::Act;
use crate::dead_letter::work::Retried;
use crate::queue::{Answer, JobOrder, LetterOrder, Order, Partition, RemovalOrder};
use crate::store::StoreError;

impl Write {
    /// While the file cannot be written, the answer is dropped with the order, which tells whoever asked.
    pub(super) fn obey(&mut self, order: Order) {
        if !self.is_open() || (!order.makes_room() && !self.may_take_room()) {
            return;
        }
        let now = Timestamp::now();
        match order {
            Order::Resume { topic, partition, act, answer } => self.resume(topic, partition, &act, answer),
            Order::Note { act, answer } => {
                let noted = self.store.note(&act, now);
                self.answer(noted, answer);
            }
            Order::Job(order) => self.obey_job(*order, now),
            Order::Letter(order) => self.obey_letter(*order, now),
            Order::Removal(order) => self.obey_removal(*order, now),
        }
    }

    fn obey_job(&mut self, order: JobOrder, now: Timestamp) {
        match order {
            JobOrder::Make { job, act, answer } => {
                let made = self.store.make_job(&job, &act, now);
                self.answer(made, answer);
            }
            JobOrder::Change { id, change, act, answer } => {
                let changed = self.store.change_job(id, change, &act, now);
                self.answer(changed, answer);
            }
            JobOrder::Step { step, answer } => {
                let stepped = self.store.step_job(&step, now);
                self.answer(stepped, answer);
            }
        }
    }

    fn obey_letter(&mut self, order: LetterOrder, now: Timestamp) {
        match order {
            LetterOrder::Retry { retry, act, answer } => {
                let retried = self.store.retry(&retry, &act, now);
                if let (Ok(retried), false) = (&retried, retry.rehearse) {
                    self.count_retried(retried);
                }
                self.answer(retried, answer);
            }
            LetterOrder::Claim { claim, act, answer } => {
                let claimed = self.store.claim(&claim, &act, now);
                self.answer(claimed, answer);
            }
            LetterOrder::Release { id, republished, act, answer } => {
                let released = self.store.release(id, &republished, &act, now);
                self.answer(released, answer);
            }
            LetterOrder::Discard { ids, note, act, answer } => {
                let discarded = self.store.discard(&ids, &note, &act, now);
                self.answer(discarded, answer);
            }
        }
        self.count_dead_letters();
    }

    fn obey_removal(&mut self, order: RemovalOrder, now: Timestamp) {
        match order {
            RemovalOrder::Begin { scope, act, answer } => {
                let begun = self.store.begin_erasure(&scope, &act, now);
                self.answer(begun, answer);
            }
            RemovalOrder::Erase { erasure, scope, rows, answer } => {
                let erased = self.store.erase(erasure, &scope, &rows);
                self.answer(erased, answer);
                if !rows.letters.is_empty() {
                    self.count_dead_letters();
                }
            }
            RemovalOrder::Scrub { pages, answer } => {
                let scrubbed = self.store.scrub(&pages);
                self.answer(scrubbed, answer);
            }
            RemovalOrder::Finish { erasure, scope, act, answer } => {
                let finished = self.store.finish_erasure(erasure, &scope, &act, now);
                self.answer(finished, answer);
            }
            RemovalOrder::Prune { last_id, act, answer } => {
                let pruned = self.store.prune(last_id, act);
                self.answer(pruned, answer);
            }
            RemovalOrder::Retire { outdated, answer } => {
                let retired = self.store.retire(&outdated);
                self.answer(retired, answer);
                if !outdated.letters.is_empty() {
                    self.count_dead_letters();
                }
            }
            RemovalOrder::Vacuum { pages, answer } => {
                let vacuumed = self.store.vacuum(pages);
                self.answer(vacuumed, answer);
            }
            RemovalOrder::ListArchived { files, answer } => {
                let listed = self.store.list_archived(&files, now);
                self.answer(listed, answer);
            }
            RemovalOrder::EraseArchived { erasure, ids, answer } => {
                let erased = self.store.erase_archived(erasure, &ids);
                self.answer(erased, answer);
            }
        }
        self.measure_files();
    }

    fn count_retried(&self, retried: &[(i64, Retried)]) {
        for (_, retried) in retried {
            if let Retried::Journaled { topic, tenant_id, .. } = retried {
                self.metrics.count_persisted(topic, tenant_id, 1);
            }
        }
    }

    fn answer<T>(&mut self, done: Result<T, StoreError>, answer: Answer<T>) {
        match done {
            Ok(done) => answer.give(done),
            Err(error) => {
                self.fault(error);
                answer.unknown();
            }
        }
        self.checkpoint();
    }

    fn resume(&mut self, topic: Option<String>, partition: Option<i32>, act: &Act, answer: Answer<Vec<Partition>>) {
        let is_meant = |(t, p): &Partition| {
            topic.as_ref().is_none_or(|topic| **topic == **t) && partition.is_none_or(|number| number == *p)
        };
        let resumed = self.store.resume(is_meant, act, Timestamp::now());
        if let Ok(resumed) = &resumed {
            for partition in resumed {
                let labels = [&*partition.0, &partition.1.to_string()];
                self.metrics.broker.halted.remove_label_values(&labels).ok();
                self.health.well(&halted_part(partition));
                self.durable.resume(partition);
            }
        }
        self.answer(resumed, answer);
    }
}
