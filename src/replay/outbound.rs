//! A record as it goes out, and what the broker says of it.

use std::sync::mpsc::Sender;

use jiff::Timestamp;
use rdkafka::Message;
use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, ProducerContext};
use rdkafka::statistics::Statistics;

use crate::config::Config;
use crate::event::{
    Bytes, Headers, REPLAY_JOB, REPLAY_JOURNAL, REPLAY_LETTER, REPLAY_OF, REPLAY_POSITION, REPLAY_PREFIX,
};
use crate::store::{EventDetail, LetterDetail};

/// A record to send.
pub struct Outbound<'a> {
    pub topic: &'a str,
    /// `None`: where its key belongs.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: OwnedHeaders,
}

/// A header's name is not UTF-8, which the producer cannot send.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a header's name is not UTF-8, which the producer cannot send; it was not sent")]
pub struct HeaderName;

/// What goes along with every record that leaves this journal.
pub struct Origin<'a> {
    pub journal_id: &'a str,
    /// A job's id and token.
    pub job: Option<(i64, &'a str)>,
    /// See `replay.drop_headers`.
    pub drop_headers: &'a [String],
}

impl<'a> Outbound<'a> {
    /// An event as it came, for its own topic and partition, or for `to_topic`.
    ///
    /// # Errors
    /// [`HeaderName`].
    pub fn event(
        event: &'a EventDetail,
        to_topic: Option<&'a str>,
        origin: &Origin,
    ) -> Result<Outbound<'a>, HeaderName> {
        let topic = to_topic.unwrap_or(&event.topic);
        let position = format!("{}/{}/{}", event.topic, event.kafka_partition, event.kafka_offset);
        Ok(Outbound {
            topic,
            partition: (topic == event.topic).then_some(event.kafka_partition),
            key: event.kafka_key.as_ref().map(|key| key.0.as_slice()),
            value: Some(event.payload.0.as_bytes()),
            headers: headers(&event.kafka_headers, (REPLAY_OF, event.id), position, origin)?,
        })
    }

    /// A dead letter's record for its own topic and partition, with `value` as its value.
    ///
    /// # Errors
    /// [`HeaderName`].
    pub fn letter(
        letter: &'a LetterDetail,
        value: Option<&'a [u8]>,
        origin: &Origin,
    ) -> Result<Outbound<'a>, HeaderName> {
        let position = format!("{}/{}/{}", letter.topic, letter.kafka_partition, letter.kafka_offset);
        Ok(Outbound {
            topic: &letter.topic,
            partition: Some(letter.kafka_partition),
            key: letter.kafka_key.as_ref().map(|key| key.0.as_slice()),
            value,
            headers: headers(&letter.kafka_headers, (REPLAY_LETTER, letter.id), position, origin)?,
        })
    }

    /// For the producer, which says under `id` what became of it.
    pub fn record(&self, id: i64, reports: &Sender<(i64, Delivery)>) -> BaseRecord<'_, [u8], [u8], Box<Report>> {
        let report = Box::new(Report { id, to: reports.clone() });
        let mut record = BaseRecord::with_opaque_to(self.topic, report).headers(self.headers.clone());
        (record.payload, record.key, record.partition) = (self.value, self.key, self.partition);
        record
    }
}

/// The record's own headers, and where it comes from. What an earlier replay added is replaced: the chain of replays
/// is in the journal.
fn headers(
    own: &Headers,
    (name, id): (&str, i64),
    position: String,
    origin: &Origin,
) -> Result<OwnedHeaders, HeaderName> {
    let mut native = OwnedHeaders::new_with_capacity(own.0.len() + 5);
    for (name, value) in &own.0 {
        if name.0.starts_with(REPLAY_PREFIX.as_bytes()) || is_dropped(name, origin.drop_headers) {
            continue;
        }
        let key = name.as_text().ok_or(HeaderName)?;
        native = native.insert(Header { key, value: value.as_ref().map(|value| value.0.as_slice()) });
    }
    let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    let job = origin.job.map(|(id, token)| (REPLAY_JOB, format!("{id}-{token}")));
    let added = [
        (name, id.to_string()),
        (REPLAY_JOURNAL, origin.journal_id.to_owned()),
        (REPLAY_POSITION, position),
        ("crm-replay-at", at),
    ];
    for (key, value) in added.into_iter().chain(job) {
        native = native.insert(Header { key, value: Some(value.as_bytes()) });
    }
    Ok(native)
}

/// Whether `name` is one of `patterns`, whatever its case; a `*` at a pattern's end stands for any rest.
fn is_dropped(name: &Bytes, patterns: &[String]) -> bool {
    let Some(name) = name.as_text() else { return false };
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => name.eq_ignore_ascii_case(pattern),
    })
}

/// How a record that was given to the producer ended.
#[derive(Debug)]
pub enum Delivery {
    /// All in-sync replicas have it. A broker that had it from an attempt before, whose answer was lost, does not say
    /// at which offset.
    Acknowledged { partition: i32, offset: Option<i64> },
    Failed {
        error: KafkaError,
        /// It was sent, and its answer was not seen.
        may_be_there: bool,
    },
}

impl Delivery {
    pub fn code(&self) -> Option<RDKafkaErrorCode> {
        match self {
            Delivery::Acknowledged { .. } => None,
            Delivery::Failed { error, .. } => error.rdkafka_error_code(),
        }
    }
}

/// Where a delivery is told.
pub struct Report {
    id: i64,
    to: Sender<(i64, Delivery)>,
}

/// Settings of every producer. `patience_ms`: how long it tries, 0 for ever; `linger_ms`: how long it waits for company.
pub fn client_config(config: &Config, patience_ms: u128, linger_ms: u32) -> ClientConfig {
    let mut client = ClientConfig::new();
    // The producers of the CRM partition by murmur2; librdkafka's own default would put a key elsewhere. How large a
    // record may be is the broker's to say: what it gave may be larger than librdkafka's own limit.
    client.extend(config.client_properties(&[
        ("partitioner", "murmur2_random"),
        ("linger.ms", &linger_ms.to_string()),
        ("message.max.bytes", "104857600"),
    ]));
    client.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", patience_ms.to_string());
    client
}

/// Passes each delivery to whoever waits for it.
pub struct Context;

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
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let delivery = match result {
            Ok(message) => {
                let offset = Some(message.offset()).filter(|offset| *offset >= 0);
                Delivery::Acknowledged { partition: message.partition(), offset }
            }
            Err((error, message)) => {
                // SAFETY: the message is valid while it is borrowed.
                let status = unsafe { rd_kafka_message_status(message.ptr()) };
                let may_be_there = status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
                Delivery::Failed { error: error.clone(), may_be_there }
            }
        };
        // Whoever asked may have given up.
        report.to.send((report.id, delivery)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_dropped_by_name_or_by_what_they_begin_with() {
        let patterns = ["traceparent".to_owned(), "x-b3-*".to_owned()];
        let dropped = |name: &str| is_dropped(&Bytes(name.into()), &patterns);
        assert!(dropped("traceparent") && dropped("TraceParent") && dropped("X-B3-TraceId") && dropped("x-b3-"));
        assert!(!dropped("traceparents") && !dropped("x-b") && !dropped("é") && !dropped(""));
    }
}
