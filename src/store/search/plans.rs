//! How SQLite carries out what is asked of the journal: never by reading all of it, never by sorting more than a segment.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::source::{FIRST_ID_SINCE, Source};
use super::{Condition, Order, Position, Replays, Search};
use crate::event::Bytes;
use crate::store::SCHEMA;
use crate::store::segment::next_segment;

fn journal(topics: usize) -> Connection {
    let journal = Connection::open_in_memory().unwrap();
    journal.execute_batch(SCHEMA).unwrap();
    let sql = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset) \
               VALUES ('acme', ?1, '{}', '2025-11-03 20:03:58.586440', 0, 0)";
    for number in 0..topics {
        let topic = format!("apexflow.topic.t{number}");
        journal.execute(sql, [&topic]).unwrap();
        let sql = "INSERT INTO kafka_position (topic, kafka_partition, next_offset) VALUES (?1, 0, 1)";
        journal.execute(sql, [&topic]).unwrap();
    }
    journal
}

fn plan(journal: &Connection, sql: &str, values: impl IntoIterator<Item = Value>) -> String {
    let mut explain = journal.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let lines = explain.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

/// The index of the replays is read from its end on: nothing else is in it.
fn reads_all(plan: &str) -> bool {
    plan.lines().any(|line| line.contains("SCAN event_journal") && !line.ends_with("INDEX event_journal_replays"))
}

/// Every condition there or not, in each order, at the beginning and further on.
fn searches() -> Vec<(Search, Option<Position>)> {
    let mut all = Vec::new();
    for bits in 0..1_u32 << 11 {
        let is = |bit: u32| bits & (1 << bit) != 0;
        let text = |bit, text: &str| is(bit).then(|| text.to_owned());
        let search = Search {
            tenant_id: text(0, "acme"),
            topic: text(1, if is(10) { "topic" } else { "apexflow.topic.t1" }),
            key: text(2, "acme:lead:17").map(|key| Bytes(key.into_bytes())),
            since: text(3, "2025-11-01"),
            until: text(4, "2025-11-05"),
            text: text(5, "50%"),
            conditions: if is(6) { vec![Condition::event_type("lead.created".to_owned())] } else { Vec::new() },
            replays: is(7).then_some(if is(10) { Replays::Only } else { Replays::None }),
            family_of: None,
            event_ids: None,
            order: if is(8) { Order::OldestFirst } else { Order::NewestFirst },
        };
        let after = Position { id: 17 };
        all.push((search, is(9).then_some(after)));
    }
    let family = |order| (Search { family_of: Some(1), order, ..Search::default() }, None);
    all.extend([family(Order::OldestFirst), family(Order::NewestFirst)]);
    all
}

#[test]
fn no_search_reads_the_whole_journal_or_sorts_more_than_a_segment() {
    for topics in [3, 40] {
        let journal = journal(topics);
        for (search, after) in searches() {
            let source = Source::new(&journal, &search, after.as_ref()).unwrap().unwrap();
            let values = [0, 0, 1024].map(Value::from).into_iter().chain(source.values.clone());
            let plan = plan(&journal, &source.sql, values);
            let shown = || format!("{search:?}\n{}\n{plan}", source.sql);
            assert!(!reads_all(&plan), "{}", shown());
            let is_of_a_segment = plan.contains("(<expr>=? AND") || plan.contains("(<expr>=?)");
            assert!(is_of_a_segment || !plan.contains("TEMP B-TREE"), "{}", shown());
            let is_bounded = plan.contains("rowid>? AND rowid<?") || plan.contains("id>? AND id<?");
            assert!(is_of_a_segment || is_bounded || search.family_of.is_some(), "{}", shown());
        }
    }
}

#[test]
fn what_a_search_asks_first_is_a_seek() {
    let journal = journal(3);
    for sql in [FIRST_ID_SINCE, next_segment(Order::NewestFirst), next_segment(Order::OldestFirst)] {
        let values = [1, 2].map(Value::from).into_iter().take(if sql == FIRST_ID_SINCE { 1 } else { 2 });
        let plan = plan(&journal, sql, values);
        assert!(plan.contains("SEARCH event_journal") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

/// Those of the operators' guide, of docs/operating.md, and what else the sink asks for one event or the newest.
#[test]
fn no_statement_of_the_guide_reads_the_whole_journal() {
    let journal = journal(3);
    for (sql, planned) in [
        // The ids alone are sorted: that they grow with the time is not known to SQLite.
        (
            "SELECT id FROM event_journal WHERE received_at >= '2025-11-03 00:00:00' ORDER BY id",
            "SEARCH event_journal USING COVERING INDEX event_journal_received (received_at>?)",
        ),
        (
            "SELECT id, topic, payload->>'name', received_at FROM event_journal WHERE tenant_id = 'acme' \
             ORDER BY received_at DESC",
            "SEARCH event_journal USING INDEX event_journal_tenant (ANY(<expr>) AND tenant_id=?)",
        ),
        // From the newest back, until there are twenty.
        (
            "SELECT id, tenant_id, payload, received_at FROM event_journal WHERE topic = 'apexflow.leads.created' \
             ORDER BY received_at DESC LIMIT 20",
            "SCAN event_journal USING INDEX event_journal_received",
        ),
        (
            "SELECT id FROM event_journal WHERE replay_of = 5 ORDER BY id",
            "SEARCH event_journal USING COVERING INDEX event_journal_replay (replay_of=?)",
        ),
        (
            "SELECT id FROM event_journal WHERE received_at >= '2025-11-03' AND received_at < '2025-11-04' ORDER BY id",
            "SEARCH event_journal USING COVERING INDEX event_journal_received (received_at>? AND received_at<?)",
        ),
    ] {
        let plan = plan(&journal, sql, []);
        assert_eq!(plan.lines().next(), Some(planned), "{sql}\n{plan}");
    }
    let letters = plan(&journal, "SELECT * FROM event_dlq ORDER BY received_at DESC", []);
    assert_eq!(letters, "SCAN event_dlq USING INDEX event_dlq_received");
}
