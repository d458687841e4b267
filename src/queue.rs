//! Between consume and write, bounded, both ways: batches go forward, durable offsets come back.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::dead_letter::DeadLetter;
use crate::event::{Event, Position, Record, UNKNOWN_TENANT};

/// What the writer is to make durable, in the order of the partition's log.
#[derive(Debug, Clone)]
pub enum Item {
    Event(Event),
    DeadLetter(DeadLetter),
    /// The broker's log of this partition begins anew here, below the `expected` next offset: what follows is new
    /// although its offsets are not.
    LogRestart {
        at: Position,
        expected: i64,
    },
}

impl Item {
    pub fn position(&self) -> &Position {
        match self {
            Item::Event(event) => &event.record.position,
            Item::DeadLetter(letter) => &letter.record.position,
            Item::LogRestart { at, .. } => at,
        }
    }

    /// The tenant that the item counts for, whether it can be stored or not.
    pub fn tenant_id(&self) -> &str {
        match self {
            Item::Event(event) => &event.tenant_id,
            Item::DeadLetter(_) | Item::LogRestart { .. } => UNKNOWN_TENANT,
        }
    }

    pub fn record(&self) -> Option<&Record> {
        match self {
            Item::Event(event) => Some(&event.record),
            Item::DeadLetter(letter) => Some(&letter.record),
            Item::LogRestart { .. } => None,
        }
    }
}

/// Items of one consumer, collected since `since`.
#[derive(Debug)]
pub struct Batch {
    pub items: Vec<Item>,
    pub bytes: usize,
    pub since: Instant,
    /// Items that the ingested counter has seen: a batch may be offered more than once.
    pub counted: usize,
}

impl Batch {
    pub fn new(now: Instant) -> Batch {
        Batch { items: Vec::new(), bytes: 0, since: now, counted: 0 }
    }

    pub fn push(&mut self, item: Item) {
        self.bytes += item.record().map_or(0, Record::bytes);
        self.items.push(item);
    }
}

/// What the writer can find in the queue.
#[derive(Debug)]
pub enum Arrival {
    Batch(Batch),
    /// Nothing until the deadline.
    Quiet,
    /// Every consumer is gone and the queue is empty.
    Closed,
}

/// The consumers' end.
#[derive(Debug, Clone)]
pub struct Inlet {
    batches: Sender<Batch>,
}

/// The writer's end.
#[derive(Debug)]
pub struct Outlet {
    batches: Receiver<Batch>,
}

pub fn bounded(batches_max: usize) -> (Inlet, Outlet) {
    let (sender, receiver) = crossbeam_channel::bounded(batches_max);
    (Inlet { batches: sender }, Outlet { batches: receiver })
}

impl Inlet {
    /// Hands `batch` over, waiting for a place up to `patience`. A full queue gives it back.
    ///
    /// # Errors
    /// The batch, if there was no place for it.
    pub fn offer(&self, batch: Batch, patience: Duration) -> Result<(), Batch> {
        match self.batches.send_timeout(batch, patience) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(batch) | SendTimeoutError::Disconnected(batch)) => Err(batch),
        }
    }
}

impl Outlet {
    pub fn next(&self, deadline: Instant) -> Arrival {
        match self.batches.recv_deadline(deadline) {
            Ok(batch) => Arrival::Batch(batch),
            Err(RecvTimeoutError::Timeout) => Arrival::Quiet,
            Err(RecvTimeoutError::Disconnected) => Arrival::Closed,
        }
    }

    pub fn waiting(&self) -> usize {
        self.batches.len()
    }
}

/// A topic's partition.
pub type Partition = (Arc<str>, i32);

/// The next offset of every partition, up to which the file holds everything. One entry a partition, so it is as
/// bounded as the topics are; the writer never waits for a reader of it.
#[derive(Debug, Default)]
pub struct Durable {
    next_offsets: Mutex<HashMap<Partition, i64>>,
    changed: Condvar,
}

impl Durable {
    /// The writer: everything before these offsets is in the file.
    pub fn publish(&self, next_offsets: impl IntoIterator<Item = (Partition, i64)>) {
        self.lock().extend(next_offsets);
        self.changed.notify_all();
    }

    pub fn next_offset(&self, partition: &Partition) -> Option<i64> {
        self.lock().get(partition).copied()
    }

    /// Waits until the file holds everything before the offsets of `sent`; whether it did before `deadline`.
    pub fn wait_for(&self, sent: &[(Partition, i64)], deadline: Instant) -> bool {
        let behind = |durable: &mut HashMap<Partition, i64>| sent.iter().any(|(p, next)| durable.get(p) != Some(next));
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Partition, i64>> {
        self.next_offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_batch_back_and_a_closed_one_is_drained_first() {
        let (inlet, outlet) = bounded(1);
        let patience = Duration::from_millis(1);
        inlet.offer(Batch::new(Instant::now()), patience).unwrap();
        assert!(inlet.offer(Batch::new(Instant::now()), patience).is_err());
        drop(inlet);
        assert!(matches!(outlet.next(Instant::now()), Arrival::Batch(_)));
        assert!(matches!(outlet.next(Instant::now()), Arrival::Closed));
    }

    #[test]
    fn waiting_for_durable_offsets_ends_with_them_or_with_the_deadline() {
        let durable = Arc::new(Durable::default());
        let partition: Partition = ("leads".into(), 2);
        let sent = [(partition.clone(), 41)];
        assert!(!durable.wait_for(&sent, Instant::now()));
        let writer = Arc::clone(&durable);
        let thread = std::thread::spawn(move || writer.publish([(partition, 41)]));
        assert!(durable.wait_for(&sent, Instant::now() + Duration::from_secs(10)));
        thread.join().unwrap();
    }
}
