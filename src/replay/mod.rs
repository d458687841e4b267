//! Sends an event of the journal to its topic again, and waits until the broker has it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;

use crate::config::Config;
use crate::event::{Bytes, Headers, REPLAY_JOURNAL, REPLAY_OF, REPLAY_POSITION, REPLAY_PREFIX};
use crate::metrics::Metrics;
use crate::store::EventDetail;

/// Replays that may wait for the broker at once; the next one is turned away, so that a dead broker cannot hold
/// every thread of the API.
pub const WAITING_MAX: usize = 4;
/// How much longer than the producer the caller waits: the producer's own verdict says more.
const VERDICT_GRACE: Duration = Duration::from_secs(1);

/// Why a replay is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("not acknowledged within {}: {what}; it may still arrive, so look at GET /events/latest before you replay it again", seconds(*after))]
    TimedOut { after: Duration, what: String },
    #[error("Kafka refused the event: {0}; it was not replayed")]
    Refused(String),
    #[error("{WAITING_MAX} replays are waiting for Kafka already; try again")]
    Busy,
    #[error("a header's name is not UTF-8, which the producer cannot send; the event was not replayed")]
    HeaderName,
}

impl ReplayError {
    fn outcome(&self) -> &'static str {
        match self {
            ReplayError::TimedOut { .. } => "timed_out",
            ReplayError::Refused(_) | ReplayError::HeaderName => "refused",
            ReplayError::Busy => "busy",
        }
    }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs_f32())
}

type Verdict = Result<(), KafkaError>;

/// The producer, made at the first replay: a box that never replays keeps no connection for it.
pub struct Replayer {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    producer: Mutex<Option<Arc<ThreadedProducer<Context>>>>,
    waiting: Mutex<usize>,
}

impl Replayer {
    pub fn new(config: Arc<Config>, metrics: Arc<Metrics>) -> Replayer {
        let (producer, waiting) = (Mutex::new(None), Mutex::new(0));
        Replayer { config, metrics, producer, waiting }
    }

    /// Sends `event` of the journal `journal_id` to its topic and partition with its key, value and headers, and returns once all in-sync
    /// replicas acknowledged it. Its origin goes along in `crm-replay-…` headers.
    ///
    /// # Errors
    /// [`ReplayError`]; after `TimedOut` the record may or may not be in Kafka.
    pub fn replay(&self, event: &EventDetail, journal_id: &str) -> Result<(), ReplayError> {
        let replayed = self.replay_uncounted(event, journal_id);
        self.metrics.count_replay(replayed.as_ref().map_or_else(ReplayError::outcome, |()| "replayed"));
        match &replayed {
            Ok(()) => tracing::info!(id = event.id, topic = event.topic, "replayed"),
            Err(error) => tracing::warn!(id = event.id, topic = event.topic, %error, "not replayed"),
        }
        replayed
    }

    fn replay_uncounted(&self, event: &EventDetail, journal_id: &str) -> Result<(), ReplayError> {
        let _place = Place::take(&self.waiting)?;
        let headers = replay_headers(event, journal_id, Timestamp::now())?;
        match self.send(event, &headers, Some(event.kafka_partition))? {
            // The topic has fewer partitions than when the event came: its key says where it belongs now.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                self.judge(self.send(event, &headers, None)?)
            }
            verdict => self.judge(verdict),
        }
    }

    fn judge(&self, verdict: Verdict) -> Result<(), ReplayError> {
        let timeout = self.config.replay.timeout;
        match verdict {
            Ok(()) => Ok(()),
            Err(error) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::MessageTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
                ) => Err(ReplayError::TimedOut { after: timeout, what: error.to_string() }),
                _ => Err(ReplayError::Refused(error.to_string())),
            },
        }
    }

    /// One attempt, and what the broker said of it.
    fn send(&self, event: &EventDetail, headers: &Headers, partition: Option<i32>) -> Result<Verdict, ReplayError> {
        let producer = self.producer()?;
        let (report, reported) = sync_channel(1);
        let mut record = BaseRecord::with_opaque_to(&event.topic, Box::new(report))
            .payload(event.payload.0.as_bytes())
            .headers(native(headers)?);
        record.key = event.kafka_key.as_ref().map(|key| key.0.as_slice());
        record.partition = partition;
        if let Err((error, _)) = producer.send(record) {
            return Ok(Err(error));
        }
        let verdict = reported.recv_timeout(self.config.replay.timeout + VERDICT_GRACE);
        if producer.client().fatal_error().is_some() {
            // An idempotent producer that lost its sequence cannot be used any more; the next replay makes a new one.
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(verdict.unwrap_or(Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut))))
    }

    fn producer(&self) -> Result<Arc<ThreadedProducer<Context>>, ReplayError> {
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*slot {
            return Ok(Arc::clone(producer));
        }
        let producer = client_config(&self.config).create_with_context(Context);
        let producer = Arc::new(producer.map_err(|error| ReplayError::Refused(error.to_string()))?);
        Ok(Arc::clone(slot.insert(producer)))
    }
}

fn client_config(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    // The producers of the CRM partition by murmur2; librdkafka's own default would put a key elsewhere.
    client.extend(config.client_properties(&[("partitioner", "murmur2_random"), ("linger.ms", "0")]));
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", config.replay.timeout.as_millis().to_string());
    client
}

/// One of the places in [`WAITING_MAX`].
struct Place<'a>(&'a Mutex<usize>);

impl Place<'_> {
    fn take(waiting: &Mutex<usize>) -> Result<Place<'_>, ReplayError> {
        let mut count = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if *count >= WAITING_MAX {
            return Err(ReplayError::Busy);
        }
        *count += 1;
        Ok(Place(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// The event's own headers and where it comes from. What an earlier replay added is replaced: the chain of replays
/// is in the journal.
fn replay_headers(event: &EventDetail, journal_id: &str, now: Timestamp) -> Result<Headers, ReplayError> {
    let mut headers = event.kafka_headers.clone();
    if headers.0.iter().any(|(name, _)| name.as_text().is_none()) {
        return Err(ReplayError::HeaderName);
    }
    headers.0.retain(|(name, _)| !name.0.starts_with(REPLAY_PREFIX.as_bytes()));
    for (name, value) in [
        (REPLAY_OF, event.id.to_string()),
        (REPLAY_JOURNAL, journal_id.to_owned()),
        (REPLAY_POSITION, format!("{}/{}/{}", event.topic, event.kafka_partition, event.kafka_offset)),
        ("crm-replay-at", now.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()),
    ] {
        headers.0.push((Bytes(name.into()), Some(Bytes(value.into()))));
    }
    Ok(headers)
}

fn native(headers: &Headers) -> Result<OwnedHeaders, ReplayError> {
    let mut native = OwnedHeaders::new_with_capacity(headers.0.len());
    for (name, value) in &headers.0 {
        let key = name.as_text().ok_or(ReplayError::HeaderName)?;
        native = native.insert(Header { key, value: value.as_ref().map(|value| value.0.as_slice()) });
    }
    Ok(native)
}

/// Passes each delivery report to the replay that waits for it.
struct Context;

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // The replay that suffers from it reports it.
        tracing::debug!(client = "replay", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(client = "replay", %error, "{reason}");
    }

    fn stats(&self, _: Statistics) {}
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<SyncSender<Verdict>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let verdict = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // Whoever asked may have given up.
        report.send(verdict).ok();
    }
}
