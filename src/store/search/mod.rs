//! Finding events: conditions in, pages of events out, newest or oldest first.

mod condition;
mod cursor;
#[cfg(test)]
mod plans;
mod scan;
pub(super) mod source;
mod topics;

use std::time::Instant;

use rusqlite::{Connection, OptionalExtension};
use schemars::JsonSchema;
use serde::Serialize;

pub use self::condition::Condition;
pub use self::cursor::{Position, next_cursor, position};
use super::query::{EventDetail, Payload, event_alone};
use super::row::{bytes, time};
use super::{Readers, StoreError};
use crate::event::Bytes;

/// Bytes of payloads in a page at most; the first event is in it however large it is.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Which events. All that is given must hold; nothing given means every event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Search {
    pub tenant_id: Option<String>,
    /// A topic's whole name, some of its dotted segments, or a glob: see `topics`.
    pub topic: Option<String>,
    pub key: Option<Bytes>,
    /// Received at or after this time, as the journal writes it.
    pub since: Option<String>,
    /// Received before this time.
    pub until: Option<String>,
    /// Text that occurs in the payload as it was received; ASCII letters in either case.
    pub text: Option<String>,
    /// Of the payload's members.
    pub conditions: Vec<Condition>,
    pub replays: Option<Replays>,
    /// Only this event and the replays of it.
    pub family_of: Option<i64>,
    /// Only these.
    pub event_ids: Option<Vec<i64>>,
    pub order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replays {
    Only,
    None,
}

/// By `received_at`, which is the order of the ids: it never goes backwards with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    OldestFirst,
    #[default]
    NewestFirst,
}

/// An event that was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FoundEvent {
    pub id: i64,
    pub tenant_id: String,
    pub topic: String,
    pub received_at: String,
    pub event_type: Option<String>,
    pub kafka_key: Option<Bytes>,
    pub replay_of: Option<i64>,
    /// The certificate in the audit of its erasure: nothing of the rest is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
}

/// Some of what a search finds. It may be fewer than were asked for, even none, while there are more: a page has a
/// budget of time.
#[derive(Debug)]
pub struct Page<T> {
    pub events: Vec<T>,
    /// Where the search goes on; `None`: that was all.
    pub next: Option<Position>,
}

impl Readers {
    /// At most `limit` of the events that `search` means, from `after` on, that `tenant` may see. A reader is held for
    /// the page's budget of time at most.
    ///
    /// # Errors
    /// If the journal cannot be read, or no reader becomes free.
    pub fn search(
        &self,
        tenant: Option<&str>,
        search: &Search,
        after: Option<&Position>,
        limit: u32,
        with_payload: bool,
    ) -> Result<Page<FoundEvent>, StoreError> {
        let weight = |event: &FoundEvent| event.payload.as_ref().map_or(0, |payload| payload.0.len());
        let read = |reader: &Connection, id| found_event(reader, id, with_payload);
        self.page(tenant, search, (after, limit), read, weight)
    }

    /// The same, with everything known of each event but its replays.
    ///
    /// # Errors
    /// As [`Readers::search`].
    pub fn search_whole(
        &self,
        tenant: Option<&str>,
        search: &Search,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Page<EventDetail>, StoreError> {
        self.page(tenant, search, (after, limit), event_alone, |event| event.payload.0.len())
    }

    fn page<T>(
        &self,
        tenant: Option<&str>,
        search: &Search,
        (after, limit): (Option<&Position>, u32),
        read: impl Fn(&Connection, i64) -> rusqlite::Result<Option<T>>,
        weight: impl Fn(&T) -> usize,
    ) -> Result<Page<T>, StoreError> {
        let mut page = Page { events: Vec::new(), next: None };
        if tenant.is_some() && tenant != search.tenant_id.as_deref() {
            return Ok(page);
        }
        let reader = self.get()?;
        let began = Instant::now();
        // What is found is still there when it is read.
        let snapshot = reader.unchecked_transaction()?;
        let Some(scanned) = scan::scan(&snapshot, search, after, limit, began)? else { return Ok(page) };
        let mut bytes = 0;
        let mut last = scanned.last;
        for (count, id) in scanned.ids.iter().enumerate() {
            let Some(event) = read(&snapshot, *id)? else { continue };
            bytes += weight(&event);
            if bytes > PAYLOAD_BYTES_MAX && count > 0 {
                last = Some(Position { id: scanned.ids[count - 1] });
                break;
            }
            page.events.push(event);
        }
        page.next = last;
        Ok(page)
    }
}

fn found_event(connection: &Connection, id: i64, with_payload: bool) -> rusqlite::Result<Option<FoundEvent>> {
    let sql = "SELECT id, tenant_id, topic, received_at, \
               CASE WHEN json_valid(payload) THEN CAST(payload->>'event_type' AS TEXT) END, kafka_key, replay_of, \
               iif(?2, payload, NULL), erased FROM event_journal WHERE id = ?1";
    let found = connection.prepare_cached(sql)?.query_row((id, with_payload), |row| {
        Ok(FoundEvent {
            id: row.get(0)?,
            tenant_id: row.get(1)?,
            topic: row.get(2)?,
            received_at: time(row, 3)?,
            event_type: row.get(4)?,
            kafka_key: bytes(row, 5)?,
            replay_of: row.get(6)?,
            erased: row.get(8)?,
            payload: row.get::<_, Option<String>>(7)?.map(Payload),
        })
    });
    found.optional()
}
