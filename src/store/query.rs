//! Every SELECT that the API and the stages need, by name.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, Row};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::integrity::coverage_of;
use super::row::{bytes, headers, time};
use super::search::Order;
use super::segment::Segments;
use super::{LogCoverage, Readers, StoreError, StoredPosition, journal_info};
use crate::event::{Bytes, Headers};

/// One line of `GET /events/latest`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventSummary {
    pub id: i64,
    pub tenant_id: String,
    pub topic: String,
    pub received_at: String,
}

/// An event's payload, byte for byte. In JSON it stands as the object that it is; as text, should somebody have
/// written something else into the row.
#[derive(Debug)]
pub struct Payload(pub String);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.0) {
            Ok(json) => json.serialize(to),
            Err(_) => to.serialize_str(&self.0),
        }
    }
}

impl JsonSchema for Payload {
    fn schema_name() -> Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "The event as its producer wrote it: an object. Text, should somebody have written something else into the row that is no JSON."})
    }
}

/// Everything known of one event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EventDetail {
    pub id: i64,
    pub tenant_id: String,
    pub topic: String,
    pub received_at: String,
    pub payload: Payload,
    pub kafka_partition: i32,
    pub kafka_offset: i64,
    pub kafka_key: Option<Bytes>,
    pub kafka_headers: Headers,
    /// Milliseconds since 1970-01-01 UTC.
    pub kafka_timestamp: Option<i64>,
    pub replay_of: Option<i64>,
    /// The dead letter that a retry made this event of.
    pub dlq_id: Option<i64>,
    /// The certificate in the audit of its erasure: payload, key and headers are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<i64>,
    /// The rows that are replays of this one, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replays: Option<Vec<i64>>,
    #[serde(skip)]
    pub kafka_epoch: i64,
}

impl Readers {
    /// The newest events, newest first: everybody's, or a tenant's.
    pub fn latest_events(&self, tenant: Option<&str>, limit: u32) -> Result<Vec<EventSummary>, StoreError> {
        let reader = self.get()?;
        let columns = "SELECT id, tenant_id, topic, received_at FROM event_journal";
        let Some(tenant) = tenant else {
            let mut select = reader.prepare_cached(&format!("{columns} ORDER BY id DESC LIMIT ?1"))?;
            return Ok(select.query_map([limit], summary)?.collect::<Result<_, _>>()?);
        };
        let snapshot = reader.unchecked_transaction()?;
        let mut select = snapshot.prepare_cached(&format!(
            "{columns} INDEXED BY event_journal_tenant WHERE id >> 10 = ?1 AND tenant_id = ?2 ORDER BY id DESC LIMIT ?3"
        ))?;
        let (mut latest, limit) = (Vec::new(), limit as usize);
        let mut segments = Segments::of(&snapshot, &(i64::MIN..i64::MAX), Order::NewestFirst)?;
        while latest.len() < limit
            && let Some(segment) = segments.next()?
        {
            for found in select.query_map((segment, tenant, (limit - latest.len()) as i64), summary)? {
                latest.push(found?);
            }
        }
        Ok(latest)
    }

    /// An event, unless another tenant's is not to be seen.
    pub fn event(&self, tenant: Option<&str>, id: i64) -> Result<Option<EventDetail>, StoreError> {
        let reader = self.get()?;
        let event = event_alone(&reader, id)?;
        let Some(mut event) = event.filter(|event| tenant.is_none_or(|tenant| tenant == event.tenant_id)) else {
            return Ok(None);
        };
        let mut replays = reader.prepare_cached("SELECT id FROM event_journal WHERE replay_of = ?1 ORDER BY id")?;
        event.replays = Some(replays.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?);
        Ok(Some(event))
    }

    /// How many events and dead letters the file holds.
    pub fn counts(&self) -> Result<(i64, i64), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM event_journal), (SELECT count(*) FROM event_dlq)";
        Ok(self.get()?.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// What the file has of a partition, where it knows it.
    pub fn position(&self, topic: &str, partition: i32) -> Result<Option<StoredPosition>, StoreError> {
        let reader = self.get()?;
        let mut select = reader.prepare_cached(&StoredPosition::select(true))?;
        let stored = select.query_row((topic, partition), StoredPosition::from_row).optional()?;
        Ok(stored.map(|(_, stored)| stored))
    }

    /// What the file holds of each log, and why not the rest: of every topic, or of one. In the order of topic,
    /// partition and epoch.
    pub fn coverage(&self, topic: Option<&str>) -> Result<Vec<LogCoverage>, StoreError> {
        let reader = self.get()?;
        // Position and ranges as they were at one moment.
        let snapshot = reader.unchecked_transaction()?;
        coverage_of(&snapshot, topic)
    }

    /// The box's name in its Kafka group.
    pub fn member_id(&self) -> Result<String, StoreError> {
        Ok(journal_info(&*self.get()?, "member_id")?)
    }
}

fn summary(row: &Row) -> rusqlite::Result<EventSummary> {
    Ok(EventSummary { id: row.get(0)?, tenant_id: row.get(1)?, topic: row.get(2)?, received_at: time(row, 3)? })
}

/// An event without the rows that are replays of it.
pub(super) fn event_alone(connection: &Connection, id: i64) -> rusqlite::Result<Option<EventDetail>> {
    let sql = "SELECT id, tenant_id, topic, received_at, payload, kafka_partition, kafka_offset, kafka_key, \
               kafka_headers, kafka_timestamp, replay_of, dlq_id, erased, kafka_epoch FROM event_journal WHERE id = ?1";
    let event = connection.prepare_cached(sql)?.query_row([id], |row| {
        Ok(EventDetail {
            id: row.get(0)?,
            tenant_id: row.get(1)?,
            topic: row.get(2)?,
            received_at: time(row, 3)?,
            payload: Payload(row.get(4)?),
            kafka_partition: row.get(5)?,
            kafka_offset: row.get(6)?,
            kafka_key: bytes(row, 7)?,
            kafka_headers: headers(row, 8)?,
            kafka_timestamp: row.get(9)?,
            replay_of: row.get(10)?,
            dlq_id: row.get(11)?,
            erased: row.get(12)?,
            replays: None,
            kafka_epoch: row.get(13)?,
        })
    });
    event.optional()
}
