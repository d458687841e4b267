//! What was changed by hand is found, whatever it was: the hash chains over journal and audit.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::coverage::verify;
use crate::harness::{Embedded, Record, Sender, Setup, Sink, eventually};

const LEADS: &str = "apexflow.leads.created";
const CHAINED: &str = "journal.chain = true";

/// A sink with `count` chained events.
fn chained(count: u64) -> (Embedded, Sender, Sink) {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..count {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).toml(CHAINED).start();
    sink.await_events(count as i64);
    (broker, sender, sink)
}

fn heads(report: &str) -> Vec<String> {
    report.lines().filter_map(|line| line.trim().strip_prefix("head ")).map(str::to_owned).collect()
}

/// The heads as a program computes them that shares no code with the sink.
fn recomputed(journal: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chain/recompute.py");
    let done = Command::new("python3").arg(script).arg(journal).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_chain_that_others_compute_again_is_the_sinks_own() {
    let (_broker, sender, sink) = chained(300);
    // A key that is no text, headers, a value with an emoji, a replay, a retried dead letter.
    let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"\xff")), ("none", None)];
    let value = r#"{"tenant_id":"acme","name":"Zoë 🦀"}"#;
    sender.send(&Record {
        topic: LEADS,
        key: Some(b"\xffkey"),
        value: Some(value.as_bytes()),
        headers,
        ..Record::default()
    });
    sender.send(&Record { topic: LEADS, key: None, value: Some(b"no json"), ..Record::default() });
    sink.await_events(301);
    eventually("the dead letter is there", || sink.dead_letters() == 1);
    assert_eq!(sink.post("/replay/7?reason=look").status, 200);
    sink.await_events(302);
    let patch = r#"[{"op":"replace","path":"","value":{"tenant_id":"acme"}}]"#;
    let retry = |confirm: &str| {
        let url = format!("http://{}/dlq/1/retry?confirm={confirm}", sink.api);
        crate::harness::curl(&["-X", "POST", "-d", patch, &url])
    };
    let confirm = retry("x").json()["confirm"].as_str().unwrap().to_owned();
    assert_eq!(retry(&confirm).json()["status"], "journaled");

    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!((code, report.contains("journal: whole, 303 rows")), (0, true), "{report}");
    assert_eq!(heads(&report), recomputed(&sink.journal()));
    // Later the chain still has the heads that were written down, and it has no others.
    sender.event(LEADS, "acme", 1000);
    sink.await_events(304);
    let given: Vec<String> = heads(&report).into_iter().flat_map(|head| ["--head".to_owned(), head]).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let (code, text) = verify(&sink, &[&["--chain"], &given[..]].concat());
    assert_eq!((code, text.contains("the 2 heads that were given are in it")), (0, true), "{text}");
    let other = format!("journal:303:{}", "0".repeat(64));
    let (code, text) = verify(&sink, &["--chain", "--head", &other]);
    assert_eq!((code, text.contains("that was written down is not in it")), (1, true), "{text}");
}

/// Does `damage` to the stopped sink's file, has `verify --chain` look, and puts the file back.
#[track_caller]
fn found(sink: &Sink, damage: &str) -> String {
    let kept = std::fs::read(sink.journal()).unwrap();
    let journal = Connection::open(sink.journal()).unwrap();
    journal.execute_batch(damage).unwrap_or_else(|error| panic!("{damage}: {error}"));
    drop(journal);
    let (code, report) = verify(sink, &["--chain"]);
    std::fs::write(sink.journal(), kept).unwrap();
    assert_eq!(code, 1, "{damage}: {report}");
    let broken = report.lines().find(|line| line.contains("BROKEN")).unwrap();
    broken.to_owned()
}

#[test]
fn each_kind_of_tampering_is_found_and_named_by_its_first_row() {
    let (_broker, _sender, mut sink) = chained(200);
    assert_eq!(sink.post("/replay/3?reason=proof").status, 200);
    sink.await_events(201);
    assert_eq!(sink.stop(), Some(0));
    // What the write-ahead log may still have goes into the file, which is copied.
    Connection::open(sink.journal()).unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
    let unlocked = "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted;";
    let insert = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset) \
                  VALUES ('acme', 't', '{}', '2025-01-01 00:00:00.000000', 0, 0)";
    for (damage, names) in [
        ("UPDATE event_journal SET payload = '{}' WHERE id IN (57, 90)", "row 57: it was changed; and in 1 more"),
        ("UPDATE event_journal SET received_at = '2020-01-01 00:00:00.000000' WHERE id = 58", "row 58: it was changed"),
        ("UPDATE event_journal SET kafka_key = CAST(kafka_key AS BLOB) WHERE id = 59", "row 59: it was changed"),
        ("DELETE FROM event_journal WHERE id BETWEEN 60 AND 70", "row 60: it was removed"),
        ("DELETE FROM event_journal WHERE id = 61; DELETE FROM event_chain WHERE id = 61", "row 62: rows between 60 and"),
        ("DELETE FROM event_chain WHERE id = 63", "row 63: it was put in by hand"),
        (insert, "row 202: it was put in by hand"),
        ("DELETE FROM event_journal WHERE id > 195", "row 196: it was removed"),
        ("DELETE FROM event_journal WHERE id > 195; DELETE FROM event_chain WHERE id > 195", "row 196: the newest rows"),
        // Pruning by hand, with and without an anchor of one's own.
        ("DELETE FROM event_journal WHERE id <= 20", "row 1: it was removed"),
        (
            "UPDATE chain_segment SET anchor_id = 20, anchor = (SELECT link FROM event_chain WHERE id = 20) WHERE chain = 'journal';
             DELETE FROM event_journal WHERE id <= 20; DELETE FROM event_chain WHERE id <= 20",
            "row 21: the chain does not begin there",
        ),
        // Two rows change places.
        (
            "UPDATE event_journal SET id = -1 WHERE id = 30; UPDATE event_journal SET id = 30 WHERE id = 31;
             UPDATE event_journal SET id = 31 WHERE id = -1",
            "row 30: it was changed",
        ),
        // Erasing by hand.
        (
            "UPDATE event_journal SET payload = '{}', kafka_key = NULL, kafka_headers = NULL, erased = 1 WHERE id = 40",
            "row 40: it was changed",
        ),
    ] {
        let broken = found(&sink, damage);
        assert!(broken.starts_with("journal: BROKEN") && broken.contains(names), "{damage}: {broken}");
    }
    for (damage, names) in [
        ("UPDATE audit SET operator = 'bob' WHERE id = 2", "row 2: it was changed"),
        ("DELETE FROM audit WHERE id = 2", "row 2: it was removed"),
        (
            "INSERT INTO audit (at, operator, origin, action, target, outcome) VALUES ('', '', '', '', '', '')",
            "put in by hand",
        ),
    ] {
        let broken = found(&sink, &format!("{unlocked} {damage}"));
        assert!(broken.starts_with("audit: BROKEN") && broken.contains(names), "{damage}: {broken}");
    }
}

#[test]
fn the_chain_is_whole_after_kill_9_under_load() {
    let (_broker, sender, mut sink) = chained(100);
    let mut sent = 100;
    for _ in 0..4 {
        for number in 0..3000 {
            sender.queue_event(LEADS, "acme", sent + number);
        }
        sent += 3000;
        let before = sink.events();
        eventually("it stores them", || sink.events() > before);
        sink = sink.restart();
        let (code, report) = verify(&sink, &["--chain"]);
        assert_eq!(code, 0, "{report}");
    }
    sender.flush();
    sink.await_events(sent as i64);
    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!((code, report.contains(&format!("journal: whole, {sent} rows"))), (0, true), "{report}");
}

#[test]
fn rows_from_before_and_from_while_it_was_off_are_told_apart_from_the_chain() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = Setup::with(&broker.bootstrap()).start();
    let mut number = 0;
    let mut send = |sink: &Sink, count: i64| {
        let before = sink.events();
        for _ in 0..count {
            sender.queue_event(LEADS, "acme", number);
            number += 1;
        }
        sender.flush();
        sink.await_events(before + count);
    };
    send(&sink, 10);
    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!((code, report.contains("there is no chain")), (1, true), "{report}");
    let config = sink.folder.path().join("config.toml");
    let off = std::fs::read_to_string(&config).unwrap();
    let on = format!("{CHAINED}\n{off}");
    for (settings, rows) in [(&on, 20), (&off, 5), (&on, 7)] {
        std::fs::write(&config, settings).unwrap();
        sink = sink.restart();
        send(&sink, rows);
    }
    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!(code, 0, "{report}");
    for line in [
        "journal: whole, 27 rows",
        "rows 1 to 10 (10) are not in the chain: they are from before it began",
        "begun with row 11, ended after row 30",
        "rows 31 to 35 (5) are not in the chain: they are from while it was off",
        "begun with row 36",
    ] {
        assert!(report.contains(line), "{line}: {report}");
    }
    // Two segments each: the heads are those of the later ones.
    let all = recomputed(&sink.journal());
    assert_eq!(heads(&report), [all[1].as_str(), all[3].as_str()]);
    let acts: String = sink.value("SELECT group_concat(action, ' ') FROM (SELECT action FROM audit ORDER BY id)");
    assert_eq!(acts, "chain.begin chain.end chain.begin");
    // What was done while it was off stands outside of it; what is done inside is found.
    assert!(sink.sql("UPDATE event_journal SET payload = '{}' WHERE id = 33").status.success());
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
    assert!(sink.sql("UPDATE event_journal SET payload = '{}' WHERE id = 37").status.success());
    assert_eq!(verify(&sink, &["--chain"]).0, 1);
}
