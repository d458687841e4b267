//! What is too old or too much goes by itself, nothing else does, and what is gone is accounted for.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::coverage::verify;
use crate::harness::{DEADLINE, Embedded, Record, Sender, Setup, Sink, curl, eventually, within};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

/// So that a restart finds events to be as old as that; the order of the times stays.
fn make_old(sink: &Sink, ids: &str, day: &str) {
    let aged = format!(
        "UPDATE event_journal SET received_at = '{day} 10:00:00.' || substr('000000' || id, -6) WHERE id {ids}"
    );
    let ran = sink.sql(&aged);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn send(sender: &Sender, value: &str, count: usize) {
    for _ in 0..count {
        sender.queue(&Record { topic: LEADS, value: Some(value.as_bytes()), ..Record::default() });
    }
    sender.flush();
}

fn ids(sink: &Sink) -> String {
    sink.value("SELECT coalesce(group_concat(id, ' '), '') FROM (SELECT id FROM event_journal ORDER BY id)")
}

/// The journal says of itself that nothing is missing, and how many rows were deleted.
fn assert_accounted_for(sink: &Sink, deleted: i64) {
    let (code, report) = verify(sink, &["--offline"]);
    assert_eq!(code, 0, "{report}");
    let counted: i64 = sink.value("SELECT sum(pruned) FROM kafka_position");
    assert_eq!(counted, deleted, "{report}");
    assert_eq!(sink.get("/integrity").json()["complete"], json!(true));
}

#[test]
fn events_go_by_their_own_age_and_what_somebody_has_still_to_deal_with_stays() {
    let broker = Embedded::start(&[(LEADS, 1), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let rules = "retention.age_max = \"10d\"\nretention.interval = \"1s\"\n\
                 retention.topics.\"apexflow.jobs.created\".age_max = \"20000d\"\nretention.tenants.kept.age_max = \"0s\"\n";
    let sink = Setup::with(&broker.bootstrap()).toml(rules).start();
    // Ids 1 to 6: two that go, one of a job, one of a topic and one of a tenant that keep theirs, and one that goes.
    for (topic, tenant) in
        [(LEADS, "acme"), (LEADS, "acme"), (LEADS, "acme"), (JOBS, "acme"), (LEADS, "kept"), (LEADS, "acme")]
    {
        let before = sink.events();
        sender.event(topic, tenant, 1);
        sink.await_events(before + 1);
    }
    for _ in 0..2 {
        sender.send(&Record { topic: LEADS, value: Some(b"{"), ..Record::default() });
    }
    eventually("the dead letters are there", || sink.dead_letters() == 2);
    assert_eq!(sink.post("/dlq/2/discard?reason=seen").status, 200);
    let url = format!("http://{}/replay/batch?rate_per_s=1", sink.api);
    assert_eq!(curl(&["-X", "POST", "-d", "[3]", &url]).status, 202);
    sink.post("/replay/jobs/1/pause");
    // However fast it was: what counts is that it is not at its end.
    assert!(sink.sql("UPDATE replay_job SET state = 'paused', ended_at = NULL").status.success());
    make_old(&sink, "<= 6", "2020-03-01");
    assert!(sink.sql("UPDATE event_dlq SET received_at = '2020-03-01 10:00:00.000000'").status.success());
    sender.event(LEADS, "acme", 2);

    let sink = sink.restart();
    eventually("the old ones are gone", || ids(&sink).starts_with("3 4 5 7"));
    eventually("the letter is gone", || sink.dead_letters() == 1);
    assert_eq!(sink.value::<String>("SELECT state FROM event_dlq"), "open");
    eventually("the act has its end", || sink.get("/audit?action=prune").json()[0]["outcome"] == "done");
    let audit = sink.get("/audit?action=prune").json();
    assert_eq!((&audit[0]["count"], &audit[0]["reason"]), (&json!(3), &json!("retention.age_max")), "{audit}");
    assert_eq!(sink.metric(&format!("crm_events_pruned_total{{topic=\"{LEADS}\"}}")), 3.0);
    assert_accounted_for(&sink, 4);
    let acts = sink.get("/audit?action=prune").json();
    assert_eq!(acts.as_array().unwrap().len(), 2, "what must stay is no reason for another act: {acts}");

    // With the job at its end its event goes too.
    assert_eq!(sink.post("/replay/jobs/1/cancel").status, 200);
    eventually("the job's event is gone", || ids(&sink).starts_with("4 5 7"));
    assert_accounted_for(&sink, 5);
}

#[test]
fn a_log_that_somebody_keeps_from_beginning_again_has_a_bound_and_nothing_is_lost() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).toml("journal.wal_bytes_max = 16777216\n").start();
    let value = format!(r#"{{"tenant_id":"acme","text":"{}"}}"#, "x".repeat(20_000));
    send(&sender, &value, 1);
    sink.await_events(1);
    let mut reader = Command::new("sqlite3");
    let mut reader = reader.arg(sink.journal()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = reader.stdin.as_mut().unwrap();
    writeln!(input, "BEGIN; SELECT count(*) FROM event_journal;").unwrap();
    let mut said = [0; 2];
    reader.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    let named = format!("sqlite3 (process {})", reader.id());
    let mut sent = 1;
    within(DEADLINE, "the reader is named", || {
        send(&sender, &value, 50);
        sent += 50;
        eventually("they are stored, or the log is at its limit", || {
            sink.events() == sent || sink.get("/health").status == 503
        });
        sink.get("/health").status == 503
    });
    assert!(sink.get("/health").body.contains(&named), "{}", sink.get("/health").body);
    let log = sink.metric("crm_events_wal_bytes");
    assert!((16e6..40e6).contains(&log), "{log}: the limit, and one transaction");
    send(&sender, &value, 50);
    let stored = sink.events();
    assert!(stored < sent + 50, "{stored}: nothing is stored beyond it");
    reader.kill().unwrap();
    reader.wait().unwrap();
    sink.await_events(sent + 50);
    eventually("all is well", || sink.get("/health").status == 200);
    assert_accounted_for(&sink, 0);
}

#[test]
fn a_journal_that_is_too_large_loses_its_oldest_days_and_gives_the_room_back_even_if_it_is_killed_meanwhile() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let rules = "retention.size_max = 16777216\nretention.interval = \"1s\"\n";
    let sink = Setup::with(&broker.bootstrap()).toml(rules).start();
    let value = format!(r#"{{"tenant_id":"acme","text":"{}"}}"#, "x".repeat(20_000));
    // The broker keeps little.
    for wave in 1..=10 {
        send(&sender, &value, 150);
        sink.await_events(wave * 150);
    }
    eventually("it cannot help it: all are of the last hour", || sink.get("/health").status == 503);
    assert!(sink.get("/health").body.contains("retention.size_max"), "{}", sink.get("/health").body);
    assert_eq!(sink.events(), 1500);
    make_old(&sink, "<= 500", "2020-03-01");
    make_old(&sink, "BETWEEN 501 AND 1000", "2020-03-02");
    let before = sink.journal().metadata().unwrap().len();
    // At once, so that it is killed in the middle.
    eventually("the first are gone", || sink.events() < 1500);
    let sink = sink.restart();
    eventually("there is no need to go on", || sink.get("/health").status == 200 && sink.events() <= 1000);
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE id > 1000"), 500, "today's stay");
    assert_eq!(sink.events() % 500, 0, "whole days: {}", sink.events());
    eventually("the room goes back to the disk", || sink.journal().metadata().unwrap().len() < before * 3 / 4);
    assert_accounted_for(&sink, 1500 - sink.events());
    let storage = sink.get("/storage").json();
    assert_eq!(storage["journal_bytes"], json!(sink.journal().metadata().unwrap().len()), "{storage}");
    assert_eq!(storage["retention"]["size_max"], json!(16_777_216), "{storage}");
    let counted = storage["rows"]["events"].as_i64().unwrap();
    assert!((sink.events()..=1500).contains(&counted) && storage["can_shrink"] == true, "{storage}");
    assert!(storage["disk_free_bytes"].as_u64() > Some(0) && storage["retention_ended_at"].is_string(), "{storage}");
    let oldest: String = sink.value("SELECT min(received_at) FROM event_journal");
    assert_eq!(storage["oldest_received_at"], json!(format!("{}+00:00", oldest.replacen(' ', "T", 1))));
    sender.event(LEADS, "acme", 1);
    sink.await_events(sink.events() + 1);
}
