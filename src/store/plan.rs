//! Which events a replay is about, before it is made.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use schemars::JsonSchema;
use serde::Serialize;

use super::newer::NewerEvents;
use super::row::iso;
use super::search::source::{Candidates, Source};
use super::search::{Condition, Order, Search};
use super::segment::Segments;
use super::{Readers, StoreError};
use crate::event::Bytes;
use crate::job::{Filter, ITEMS_MAX};

/// Tenants that a plan lists; the others share [`OTHERS`].
const TENANTS_MAX: usize = 200;
const OTHERS: &str = "_other";

/// What a filter finds at one moment.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Found {
    /// Events to send.
    pub total: usize,
    /// Of their values.
    pub bytes: i64,
    /// Events among them of whose key there is a newer one, replays aside.
    pub superseded: usize,
    /// Events among them that are replays themselves.
    pub replays: usize,
    /// Superseded events and replays that were left out.
    pub skipped: i64,
    pub first_received_at: Option<String>,
    pub last_received_at: Option<String>,
    pub by_topic: BTreeMap<String, usize>,
    pub by_tenant: BTreeMap<String, usize>,
    /// Events that are erased, which were left out too. Not shown where there are none.
    #[serde(skip_serializing_if = "is_none")]
    pub erased: usize,
    /// In the order in which they were stored.
    #[serde(skip)]
    pub event_ids: Vec<i64>,
    /// Ids that were asked for and are not in the journal, some of them.
    #[serde(skip)]
    pub unknown: Vec<i64>,
}

fn is_none(events: &usize) -> bool {
    *events == 0
}

/// What is left out of what a filter means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Skip {
    pub superseded: bool,
    pub replays: bool,
}

/// What a filter found, or that it is too much for one job.
#[derive(Debug)]
pub enum Choice {
    Found(Found),
    TooMany,
}

impl Readers {
    /// The events that `filter` means, as they are at one moment; only `tenant`'s, where there is one. The filter is not
    /// empty.
    pub fn choose(&self, tenant: Option<&str>, filter: &Filter, skip: Skip) -> Result<Choice, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let mut found = Found::default();
        let is_foreign = tenant.is_some_and(|own| filter.tenant_id.as_ref().is_some_and(|meant| meant != own));
        if !is_foreign && !found.collect(&snapshot, tenant, filter, skip)? {
            return Ok(Choice::TooMany);
        }
        found.event_ids.reverse();
        if let Some(ids) = &filter.event_ids {
            let sql = "SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM event_journal \
                       WHERE id = value AND (?2 IS NULL OR tenant_id = ?2)) LIMIT 20";
            let mut unknown = snapshot.prepare_cached(sql)?;
            let ids = serde_json::json!(ids).to_string();
            found.unknown = unknown.query_map((ids, tenant), |row| row.get(0))?.collect::<Result<_, _>>()?;
        }
        Ok(Choice::Found(found))
    }
}

/// The events that a filter means, whichever of them are left out later.
fn source(connection: &Connection, tenant: Option<&str>, filter: &Filter) -> rusqlite::Result<Source> {
    let search = Search {
        tenant_id: filter.tenant_id.clone().or_else(|| tenant.map(str::to_owned)),
        key: filter.key.clone().map(|key| Bytes(key.into_bytes())),
        since: filter.start.clone(),
        until: filter.end.clone(),
        conditions: filter.event_type.clone().map(Condition::event_type).into_iter().collect(),
        event_ids: filter.event_ids.clone(),
        order: Order::NewestFirst,
        ..Search::default()
    };
    Source::of_topics(connection, &search, filter.topic.clone().map(|topic| vec![topic]), None)
}

const EVENT: &str = "SELECT tenant_id, topic, octet_length(payload), received_at, replay_of IS NOT NULL, erased IS NOT NULL \
     FROM event_journal WHERE id = ?1";

impl Found {
    /// Takes in what `filter` means, the newest first; false, if it is too much.
    fn collect(
        &mut self,
        snapshot: &Connection,
        tenant: Option<&str>,
        filter: &Filter,
        skip: Skip,
    ) -> rusqlite::Result<bool> {
        let source = source(snapshot, tenant, filter)?;
        let mut candidates = Candidates::new(snapshot, &source)?;
        let mut newer = NewerEvents::new(snapshot, filter)?;
        let mut event = snapshot.prepare_cached(EVENT)?;
        // What supersedes an event may be newer than all that is meant.
        let ids = candidates.first_id()..i64::MAX;
        let mut segments = Segments::of(snapshot, &ids, Order::NewestFirst)?;
        while let Some(segment) = segments.next()? {
            let meant = candidates.of_segment(segment)?;
            let superseded = newer.superseded(segment, &meant)?;
            for id in meant {
                let taken = event.query_row([id], |row| self.take(id, row, superseded.contains(&id), skip))?;
                if !taken {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// An event and whether it is superseded; false, if it is one too many.
    fn take(&mut self, id: i64, row: &Row, is_superseded: bool, skip: Skip) -> rusqlite::Result<bool> {
        let is_replay = row.get(4)?;
        if row.get(5)? {
            self.erased += 1;
            return Ok(true);
        }
        if (is_superseded && skip.superseded) || (is_replay && skip.replays) {
            self.skipped += 1;
            return Ok(true);
        }
        if self.total == ITEMS_MAX {
            return Ok(false);
        }
        self.total += 1;
        self.superseded += usize::from(is_superseded);
        self.replays += usize::from(is_replay);
        self.event_ids.push(id);
        self.count_tenant(row.get(0)?);
        *self.by_topic.entry(row.get(1)?).or_default() += 1;
        self.bytes += row.get::<_, i64>(2)?;
        let received_at = iso(&row.get::<_, String>(3)?);
        self.last_received_at.get_or_insert_with(|| received_at.clone());
        self.first_received_at = Some(received_at);
        Ok(true)
    }

    fn count_tenant(&mut self, tenant_id: String) {
        let is_listed = self.by_tenant.len() < TENANTS_MAX || self.by_tenant.contains_key(&tenant_id);
        *self.by_tenant.entry(if is_listed { tenant_id } else { OTHERS.to_owned() }).or_default() += 1;
    }
}
