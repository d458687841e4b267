//! The writer thread: collects batches from the queue, makes them durable, tells what is.

mod batch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::batch::{Collected, Limits};
use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::queue::{Arrival, Batch, Durable, Item, Outlet, Partition};
use crate::shutdown::Shutdown;
use crate::store::{Fate, StoreError, Writer, file_sizes};

/// The name of this stage in `/health`, the log and the thread list.
pub const PART: &str = "write";
/// How often an idle writer looks whether the file was changed from outside.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How long to wait after a fault of the box before the batch is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The writer thread's state.
pub struct Write {
    pub store: Writer,
    pub path: PathBuf,
    pub queue: Outlet,
    pub durable: Arc<Durable>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub shutdown: Arc<Shutdown>,
    pub limits: Limits,
}

pub fn limits(config: &Config) -> Limits {
    let write = &config.write;
    Limits { rows_max: write.batch_rows_max, bytes_max: write.batch_bytes_max, age_max: write.batch_age_max }
}

impl Write {
    /// Runs until every consumer is gone and the queue is empty.
    pub fn run(mut self) {
        self.metrics.last_persisted.set(self.store.last_received().as_microsecond() as f64 / 1e6);
        self.count_dead_letters();
        loop {
            match self.queue.next(Instant::now() + IDLE_TICK) {
                Arrival::Batch(first) => {
                    let items = self.collect(first);
                    if !self.make_durable(&items) {
                        return;
                    }
                }
                Arrival::Quiet => self.look_after_the_file(),
                Arrival::Closed => break,
            }
        }
        self.checkpoint();
    }

    /// `first` and what joins it before the transaction is due.
    fn collect(&self, first: Batch) -> Vec<Item> {
        let mut items = first.items;
        let mut collected = Collected { rows: items.len(), bytes: first.bytes, since: first.since };
        while !self.limits.is_full(&collected) {
            let due = self.limits.is_stale(&collected, Instant::now());
            let deadline = if due { Instant::now() } else { self.limits.deadline(&collected) };
            match self.queue.next(deadline) {
                Arrival::Batch(batch) => {
                    collected.rows += batch.items.len();
                    collected.bytes += batch.bytes;
                    items.extend(batch.items);
                }
                Arrival::Quiet | Arrival::Closed => break,
            }
        }
        self.metrics.queue_batches.set(self.queue.waiting() as i64);
        items
    }

    /// Holds on to `items` until they are durable, whatever the box does meanwhile: the queue fills up behind this,
    /// and the consumers pause. Whether they are; not so only when the sink stops in the middle of a fault, and
    /// then Kafka still has them.
    fn make_durable(&mut self, items: &[Item]) -> bool {
        loop {
            let began = Instant::now();
            match self.store.append(items, Timestamp::now()) {
                Ok(fates) => {
                    self.metrics.transaction_seconds.observe(began.elapsed().as_secs_f64());
                    self.report(items, &fates);
                    self.health.well(PART);
                    self.checkpoint();
                    return true;
                }
                Err(error) => self.fault(&error),
            }
            if self.shutdown.wait(RETRY_AFTER) {
                tracing::warn!(records = items.len(), "stopped before they could be stored; Kafka still has them");
                return false;
            }
            if let Err(error) = self.store.reopen() {
                self.fault(&error);
            }
        }
    }

    fn fault(&self, error: &StoreError) {
        self.health.fault(PART, format!("{error}; consumption waits, nothing is lost, and it goes on by itself"));
    }

    /// Everything in `items` is durable: counts it, and lets the consumers commit.
    fn report(&self, items: &[Item], fates: &[Fate]) {
        let mut persisted: HashMap<(&str, &str), u64> = HashMap::new();
        let mut next_offsets: HashMap<Partition, i64> = HashMap::new();
        for (item, fate) in items.iter().zip(fates) {
            let position = item.position();
            match (item, fate) {
                (Item::Event(event), Fate::Journaled) => {
                    *persisted.entry((&position.topic, &event.tenant_id)).or_default() += 1;
                }
                (_, Fate::DeadLettered(reason)) => self.metrics.count_dead_letters(&position.topic, reason.as_str(), 1),
                (Item::LogRestart { .. }, _) => {}
                _ => self.metrics.count_duplicates(&position.topic, 1),
            }
            let next_offset = position.offset + i64::from(item.record().is_some());
            next_offsets.insert((Arc::clone(&position.topic), position.partition), next_offset);
        }
        if !persisted.is_empty() {
            self.metrics.last_persisted.set(Timestamp::now().as_microsecond() as f64 / 1e6);
        }
        for ((topic, tenant_id), events) in persisted {
            self.metrics.count_persisted(topic, tenant_id, events);
        }
        self.metrics.transaction_rows.observe(items.len() as f64);
        self.durable.publish(next_offsets);
        self.measure_files();
    }

    fn look_after_the_file(&mut self) {
        self.metrics.queue_batches.set(0);
        match self.store.was_changed_from_outside() {
            Ok(true) => self.count_dead_letters(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot look at the journal"),
        }
        self.measure_files();
    }

    fn count_dead_letters(&self) {
        match self.store.dead_letters() {
            Ok(rows) => self.metrics.dlq_rows.set(rows),
            Err(error) => tracing::warn!(%error, "cannot count the dead letters"),
        }
    }

    fn checkpoint(&mut self) {
        if let Err(error) = self.store.checkpoint() {
            self.fault(&error);
        }
    }

    fn measure_files(&self) {
        let (journal, wal) = file_sizes(&self.path);
        self.metrics.journal_bytes.set(journal as i64);
        self.metrics.wal_bytes.set(wal as i64);
    }
}
