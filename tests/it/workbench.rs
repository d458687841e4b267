//! The dead letters as a workbench: retried, republished, edited, discarded, each once and all of it in the audit.

use std::thread;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::coverage::verify;
use crate::harness::{Answer, Embedded, Record, Sender, Setup, Sink, curl, eventually, kcat_read};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

/// A sink whose dead letters are the events 0 to `constrained` (refused by a constraint that is dropped again), and
/// after them each of `broken`.
fn sink_with(constrained: u64, broken: &[&[u8]], toml: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1), (JOBS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).toml(toml).start();
    let sender = Sender::to(&broker.bootstrap());
    sql(&sink, "ALTER TABLE event_journal ADD CONSTRAINT refuse_all CHECK (false)");
    for number in 0..constrained {
        sender.event(LEADS, "acme", number);
    }
    eventually("they are refused", || sink.dead_letters() == constrained as i64);
    for value in broken {
        sender.send(&Record { topic: JOBS, key: Some(b"acme:job:7"), value: Some(value), ..Record::default() });
    }
    let letters = constrained as i64 + broken.len() as i64;
    eventually("the dead letters are there", || sink.dead_letters() == letters);
    sql(&sink, "ALTER TABLE event_journal DROP CONSTRAINT refuse_all");
    (broker, sink)
}

#[track_caller]
fn sql(sink: &Sink, statements: &str) {
    let ran = sink.sql(statements);
    assert!(ran.status.success(), "{statements}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn letter(sink: &Sink, id: i64) -> Value {
    sink.get(&format!("/dlq/{id}")).json()
}

fn patch(sink: &Sink, path: &str, patch: &Value) -> Answer {
    let url = format!("http://{}{path}", sink.api);
    curl(&["-X", "POST", "-H", "Content-Type: application/json-patch+json", "-d", &patch.to_string(), &url])
}

#[test]
fn a_retry_runs_the_record_through_ingestion_and_the_row_says_what_it_became() {
    let (broker, sink) = sink_with(3, &[], "");
    eventually("they are shown", || sink.metric("crm_events_dlq_open") == 3.0);
    let retried = sink.post("/dlq/2/retry?reason=constraint+dropped");
    assert_eq!(retried.status, 200, "{}", retried.body);
    assert_eq!(retried.json(), json!({"status": "journaled", "dead_letter_id": 2, "event_id": 1, "topic": LEADS}));
    let (event, row) = (sink.get("/events/1").json(), letter(&sink, 2));
    for (of_event, of_row) in [
        ("kafka_offset", "kafka_offset"),
        ("kafka_key", "kafka_key"),
        ("kafka_timestamp", "kafka_timestamp"),
        ("dlq_id", "id"),
        ("id", "event_id"),
    ] {
        assert_eq!(event[of_event], row[of_row], "{of_event}");
    }
    assert_eq!((&event["tenant_id"], event["payload"].to_string()), (&json!("acme"), crate::harness::event("acme", 1)));
    assert_eq!((&row["state"], &row["attempts"], &row["last_error"]), (&json!("journaled"), &json!(1), &Value::Null));
    assert!(row["error"].as_str().unwrap().starts_with("constraint: "), "what was wrong stays: {row}");

    let again = sink.post("/dlq/2/retry");
    assert_eq!(again.status, 409);
    assert_eq!(again.detail(), "dead letter 2 is journaled as event 1; nothing was done");
    assert_eq!((sink.events(), sink.dead_letters()), (1, 3));
    let open: Vec<Value> = sink.get("/dlq").json().as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(open, [json!(3), json!(1)], "GET /dlq has what is to be done");
    assert_eq!((sink.metric("crm_events_dlq_rows"), sink.metric("crm_events_dlq_open")), (3.0, 2.0));
    assert_eq!(sink.metric_sum("crm_events_persisted_total"), 1.0);
    // The record was read from Kafka once, and counts once.
    assert_eq!(verify(&sink, &[]).0, 0, "{}", verify(&sink, &[]).1);
    assert_eq!(kcat_read(&broker.bootstrap(), LEADS).len(), 3, "no other consumer gets it again");
}

#[test]
fn of_retries_at_the_same_time_one_stores_the_record() {
    let (_broker, sink) = sink_with(1, &[], "");
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| sink.post("/dlq/1/retry"))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 409)));
    assert_eq!(sink.events(), 1);
    let republished: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| sink.post("/dlq/1/retry?mode=republish").status)).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert_eq!(republished, [409; 4], "what was stored is not sent as well");
}

#[test]
fn what_is_refused_still_stays_open_with_the_attempt() {
    let (_broker, sink) = sink_with(0, &[b"{\"n\":1"], "");
    let refused = sink.post("/dlq/1/retry");
    assert_eq!((refused.status, &refused.json()["attempts"]), (409, &json!(1)));
    assert!(refused.detail().contains("not_json: EOF"), "{}", refused.body);
    let row = letter(&sink, 1);
    assert_eq!((&row["state"], &row["attempts"]), (&json!("open"), &json!(1)));
    assert!(
        row["last_error"].as_str().unwrap().starts_with("not_json: ") && row["last_attempt_at"].is_string(),
        "{row}"
    );
    assert_eq!(sink.post("/dlq/1/retry?mode=resend").status, 422);
    assert_eq!(sink.post("/dlq/1/retry?again=true").status, 422);
    assert_eq!(sink.post("/dlq/9/retry").status, 404);
}

#[test]
fn a_rehearsal_says_what_would_pass_and_writes_nothing() {
    let (_broker, sink) = sink_with(4, &[b"nonsense", b"[1]"], "");
    sql(
        &sink,
        "CREATE TRIGGER odd BEFORE INSERT ON event_journal WHEN NEW.payload->>'id' % 2 = 1 BEGIN SELECT RAISE(ABORT, 'odd'); END",
    );
    for (id, would) in [(1, "pass"), (2, "fail"), (5, "fail")] {
        let rehearsed = sink.post(&format!("/dlq/{id}/retry?dry_run=true"));
        assert_eq!((rehearsed.status, &rehearsed.json()["would"]), (200, &json!(would)), "{id}: {}", rehearsed.body);
    }
    let rehearsed = sink.post("/dlq/retry?since=2025-11-03&dry_run=true").json();
    assert_eq!(
        (&rehearsed["tried"], &rehearsed["would_pass"], &rehearsed["would_fail"]),
        (&json!(6), &json!(2), &json!(4))
    );
    assert_eq!(rehearsed["failures"][0], json!({"dead_letter_id": 2, "error": "trigger: odd"}));
    assert_eq!(sink.events(), 0);
    assert_eq!(sink.value::<i64>("SELECT sum(attempts) FROM event_dlq WHERE state = 'open'"), 0);
    let next: i64 = sink.value("SELECT count(*) FROM sqlite_sequence WHERE name = 'event_journal' AND seq > 0");
    assert_eq!(next, 0, "not even an id is used up");

    let retried = sink.post("/dlq/retry?since=2025-11-03").json();
    assert_eq!((&retried["tried"], &retried["journaled"], &retried["failed"]), (&json!(6), &json!(2), &json!(4)));
    assert_eq!(sink.events(), 2);
}

#[test]
fn a_trigger_that_rolls_everything_back_costs_only_its_own_record() {
    let (_broker, sink) = sink_with(4, &[], "");
    sql(
        &sink,
        "CREATE TRIGGER third BEFORE INSERT ON event_journal WHEN NEW.payload->>'id' = 2 BEGIN SELECT RAISE(ROLLBACK, 'third'); END",
    );
    let retried = sink.post("/dlq/retry?error_reason=constraint").json();
    assert_eq!((&retried["journaled"], &retried["failed"]), (&json!(3), &json!(1)), "{retried}");
    assert_eq!((sink.events(), letter(&sink, 3)["attempts"].clone()), (3, json!(1)));
    assert_eq!(sink.get("/health").status, 200);
}

#[test]
fn a_republished_record_is_on_its_topic_once_more_and_comes_back() {
    let (broker, sink) = sink_with(2, &[], "");
    let sent = sink.post("/dlq/1/retry?mode=republish");
    assert_eq!(sent.status, 200, "{}", sent.body);
    assert_eq!(
        sent.json(),
        json!({"status": "republished", "dead_letter_id": 1, "topic": LEADS, "partition": 0, "offset": 2})
    );
    sink.await_events(1);
    let row = letter(&sink, 1);
    assert_eq!((&row["state"], &row["event_id"], &row["attempts"]), (&json!("republished"), &json!(1), &json!(1)));
    let records = kcat_read(&broker.bootstrap(), LEADS);
    for part in ["partition", "key", "payload"] {
        assert_eq!(records[0][part], records[2][part], "{part}");
    }
    let names: Vec<_> = records[2]["headers"].as_array().unwrap().iter().step_by(2).collect();
    assert_eq!(names, ["crm-replay-dlq", "crm-replay-journal", "crm-replay-position", "crm-replay-at"]);
    assert_eq!(sink.post("/dlq/1/retry?mode=republish").status, 409);
    assert_eq!(sink.get("/events/1").json()["dlq_id"], Value::Null, "it is a record of its own");
    assert_eq!(verify(&sink, &[]).0, 0);
}

#[test]
fn what_may_have_arrived_is_uncertain_until_it_comes_back_or_somebody_decides() {
    let (broker, sink) = sink_with(2, &[], "replay.timeout = '1s'");
    broker.cluster().broker_down(-1).unwrap();
    assert_eq!(sink.post("/dlq/1/retry?mode=republish").status, 504);
    assert_eq!(letter(&sink, 1)["state"], "uncertain");
    let refused = sink.post("/dlq/1/retry?mode=republish");
    assert_eq!((refused.status, refused.detail().contains("again=true")), (409, true), "{}", refused.body);
    assert_eq!(sink.post("/dlq/1/retry").status, 409);
    broker.cluster().broker_up(-1).unwrap();
    eventually("it is sent once more", || matches!(sink.post("/dlq/1/retry?mode=republish&again=true").status, 200));
    sink.await_events(1);
    assert_eq!(letter(&sink, 1)["state"], "republished");
}

#[test]
fn killed_while_it_republishes_it_does_not_claim_to_know() {
    let (broker, mut sink) = sink_with(1, &[], "replay.timeout = '60s'");
    broker.cluster().broker_down(-1).unwrap();
    let url = format!("http://{}/dlq/1/retry?mode=republish", sink.api);
    thread::scope(|scope| {
        scope.spawn(|| {
            std::process::Command::new("curl").args(["-sS", "-X", "POST", &url]).output().unwrap();
        });
        eventually("it is being sent", || letter(&sink, 1)["state"] == "republishing");
        sink.kill();
    });
    let sink = sink.restart();
    let row = letter(&sink, 1);
    assert_eq!(row["state"], "uncertain");
    assert!(row["last_error"].as_str().unwrap().contains("ended while"), "{row}");
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM audit WHERE action = 'dlq.retry' AND outcome = 'started'"), 1);
}

#[test]
fn an_edit_is_shown_first_and_exactly_one_record_is_stored() {
    let (_broker, sink) =
        sink_with(0, &[br#"{"tenant_id":"acme","n":1.10,"big":123456789012345678901234567890,"x":"#], "");
    sql(&sink, "ALTER TABLE event_journal ADD CONSTRAINT named CHECK (payload->>'name' <> '')");
    let change = json!([{"op": "add", "path": "", "value": {"tenant_id": "acme", "name": ""}}]);
    let shown = patch(&sink, "/dlq/1/retry", &change);
    assert_eq!(shown.status, 409);
    let shown = shown.json();
    assert_eq!((&shown["after"], shown["before"].as_str().unwrap().len()), (&change[0]["value"], 70), "{shown}");
    let confirm = shown["confirm"].as_str().unwrap();
    assert_eq!(sink.events(), 0, "nothing is done before it was seen");
    let refused = patch(&sink, &format!("/dlq/1/retry?confirm={confirm}"), &change);
    assert_eq!((refused.status, refused.detail().contains("named")), (409, true), "{}", refused.body);
    let other = json!([{"op": "add", "path": "", "value": {"tenant_id": "acme", "name": "Ada"}}]);
    assert_eq!(
        patch(&sink, &format!("/dlq/1/retry?confirm={confirm}"), &other).status,
        409,
        "another change, another confirmation"
    );
    let confirm = patch(&sink, "/dlq/1/retry", &other).json()["confirm"].as_str().unwrap().to_owned();
    assert_eq!(patch(&sink, &format!("/dlq/1/retry?confirm={confirm}&dry_run=true"), &other).json()["would"], "pass");
    let done = patch(&sink, &format!("/dlq/1/retry?confirm={confirm}"), &other);
    assert_eq!((done.status, &done.json()["event_id"]), (200, &json!(1)), "{}", done.body);
    assert_eq!(sink.get("/events/1").json()["payload"], other[0]["value"]);
    let row = letter(&sink, 1);
    assert!(row["payload"].as_str().unwrap().ends_with(r#","x":"#), "the bytes that came stay: {row}");
    assert!(row["note"].as_str().unwrap().starts_with("edited: [{"), "{row}");
    for way in ["/dlq/1/retry", "/dlq/1/retry?mode=republish"] {
        assert_eq!(sink.post(way).status, 409, "the original does not go out as well");
    }
    assert_eq!(sink.events(), 1);
}

#[test]
fn an_edit_changes_what_it_names_and_nothing_else() {
    let (_broker, sink) =
        sink_with(0, &[br#"{"tenant_id":"acme","z":1.10,"a":123456789012345678901234567890,"name":"Bob"}"#], "");
    let change =
        json!([{"op": "test", "path": "/name", "value": "Bob"}, {"op": "replace", "path": "/name", "value": "Ada"}]);
    let shown = patch(&sink, "/dlq/1/retry", &change).json();
    assert_eq!(shown["difference"], json!([{"op": "replace", "path": "/name", "value": "Ada"}]));
    let path = format!("/dlq/1/retry?confirm={}", shown["confirm"].as_str().unwrap());
    assert_eq!(patch(&sink, &path, &change).status, 200);
    let payload: String = sink.value("SELECT payload FROM event_journal WHERE id = 1");
    assert_eq!(payload, r#"{"tenant_id":"acme","z":1.10,"a":123456789012345678901234567890,"name":"Ada"}"#);
    let (_broker, sink) = sink_with(1, &[], "");
    for (wrong, status, says) in [
        (json!({"op": "add"}), 422, "must be a JSON Patch"),
        (json!([{"op": "replace", "path": "/none", "value": 1}]), 409, "does not fit"),
        (json!([{"op": "test", "path": "/name", "value": "Eve"}]), 409, "does not fit"),
    ] {
        let refused = patch(&sink, "/dlq/1/retry", &wrong);
        assert_eq!((refused.status, refused.detail().contains(says)), (status, true), "{}", refused.body);
    }
}

#[test]
fn groups_hold_what_failed_alike_and_are_retried_or_discarded_as_one() {
    let (_broker, sink) = sink_with(3, &[b"{\"a\":", b"{\"abc\":\"d\",", b"[1]", b"[2,3]", b"[]", b"[7,8,9]"], "");
    let groups = sink.get("/dlq/groups").json();
    let groups = groups.as_array().unwrap();
    let seen: Vec<_> = groups.iter().map(|g| (g["reason"].as_str().unwrap(), g["count"].as_i64().unwrap())).collect();
    assert_eq!(seen, [("not_an_object", 4), ("constraint", 3), ("not_json", 2)]);
    assert_eq!(groups[0]["sample"]["id"], 9, "the newest");
    assert!(groups[0]["first_received_at"].as_str().unwrap() < groups[0]["last_received_at"].as_str().unwrap());
    let (arrays, constrained) = (groups[0]["group"].as_str().unwrap(), groups[1]["group"].as_str().unwrap());

    let dry = sink.post(&format!("/dlq/groups/{constrained}/retry?dry_run=true")).json();
    assert_eq!((&dry["tried"], &dry["would_pass"]), (&json!(3), &json!(3)));
    let retried = sink.post(&format!("/dlq/groups/{constrained}/retry"));
    assert_eq!((retried.status, &retried.json()["journaled"]), (200, &json!(3)), "{}", retried.body);
    assert_eq!(sink.post(&format!("/dlq/groups/{arrays}/discard")).status, 422, "why is to be said");
    let wrong = sink.post(&format!("/dlq/groups/{arrays}/discard?reason=test+data&confirm=3"));
    assert_eq!((wrong.status, &wrong.json()["count"]), (409, &json!(4)));
    let discarded = sink.post(&format!("/dlq/groups/{arrays}/discard?reason=test+data"));
    assert_eq!(discarded.json(), json!({"status": "discarded", "discarded": 4}));
    assert_eq!(sink.post(&format!("/dlq/groups/{arrays}/discard?reason=again")).status, 404);
    assert_eq!((letter(&sink, 9)["note"].clone(), sink.dead_letters()), (json!("test data"), 9));
    assert_eq!(sink.get("/dlq/groups").json().as_array().unwrap().len(), 1);
    assert_eq!(sink.get("/dlq/groups?state=all").json().as_array().unwrap().len(), 3);
}

#[test]
fn letters_are_found_by_what_is_known_of_them_and_paged() {
    let (_broker, sink) = sink_with(5, &[b"x", b"[1]"], "");
    assert_eq!(sink.post("/dlq/3/discard?reason=seen").json(), json!({"status": "discarded", "dead_letter_id": 3}));
    assert_eq!(sink.post("/dlq/3/discard?reason=seen").status, 409);
    assert_eq!(sink.post("/dlq/4/retry").status, 200);
    let ids = |query: &str| -> Vec<i64> {
        let got = sink.get(&format!("/dlq?{query}"));
        assert_eq!(got.status, 200, "{query}: {}", got.body);
        got.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("state=open"), [7, 6, 5, 2, 1]);
    assert_eq!(ids("state=discarded"), [3]);
    assert_eq!(ids("state=journaled"), [4]);
    assert_eq!(ids(&format!("topic={LEADS}")), [5, 2, 1]);
    assert_eq!(ids("reason=not_an_object"), [7]);
    assert_eq!(ids("since=2100-01-01"), Vec::<i64>::new());
    let mut seen = Vec::new();
    let mut path = "/dlq?state=all&limit=3".to_owned();
    loop {
        let page = sink.get(&path);
        seen.extend(page.json().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()));
        let Some(link) = page.head.lines().find_map(|line| line.strip_prefix("Link: <")) else { break };
        path = link.split('>').next().unwrap().to_owned();
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let row = &sink.get("/dlq?state=discarded").json()[0];
    assert_eq!(
        (&row["state"], &row["note"], &row["reason"]),
        (&json!("discarded"), &json!("seen"), &json!("constraint"))
    );
    assert_eq!(sink.get("/dlq?state=gone").status, 422);
    for (path, says) in [
        ("/dlq/retry", "filter: is empty"),
        ("/dlq/retry?reason=because", "filter: is empty"),
        ("/dlq/retry?topik=x", "topik: is no parameter here"),
    ] {
        let refused = sink.post(path);
        assert_eq!((refused.status, refused.detail().contains(says)), (422, true), "{path}: {}", refused.body);
    }
    assert_eq!(sink.post("/dlq/retry?topic=nothing").status, 404);
}

#[test]
fn many_dead_letters_need_their_count_as_a_confirmation() {
    let (_broker, sink) = sink_with(4, &[], "replay.confirm_above = 3");
    let asked = sink.post("/dlq/retry?error_reason=constraint");
    assert_eq!((asked.status, &asked.json()["count"]), (409, &json!(4)), "{}", asked.body);
    assert_eq!(sink.post("/dlq/retry?error_reason=constraint&dry_run=true").status, 200);
    assert_eq!(sink.events(), 0);
    assert_eq!(sink.post("/dlq/retry?error_reason=constraint&confirm=4").json()["journaled"], 4);
}

#[test]
fn the_audit_has_every_act_the_refused_and_the_rehearsed_ones_too_and_only_grows() {
    let (_broker, sink) = sink_with(2, &[b"x"], "");
    let ask = |path: &str| {
        let url = format!("http://{}{path}", sink.api);
        curl(&["-X", "POST", "-H", "X-Operator: anna", &url]).status
    };
    assert_eq!(ask("/dlq/1/retry?reason=mended"), 200);
    assert_eq!(ask("/replay/1"), 200);
    assert_eq!(ask("/replay/77"), 404);
    assert_eq!(ask("/replay/range?start=2025-11-03&dry_run=true"), 200);
    assert_eq!(ask("/replay/range?start=2025-11-03&end=2025-11-02"), 422);
    assert_eq!(ask("/dlq/3/retry"), 409);
    assert_eq!(ask("/dlq/3/retry?dry_run=true"), 200);
    assert_eq!(ask("/dlq/3/discard"), 422);
    assert_eq!(ask("/dlq/3/discard?reason=noise"), 200);
    assert_eq!(ask("/consumer/resume"), 200);
    assert_eq!(sink.get("/replay/1").status, 405);
    let rows = sink.get("/audit?limit=100").json();
    let rows = rows.as_array().unwrap();
    let seen: Vec<String> = rows
        .iter()
        .rev()
        .map(|row| format!("{} {} {}", row["action"].as_str().unwrap(), row["outcome"].as_str().unwrap(), row["count"]))
        .collect();
    assert_eq!(
        seen,
        [
            "dlq.retry done 1",
            "replay started 1",
            "replay done 1",
            "replay refused null",
            "replay.job dry_run 2",
            "replay.job refused null",
            "dlq.retry refused 0",
            "dlq.retry dry_run 1",
            "dlq.discard refused null",
            "dlq.discard done 1",
            "consumer.resume done 0",
        ]
    );
    assert!(rows.iter().all(|row| row["operator"] == "anna" && row["origin"] == "127.0.0.1"));
    let by = |id: usize| &rows[rows.len() - id];
    assert_eq!((&by(3)["started_id"], &by(1)["reason"]), (&by(2)["id"], &json!("mended")));
    assert_eq!(by(3)["detail"], "partition 0, offset 2");
    assert_eq!(by(1)["target"], "dead letter 1 through ingestion");
    assert!(by(4)["detail"].as_str().unwrap().contains("event 77 not found"));
    let newest = sink.get("/audit?action=dlq.discard&limit=1");
    assert_eq!((&newest.json()[0]["outcome"], newest.head.contains("rel=\"next\"")), (&json!("done"), true));
    for statement in ["DELETE FROM audit", "UPDATE audit SET operator = 'nobody'"] {
        let refused = sink.sql(statement);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("the audit only grows"), "{statement}");
    }
}

#[test]
fn what_cannot_be_put_down_is_not_done() {
    let (broker, sink) = sink_with(1, &[], "");
    assert_eq!(sink.post("/dlq/1/retry").status, 200);
    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let replayed = sink.post("/replay/1");
    assert_eq!(replayed.status, 503, "{}", replayed.body);
    assert_eq!(sink.post("/replay/range?start=2025-11-03").status, 503);
    let before = kcat_read(&broker.bootstrap(), LEADS).len();
    other.execute_batch("ROLLBACK").unwrap();
    eventually("it is healthy again", || sink.get("/health").status == 200);
    assert_eq!((before, kcat_read(&broker.bootstrap(), LEADS).len()), (1, 1), "nothing went out, then or later");
    assert_eq!(sink.post("/replay/1").status, 200);
}
