//! What is too old goes, and the oldest where there is too much: `rules` decides, the writer deletes, in small
//! transactions between which ingestion has its turn.
//!
//! What stays whatever its age: dead letters that are not closed, events of jobs that are not at their end, the audit.

mod growth;
mod rules;
mod status;
mod sweep;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::growth::Growth;
pub use self::status::{Known, Status};
use self::sweep::Sweep;
use crate::audit::Act;
use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::queue::{Order, OrderError, Orders, RemovalOrder};
use crate::shutdown::Shutdown;
use crate::store::{self, FileRoom, Readers, StoreError, free_bytes};

/// Retention's name in `/health`.
pub const PART: &str = "retention";
/// How long the writer may take to begin with an order.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pages that one transaction gives back to the disk.
const VACUUM_PAGES: u32 = 256;
/// Free bytes that the file keeps for the next rows.
const FREE_KEPT: u64 = 4 << 20;
/// How soon a run that did not come to its end is tried again, at the latest.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long ingestion may keep an order waiting.
const STAND_BACK: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

/// Archives the events up to an id, or some of them: up to which id they may be deleted now.
pub type Archive = Box<dyn Fn(i64) -> Result<i64, String> + Send>;

/// What retention needs of the sink.
pub struct Shared {
    pub config: Arc<Config>,
    pub readers: Readers,
    pub orders: Orders,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub shutdown: Arc<Shutdown>,
    pub archive: Archive,
    pub status: Arc<Status>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Order(#[from] OrderError),
    #[error("{0}")]
    Archive(String),
    #[error("the free room of the disk is not known: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "{0}, and nothing is left that may go: the last hour, open dead letters and events of jobs that are not at their end stay"
    )]
    NotEnough(&'static str),
    #[error("the sink is stopping")]
    Stopping,
}

pub struct Retention {
    shared: Shared,
    /// The days that the last run went through for their ages; they need not be gone through twice.
    aged_until: Option<String>,
    growth: Growth,
}

impl Retention {
    pub fn new(shared: Shared) -> Retention {
        Retention { shared, aged_until: None, growth: Growth::default() }
    }

    /// Looks after the room until the sink stops.
    pub fn run(mut self) {
        let mut next_run = Instant::now();
        loop {
            self.show();
            if Instant::now() >= next_run {
                let interval = self.shared.config.retention.interval;
                let wait = if self.keep_within() { interval } else { interval.min(RETRY_AFTER) };
                next_run = Instant::now() + wait;
            }
            let wait = next_run.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            if self.shared.shutdown.wait(wait) {
                return;
            }
        }
    }

    /// One run, and what is said of it; whether it came to its end.
    fn keep_within(&mut self) -> bool {
        let done = self.prune(Timestamp::now()).and_then(|()| self.give_back());
        let (health, metrics) = (&self.shared.health, &self.shared.metrics.retention);
        match done {
            Ok(()) => {
                health.well(PART);
                metrics.last_run.set(Timestamp::now().as_second() as f64);
                self.shared.status.ended(Timestamp::now());
                true
            }
            Err(RetentionError::Stopping) => false,
            Err(error) => {
                metrics.faults.inc();
                health.fault(PART, error.to_string());
                false
            }
        }
    }

    /// By age, then by size and room.
    fn prune(&mut self, now: Timestamp) -> Result<(), RetentionError> {
        let rules = &self.shared.config.retention;
        let end = rules::ages_end(rules, now);
        if let Some(end) = end.filter(|end| self.aged_until.as_ref() != Some(end)) {
            let mut sweep = Sweep::new(&self.shared, self.act("retention.age_max", &end))?;
            let outdated = |row: &_| rules::is_outdated(rules, row, now);
            sweep.all(&end, &outdated)?;
            // What a job or a chain kept is looked at again.
            self.aged_until = sweep.end()?.then_some(end);
        }
        let mut after = 0;
        while let Some(reason) = self.exceeded()? {
            let oldest = self.shared.readers.oldest_received(after)?;
            let end = oldest.and_then(|oldest| rules::next_end(&oldest, now));
            let end = end.ok_or(RetentionError::NotEnough(reason))?;
            let mut sweep = Sweep::new(&self.shared, self.act(reason, &end))?;
            sweep.all(&end, &|_| true)?;
            after = sweep.last_id();
            sweep.end()?;
        }
        Ok(())
    }

    fn act(&self, reason: &str, end: &str) -> Act {
        let act = Act::new("the sink", "the sink", "prune", format!("events received before {end}"));
        Act { reason: Some(reason.to_owned()), ..act }
    }

    /// Which limit is passed.
    fn exceeded(&self) -> Result<Option<&'static str>, RetentionError> {
        let rules = &self.shared.config.retention;
        if rules.size_max == 0 && rules.free_min == 0 {
            return Ok(None);
        }
        let room = self.shared.readers.file_room()?;
        if rules.size_max > 0 && room.used > rules.size_max {
            return Ok(Some("the journal is larger than retention.size_max"));
        }
        let free = self.disk_free()?.saturating_add(room.free);
        Ok((free < rules.free_min).then_some("the disk has less room than retention.free_min"))
    }

    fn disk_free(&self) -> Result<u64, RetentionError> {
        Ok(disk_free(&self.shared.config.journal.path)?)
    }

    /// Free pages go back to the disk, where retention is on and the file can.
    fn give_back(&self) -> Result<(), RetentionError> {
        if !self.is_on() {
            return Ok(());
        }
        loop {
            let FileRoom { free, can_shrink, .. } = self.shared.readers.file_room()?;
            if free <= FREE_KEPT || !can_shrink {
                return Ok(());
            }
            self.shared.stand_back()?;
            let order = |answer| Order::Removal(Box::new(RemovalOrder::Vacuum { pages: VACUUM_PAGES, answer }));
            if self.shared.orders.give(PATIENCE, order)? == 0 {
                return Ok(());
            }
        }
    }

    fn is_on(&self) -> bool {
        let rules = &self.shared.config.retention;
        rules.size_max > 0 || rules.free_min > 0 || rules::ages_end(rules, Timestamp::now()).is_some()
    }

    /// In the metrics. What cannot be read now is shown the next time.
    fn show(&mut self) {
        let (room, free) = (self.shared.readers.file_room(), self.disk_free());
        let metrics = &self.shared.metrics.retention;
        if let Ok(free) = &free {
            metrics.disk_free_bytes.set(*free as i64);
        }
        if let (Ok(room), Ok(free)) = (room, free) {
            metrics.free_pages_bytes.set(room.free as i64);
            self.growth.observe(Instant::now(), room.used);
            let left = self.growth.seconds_left(free.saturating_add(room.free));
            metrics.disk_left_seconds.set(left);
            self.shared.status.grows(self.growth.bytes_per_second(), left);
        }
        self.shared.status.count(&self.shared.readers);
        if let Some(written) = written_bytes() {
            metrics.written_bytes.inc_by(written.saturating_sub(metrics.written_bytes.get()));
        }
        if let Ok(oldest) = self.shared.readers.oldest_received(0) {
            let at = oldest.and_then(|oldest| format!("{oldest}Z").parse::<Timestamp>().ok());
            metrics.oldest.set(at.map_or(0.0, |at| at.as_microsecond() as f64 / 1e6));
        }
    }
}

/// Free bytes of the journal's disk.
///
/// # Errors
/// If the system does not say.
pub fn disk_free(journal: &Path) -> io::Result<u64> {
    free_bytes(store::folder(journal))
}

/// Bytes that this process had the system write to disks so far; `None` where the system does not count them.
fn written_bytes() -> Option<u64> {
    let counted = std::fs::read_to_string("/proc/self/io").ok()?;
    counted.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

impl Shared {
    /// Ingestion comes first: waits until no batch waits for the writer, but not for ever.
    fn stand_back(&self) -> Result<(), RetentionError> {
        let deadline = Instant::now() + STAND_BACK;
        loop {
            if self.shutdown.has_begun() {
                return Err(RetentionError::Stopping);
            }
            if self.orders.batches_waiting() == 0 || Instant::now() >= deadline {
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
    }
}
