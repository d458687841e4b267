//! Between consume and write, bounded, both ways: batches go forward, durable offsets and halts come back. Orders of
//! the operator reach the writer by a second channel.

mod durable;
mod orders;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

pub use self::durable::Durable;
pub use self::orders::{Answer, JobOrder, LetterOrder, Order, OrderError, Ordered, Orders, RemovalOrder};

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

    /// The offset to read on from when this item is durable.
    pub fn next_offset(&self) -> i64 {
        match self {
            Item::NotDelivered { next_offset, .. } => *next_offset,
            Item::Begin(begin) => begin.at.offset,
            Item::Event(_) | Item::DeadLetter(_) => self.position().offset + 1,
        }
    }

    /// Whether both are of one partition.
    pub fn is_beside(&self, other: &Item) -> bool {
        let (own, other) = (self.position(), other.position());
        own.partition == other.partition && own.topic == other.topic
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
    /// Somebody waits until it is durable: it does not wait for company.
    pub is_urgent: bool,
}

impl Batch {
    pub fn new(now: Instant) -> Batch {
        Batch { items: Vec::new(), bytes: 0, since: now, counted: 0, sightings: Vec::new(), is_urgent: false }
    }

    pub fn push(&mut self, item: Item) {
        // Its partition is read from then on.
        self.is_urgent |= matches!(item, Item::Begin(_));
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

/// What the writer can find in the queue.
#[derive(Debug)]
pub enum Arrival {
    Batch(Batch),
    Order(Order),
    /// Nothing until the deadline.
    Quiet,
    /// Everybody who could give a batch or an order is gone, and the queue is empty.
    Closed,
}

/// What may end the writer's wait for more to share a transaction.
#[derive(Debug)]
pub enum Joining {
    Batch(Batch),
    Order(Ordered),
    Nothing,
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
    orders: Receiver<Ordered>,
}

/// Orders that may wait for the writer.
const ORDERS_MAX: usize = 16;

pub fn bounded(batches_max: usize) -> (Inlet, Orders, Outlet) {
    let (inlet, batches) = crossbeam_channel::bounded(batches_max);
    let (sender, orders) = crossbeam_channel::bounded(ORDERS_MAX);
    let orders_end = Orders::new(sender, batches.clone());
    (Inlet { batches: inlet }, orders_end, Outlet { batches, orders })
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

    /// Has the writer make durable at once what it has.
    pub fn hurry(&self) {
        let nothing = Batch { is_urgent: true, ..Batch::new(Instant::now()) };
        // Where the queue is full the writer does not wait for anything.
        self.batches.try_send(nothing).ok();
    }
}

impl Outlet {
    /// The next order or batch, orders first. An order that its giver no longer waits for is dropped.
    pub fn next(&self, deadline: Instant) -> Arrival {
        while let Ok(ordered) = self.orders.try_recv() {
            if let Some(order) = ordered.begin() {
                return Arrival::Order(order);
            }
        }
        crossbeam_channel::select! {
            recv(self.orders) -> ordered => match ordered {
                Ok(ordered) => ordered.begin().map_or(Arrival::Quiet, Arrival::Order),
                Err(_) => self.next_batch(deadline),
            },
            recv(self.batches) -> batch => batch.map_or_else(|_| self.last_orders(deadline), Arrival::Batch),
            default(deadline.saturating_duration_since(Instant::now())) => Arrival::Quiet,
        }
    }

    /// What joins a transaction before `deadline`. An order ends the wait; it is not begun, because a fault may come first.
    pub fn joining(&self, deadline: Instant) -> Joining {
        crossbeam_channel::select! {
            recv(self.orders) -> ordered => ordered.map_or(Joining::Nothing, Joining::Order),
            recv(self.batches) -> batch => batch.map_or(Joining::Nothing, Joining::Batch),
            default(deadline.saturating_duration_since(Instant::now())) => Joining::Nothing,
        }
    }

    /// The next batch; orders wait.
    fn next_batch(&self, deadline: Instant) -> Arrival {
        match self.batches.recv_deadline(deadline) {
            Ok(batch) => Arrival::Batch(batch),
            Err(RecvTimeoutError::Timeout) => Arrival::Quiet,
            Err(RecvTimeoutError::Disconnected) => Arrival::Closed,
        }
    }

    /// The consumers are gone. What the API and the replays have under way is still to be recorded.
    fn last_orders(&self, deadline: Instant) -> Arrival {
        match self.orders.recv_deadline(deadline) {
            Ok(ordered) => ordered.begin().map_or(Arrival::Quiet, Arrival::Order),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_batch_back_and_a_closed_one_is_drained_first() {
        let (inlet, orders, outlet) = bounded(1);
        let patience = Duration::from_millis(1);
        inlet.offer(Batch::new(Instant::now()), patience).unwrap();
        assert!(inlet.offer(Batch::new(Instant::now()), patience).is_err());
        drop(inlet);
        assert!(matches!(outlet.next(Instant::now()), Arrival::Batch(_)));
        assert!(matches!(outlet.next(Instant::now()), Arrival::Quiet), "an order may still come");
        drop(orders);
        assert!(matches!(outlet.next(Instant::now()), Arrival::Closed));
    }
}
