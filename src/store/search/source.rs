//! Which index a search goes through, by one rule, and the statement that does: the event and its replays, else the
//! key, else replays only, else the tenant, else the topics, else all events as they came. What the index does not
//! answer is looked at event by event.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::{Order, Position, Replays, Search, topics};
use crate::event::Bytes;

/// Topics whose indexes are merged; of more, all events are looked at.
const MERGED_TOPICS_MAX: usize = 32;

/// A statement that gives `id` and whether the event is meant, in the search's order.
#[derive(Debug)]
pub(super) struct Source {
    pub sql: String,
    pub values: Vec<Value>,
}

/// A range of one index.
struct Arm {
    /// `INDEXED BY …`: the plan is this one or none.
    index: &'static str,
    condition: String,
    range: Range,
}

/// How a range is bounded and ordered: the ids' order is that of time, so either does where the index has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Range {
    Time,
    Id,
}

struct Values(Vec<Value>);

impl Values {
    /// Binds `value`; how the statement names it.
    fn add(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("?{}", self.0.len())
    }
}

impl Source {
    /// `None` where nothing can be meant.
    pub fn new(connection: &Connection, search: &Search, after: Option<&Position>) -> rusqlite::Result<Option<Source>> {
        let topics = search.topic.as_ref().map(|pattern| topics::meant(connection, pattern)).transpose()?;
        if topics.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let mut values = Values(Vec::new());
        let mut rest = Rest { search: search.clone(), topics };
        let arms = arms(&mut rest, &mut values);
        let is_meant = rest.into_expression(&mut values);
        let range = arms[0].range;
        let bounds = match range {
            Range::Time => time_bounds(search, after, &mut values),
            Range::Id => id_bounds(connection, search, after, &mut values)?,
        };
        let selects: Vec<String> = arms.iter().map(|arm| arm.select(&is_meant, &bounds)).collect();
        let (union, order) = (selects.join(" UNION ALL "), order(range, search.order));
        Ok(Some(Source { sql: format!("{union} ORDER BY {order}"), values: values.0 }))
    }
}

impl Arm {
    fn select(&self, is_meant: &str, bounds: &str) -> String {
        let Arm { index, condition, range } = self;
        let received_at = if *range == Range::Time { ", received_at" } else { "" };
        format!("SELECT id, {is_meant}{received_at} FROM event_journal {index} WHERE {condition} AND {bounds}")
    }
}

/// What of a search its source does not answer.
struct Rest {
    search: Search,
    topics: Option<Vec<String>>,
}

/// Takes out of `rest` what the arms answer.
fn arms(rest: &mut Rest, values: &mut Values) -> Vec<Arm> {
    if let Some(id) = rest.search.family_of.take() {
        let id = values.add(id);
        let itself = Arm { index: "NOT INDEXED", condition: format!("id = {id}"), range: Range::Id };
        let index = "INDEXED BY event_journal_replay";
        return vec![itself, Arm { index, condition: format!("replay_of = {id}"), range: Range::Id }];
    }
    if let Some(key) = rest.search.key.take() {
        let condition = format!("kafka_key = {}", values.add(text_or_blob(key)));
        return vec![Arm { index: "INDEXED BY event_journal_key", condition, range: Range::Id }];
    }
    if rest.search.replays == Some(Replays::Only) {
        rest.search.replays = None;
        let condition = "replay_of IS NOT NULL".to_owned();
        return vec![Arm { index: "INDEXED BY event_journal_replays", condition, range: Range::Time }];
    }
    if let Some(tenant_id) = rest.search.tenant_id.take() {
        let condition = format!("tenant_id = {}", values.add(tenant_id));
        return vec![Arm { index: "INDEXED BY event_journal_tenant_received", condition, range: Range::Time }];
    }
    if let Some(topics) = rest.topics.take_if(|topics| topics.len() <= MERGED_TOPICS_MAX) {
        let mut arm = |topic| {
            let condition = format!("topic = {}", values.add(topic));
            Arm { index: "INDEXED BY event_journal_topic_received", condition, range: Range::Time }
        };
        return topics.into_iter().map(&mut arm).collect();
    }
    vec![Arm { index: "NOT INDEXED", condition: "true".to_owned(), range: Range::Id }]
}

impl Rest {
    /// An expression: 1 for an event that is meant. Cheap ones first; none fails on a payload that is not JSON, which
    /// only an operator's own INSERT can have made.
    fn into_expression(self, values: &mut Values) -> String {
        let Rest { search, topics } = self;
        let mut all = Vec::new();
        if let Some(tenant_id) = search.tenant_id {
            all.push(format!("tenant_id = {}", values.add(tenant_id)));
        }
        if let Some(topics) = topics {
            let topics = values.add(serde_json::json!(topics).to_string());
            all.push(format!("topic IN (SELECT value FROM json_each({topics}))"));
        }
        if let Some(key) = search.key {
            all.push(format!("kafka_key = {}", values.add(text_or_blob(key))));
        }
        match search.replays {
            Some(Replays::Only) => all.push("replay_of IS NOT NULL".to_owned()),
            Some(Replays::None) => all.push("replay_of IS NULL".to_owned()),
            None => {}
        }
        if let Some(text) = search.text {
            all.push(format!(r"payload LIKE {} ESCAPE '\'", values.add(like(&text))));
        }
        if !search.conditions.is_empty() {
            all.push("json_valid(payload)".to_owned());
        }
        for condition in search.conditions {
            let (path, value) = (values.add(condition.path), values.add(condition.value));
            all.push(format!(
                "CASE json_type(payload, {path}) WHEN 'text' THEN payload ->> {path} ELSE payload -> {path} END = {value}"
            ));
        }
        if all.is_empty() { "1".to_owned() } else { format!("CASE WHEN {} THEN 1 ELSE 0 END", all.join(" AND ")) }
    }
}

/// `text` anywhere.
fn like(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

fn text_or_blob(key: Bytes) -> Value {
    String::from_utf8(key.0).map_or_else(|error| Value::Blob(error.into_bytes()), Value::Text)
}

fn order(range: Range, order: Order) -> &'static str {
    match (range, order) {
        (Range::Time, Order::NewestFirst) => "received_at DESC, id DESC",
        (Range::Time, Order::OldestFirst) => "received_at, id",
        (Range::Id, Order::NewestFirst) => "id DESC",
        (Range::Id, Order::OldestFirst) => "id",
    }
}

/// A position bounds the side that the search comes from, where it is stricter than the search's own bound.
fn time_bounds(search: &Search, after: Option<&Position>, values: &mut Values) -> String {
    let mut bounds = vec!["true".to_owned()];
    let newest_first = search.order == Order::NewestFirst;
    if let Some(after) = after {
        let sign = if newest_first { '<' } else { '>' };
        let (received_at, id) = (values.add(after.received_at.clone()), values.add(after.id));
        bounds.push(format!("(received_at, id) {sign} ({received_at}, {id})"));
    }
    if let Some(since) = search.since.clone().filter(|_| after.is_none() || newest_first) {
        bounds.push(format!("received_at >= {}", values.add(since)));
    }
    if let Some(until) = search.until.clone().filter(|_| after.is_none() || !newest_first) {
        bounds.push(format!("received_at < {}", values.add(until)));
    }
    bounds.join(" AND ")
}

fn id_bounds(
    connection: &Connection,
    search: &Search,
    after: Option<&Position>,
    values: &mut Values,
) -> rusqlite::Result<String> {
    let first_id = |time: &Option<String>| time.as_ref().map(|time| first_id_since(connection, time)).transpose();
    // The first id in the range, and the first behind it.
    let mut from = first_id(&search.since)?.unwrap_or(i64::MIN);
    let mut to = first_id(&search.until)?.unwrap_or(i64::MAX);
    match (after, search.order) {
        (Some(after), Order::NewestFirst) => to = to.min(after.id),
        (Some(after), Order::OldestFirst) => from = from.max(after.id.saturating_add(1)),
        (None, _) => {}
    }
    Ok(format!("id >= {} AND id < {}", values.add(from), values.add(to)))
}

pub(super) const FIRST_ID_SINCE: &str = "SELECT id FROM event_journal INDEXED BY event_journal_received \
     WHERE received_at >= ?1 ORDER BY received_at, id LIMIT 1";

/// The first event that was received at `time` or later; behind all events where there is none.
fn first_id_since(connection: &Connection, time: &str) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(FIRST_ID_SINCE)?;
    let mut rows = select.query([time])?;
    rows.next()?.map_or(Ok(i64::MAX), |row| row.get(0))
}
