//! One event or dead letter goes to its topic, and the client waits until the broker has it.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ThreadedProducer};

use super::outbound::{Context, Delivery, HeaderName, Origin, Outbound, client_config};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{EventDetail, LetterDetail};

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
    #[error("{0}")]
    HeaderName(#[from] HeaderName),
}

impl ReplayError {
    fn outcome(&self) -> &'static str {
        match self {
            ReplayError::TimedOut { .. } => "timed_out",
            ReplayError::Refused(_) | ReplayError::HeaderName(_) => "refused",
            ReplayError::Busy => "busy",
        }
    }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs_f32())
}

/// Where the broker put a record; not always does it say at which offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub partition: i32,
    pub offset: Option<i64>,
}

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

    /// Sends `event` of the journal `journal_id` to its topic and partition (or to `to_topic`) with its key, value and
    /// headers, and returns once all in-sync replicas acknowledged it. Its origin goes along in `crm-replay-…` headers.
    ///
    /// # Errors
    /// [`ReplayError`]; after `TimedOut` the record may or may not be in Kafka.
    pub fn replay(&self, event: &EventDetail, to_topic: Option<&str>, journal_id: &str) -> Result<Placed, ReplayError> {
        let _place = self.place()?;
        let sent = Outbound::event(event, to_topic, &self.origin(journal_id)).map_err(ReplayError::from);
        self.report("event", event.id, &event.topic, sent.and_then(|record| self.send(record)))
    }

    /// Sends the record of a dead letter to its topic, with `value` as its value. As [`Replayer::replay`].
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn republish(
        &self,
        letter: &LetterDetail,
        value: Option<&[u8]>,
        journal_id: &str,
    ) -> Result<Placed, ReplayError> {
        let _place = self.place()?;
        let sent = Outbound::letter(letter, value, &self.origin(journal_id)).map_err(ReplayError::from);
        self.report("dead letter", letter.id, &letter.topic, sent.and_then(|record| self.send(record)))
    }

    /// One of the places for clients that wait, whatever for.
    ///
    /// # Errors
    /// [`ReplayError::Busy`].
    pub fn waiting_place(&self) -> Result<Place<'_>, ReplayError> {
        Place::take(&self.waiting)
    }

    fn place(&self) -> Result<Place<'_>, ReplayError> {
        self.waiting_place().inspect_err(|busy| self.metrics.count_replay(busy.outcome()))
    }

    fn origin<'a>(&'a self, journal_id: &'a str) -> Origin<'a> {
        Origin { journal_id, job: None, drop_headers: &self.config.replay.drop_headers }
    }

    fn report(
        &self,
        what: &str,
        id: i64,
        topic: &str,
        replayed: Result<Placed, ReplayError>,
    ) -> Result<Placed, ReplayError> {
        self.metrics.count_replay(replayed.as_ref().map_or_else(ReplayError::outcome, |_| "replayed"));
        match &replayed {
            Ok(_) => tracing::info!(what, id, topic, "replayed"),
            Err(error) => tracing::warn!(what, id, topic, %error, "not replayed"),
        }
        replayed
    }

    fn send(&self, mut record: Outbound) -> Result<Placed, ReplayError> {
        let mut delivery = self.try_send(&record)?;
        // The topic has fewer partitions than when the record came: its key says where it belongs now.
        if delivery.code() == Some(RDKafkaErrorCode::UnknownPartition) && record.partition.take().is_some() {
            delivery = self.try_send(&record)?;
        }
        let error = match delivery {
            Delivery::Acknowledged { partition, offset } => return Ok(Placed { partition, offset }),
            Delivery::Failed { error, .. } => error,
        };
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            ) => Err(ReplayError::TimedOut { after: self.config.replay.timeout, what: error.to_string() }),
            _ => Err(ReplayError::Refused(error.to_string())),
        }
    }

    /// One attempt, and what the broker said of it.
    fn try_send(&self, record: &Outbound) -> Result<Delivery, ReplayError> {
        let producer = self.producer()?;
        let (reports, reported) = mpsc::channel();
        if let Err((error, _)) = producer.send(record.record(0, &reports)) {
            return Ok(Delivery::Failed { error, may_be_there: false });
        }
        let delivery = reported.recv_timeout(self.config.replay.timeout + VERDICT_GRACE);
        if producer.client().fatal_error().is_some() {
            // An idempotent producer that lost its sequence cannot be used any more; the next replay makes a new one.
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        let silent = || KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
        Ok(delivery.map_or_else(|_| Delivery::Failed { error: silent(), may_be_there: true }, |(_, delivery)| delivery))
    }

    fn producer(&self) -> Result<Arc<ThreadedProducer<Context>>, ReplayError> {
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*slot {
            return Ok(Arc::clone(producer));
        }
        let patience = self.config.replay.timeout.as_millis();
        let producer = client_config(&self.config, patience, 0).create_with_context(Context);
        let producer = Arc::new(producer.map_err(|error| ReplayError::Refused(error.to_string()))?);
        Ok(Arc::clone(slot.insert(producer)))
    }
}

/// One of the places in [`WAITING_MAX`].
pub struct Place<'a>(&'a Mutex<usize>);

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
