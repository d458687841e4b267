//! What a consumer holds between two polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::ledger::Ledger;
use super::{Shared, item, record};
use crate::event::Position;
use crate::metrics::Metrics;
use crate::queue::{Batch, Item, Partition, Sighting};

/// A partition that the group gave to this consumer.
#[derive(Debug, Default)]
pub struct Assigned {
    /// Set while records are read.
    pub reading: Option<Reading>,
    /// An offset was out of range, perhaps its: librdkafka does not fetch it any more.
    pub is_stopped: bool,
    /// When a jump of the offsets was last not believed at once.
    pub jump_doubted_at: Option<Instant>,
    /// Since when the broker's log has been shorter than the file.
    pub doubted_since: Option<Instant>,
    /// The broker's log ended there when it was last asked, for the lag.
    pub end_seen: Option<i64>,
    /// The topic was known to be the same at that time.
    pub sighting: Option<Sighting>,
    /// Since it first began: what is committed to Kafka along with the offset, once that is past the ledger's end.
    pub ledger: Option<Ledger>,
    /// Offset after the last record handed to the writer.
    pub sent: Option<i64>,
    pub committed: Option<i64>,
}

#[derive(Debug)]
pub struct Reading {
    /// Where it began.
    pub from: i64,
    /// The offset of the next record, if none is left out.
    pub expected: i64,
    /// Where another member's offsets begin.
    pub until: Option<i64>,
    pub topic_id: Option<String>,
}

/// Kafka's rebalance callback, which runs inside a poll, hands the batch over as well: hence behind a lock, which
/// nothing contends for.
pub struct Intake {
    pub batch: Batch,
    /// Waiting for a place in the queue, with all partitions paused.
    pub paused: bool,
    pub assigned: HashMap<Partition, Assigned>,
    topics: HashMap<String, Arc<str>>,
}

impl Intake {
    pub fn new() -> Intake {
        Intake { batch: Batch::new(Instant::now()), paused: false, assigned: HashMap::new(), topics: HashMap::new() }
    }

    pub fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some(topic) = self.topics.get(name) {
            return Arc::clone(topic);
        }
        let topic: Arc<str> = name.into();
        self.topics.insert(name.to_owned(), Arc::clone(&topic));
        topic
    }

    /// Takes a record into the batch; whether its partition is to be begun again.
    pub fn take(&mut self, message: &BorrowedMessage) -> Option<Partition> {
        let topic = self.topic(message.topic());
        let partition: Partition = (Arc::clone(&topic), message.partition());
        let at = Position { topic, partition: message.partition(), offset: message.offset() };
        // What was polled before a pause took effect is read again when the partition begins.
        let assigned = self.assigned.get_mut(&partition)?;
        let reading = assigned.reading.as_mut()?;
        if at.offset < reading.expected {
            return Some(partition);
        }
        if at.offset > reading.expected && is_doubtful(&mut assigned.jump_doubted_at, Instant::now()) {
            let (topic, expected, offset) = (&*at.topic, reading.expected, at.offset);
            tracing::info!(topic, partition = at.partition, expected, offset, "{READ_AGAIN}");
            return Some(partition);
        }
        if self.batch.items.is_empty() {
            self.batch.since = Instant::now();
        }
        let expected = std::mem::replace(&mut reading.expected, at.offset + 1);
        let first_of_others = reading.until.filter(|until| at.offset >= *until);
        let next_offset = first_of_others.unwrap_or(at.offset);
        if expected < next_offset {
            // A reader is told when its offset is out of range, so what is passed over silently was never for it.
            self.batch.push(Item::NotDelivered { at: Position { offset: expected, ..at.clone() }, next_offset });
        }
        if first_of_others.is_some() {
            return Some(partition);
        }
        let is_last = reading.until == Some(reading.expected);
        self.batch.push(item(record::from_message(message, at)));
        is_last.then_some(partition)
    }

    /// Offers the batch to the queue; whether there was a place. A record counts as ingested from here on.
    pub fn offer(&mut self, shared: &Shared, patience: Duration) -> bool {
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(Instant::now()));
        count_ingested(&batch.items[batch.counted..], &shared.metrics);
        batch.counted = batch.items.len();
        let ends: HashMap<Partition, i64> =
            batch.items.iter().map(|item| (item.partition(), item.next_offset())).collect();
        let sighting = |partition: &Partition| Some((partition.clone(), self.assigned.get(partition)?.sighting?));
        batch.sightings = ends.keys().filter_map(sighting).collect();
        match shared.inlet.offer(batch, patience) {
            Ok(()) => {
                for (partition, end) in ends {
                    if let Some(assigned) = self.assigned.get_mut(&partition) {
                        assigned.sent = Some(end);
                    }
                }
                true
            }
            Err(batch) => {
                self.batch = batch;
                false
            }
        }
    }

    /// What was handed over of `partitions` and where that ends.
    pub fn in_flight(&self, partitions: &[Partition]) -> Vec<(Partition, i64)> {
        partitions.iter().filter_map(|p| Some((p.clone(), self.assigned.get(p)?.sent?))).collect()
    }
}

/// How long after one jump that was not believed at once the next ones are. Where transactions or compaction leave
/// offsets out they are many, and reading all of them twice would cost more than it says.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

const READ_AGAIN: &str = "offsets were passed over; reading again to see whether there is anything";

/// Whether a jump is to be seen a second time before it is believed: what is passed over by mistake, the client's or the
/// broker's, is there when it is asked for again.
fn is_doubtful(doubted_at: &mut Option<Instant>, now: Instant) -> bool {
    if doubted_at.is_some_and(|at| now.duration_since(at) < BELIEVED_FOR) {
        return false;
    }
    *doubted_at = Some(now);
    true
}

fn count_ingested(items: &[Item], metrics: &Metrics) {
    let mut records: HashMap<(&str, &str), u64> = HashMap::new();
    for item in items.iter().filter(|item| item.record().is_some()) {
        *records.entry((&item.position().topic, item.tenant_id())).or_default() += 1;
    }
    for ((topic, tenant_id), records) in records {
        metrics.count_ingested(topic, tenant_id, records);
    }
}
