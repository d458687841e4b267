//! How SQLite carries out what is asked of the journal: never by reading all of it, never by sorting what it found.

use rusqlite::{Connection, params_from_iter};

use super::source::{FIRST_ID_SINCE, Source};
use super::topics::{IS_KNOWN, KNOWN};
use super::{Condition, Order, Position, Replays, Search};
use crate::event::Bytes;
use crate::store::SCHEMA;

fn journal(topics: usize) -> Connection {
    let journal = Connection::open_in_memory().unwrap();
    journal.execute_batch(SCHEMA).unwrap();
    let sql = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset) \
               VALUES ('acme', ?1, '{}', '2025-11-03 20:03:58.586440', 0, 0)";
    for number in 0..topics {
        journal.execute(sql, [format!("apexflow.topic.t{number}")]).unwrap();
    }
    journal
}

fn plan(journal: &Connection, sql: &str, values: Vec<rusqlite::types::Value>) -> String {
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
            order: if is(8) { Order::OldestFirst } else { Order::NewestFirst },
        };
        let after = Position { received_at: "2025-11-03 20:03:58.586440".to_owned(), id: 17 };
        all.push((search, is(9).then_some(after)));
    }
    let family = |order| (Search { family_of: Some(1), order, ..Search::default() }, None);
    all.extend([family(Order::OldestFirst), family(Order::NewestFirst)]);
    all
}

#[test]
fn no_search_reads_the_whole_journal_or_sorts_what_it_finds() {
    for topics in [3, 40] {
        let journal = journal(topics);
        for (search, after) in searches() {
            let source = Source::new(&journal, &search, after.as_ref()).unwrap().unwrap();
            let plan = plan(&journal, &source.sql, source.values.clone());
            let shown = || format!("{search:?}\n{}\n{plan}", source.sql);
            assert!(!reads_all(&plan) && !plan.contains("TEMP B-TREE"), "{}", shown());
            let newest_first = search.order == Order::NewestFirst;
            let is_bounded = [
                ('<', search.until.is_some() || (after.is_some() && newest_first)),
                ('>', search.since.is_some() || (after.is_some() && !newest_first)),
            ];
            for (sign, _) in is_bounded.into_iter().filter(|(_, is_bounded)| *is_bounded) {
                let range = plan.lines().find(|line| line.contains("SEARCH event_journal"));
                assert!(range.is_some_and(|line| line.contains(&format!("{sign}?"))), "no {sign}: {}", shown());
            }
        }
    }
}

#[test]
fn what_a_search_asks_first_is_a_seek() {
    let journal = journal(3);
    for sql in [FIRST_ID_SINCE, IS_KNOWN, KNOWN] {
        let plan = plan(&journal, sql, vec![1.into()]);
        assert!(!reads_all(&plan) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}

/// Those of the operators' guide, of docs/operating.md, and what else the sink asks for one event or the newest.
#[test]
fn no_statement_of_the_guide_reads_the_whole_journal() {
    let journal = journal(3);
    for (sql, is_sorted) in [
        // The ids alone are sorted: that they grow with the time is not known to SQLite.
        ("SELECT id FROM event_journal WHERE received_at >= '2025-11-03 00:00:00' ORDER BY id", true),
        (
            "SELECT id, topic, payload->>'name', received_at FROM event_journal WHERE tenant_id = 'acme' \
             ORDER BY received_at DESC",
            false,
        ),
        (
            "SELECT id, tenant_id, payload, received_at FROM event_journal WHERE topic = 'apexflow.leads.created' \
             ORDER BY received_at DESC LIMIT 20",
            false,
        ),
        ("SELECT id FROM event_journal WHERE replay_of = 5 ORDER BY id", false),
        (
            "SELECT id FROM event_journal WHERE received_at >= '2025-11-03' AND received_at < '2025-11-04' ORDER BY id",
            true,
        ),
    ] {
        let plan = plan(&journal, sql, Vec::new());
        assert!(!reads_all(&plan), "{sql}\n{plan}");
        assert_eq!(plan.contains("TEMP B-TREE"), is_sorted, "{sql}\n{plan}");
    }
    let letters = plan(&journal, "SELECT * FROM event_dlq ORDER BY received_at DESC", Vec::new());
    assert_eq!(letters, "SCAN event_dlq USING INDEX event_dlq_received");
}
