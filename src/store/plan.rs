//! Which events a replay is about, before it is made.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use schemars::JsonSchema;
use serde::Serialize;

use super::row::iso;
use super::{Readers, StoreError};
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
        let own = tenant.map(str::to_owned);
        let ids = filter.event_ids.as_ref().map(|ids| serde_json::json!(ids).to_string());
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (condition, value) in [
            ("id IN (SELECT value FROM json_each(?))", &ids),
            ("received_at >= ?", &filter.start),
            ("received_at < ?", &filter.end),
            ("tenant_id = ?", &filter.tenant_id),
            ("tenant_id = ?", &own),
            ("topic = ?", &filter.topic),
            ("payload->>'event_type' = ?", &filter.event_type),
            ("kafka_key = ?", &filter.key),
        ] {
            if let Some(value) = value {
                conditions.push(condition);
                values.push(value);
            }
        }
        // The same order, and the one that the index has: many rows are never sorted in memory.
        let by_id = filter.event_ids.is_some() || filter.key.is_some() || conditions == ["payload->>'event_type' = ?"];
        let order = if by_id { "id" } else { "received_at, id" };
        let sql = format!(
            "SELECT id, tenant_id, topic, octet_length(payload), received_at, EXISTS (SELECT 1 FROM event_journal AS newer \
             WHERE newer.kafka_key = event.kafka_key AND newer.id > event.id AND newer.replay_of IS NULL), \
             replay_of IS NOT NULL, erased IS NOT NULL FROM event_journal AS event WHERE {} ORDER BY {order}",
            conditions.join(" AND ")
        );
        let mut select = snapshot.prepare_cached(&sql)?;
        let mut rows = select.query(params_from_iter(values))?;
        let mut found = Found::default();
        while let Some(row) = rows.next()? {
            if row.get(7)? {
                found.erased += 1;
                continue;
            }
            let (is_superseded, is_replay) = (row.get(5)?, row.get(6)?);
            if (is_superseded && skip.superseded) || (is_replay && skip.replays) {
                found.skipped += 1;
                continue;
            }
            if found.total == ITEMS_MAX {
                return Ok(Choice::TooMany);
            }
            found.total += 1;
            found.superseded += usize::from(is_superseded);
            found.replays += usize::from(is_replay);
            found.event_ids.push(row.get(0)?);
            found.count_tenant(row.get(1)?);
            *found.by_topic.entry(row.get(2)?).or_default() += 1;
            found.bytes += row.get::<_, i64>(3)?;
            let received_at: String = row.get(4)?;
            found.first_received_at.get_or_insert_with(|| iso(&received_at));
            found.last_received_at = Some(received_at);
        }
        found.last_received_at = found.last_received_at.map(|time| iso(&time));
        if let Some(ids) = ids {
            let sql = "SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM event_journal \
                       WHERE id = value AND (?2 IS NULL OR tenant_id = ?2)) LIMIT 20";
            let mut unknown = snapshot.prepare_cached(sql)?;
            found.unknown = unknown.query_map((ids, tenant), |row| row.get(0))?.collect::<Result<_, _>>()?;
        }
        Ok(Choice::Found(found))
    }
}

impl Found {
    fn count_tenant(&mut self, tenant_id: String) {
        let is_listed = self.by_tenant.len() < TENANTS_MAX || self.by_tenant.contains_key(&tenant_id);
        *self.by_tenant.entry(if is_listed { tenant_id } else { OTHERS.to_owned() }).or_default() += 1;
    }
}
