//! Going through the events and dead letters up to a time, and having the writer delete those that are meant.

use super::{PATIENCE, RetentionError, Shared};
use crate::audit::{Act, Outcome};
use crate::queue::{Order, RemovalOrder};
use crate::removal::{Outdated, PRUNE_MAX};
use crate::store::Aged;

/// Rows that are read at once.
const PAGE: u32 = 4 * PRUNE_MAX;

/// One act of the audit: it begins with the first row that goes.
pub(super) struct Sweep<'a> {
    shared: &'a Shared,
    act: Act,
    started_id: Option<i64>,
    is_chained: bool,
    /// Up to which event the archive has all.
    archived: i64,
    last_id: i64,
    events: u64,
    letters: u64,
    /// Something that was meant is still there.
    is_partly: bool,
}

impl<'a> Sweep<'a> {
    pub fn new(shared: &'a Shared, act: Act) -> Result<Sweep<'a>, RetentionError> {
        let is_chained = shared.readers.has_chain()?;
        Ok(Sweep {
            shared,
            act,
            started_id: None,
            is_chained,
            archived: 0,
            last_id: 0,
            events: 0,
            letters: 0,
            is_partly: false,
        })
    }

    /// The last event that was looked at.
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Deletes what `is_meant` of all that was received before `end`.
    pub fn all(&mut self, end: &str, is_meant: &dyn Fn(&Aged) -> bool) -> Result<(), RetentionError> {
        let swept = self.events(end, is_meant).and_then(|()| self.letters(end, is_meant));
        if let Err(error) = &swept {
            let detail = format!("{}; {error}", self.detail());
            self.note_end(Outcome::Failed, detail).ok();
        }
        swept
    }

    /// Says in the audit what was deleted; whether that is all that was meant.
    pub fn end(self) -> Result<bool, RetentionError> {
        self.note_end(Outcome::Done, self.detail())?;
        Ok(!self.is_partly)
    }

    fn events(&mut self, end: &str, is_meant: &dyn Fn(&Aged) -> bool) -> Result<(), RetentionError> {
        let Some(last) = self.shared.readers.last_received_before(end)? else { return Ok(()) };
        while self.last_id < last {
            let page = self.shared.readers.aged_events(self.last_id, last, PAGE)?;
            let Some(row) = page.last() else { break };
            self.last_id = row.id;
            let of_jobs = self.shared.readers.events_of_jobs(page[0].id, row.id)?;
            self.is_partly |= page.iter().any(|row| of_jobs.contains(&row.id) && is_meant(row));
            let may_go = |row: &Aged| is_meant(row) && !of_jobs.contains(&row.id);
            // A chain has no holes: what stays keeps what came after it.
            let stays = page.iter().position(|row| self.is_chained && !may_go(row));
            let until = stays.unwrap_or(page.len());
            let meant: Vec<i64> = page[..until].iter().filter(|row| may_go(row)).map(|row| row.id).collect();
            for ids in meant.chunks(PRUNE_MAX as usize) {
                self.archive(ids[ids.len() - 1], last)?;
                if !self.retire(ids.to_vec(), Vec::new())? {
                    return Ok(());
                }
            }
            if stays.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn letters(&mut self, end: &str, is_meant: &dyn Fn(&Aged) -> bool) -> Result<(), RetentionError> {
        let mut after = 0;
        loop {
            let page = self.shared.readers.aged_letters(after, end, PRUNE_MAX)?;
            let Some(row) = page.last() else { return Ok(()) };
            after = row.id;
            let meant: Vec<i64> = page.iter().filter(|row| is_meant(row)).map(|row| row.id).collect();
            if !meant.is_empty() {
                self.retire(Vec::new(), meant)?;
            }
        }
    }

    /// Has the archive take everything up to `id`, and what it likes up to `last`.
    fn archive(&mut self, id: i64, last: i64) -> Result<(), RetentionError> {
        while self.archived < id {
            let archived = (self.shared.archive)(last).map_err(|why| match self.shared.shutdown.has_begun() {
                true => RetentionError::Stopping,
                false => RetentionError::Archive(why),
            })?;
            if archived <= self.archived {
                return Err(RetentionError::Archive(format!("the archive does not go on after event {archived}")));
            }
            self.archived = archived;
        }
        Ok(())
    }

    /// One transaction; whether those after it may go too.
    fn retire(&mut self, events: Vec<i64>, letters: Vec<i64>) -> Result<bool, RetentionError> {
        self.shared.stand_back()?;
        let act = self.begun()?;
        let meant = (events.len() + letters.len()) as u64;
        let outdated = Outdated { events, letters, act };
        let order = |answer| Order::Removal(Box::new(RemovalOrder::Retire { outdated, answer }));
        let retired = self.shared.orders.give(PATIENCE, order)?;
        let events: u64 = retired.events.values().sum();
        self.is_partly |= events + retired.letters < meant;
        self.events += events;
        self.letters += retired.letters;
        for (topic, events) in &retired.events {
            self.shared.metrics.count_pruned(topic, *events);
        }
        self.shared.metrics.retention.letters.inc_by(retired.letters);
        Ok(!retired.is_blocked)
    }

    fn begun(&mut self) -> Result<i64, RetentionError> {
        if let Some(id) = self.started_id {
            return Ok(id);
        }
        let id = self.note(self.act.with(Outcome::Started, ""))?;
        self.started_id = Some(id);
        Ok(id)
    }

    fn note_end(&self, outcome: Outcome, detail: String) -> Result<(), RetentionError> {
        let Some(started_id) = self.started_id else { return Ok(()) };
        tracing::info!(events = self.events, dead_letters = self.letters, target = self.act.target, "pruned");
        let act = self.act.after(started_id).counting(self.events as usize);
        self.note(act.with(outcome, detail)).map(drop)
    }

    fn detail(&self) -> String {
        format!("{} events and {} dead letters", self.events, self.letters)
    }

    fn note(&self, act: Act) -> Result<i64, RetentionError> {
        Ok(self.shared.orders.give(PATIENCE, |answer| Order::Note { act, answer })?)
    }
}
