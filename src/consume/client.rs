//! The Kafka client of a consumer thread: its settings, and what librdkafka tells about itself.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::Shared;
use super::intake::{Assigned, Intake};
use crate::config::{Config, GroupProtocol};
use crate::queue::Partition;

/// Defaults that `kafka.properties` may change.
const DEFAULTS: [(&str, &str); 9] = [
    // A new topic that a ^regex matches is found at the next refresh: well within a minute.
    ("topic.metadata.refresh.interval.ms", "20000"),
    ("allow.auto.create.topics", "false"),
    ("check.crcs", "true"),
    // What is fetched ahead, a consumer: 16 MiB, and up to 4 MiB of fetch responses on top, which compression may make
    // several times as large. librdkafka asks on for each partition that has less than so many messages waiting.
    ("queued.max.messages.kbytes", "16384"),
    ("queued.min.messages", "2000"),
    ("fetch.max.bytes", "4194304"),
    ("fetch.message.max.bytes", "262144"),
    ("fetch.queue.backoff.ms", "10"),
    ("statistics.interval.ms", "1000"),
];

/// A setting that librdkafka does not accept. Never holds a value: it may be a password.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl From<KafkaError> for SettingsError {
    fn from(error: KafkaError) -> SettingsError {
        SettingsError(match error {
            KafkaError::ClientConfig(_, what, key, value) => {
                let what = if value.is_empty() { what } else { what.replace(&value, "…") };
                format!(
                    "kafka.properties.{key:?}: {}; see librdkafka's CONFIGURATION.md for its properties",
                    what.trim()
                )
            }
            KafkaError::ClientCreation(what) => format!("kafka: {what}; mend kafka.properties"),
            KafkaError::Subscription(what) => format!("kafka.topics: {what}; give topic names or a ^regex"),
            other => format!("kafka: {other}"),
        })
    }
}

/// `number` tells the consumer threads of one box apart, which are members of the group each.
fn client_config(config: &Config, number: usize) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.extend(config.client_properties(&DEFAULTS));
    client
        .set("group.id", &config.kafka.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset out of range is an error that is looked into, never a jump.
        .set("auto.offset.reset", "error");
    match config.kafka.group_protocol {
        // Partitions are begun one by one, which eager strategies do not allow.
        GroupProtocol::Classic => client.set("partition.assignment.strategy", "cooperative-sticky"),
        GroupProtocol::Consumer => client.set("group.protocol", "consumer"),
    };
    if !config.kafka.group_instance_id.is_empty() {
        client.set("group.instance.id", format!("{}-{number}", config.kafka.group_instance_id));
    }
    client
}

/// Whether librdkafka accepts the settings. No broker is asked.
///
/// # Errors
/// The setting it does not accept.
pub fn check_settings(config: &Config) -> Result<(), SettingsError> {
    client_config(config, 0).create_native_config()?;
    Ok(())
}

pub fn create(name: &str, number: usize, shared: &Shared) -> Result<BaseConsumer<Context>, SettingsError> {
    let kafka = &shared.config.kafka;
    let context = Context::new(name, shared.clone());
    let consumer: BaseConsumer<Context> = client_config(&shared.config, number).create_with_context(context)?;
    consumer.subscribe(&kafka.topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    shared.health.starting(name, &format!("not connected to Kafka yet ({})", kafka.brokers));
    Ok(consumer)
}

/// Receives what librdkafka says, on the consumer's own thread, inside a poll.
pub struct Context {
    pub(super) name: String,
    pub(super) shared: Shared,
    pub(super) intake: Mutex<Intake>,
    broker: Mutex<Broker>,
}

/// What is known of the connection.
#[derive(Default)]
struct Broker {
    last_error: String,
    /// Statistics in a row that saw no broker connected.
    down_count: u32,
    /// Errors said since a broker was last connected: each kind is said once.
    said: HashSet<i32>,
    /// Partitions whose lag is shown.
    shown: HashSet<Partition>,
}

impl Context {
    fn new(name: &str, shared: Shared) -> Context {
        Context { name: name.to_owned(), shared, intake: Mutex::new(Intake::new()), broker: Mutex::default() }
    }

    fn broker(&self) -> std::sync::MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, last_error: &str) {
        self.shared.metrics.broker.up.set(0);
        let brokers = &self.shared.config.kafka.brokers;
        let known = if last_error.is_empty() { "no answer yet" } else { last_error };
        let reason = format!(
            "no broker of {brokers} is connected: {known}; it reconnects by itself. If Kafka is elsewhere, set kafka.brokers"
        );
        self.shared.health.fault(&self.name, reason);
    }

    /// The broker's log of a partition is `low..high`: notes it, and shows how far the file is behind.
    pub fn see_log(&self, partition: &Partition, low: i64, high: i64) {
        let began = {
            let mut intake = self.intake();
            let Some(assigned) = intake.assigned.get_mut(partition) else { return };
            assigned.end_seen = Some(high);
            assigned.reading.as_ref().map(|reading| reading.from)
        };
        let stored = || self.shared.readers.position(&partition.0, partition.1).ok().flatten();
        let durable = self.shared.durable.next_offset(partition).or(began);
        let durable = durable.or_else(|| stored().map(|stored| stored.next_offset)).unwrap_or(low);
        let lag = self.shared.metrics.broker.lag.with_label_values(&[&*partition.0, &partition.1.to_string()]);
        lag.set((high - durable).max(0));
        self.shared.watermarks.set(&partition.0, partition.1, low, high);
    }

    fn show_lags(&self, statistics: &Statistics) {
        let mut shown = HashSet::new();
        let assigned: Vec<(Partition, bool)> = {
            let intake = self.intake();
            let paused = intake.paused;
            let read = |(partition, assigned): (&Partition, &Assigned)| {
                (partition.clone(), assigned.reading.is_some() && !paused)
            };
            intake.assigned.iter().map(read).collect()
        };
        for (partition, is_read) in assigned {
            let topic = statistics.topics.get(&*partition.0);
            let Some(known) = topic.and_then(|topic| topic.partitions.get(&partition.1)) else { continue };
            // Below 0 until the first fetch.
            if known.ls_offset >= 0 && is_read {
                self.see_log(&partition, known.lo_offset.max(0), known.ls_offset);
            }
            shown.insert(partition);
        }
        let before = std::mem::replace(&mut self.broker().shown, shown.clone());
        for (topic, number) in before.difference(&shown) {
            // Whoever has the partition now shows it; gone already is as good as removed.
            self.shared.metrics.broker.lag.remove_label_values(&[&**topic, &number.to_string()]).ok();
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            // Said again at every attempt, for hours: kept for the health's reason, and logged as one fault.
            let what = message.split_once("]: ").map_or(message, |(_, what)| what);
            self.broker().last_error = what.to_owned();
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(consumer = self.name, facility, "{message}");
            }
            // The callback says it, and it is tried again.
            RDKafkaLogLevel::Warning if facility != "FAIL" && facility != "COMMITFAIL" => {
                tracing::warn!(consumer = self.name, facility, "{message}");
            }
            _ => tracing::debug!(consumer = self.name, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        match code {
            RDKafkaErrorCode::AllBrokersDown => {
                let last_error = self.broker().last_error.clone();
                self.unreachable(&last_error);
            }
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut => {
                self.broker().last_error = reason.to_owned();
            }
            RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication => {
                self.broker().last_error = reason.to_owned();
                self.unreachable(reason);
            }
            _ => {
                if self.broker().said.insert(code as i32) {
                    tracing::warn!(consumer = self.name, ?code, "{reason}");
                }
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        let connected = statistics.brokers.values().any(|broker| matches!(broker.state.as_str(), "UP" | "UPDATE"));
        if connected {
            let mut broker = self.broker();
            broker.down_count = 0;
            broker.said.clear();
            drop(broker);
            self.shared.metrics.broker.up.set(1);
            self.shared.health.well(&self.name);
        } else {
            let mut broker = self.broker();
            broker.down_count += 1;
            let (down_count, last_error) = (broker.down_count, broker.last_error.clone());
            drop(broker);
            // Once may be a reconnect between two requests.
            if down_count >= 2 {
                self.unreachable(&last_error);
            }
        }
        self.show_lags(&statistics);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        super::rebalance::handle(self, consumer, event, partitions);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // While the group shares its partitions out anew: committed again at the next turn.
            tracing::debug!(consumer = self.name, %error, "offsets not committed to Kafka");
            let mut intake = self.intake();
            for element in offsets.elements() {
                let partition = (intake.topic(element.topic()), element.partition());
                if let Some(assigned) = intake.assigned.get_mut(&partition) {
                    assigned.committed = None;
                }
            }
        }
    }
}
