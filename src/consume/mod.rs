//! A consumer thread: polls Kafka, decodes, queues; commits to Kafka what is durable in the file.
//!
//! The thread never waits long for anything but Kafka itself: a consumer that does not poll loses its place in the
//! group. When the queue is full it pauses its partitions and keeps polling.
//!
//! A partition that the group assigns is paused first. [`begin`] decides where reading it begins, from the file, the
//! group's [`ledger`] and the broker; whatever puts that in doubt later (an offset out of range, a topic with another
//! id, a halt that was resumed, another member's range) makes it wait and begin again.

mod begin;
mod broker;
mod client;
mod intake;
mod ledger;
mod rebalance;
mod record;
mod resume;
mod view;

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use self::client::{Context, create};
pub use self::client::{SettingsError, check_settings};
use self::intake::Intake;
pub use self::view::{BrokerPartition, BrokerView, ViewError, broker_view};
use crate::config::Config;
use crate::dead_letter::DeadLetter;
use crate::event::{Event, Record, decode};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::pulse::{Heart, Pulses};
use crate::queue::{Durable, Inlet, Item, Partition};
use crate::shutdown::Shutdown;
use crate::store::Readers;
use crate::watermarks::Watermarks;

/// How long one poll may wait: a stop is noticed this late.
const POLL: Duration = Duration::from_millis(100);
/// How long a full queue may hold up polling before the partitions are paused. A pause throws away what was
/// fetched ahead, so a writer that is merely busy must not cause one.
const QUEUE_PATIENCE: Duration = Duration::from_millis(250);
/// How often durable offsets are committed to Kafka. They are for lag tools and for other members of the group: for
/// this box the file is what counts.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long asking for the paused partitions' ends may hold up polling.
const WATERMARKS: Duration = Duration::from_millis(250);
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
    pub watermarks: Arc<Watermarks>,
    pub shutdown: Arc<Shutdown>,
    pub pulses: Arc<Pulses>,
}

/// One consumer thread's state.
pub struct Consume {
    name: String,
    number: usize,
    shared: Shared,
    consumer: BaseConsumer<Context>,
}

impl Consume {
    /// Makes the client and subscribes; joining the group happens while it runs.
    ///
    /// # Errors
    /// A setting that librdkafka does not accept.
    pub fn new(name: String, number: usize, shared: Shared) -> Result<Consume, SettingsError> {
        let consumer = create(&name, number, &shared)?;
        Ok(Consume { name, number, shared, consumer })
    }

    /// Runs until a stop is asked for; returns when what was taken is durable and committed, or cannot be.
    pub fn run(mut self) {
        let heart = self.shared.pulses.heart(&self.name);
        while let Err(fatal) = self.poll_until_stopped(&heart) {
            self.shared.health.fault(&self.name, format!("the Kafka client broke ({fatal}); a new one is made"));
            if self.shared.shutdown.wait(RECREATE_AFTER) {
                break;
            }
            match create(&self.name, self.number, &self.shared) {
                Ok(consumer) => self.consumer = consumer,
                Err(error) => tracing::error!(consumer = self.name, %error, "cannot make a new Kafka client"),
            }
        }
        self.finish();
    }

    fn poll_until_stopped(&self, heart: &Heart) -> Result<(), KafkaError> {
        let (mut commit_due, mut check_due) = (Instant::now(), Instant::now());
        let mut attempts = resume::Attempts::new(Instant::now());
        while !self.shared.shutdown.has_begun() {
            heart.beat();
            let patience = self.intake().poll_patience();
            let more = self.poll(patience)?;
            if self.is_due(more) {
                self.hand_over();
            }
            self.begin_waiting(&mut attempts)?;
            let now = Instant::now();
            if now >= check_due {
                self.check_topics();
                check_due = now + resume::CHECK_EVERY;
            }
            if now >= commit_due {
                self.commit();
                self.measure_lag_while_paused();
                commit_due = now + COMMIT_EVERY;
            }
        }
        Ok(())
    }

    /// One poll; whether there was anything.
    fn poll(&self, patience: Duration) -> Result<bool, KafkaError> {
        let polled = self.consumer.poll(patience);
        let more = polled.is_some();
        match polled {
            Some(Ok(message)) => {
                let again = self.intake().take(&message);
                self.wait_to_begin(again.as_slice());
            }
            Some(Err(fatal @ KafkaError::MessageConsumptionFatal(_))) => return Err(fatal),
            Some(Err(KafkaError::MessageConsumption(code))) if is_out_of_range(code) => self.begin_all_again(),
            // The context has heard of it; librdkafka goes on by itself.
            Some(Err(_)) | None => {}
        }
        Ok(more)
    }

    /// A batch goes on when it is full, or when nothing more is waiting: the writer decides what shares a transaction.
    /// A pause ends when the batch has gone on, whoever handed it over.
    fn is_due(&self, more_waiting: bool) -> bool {
        let intake = self.intake();
        let full = intake.batch.bytes >= self.shared.config.queue.batch_bytes_max
            || intake.batch.items.len() >= self.shared.config.write.batch_rows_max;
        if intake.batch.items.is_empty() { intake.paused } else { full || !more_waiting }
    }

    /// Hands the batch to the writer. A full queue pauses the partitions until there is a place.
    fn hand_over(&self) {
        let mut intake = self.intake();
        let patience = if intake.paused { Duration::ZERO } else { QUEUE_PATIENCE };
        let accepted = intake.batch.items.is_empty() || intake.offer(&self.shared, patience);
        if accepted == intake.paused {
            intake.paused = !accepted;
            self.set_paused(&intake, !accepted);
        }
    }

    /// Those that wait to begin are paused anyhow, and stay so.
    fn set_paused(&self, intake: &Intake, paused: bool) {
        let mut partitions = TopicPartitionList::new();
        for (partition, _) in intake.assigned.iter().filter(|(_, assigned)| assigned.reading.is_some()) {
            partitions.add_partition(&partition.0, partition.1);
        }
        let done = if paused { self.consumer.pause(&partitions) } else { self.consumer.resume(&partitions) };
        match done {
            Ok(()) => tracing::debug!(consumer = self.name, paused, "the queue's state changed"),
            Err(error) => tracing::warn!(consumer = self.name, paused, %error, "cannot pause or resume"),
        }
    }

    /// Paused partitions are not fetched, so librdkafka does not learn how far their logs have grown: it is asked
    /// for. Nothing else is waiting for this thread meanwhile, and the time is bounded.
    fn measure_lag_while_paused(&self) {
        let partitions: Vec<Partition> = {
            let intake = self.intake();
            let paused = intake.assigned.iter().filter(|(_, assigned)| intake.paused || assigned.reading.is_none());
            paused.map(|(partition, _)| partition.clone()).collect()
        };
        let deadline = Instant::now() + WATERMARKS;
        for partition in partitions {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((low, high)) = self.consumer.fetch_watermarks(&partition.0, partition.1, left) else { return };
            self.consumer.context().see_log(&partition, low, high);
        }
    }

    /// Tells Kafka's group what is durable here.
    fn commit(&self) {
        let mut intake = self.intake();
        let offsets = to_commit(&intake, &self.shared.durable, Commit::Changes);
        if offsets.count() == 0 {
            return;
        }
        // Never Sync: with the brokers down that blocks for 45 s.
        match self.consumer.commit(&offsets, CommitMode::Async) {
            Ok(()) => note_committed(&mut intake, &offsets),
            Err(error) => tracing::debug!(consumer = self.name, %error, "offsets not committed to Kafka"),
        }
    }

    /// The last batch goes to the writer, and what becomes durable is committed. If it does not in time, Kafka has
    /// the records still and the next start reads them again.
    fn finish(self) {
        let patience = self.shared.config.shutdown_timeout / 2;
        let deadline = Instant::now() + patience + patience / 2;
        let in_flight = {
            let mut intake = self.intake();
            if !intake.batch.items.is_empty() && !intake.offer(&self.shared, patience) {
                let records = intake.batch.items.len();
                tracing::warn!(records, "stopped with records in hand; Kafka still has them");
            }
            self.set_paused(&intake, true);
            let partitions: Vec<Partition> = intake.assigned.keys().cloned().collect();
            intake.in_flight(&partitions)
        };
        self.shared.inlet.hurry();
        if self.shared.durable.wait_for(&in_flight, deadline) {
            self.commit_last(deadline);
        }
    }

    /// The next owner goes on where the group is. While the group shares its partitions out anew it takes no offsets;
    /// that is over after some polls. What still comes meanwhile is not taken.
    fn commit_last(&self, deadline: Instant) {
        loop {
            let offsets = to_commit(&self.intake(), &self.shared.durable, Commit::Everything);
            let left = deadline.saturating_duration_since(Instant::now());
            if offsets.count() == 0 {
                return;
            }
            match broker::commit(self.consumer.client(), &offsets, left) {
                Ok(()) => return,
                Err(error) if Instant::now() >= deadline => {
                    tracing::warn!(consumer = self.name, %error, "Kafka's group was not told the last offsets; another member may store some records again");
                    return;
                }
                Err(_) => drop(self.consumer.poll(POLL)),
            }
        }
    }

    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.consumer.context().intake()
    }
}

fn is_out_of_range(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::LogTruncation
    )
}

/// Which offsets a commit is about.
#[derive(Clone, Copy)]
enum Commit<'a> {
    /// Those that changed. Kafka may not have answered the last commit yet.
    Changes,
    Everything,
    EverythingOf(&'a [Partition]),
}

/// What is durable, with the ledger. An offset before the one that the group had already is not committed: this file
/// only catches up with what the group knows.
fn to_commit(intake: &Intake, durable: &Durable, what: Commit) -> TopicPartitionList {
    let mut offsets = TopicPartitionList::new();
    for (partition, assigned) in &intake.assigned {
        let (Some(ledger), Some(next_offset)) = (&assigned.ledger, durable.next_offset(partition)) else { continue };
        let is_meant = match what {
            Commit::Changes => assigned.committed != Some(next_offset),
            Commit::Everything => true,
            Commit::EverythingOf(partitions) => partitions.contains(partition),
        };
        if !is_meant || next_offset < ledger.end {
            continue;
        }
        let mut element = offsets.add_partition(&partition.0, partition.1);
        element.set_metadata(ledger.text());
        element.set_offset(Offset::Offset(next_offset)).expect("an offset from Kafka is a valid offset");
    }
    offsets
}

fn note_committed(intake: &mut Intake, offsets: &TopicPartitionList) {
    for element in offsets.elements() {
        let partition = (intake.topic(element.topic()), element.partition());
        if let (Offset::Offset(offset), Some(assigned)) = (element.offset(), intake.assigned.get_mut(&partition)) {
            assigned.committed = Some(offset);
        }
    }
}

impl Intake {
    /// With a batch begun, only what is there already may join it.
    fn poll_patience(&self) -> Duration {
        if self.batch.items.is_empty() || self.paused { POLL } else { Duration::ZERO }
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
