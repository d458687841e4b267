//! Which index a search goes through, by one rule, and the statement that does: the event and its replays, else the
//! key, else replays only, else the tenant or the topics, else all events as they came. What the index does not answer
//! is looked at event by event.

use std::ops::{ControlFlow, Range};

use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params_from_iter};

use super::{Order, Position, Replays, Search, topics};
use crate::event::Bytes;
use crate::store::segment::{Segments, ids_of, segment_of};

/// A statement that gives `id` and whether the event is meant, in the search's order. `?1` is the segment, and the ids
/// are from `?2` on and below `?3`.
#[derive(Debug)]
pub(in crate::store) struct Source {
    pub sql: String,
    /// From `?4` on.
    pub(super) values: Vec<Value>,
    /// Whether the statement is about a segment; else it is about all ids at once.
    by_segment: bool,
    pub ids: Range<i64>,
    pub order: Order,
}

/// What is told of a source's events, one after the other.
pub(super) enum Looked {
    /// At the event `id`.
    At { id: i64, is_meant: bool },
    /// At all that is in these ids.
    Through(Range<i64>),
}

/// A range of one index.
struct Arm {
    /// `INDEXED BY …`: the plan is this one or none.
    index: &'static str,
    condition: String,
    by_segment: bool,
}

const FIRST_VALUE: usize = 4;

struct Values(Vec<Value>);

impl Values {
    /// Binds `value`; how the statement names it.
    fn add(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("?{}", self.0.len() + FIRST_VALUE - 1)
    }
}

impl Source {
    /// `None` where nothing can be meant.
    pub fn new(connection: &Connection, search: &Search, after: Option<&Position>) -> rusqlite::Result<Option<Source>> {
        let topics = search.topic.as_ref().map(|pattern| topics::meant(connection, pattern)).transpose()?;
        if topics.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        Source::of_topics(connection, search, topics, after).map(Some)
    }

    /// Of these topics, whatever the search says.
    pub fn of_topics(
        connection: &Connection,
        search: &Search,
        topics: Option<Vec<String>>,
        after: Option<&Position>,
    ) -> rusqlite::Result<Source> {
        let mut values = Values(Vec::new());
        let mut rest = Rest { search: search.clone(), topics };
        let arms = arms(&mut rest, &mut values);
        let is_meant = rest.into_expression(&mut values);
        let selects: Vec<String> = arms.iter().map(|arm| arm.select(&is_meant)).collect();
        let (union, order) =
            (selects.join(" UNION ALL "), if search.order == Order::NewestFirst { " DESC" } else { "" });
        Ok(Source {
            sql: format!("{union} ORDER BY id{order}"),
            values: values.0,
            by_segment: arms[0].by_segment,
            ids: ids(connection, search, after)?,
            order: search.order,
        })
    }

    /// Looks at the events one after the other until it is told to stop.
    pub(super) fn each(
        &self,
        connection: &Connection,
        mut look: impl FnMut(Looked) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let mut select = connection.prepare_cached(&self.sql)?;
        if !self.by_segment {
            return self.look(&mut select, 0, &self.ids, &mut look).map(drop);
        }
        let mut segments = Segments::of(connection, &self.ids, self.order)?;
        while let Some(segment) = segments.next()? {
            if self.look(&mut select, segment, &ids_of(segment, &self.ids), &mut look)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The meant events of a segment, of a source that goes by segments.
    fn of_segment(&self, connection: &Connection, segment: i64) -> rusqlite::Result<Vec<i64>> {
        let mut meant = Vec::new();
        let mut select = connection.prepare_cached(&self.sql)?;
        let flow = self.look(&mut select, segment, &ids_of(segment, &self.ids), &mut |looked| {
            if let Looked::At { id, is_meant: true } = looked {
                meant.push(id);
            }
            ControlFlow::Continue(())
        });
        flow.map(|_| meant)
    }

    fn look(
        &self,
        select: &mut Statement,
        segment: i64,
        ids: &Range<i64>,
        look: &mut impl FnMut(Looked) -> ControlFlow<()>,
    ) -> rusqlite::Result<ControlFlow<()>> {
        let first_values = [segment, ids.start, ids.end].map(Value::from);
        let mut rows = select.query(params_from_iter(first_values.iter().chain(&self.values)))?;
        while let Some(row) = rows.next()? {
            let looked = look(Looked::At { id: row.get(0)?, is_meant: row.get(1)? });
            if looked.is_break() {
                return Ok(looked);
            }
        }
        Ok(look(Looked::Through(ids.clone())))
    }
}

/// The meant events of a source whose order is the newest first, to be asked for from the newest segment back.
pub(in crate::store) struct Candidates<'a> {
    connection: &'a Connection,
    source: &'a Source,
    /// Of a source that does not go by segments: all that are left, the next one last.
    all: Option<Vec<i64>>,
}

impl<'a> Candidates<'a> {
    pub fn new(connection: &'a Connection, source: &'a Source) -> rusqlite::Result<Candidates<'a>> {
        let mut all = None;
        if !source.by_segment {
            let mut ids = Vec::new();
            source.each(connection, |looked| {
                if let Looked::At { id, is_meant: true } = looked {
                    ids.push(id);
                }
                ControlFlow::Continue(())
            })?;
            ids.reverse();
            all = Some(ids);
        }
        Ok(Candidates { connection, source, all })
    }

    /// None is before this id.
    pub fn first_id(&self) -> i64 {
        self.all.as_ref().map_or(self.source.ids.start, |all| all.first().copied().unwrap_or(i64::MAX))
    }

    pub fn of_segment(&mut self, segment: i64) -> rusqlite::Result<Vec<i64>> {
        match &mut self.all {
            None => self.source.of_segment(self.connection, segment),
            Some(all) => {
                let others = all.partition_point(|id| segment_of(*id) < segment);
                let mut own = all.split_off(others);
                own.reverse();
                Ok(own)
            }
        }
    }
}

impl Arm {
    fn select(&self, is_meant: &str) -> String {
        let Arm { index, condition, .. } = self;
        format!("SELECT id, {is_meant} FROM event_journal {index} WHERE {condition} AND id >= ?2 AND id < ?3")
    }
}

/// What of a search its source does not answer.
struct Rest {
    search: Search,
    topics: Option<Vec<String>>,
}

const BY_TENANT: &str = "INDEXED BY event_journal_tenant";

/// Takes out of `rest` what the arms answer.
fn arms(rest: &mut Rest, values: &mut Values) -> Vec<Arm> {
    if let Some(ids) = rest.search.event_ids.take() {
        let condition =
            format!("id IN (SELECT value FROM json_each({}))", values.add(serde_json::json!(ids).to_string()));
        return vec![Arm { index: "NOT INDEXED", condition, by_segment: false }];
    }
    if let Some(id) = rest.search.family_of.take() {
        let id = values.add(id);
        let itself = Arm { index: "NOT INDEXED", condition: format!("id = {id}"), by_segment: false };
        let index = "INDEXED BY event_journal_replay";
        return vec![itself, Arm { index, condition: format!("replay_of = {id}"), by_segment: false }];
    }
    if let Some(key) = rest.search.key.take() {
        let condition = format!("id >> 10 = ?1 AND kafka_key = {}", values.add(text_or_blob(key)));
        return vec![Arm { index: "INDEXED BY event_journal_key", condition, by_segment: true }];
    }
    if rest.search.replays == Some(Replays::Only) {
        rest.search.replays = None;
        let condition = "replay_of IS NOT NULL".to_owned();
        return vec![Arm { index: "INDEXED BY event_journal_replays", condition, by_segment: false }];
    }
    if let Some(tenant_id) = rest.search.tenant_id.take() {
        let condition = format!("id >> 10 = ?1 AND tenant_id = {}", values.add(tenant_id));
        return vec![Arm { index: BY_TENANT, condition, by_segment: true }];
    }
    if rest.topics.is_some() {
        return vec![Arm { index: BY_TENANT, condition: "id >> 10 = ?1".to_owned(), by_segment: true }];
    }
    vec![Arm { index: "NOT INDEXED", condition: "?1 IS NOT NULL".to_owned(), by_segment: true }]
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
            let topics: Vec<String> = topics.into_iter().map(|topic| values.add(topic)).collect();
            all.push(format!("topic IN ({})", topics.join(", ")));
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

/// The ids that the times and the position leave: they are in the order of the times.
fn ids(connection: &Connection, search: &Search, after: Option<&Position>) -> rusqlite::Result<Range<i64>> {
    let first_id = |time: &Option<String>| time.as_ref().map(|time| first_id_since(connection, time)).transpose();
    let mut from = first_id(&search.since)?.unwrap_or(i64::MIN);
    let mut to = first_id(&search.until)?.unwrap_or(i64::MAX);
    match (after, search.order) {
        (Some(after), Order::NewestFirst) => to = to.min(after.id),
        (Some(after), Order::OldestFirst) => from = from.max(after.id.saturating_add(1)),
        (None, _) => {}
    }
    Ok(from..to)
}

pub(super) const FIRST_ID_SINCE: &str = "SELECT id FROM event_journal INDEXED BY event_journal_received \
     WHERE received_at >= ?1 ORDER BY received_at, id LIMIT 1";

/// The first event that was received at `time` or later; behind all events where there is none.
fn first_id_since(connection: &Connection, time: &str) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached(FIRST_ID_SINCE)?;
    let mut rows = select.query([time])?;
    rows.next()?.map_or(Ok(i64::MAX), |row| row.get(0))
}
