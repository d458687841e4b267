//! Between consume and write, bounded, both ways: batches go forward, durable offsets and halts come back. Orders of
//! the operator reach the writer by a second channel.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::coverage::Begin;
use crate::dead_letter::DeadLetter;
use crate::event::{Event, Position, Record, UNKNOWN_TENANT};

/// What the writer is to make durable, in the order of the partition's log.
#[derive(Debug, Clone)]
pub enum Item {
    Event(Event),
    DeadLetter(DeadLetter),
    /// Reading the partition begins, or begins again. What comes before it is not taken.
    Begin(Begin),
    /// The broker has no records from `at` up to `next_offset` that a reader gets: transaction markers, aborted
    /// transactions, or what compaction removed.
    NotDelivered {
        at: Position,
        next_offset: i64,
    },
}

impl Item {
    pub fn position(&self) -> &Position {
        match self {
            Item::Event(event) => &event.record.position,
            Item::DeadLetter(letter) => &letter.record.position,
            Item::Begin(begin) => &begin.at,
            Item::NotDelivered { at, .. } => at,
        }
    }

    pub fn partition(&self) -> Partition {
        let position = self.position();
        (Arc::clone(&position.topic), position.partition)
    }

    /// The tenant that the item counts for, whether it can be stored or not.
    pub fn tenant_id(&self) -> &str {
        match self {
            Item::Event(event) => &event.tenant_id,
            Item::DeadLetter(_) | Item::Begin(_) | Item::NotDelivered { .. } => UNKNOWN_TENANT,
        }
    }

    pub fn record(&self) -> Option<&Record> {
        match self {
            Item::Event(event) => Some(&event.record),
            Item::DeadLetter(letter) => Some(&letter.record),
            Item::Begin(_) | Item::NotDelivered { .. } => None,
        }
    }
}

/// What is known of a partition's log beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Before this offset every record was read while the topic was known to be the same.
    pub verified_offset: i64,
    /// Where the log ended when it was last heard of.
    pub end_seen: i64,
}

/// Items of one consumer, collected since `since`.
#[derive(Debug)]
pub struct Batch {
    pub items: Vec<Item>,
    pub bytes: usize,
    pub since: Instant,
    /// Items that the ingested counter has seen: a batch may be offered more than once.
    pub counted: usize,
    pub sightings: Vec<(Partition, Sighting)>,
}

impl Batch {
    pub fn new(now: Instant) -> Batch {
        Batch { items: Vec::new(), bytes: 0, since: now, counted: 0, sightings: Vec::new() }
    }

    pub fn push(&mut self, item: Item) {
        self.bytes += item.record().map_or(0, Record::bytes);
        self.items.push(item);
    }

    /// Takes out what belongs to `partitions`.
    pub fn drop_partitions(&mut self, partitions: &[Partition]) {
        let mut items = std::mem::take(&mut self.items);
        let counted = items.len().min(self.counted);
        let uncounted = items.split_off(counted);
        let keep = |item: &Item| !partitions.contains(&item.partition());
        items.retain(keep);
        self.counted = items.len();
        self.bytes = 0;
        for item in items.into_iter().chain(uncounted.into_iter().filter(keep)) {
            self.push(item);
        }
    }
}

/// What an operator orders, and where the answer goes.
#[derive(Debug)]
pub enum Order {
    /// Go on with the partitions that were halted: all, or those of a topic, or one.
    Resume { topic: Option<String>, partition: Option<i32>, answer: Sender<Vec<Partition>> },
}

/// The API's end: orders to the writer.
#[derive(Debug, Clone)]
pub struct Orders {
    orders: Sender<Order>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("the journal cannot be written just now, so this was not done; see GET /health, then try again")]
    NotNow,
}

impl Orders {
    /// Has the writer resume halted partitions; those it resumed.
    ///
    /// # Errors
    /// If the writer does not answer within `patience`: nothing was done.
    pub fn resume(
        &self,
        topic: Option<String>,
        partition: Option<i32>,
        patience: Duration,
    ) -> Result<Vec<Partition>, OrderError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let order = Order::Resume { topic, partition, answer };
        self.orders.send_timeout(order, patience).map_err(|_| OrderError::NotNow)?;
        answered.recv_timeout(patience).map_err(|_| OrderError::NotNow)
    }
}

/// What the writer can find in the queue.
#[derive(Debug)]
pub enum Arrival {
    Batch(Batch),
    Order(Order),
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
    orders: Receiver<Order>,
}

/// Orders that may wait for the writer.
const ORDERS_MAX: usize = 16;

pub fn bounded(batches_max: usize) -> (Inlet, Orders, Outlet) {
    let (inlet, batches) = crossbeam_channel::bounded(batches_max);
    let (sender, orders) = crossbeam_channel::bounded(ORDERS_MAX);
    (Inlet { batches: inlet }, Orders { orders: sender }, Outlet { batches, orders })
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
    /// The next order or batch, orders first.
    pub fn next(&self, deadline: Instant) -> Arrival {
        if let Ok(order) = self.orders.try_recv() {
            return Arrival::Order(order);
        }
        crossbeam_channel::select! {
            recv(self.orders) -> order => order.map_or_else(|_| self.next_batch(deadline), Arrival::Order),
            recv(self.batches) -> batch => batch.map_or(Arrival::Closed, Arrival::Batch),
            default(deadline.saturating_duration_since(Instant::now())) => Arrival::Quiet,
        }
    }

    /// The next batch; orders wait.
    pub fn next_batch(&self, deadline: Instant) -> Arrival {
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

/// What comes back from the writer: the next offset of every partition, up to which the file holds everything, and
/// which partitions are halted. One entry a partition, so it is as bounded as the topics are; the writer never waits
/// for a reader of it.
#[derive(Debug, Default)]
pub struct Durable {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next_offsets: HashMap<Partition, i64>,
    halted: HashSet<Partition>,
    /// Their records are not taken until they begin again.
    interrupted: HashSet<Partition>,
    /// Given up by the group before their records were durable; the writer is to forget those.
    withdrawn: HashSet<Partition>,
}

impl Durable {
    /// The writer: everything before these offsets is in the file.
    pub fn publish(&self, next_offsets: impl IntoIterator<Item = (Partition, i64)>) {
        self.lock().next_offsets.extend(next_offsets);
        self.changed.notify_all();
    }

    pub fn next_offset(&self, partition: &Partition) -> Option<i64> {
        self.lock().next_offsets.get(partition).copied()
    }

    /// Waits until the file holds everything before the offsets of `sent`; whether it did before `deadline`.
    pub fn wait_for(&self, sent: &[(Partition, i64)], deadline: Instant) -> bool {
        let behind = |state: &mut State| sent.iter().any(|(p, next)| state.next_offsets.get(p) != Some(next));
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The writer: takes nothing of `partition` until an operator resumes it.
    pub fn halt(&self, partition: Partition) {
        self.lock().halted.insert(partition.clone());
        self.interrupt([partition]);
    }

    /// The writer: records of `partitions` came that it did not take. Their reading is to begin again.
    pub fn interrupt(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.lock().interrupted.extend(partitions);
        self.changed.notify_all();
    }

    /// A consumer: those of its partitions that were interrupted since the last call.
    pub fn take_interrupted(&self, is_own: impl Fn(&Partition) -> bool) -> Vec<Partition> {
        self.lock().interrupted.extract_if(|partition| is_own(partition)).collect()
    }

    /// The writer: an operator has resumed `partition`.
    pub fn resume(&self, partition: &Partition) {
        self.lock().halted.remove(partition);
    }

    pub fn is_halted(&self, partition: &Partition) -> bool {
        self.lock().halted.contains(partition)
    }

    /// A consumer: what of `partitions` is still in the queue is no longer ours to store.
    pub fn withdraw(&self, partitions: &[Partition]) {
        self.lock().withdrawn.extend(partitions.iter().cloned());
    }

    /// The writer: the partitions that were withdrawn since the last call.
    pub fn take_withdrawn(&self) -> HashSet<Partition> {
        std::mem::take(&mut self.lock().withdrawn)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_batch_back_and_a_closed_one_is_drained_first() {
        let (inlet, _orders, outlet) = bounded(1);
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
