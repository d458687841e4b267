//! A consumer thread: polls Kafka, decodes, queues; commits to Kafka what is durable in the file.
//!
//! The thread never waits long for anything but Kafka itself: a consumer that does not poll loses its place in the
//! group. When the queue is full it pauses its partitions and keeps polling.

mod client;
mod rebalance;
mod record;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use self::client::{Context, create};
pub use self::client::{SettingsError, check_settings};
use crate::config::Config;
use crate::dead_letter::DeadLetter;
use crate::event::{Event, Position, Record, decode};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::queue::{Batch, Durable, Inlet, Item, Partition};
use crate::shutdown::Shutdown;
use crate::store::Readers;

/// How long one poll may wait: a stop is noticed this late.
const POLL: Duration = Duration::from_millis(100);
/// How long a full queue may hold up polling before the partitions are paused. A pause throws away what was
/// fetched ahead, so a writer that is merely busy must not cause one.
const QUEUE_PATIENCE: Duration = Duration::from_millis(250);
/// How often durable offsets are committed to Kafka. They are for lag tools: the file is what counts.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long asking for the paused partitions' ends may hold up polling.
const WATERMARKS: Duration = Duration::from_secs(1);
/// How long to wait before a client that broke for good is replaced.
const RECREATE_AFTER: Duration = Duration::from_secs(5);

/// What every consumer thread shares with the rest of the sink.
#[derive(Clone)]
pub struct Shared {
    pub config: Arc<Config>,
    pub inlet: Inlet,
    pub durable: Arc<Durable>,
    pub readers: Readers,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub shutdown: Arc<Shutdown>,
}

/// What a consumer holds between two polls. Kafka's rebalance callback, which runs inside a poll, hands the batch
/// over as well: hence behind a lock, which nothing contends for.
struct Intake {
    batch: Batch,
    /// Waiting for a place in the queue, with all partitions paused.
    paused: bool,
    /// The partitions that the group gave this consumer, and where reading them began, once that is known.
    assigned: HashMap<Partition, Option<i64>>,
    /// The offset that the next record of each assigned partition has, where it is known.
    expected: HashMap<Partition, i64>,
    /// Offsets after the last record handed to the writer.
    sent: HashMap<Partition, i64>,
    committed: HashMap<Partition, i64>,
    topics: HashMap<String, Arc<str>>,
}

/// One consumer thread's state.
pub struct Consume {
    name: String,
    shared: Shared,
    consumer: BaseConsumer<Context>,
}

impl Consume {
    /// Makes the client and subscribes; joining the group happens while it runs.
    ///
    /// # Errors
    /// A setting that librdkafka does not accept.
    pub fn new(name: String, shared: Shared) -> Result<Consume, SettingsError> {
        let consumer = create(&name, &shared)?;
        Ok(Consume { name, shared, consumer })
    }

    /// Runs until a stop is asked for; returns when what was taken is durable and committed, or cannot be.
    pub fn run(mut self) {
        while let Err(fatal) = self.poll_until_stopped() {
            self.shared.health.fault(&self.name, format!("the Kafka client broke ({fatal}); a new one is made"));
            if self.shared.shutdown.wait(RECREATE_AFTER) {
                break;
            }
            match create(&self.name, &self.shared) {
                Ok(consumer) => self.consumer = consumer,
                Err(error) => tracing::error!(consumer = self.name, %error, "cannot make a new Kafka client"),
            }
        }
        self.finish();
    }

    fn poll_until_stopped(&self) -> Result<(), KafkaError> {
        let mut commit_due = Instant::now() + COMMIT_EVERY;
        while !self.shared.shutdown.has_begun() {
            let patience = self.intake().poll_patience();
            let polled = self.consumer.poll(patience);
            let more = polled.is_some();
            match polled {
                Some(Ok(message)) => self.take(&message),
                Some(Err(fatal @ KafkaError::MessageConsumptionFatal(_))) => return Err(fatal),
                // The context has heard of it; librdkafka goes on by itself.
                Some(Err(_)) | None => {}
            }
            if self.is_due(more) {
                self.hand_over();
            }
            if Instant::now() >= commit_due {
                self.commit();
                self.measure_lag_while_paused();
                commit_due = Instant::now() + COMMIT_EVERY;
            }
        }
        Ok(())
    }

    /// A batch goes on when it is full, or when nothing more is waiting: the writer decides what shares a transaction.
    /// A pause ends when the batch has gone on, whoever handed it over.
    fn is_due(&self, more_waiting: bool) -> bool {
        let intake = self.intake();
        let full = intake.batch.bytes >= self.shared.config.queue.batch_bytes_max
            || intake.batch.items.len() >= self.shared.config.write.batch_rows_max;
        if intake.batch.items.is_empty() { intake.paused } else { full || !more_waiting }
    }

    fn take(&self, message: &BorrowedMessage) {
        let mut intake = self.intake();
        let topic = intake.topic(message.topic());
        let partition: Partition = (Arc::clone(&topic), message.partition());
        let position = Position { topic, partition: message.partition(), offset: message.offset() };
        if let Some(began @ None) = intake.assigned.get_mut(&partition) {
            *began = Some(position.offset);
        }
        let expected = intake.expected.insert(partition, position.offset + 1);
        if intake.batch.items.is_empty() {
            intake.batch.since = Instant::now();
        }
        if let Some(expected) = expected.filter(|expected| position.offset < *expected) {
            tracing::warn!(
                topic = &*position.topic,
                partition = position.partition,
                expected,
                offset = position.offset,
                "the broker's log begins again: topic recreated or truncated; reading it from here"
            );
            self.shared.metrics.count_log_restart(&position.topic);
            intake.batch.push(Item::LogRestart { at: position.clone(), expected });
        }
        intake.batch.push(item(record::from_message(message, position)));
    }

    /// Hands the batch to the writer. A full queue pauses the partitions until there is a place.
    fn hand_over(&self) {
        let mut intake = self.intake();
        let patience = if intake.paused { Duration::ZERO } else { QUEUE_PATIENCE };
        let accepted = intake.batch.items.is_empty() || intake.offer(&self.shared, patience);
        if accepted == intake.paused {
            intake.paused = !accepted;
            self.set_paused(!accepted);
        }
    }

    fn set_paused(&self, paused: bool) {
        let assignment = self.consumer.assignment();
        let done =
            assignment.and_then(|all| if paused { self.consumer.pause(&all) } else { self.consumer.resume(&all) });
        match done {
            Ok(()) => tracing::debug!(consumer = self.name, paused, "the queue's state changed"),
            Err(error) => tracing::warn!(consumer = self.name, paused, %error, "cannot pause or resume"),
        }
    }

    /// Paused partitions are not fetched, so librdkafka does not learn how far their logs have grown: it is asked
    /// for. Nothing else is waiting for this thread meanwhile, and the time is bounded.
    fn measure_lag_while_paused(&self) {
        let assigned = match &*self.intake() {
            intake if intake.paused => intake.assigned.clone(),
            _ => return,
        };
        let deadline = Instant::now() + WATERMARKS;
        for (partition, began) in assigned {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((low, high)) = self.consumer.fetch_watermarks(&partition.0, partition.1, left) else { return };
            self.consumer.context().show_lag(&partition, began.unwrap_or(low), high);
        }
    }

    /// Tells Kafka's group what is durable here.
    fn commit(&self) {
        let mut intake = self.intake();
        let mut offsets = TopicPartitionList::new();
        for partition in intake.sent.keys() {
            let Some(durable) = self.shared.durable.next_offset(partition) else { continue };
            if intake.committed.get(partition) != Some(&durable) {
                add(&mut offsets, partition, durable);
            }
        }
        if offsets.count() == 0 {
            return;
        }
        // Never Sync: with the brokers down that blocks for 45 s.
        match self.consumer.commit(&offsets, CommitMode::Async) {
            Ok(()) => {
                for element in offsets.elements() {
                    let partition = (intake.topic(element.topic()), element.partition());
                    if let Offset::Offset(offset) = element.offset() {
                        intake.committed.insert(partition, offset);
                    }
                }
            }
            Err(error) => tracing::debug!(consumer = self.name, %error, "offsets not committed to Kafka"),
        }
    }

    /// The last batch goes to the writer, and what becomes durable is committed. If it does not in time, Kafka has
    /// the records still and the next start reads them again.
    fn finish(self) {
        let deadline = Instant::now() + self.shared.config.shutdown_timeout / 2;
        let sent: Vec<_> = {
            let mut intake = self.intake();
            if !intake.batch.items.is_empty() && !intake.offer(&self.shared, self.shared.config.shutdown_timeout / 2) {
                tracing::warn!(
                    records = intake.batch.items.len(),
                    "stopped with records in hand; Kafka still has them"
                );
            }
            intake.sent.clone().into_iter().collect()
        };
        if self.shared.durable.wait_for(&sent, deadline) {
            self.commit();
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.consumer.context().intake()
    }
}

impl Intake {
    fn new() -> Mutex<Intake> {
        Mutex::new(Intake {
            batch: Batch::new(Instant::now()),
            paused: false,
            assigned: HashMap::new(),
            expected: HashMap::new(),
            sent: HashMap::new(),
            committed: HashMap::new(),
            topics: HashMap::new(),
        })
    }

    fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some(topic) = self.topics.get(name) {
            return Arc::clone(topic);
        }
        let topic: Arc<str> = name.into();
        self.topics.insert(name.to_owned(), Arc::clone(&topic));
        topic
    }

    /// With a batch begun, only what is there already may join it.
    fn poll_patience(&self) -> Duration {
        if self.batch.items.is_empty() || self.paused { POLL } else { Duration::ZERO }
    }

    /// Offers the batch to the queue; whether there was a place. A record counts as ingested from here on.
    fn offer(&mut self, shared: &Shared, patience: Duration) -> bool {
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(Instant::now()));
        count_ingested(&batch.items[batch.counted..], &shared.metrics);
        batch.counted = batch.items.len();
        let records = batch.items.iter().filter_map(Item::record).map(|record| &record.position);
        let next_offset = |p: &Position| ((Arc::clone(&p.topic), p.partition), p.offset + 1);
        let next_offsets: HashMap<Partition, i64> = records.map(next_offset).collect();
        match shared.inlet.offer(batch, patience) {
            Ok(()) => {
                self.sent.extend(next_offsets);
                true
            }
            Err(batch) => {
                self.batch = batch;
                false
            }
        }
    }
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

impl Context {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn item(record: Record) -> Item {
    match decode(record.value.as_deref()) {
        Ok(tenant_id) => Item::Event(Event { record, tenant_id }),
        Err(error) => Item::DeadLetter(DeadLetter::undecodable(record, error)),
    }
}

fn add(offsets: &mut TopicPartitionList, (topic, partition): &Partition, offset: i64) {
    let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(offset));
    added.expect("an offset from Kafka is a valid offset");
}
