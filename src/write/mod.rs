//! The writer thread: collects batches from the queue, makes them durable, tells what is.

mod batch;
mod fault;
mod obey;
mod open;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::batch::{Collected, Limits};
pub use self::fault::Aftermath;
pub use self::open::Opening;
use crate::config::{Config, OnGap};
use crate::dead_letter::breaker;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::pulse::Heart;
use crate::queue::{Arrival, Batch, Durable, Item, Joining, Ordered, Outlet, Partition, Sighting};
use crate::shutdown::Shutdown;
use crate::store::{Appended, Fate, Reserve, Rules, Writer, file_sizes};

/// The name of this stage in `/health`, the log and the thread list.
pub const PART: &str = "write";
/// How often an idle writer looks whether the file was changed from outside.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How long to wait after a fault of the box before the batch is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// … and after one of the file itself, which only an operator can mend.
const RETRY_DAMAGED_AFTER: Duration = Duration::from_secs(5);

/// The writer thread's state.
pub struct Write {
    pub store: Writer,
    pub reserve: Reserve,
    pub aftermath: Aftermath,
    pub path: PathBuf,
    pub queue: Outlet,
    pub durable: Arc<Durable>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub shutdown: Arc<Shutdown>,
    pub limits: Limits,
    /// When the last records became durable,
    pub last_transaction: Option<Instant>,
    /// and when the last ones came.
    pub last_arrival: Option<Instant>,
    pub log_bytes_max: u64,
    pub heart: Heart,
}

pub fn limits(config: &Config) -> Limits {
    let write = &config.write;
    Limits {
        rows_max: write.batch_rows_max,
        bytes_max: write.batch_bytes_max,
        age_max: write.batch_age_max,
        interval: write.batch_interval,
        rows_min: write.batch_rows_min,
    }
}

pub fn rules(config: &Config) -> Rules {
    let dead_letters = breaker::Limits { consecutive_max: config.dlq.max_consecutive, ratio_max: config.dlq.max_ratio };
    Rules { dead_letters, halt_on_gap: config.consume.on_gap == OnGap::Halt, chain: config.journal.chain }
}

/// What shares a transaction.
struct Work {
    items: Vec<Item>,
    sightings: Vec<(Partition, Sighting)>,
}

fn halted_part((topic, partition): &Partition) -> String {
    format!("{PART} {topic}/{partition}")
}

impl Write {
    /// Runs until every consumer is gone and the queue is empty.
    pub fn run(mut self) {
        if let Err(error) = self.reserve.keep_or_take() {
            tracing::warn!(%error, "the reserve could not be taken yet");
        }
        self.measure_files();
        self.metrics.flow.last_persisted.set(self.store.last_received().as_microsecond() as f64 / 1e6);
        self.count_dead_letters();
        self.show_coverage();
        loop {
            self.heart.beat();
            match self.queue.next(Instant::now() + IDLE_TICK) {
                Arrival::Batch(first) => {
                    let (work, ordered) = self.collect(first);
                    if !work.items.is_empty() && !self.make_durable(&work) {
                        return;
                    }
                    if let Some(order) = ordered.and_then(Ordered::begin) {
                        self.obey(order);
                    }
                }
                Arrival::Order(order) => self.obey(order),
                Arrival::Quiet => self.look_after_the_file(),
                Arrival::Closed => break,
            }
        }
        self.copy_the_log();
    }

    /// The file of a sink that was stopped in order has all by itself. SQLite does this when the last connection is closed,
    /// which a reader's may be, and that cannot write. Whoever reads on keeps the log: nothing is lost in it.
    fn copy_the_log(&mut self) {
        if self.aftermath.reopen {
            return;
        }
        if let Err(error) = self.store.begin_log_again() {
            self.fault(error);
        }
    }

    /// `first` and what joins it before the transaction is due. An order is not kept waiting: it makes it due.
    fn collect(&mut self, first: Batch) -> (Work, Option<Ordered>) {
        let is_urgent = first.is_urgent || self.limits.is_alone(first.since, self.last_arrival);
        let mut collected = Collected { rows: first.items.len(), bytes: first.bytes, since: first.since, is_urgent };
        self.last_arrival = Some(first.since);
        let mut work = Work { items: first.items, sightings: first.sightings };
        let mut ordered = None;
        while !self.limits.is_full(&collected) {
            match self.queue.joining(self.limits.deadline(&collected, self.last_transaction)) {
                Joining::Batch(batch) => {
                    collected.rows += batch.items.len();
                    collected.bytes += batch.bytes;
                    collected.is_urgent |= batch.is_urgent;
                    self.last_arrival = Some(batch.since);
                    work.items.extend(batch.items);
                    work.sightings.extend(batch.sightings);
                }
                Joining::Order(order) => {
                    ordered = Some(order);
                    break;
                }
                Joining::Nothing => break,
            }
        }
        self.metrics.flow.queue_batches.set(self.queue.waiting() as i64);
        (work, ordered)
    }

    /// Holds on to `work` until they are durable, whatever the box does meanwhile: the queue fills up behind this,
    /// and the consumers pause. Whether they are; not so only when the sink stops in the middle of a fault, and
    /// then Kafka still has them.
    fn make_durable(&mut self, work: &Work) -> bool {
        loop {
            self.heart.beat();
            self.store.withdraw(self.durable.take_withdrawn());
            let began = Instant::now();
            let appended = self.is_ready().then(|| self.store.append(&work.items, &work.sightings, Timestamp::now()));
            match appended {
                Some(Ok(appended)) => {
                    self.metrics.flow.transaction_seconds.observe(began.elapsed().as_secs_f64());
                    if work.items.iter().any(|item| item.record().is_some()) {
                        self.last_transaction = Some(Instant::now());
                    }
                    self.report(&work.items, &appended);
                    self.health.well(PART);
                    self.look_after_the_reserve();
                    self.checkpoint();
                    return true;
                }
                Some(Err(error)) => self.fault(error),
                None => {}
            }
            let retry_after = if self.aftermath.damaged { RETRY_DAMAGED_AFTER } else { RETRY_AFTER };
            if self.shutdown.wait(retry_after) {
                tracing::warn!(records = work.items.len(), "stopped before they could be stored; Kafka still has them");
                return false;
            }
        }
    }

    /// Everything in `items` is durable: counts it, and lets the consumers commit.
    fn report(&self, items: &[Item], appended: &Appended) {
        let mut persisted: HashMap<(&str, &str), u64> = HashMap::new();
        let mut next_offsets: HashMap<Partition, i64> = HashMap::new();
        let mut withheld: HashSet<Partition> = HashSet::new();
        let mut fates = appended.fates.iter();
        for run in items.chunk_by(|one, next| one.is_beside(next)) {
            let mut next_offset = None;
            for (item, fate) in run.iter().zip(&mut fates) {
                match (item, fate) {
                    (Item::Event(event), Fate::Journaled) => {
                        *persisted.entry((&item.position().topic, &event.tenant_id)).or_default() += 1;
                    }
                    (_, Fate::DeadLettered(reason)) => {
                        self.metrics.count_dead_letters(&item.position().topic, reason.as_str(), 1);
                    }
                    (_, Fate::Withheld) => {
                        withheld.insert(item.partition());
                        continue;
                    }
                    (Item::Begin(_) | Item::NotDelivered { .. }, _) => {}
                    _ => self.metrics.count_duplicates(&item.position().topic, 1),
                }
                next_offset = Some(item.next_offset());
            }
            if let Some(next_offset) = next_offset {
                next_offsets.insert(run[0].partition(), next_offset);
            }
        }
        if !persisted.is_empty() {
            self.metrics.flow.last_persisted.set(Timestamp::now().as_microsecond() as f64 / 1e6);
        }
        for ((topic, tenant_id), events) in persisted {
            self.metrics.count_persisted(topic, tenant_id, events);
        }
        self.metrics.flow.transaction_rows.observe(items.len() as f64);
        self.durable.publish(next_offsets);
        self.durable.interrupt(withheld);
        self.report_coverage(appended);
        self.measure_files();
    }

    /// What of the partitions was not read, and what will not be for now.
    fn report_coverage(&self, appended: &Appended) {
        for ((topic, partition), gap) in appended.gaps.iter().filter(|(_, gap)| gap.next_offset > gap.first_offset) {
            let (first, last, reason) = (gap.first_offset, gap.next_offset - 1, gap.reason.as_str());
            self.metrics.count_gaps(topic, reason, 1);
            if gap.is_loss() {
                tracing::error!(
                    topic = &**topic,
                    partition,
                    first,
                    last,
                    reason,
                    "records are missing; see GET /integrity"
                );
            } else {
                tracing::info!(
                    topic = &**topic,
                    partition,
                    first,
                    last,
                    reason,
                    "a range of offsets is not in this file"
                );
            }
        }
        for ((topic, partition), new_log) in &appended.new_logs {
            self.metrics.count_log_restart(topic);
            let reason = new_log.reason.as_str();
            tracing::warn!(
                topic = &**topic,
                partition,
                reason,
                "the broker's log begins again; reading it from its beginning"
            );
        }
        for (partition, why) in &appended.halted {
            self.halt(partition.clone(), why);
        }
    }

    fn halt(&self, partition: Partition, why: &str) {
        let (topic, number) = &partition;
        self.metrics.broker.halted.with_label_values(&[&**topic, &number.to_string()]).set(1);
        let reason = format!("{why}; nothing is taken from this partition until POST /consumer/resume");
        self.health.fault(&halted_part(&partition), reason);
        self.durable.halt(partition);
    }

    /// What the file knew at the start.
    fn show_coverage(&self) {
        for (partition, why) in self.store.halted() {
            self.halt(partition, &why);
        }
        match self.store.gaps() {
            Ok(gaps) => {
                for (topic, reason, ranges) in gaps {
                    self.metrics.count_gaps(&topic, &reason, ranges);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot count the gaps"),
        }
    }

    fn look_after_the_file(&mut self) {
        self.metrics.flow.queue_batches.set(0);
        // A fault of a checkpoint must not stay just because no event comes.
        let was_at_fault = self.aftermath.reopen;
        if was_at_fault {
            if !self.is_ready() {
                return;
            }
            self.health.well(PART);
        }
        match self.store.was_changed_from_outside() {
            Ok(changed) if changed || was_at_fault => self.count_dead_letters(),
            Ok(_) => {}
            Err(error) => return self.fault(error),
        }
        self.may_grow_the_log();
        if !self.reserve.is_held() {
            self.has_room();
        }
        self.look_after_the_reserve();
        self.measure_files();
    }

    fn count_dead_letters(&mut self) {
        match self.store.dead_letters() {
            Ok((rows, open)) => {
                self.metrics.flow.dlq_rows.set(rows);
                self.metrics.flow.dlq_open.set(open);
            }
            Err(error) => self.fault(error),
        }
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.store.checkpoint() {
            self.fault(error);
        }
    }

    fn measure_files(&self) {
        let (journal, wal) = file_sizes(&self.path);
        self.metrics.journal.bytes.set(journal as i64);
        self.metrics.journal.wal_bytes.set(wal as i64);
        self.metrics.journal.reserve_bytes.set(self.reserve.held_bytes() as i64);
    }
}
