//! Replay jobs: an operator sees what will happen, it happens once, and it can be watched, stopped and accounted for.

use std::collections::BTreeMap;
use std::thread;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::faults::replayed::{count, job};
use crate::harness::{Answer, Embedded, Record, Sender, Setup, Sink, curl, eventually, kcat_read};

const LEADS: &str = "apexflow.leads.created";
const STATUS: &str = "apexflow.leads.status_changed";
/// A partition goes to each of four keys.
const KEYS: [&str; 4] = ["acme:lead:1", "acme:lead:2", "globex:lead:3", "globex:lead:4"];

/// A sink with `events` events over two topics and four keys, the number of each in its payload.
fn sink_with(events: u64, toml: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 2), (STATUS, 2), ("elsewhere", 2)]);
    let sink = Setup::with(&broker.bootstrap()).toml(toml).start();
    send(&broker, 0..events);
    sink.await_events(events as i64);
    (broker, sink)
}

fn send(broker: &Embedded, numbers: std::ops::Range<u64>) {
    let sender = Sender::to(&broker.bootstrap());
    for number in numbers {
        let key = KEYS[number as usize % 4];
        let (topic, kind) = [(LEADS, "lead.created"), (STATUS, "lead.status_changed")][number as usize % 2];
        let tenant = key.split(':').next().unwrap();
        let value = format!(r#"{{"tenant_id":"{tenant}","event_type":"{kind}","n":{number}}}"#);
        sender.queue(&Record { topic, key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Record::default() });
    }
    sender.flush();
}

fn post(sink: &Sink, path: &str, body: &Value) -> Answer {
    curl(&["-X", "POST", "-d", &body.to_string(), &format!("http://{}{path}", sink.api)])
}

#[track_caller]
fn finished(sink: &Sink, id: i64) -> Value {
    eventually(&format!("job {id} is finished: {}", job(sink, id)), || job(sink, id)["status"] == "finished");
    eventually("what it sent came back", || {
        let job = job(sink, id);
        count(&job, "observed") == count(&job, "acknowledged")
    });
    job(sink, id)
}

/// How often each event of the journal has been replayed.
fn copies(sink: &Sink) -> BTreeMap<i64, i64> {
    let journal = Connection::open(sink.journal()).unwrap();
    let sql = "SELECT replay_of, count(*) FROM event_journal WHERE replay_of IS NOT NULL GROUP BY replay_of";
    let mut select = journal.prepare(sql).unwrap();
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn records(broker: &Embedded) -> usize {
    [LEADS, STATUS, "elsewhere"].iter().map(|topic| kcat_read(&broker.bootstrap(), topic).len()).sum()
}

#[test]
fn a_plan_says_what_would_happen_and_nothing_does() {
    let (broker, sink) = sink_with(12, "");
    let plan = sink.post("/replay/range?start=2025-11-03&end=2100-01-01&dry_run=true&rate_per_s=4");
    assert_eq!(plan.status, 200, "{}", plan.body);
    let plan = plan.json();
    assert_eq!((&plan["total"], &plan["rate_per_s"], &plan["seconds"]), (&json!(12), &json!(4), &json!(3.0)));
    assert_eq!(plan["by_topic"], json!({LEADS: 6, STATUS: 6}));
    assert_eq!(plan["by_tenant"], json!({"acme": 6, "globex": 6}));
    assert_eq!(plan["superseded"], 8, "of three events a key the newest is not");
    let bytes: i64 = sink.value("SELECT sum(length(payload)) FROM event_journal");
    assert_eq!(plan["bytes"], bytes);
    let first = sink.get("/events/1").json();
    assert_eq!(plan["first_received_at"], first["received_at"]);
    assert_eq!(plan["needs_confirm"], false);

    let newest = "/replay/range?start=2025-11-03&dry_run=true&skip_superseded=true&tenant_id=acme";
    let newest = sink.post(newest).json();
    assert_eq!((&newest["total"], &newest["skipped"], &newest["superseded"]), (&json!(2), &json!(4), &json!(0)));
    for (filter, total) in [
        (json!({"key": "acme:lead:2"}), 3),
        (json!({"topic": STATUS, "tenant_id": "globex"}), 3),
        (json!({"event_type": "lead.created"}), 6),
        (json!({"event_ids": [3, 3, 5]}), 2),
        (json!({"end": "2025-11-03"}), 0),
    ] {
        let plan = post(&sink, "/replay/jobs?dry_run=true", &filter);
        assert_eq!(plan.json()["total"], total, "{filter}: {}", plan.body);
    }
    assert_eq!(sink.get("/replay/jobs").body, "[]");
    assert_eq!(records(&broker), 12);
    let audited: i64 = sink.value("SELECT count(*) FROM audit WHERE outcome = 'dry_run' AND action = 'replay.job'");
    assert_eq!(audited, 7);
}

#[test]
fn half_open_ranges_that_meet_hold_every_event_once() {
    let (_broker, sink) = sink_with(1, "");
    send(&_broker, 1..2);
    sink.await_events(2);
    let middle = sink.get("/events/2").json()["received_at"].as_str().unwrap().to_owned();
    // The `+` of the zone stands unescaped, as people type it.
    let before = sink.post(&format!("/replay/range?start=2025-11-03&end={middle}&dry_run=true")).json();
    let after = sink.post(&format!("/replay/range?start={middle}&dry_run=true")).json();
    assert_eq!((&before["total"], &after["total"]), (&json!(1), &json!(1)));
    let crossed = sink.post(&format!("/replay/range?start={middle}&end=2025-11-03"));
    assert_eq!((crossed.status, crossed.detail()), (422, "end: is not after start".to_owned()));
}

#[test]
fn every_event_goes_out_once_in_order_with_its_key_and_the_job_knows_where_it_came_back() {
    let (broker, sink) = sink_with(40, "");
    let made = sink.post("/replay/range?start=2025-11-03&rate_per_s=1000");
    assert_eq!(made.status, 202, "{}", made.body);
    assert!(made.head.contains("Location: /replay/jobs/1\r\n"), "{}", made.head);
    assert_eq!(made.json(), json!({"job_id": 1, "status": "running", "total": 40}));
    let job = finished(&sink, 1);
    for (name, events) in [("total", 40), ("acknowledged", 40), ("observed", 40), ("observed_twice", 0), ("failed", 0)]
    {
        assert_eq!(count(&job, name), events, "{name} of {job}");
    }
    assert!(job["ended_at"].is_string() && job["waiting_for"].is_null(), "{job}");
    assert_eq!(copies(&sink), (1..=40).map(|id| (id, 1)).collect());

    let mut sent: BTreeMap<(String, i64), Vec<i64>> = BTreeMap::new();
    for topic in [LEADS, STATUS] {
        for record in kcat_read(&broker.bootstrap(), topic) {
            let payload: Value = serde_json::from_str(record["payload"].as_str().unwrap()).unwrap();
            let partition = record["partition"].as_i64().unwrap();
            sent.entry((record["key"].as_str().unwrap().to_owned(), partition))
                .or_default()
                .push(payload["n"].as_i64().unwrap());
        }
    }
    assert_eq!(sent.len(), 4, "each key stays in its partition: {sent:?}");
    for ((key, _), numbers) in sent {
        let (first, second) = numbers.split_at(numbers.len() / 2);
        assert!(first.is_sorted() && first == second, "{key}: {numbers:?}");
    }
    let items = sink.get("/replay/jobs/1/items?limit=1000").json();
    for item in items.as_array().unwrap() {
        let copy = format!(
            "SELECT kafka_partition || '/' || kafka_offset FROM event_journal WHERE replay_of = {}",
            item["event_id"]
        );
        let copy: String = sink.value(&copy);
        assert_eq!(copy, format!("{}/{}", item["partition"], item["offset"]));
        assert_eq!((&item["partition"], &item["offset"]), (&item["observed_partition"], &item["observed_offset"]));
        assert_eq!((&item["state"], &item["observed"]), (&json!("acknowledged"), &json!(1)));
    }
}

#[test]
fn the_set_is_frozen_when_the_job_is_made() {
    let (broker, sink) = sink_with(20, "");
    // Without an end: what comes later would be in it, its own replays first of all.
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=20").status, 202);
    eventually("the first replays are in the journal", || !copies(&sink).is_empty());
    send(&broker, 20..25);
    let job = finished(&sink, 1);
    assert_eq!((count(&job, "total"), count(&job, "acknowledged")), (20, 20));
    sink.await_events(45);
    assert_eq!(copies(&sink), (1..=20).map(|id| (id, 1)).collect());
    // The copies of a replay are events like any other, and a plan says how many of them it has.
    let plan = sink.post("/replay/range?start=2025-11-03&dry_run=true").json();
    assert_eq!((&plan["total"], &plan["replays"]), (&json!(45), &json!(20)));
    let plan = sink.post("/replay/range?start=2025-11-03&dry_run=true&skip_replays=true").json();
    assert_eq!((&plan["total"], &plan["replays"], &plan["skipped"]), (&json!(25), &json!(0), &json!(20)));
}

#[test]
fn an_empty_or_misspelt_filter_is_an_error_and_never_everything() {
    let (broker, sink) = sink_with(4, "");
    for (path, body, says) in [
        ("/replay/jobs", json!({}), "filter: is empty"),
        ("/replay/jobs", json!({"tenant": "acme"}), "unknown field `tenant`"),
        ("/replay/jobs", json!({"tenant_id": ""}), "tenant_id: is empty"),
        ("/replay/jobs", json!({"event_ids": []}), "event_ids: names no event"),
        ("/replay/jobs", json!([1]), "body: must be a JSON object"),
        ("/replay/jobs?tennant_id=acme", json!({"topic": LEADS}), "tennant_id: is no parameter here"),
        ("/replay/jobs", json!({"topic": LEADS, "to_topic": "elsewhere"}), "replay.to_topics"),
        ("/replay/jobs", json!({"topic": LEADS, "rate_per_s": 0}), "rate_per_s: 0 is not within 1 and 100000"),
        ("/replay/batch", json!([]), "event_ids: names no event"),
        ("/replay/batch", json!("all"), "body: must be a list of event ids"),
        ("/replay/batch", json!([1, "2"]), "body: must be a list of event ids"),
        ("/replay/batch", json!({"event_ids": [1], "x": 1}), "body: must be a list of event ids"),
        ("/replay/range", json!({}), "start: give start, end or both"),
        ("/replay/range?tenant_id=acme", json!({}), "start: give start, end or both"),
        ("/replay/range?start=yesterday", json!({}), "is no time"),
        ("/replay/range?strat=2025-11-03", json!({}), "strat: is no parameter here"),
        ("/replay/range?start=2025-11-03&dry_run=1", json!({}), "dry_run: \"1\" is neither true nor false"),
    ] {
        let refused = post(&sink, path, &body);
        assert_eq!(refused.status, 422, "{path} {body}: {}", refused.body);
        assert!(refused.detail().contains(says), "{path} {body}: {}", refused.body);
    }
    let missing = post(&sink, "/replay/batch", &json!([2, 77, 99]));
    assert_eq!((missing.status, missing.detail()), (404, "not found, so nothing was done: event 77, 99".to_owned()));
    let nothing = post(&sink, "/replay/jobs", &json!({"tenant_id": "nobody"}));
    assert_eq!((nothing.status, nothing.detail().contains("no event")), (404, true));
    let large = format!("[{}1]", "1234567,".repeat(300_000));
    let file = sink.folder.path().join("large.json");
    std::fs::write(&file, large).unwrap();
    let url = format!("http://{}/replay/batch", sink.api);
    let refused = curl(&["-X", "POST", "-H", "Expect:", "--data-binary", &format!("@{}", file.display()), &url]);
    assert_eq!(refused.status, 413, "{}", refused.body);
    assert_eq!(sink.get("/replay/jobs").body, "[]");
    assert_eq!(records(&broker), 4);
}

#[test]
fn a_large_replay_needs_its_count_as_a_confirmation() {
    let (_broker, sink) = sink_with(8, "replay.confirm_above = 5");
    let asked = sink.post("/replay/range?start=2025-11-03");
    assert_eq!(asked.status, 409);
    assert!(asked.detail().contains("would replay 8 events") && asked.detail().contains("confirm=8"));
    assert_eq!((&asked.json()["plan"]["total"], &asked.json()["plan"]["needs_confirm"]), (&json!(8), &json!(true)));
    let wrong = sink.post("/replay/range?start=2025-11-03&confirm=7");
    assert_eq!((wrong.status, wrong.detail().contains("8 events, not 7")), (409, true), "{}", wrong.body);
    assert_eq!(
        post(&sink, "/replay/batch?confirm=2", &json!([1, 2, 3])).status,
        409,
        "a count that is wrong is a mistake"
    );
    assert_eq!(sink.get("/replay/jobs").body, "[]");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&confirm=8&wait=30").status, 200);
    assert_eq!(post(&sink, "/replay/batch", &json!([1, 2, 3, 4, 5])).status, 202);
    finished(&sink, 2);
}

#[test]
fn who_waits_gets_the_job_as_it_ended_or_202_when_the_time_is_up() {
    let (_broker, sink) = sink_with(6, "");
    let ended = post(&sink, "/replay/batch?wait=30", &json!({"event_ids": [1, 2]}));
    assert_eq!(
        (ended.status, &ended.json()["status"], &ended.json()["acknowledged"]),
        (200, &json!("finished"), &json!(2))
    );
    let waited = post(&sink, "/replay/jobs", &json!({"event_ids": [3, 4, 5], "rate_per_s": 1, "wait": 1}));
    assert_eq!((waited.status, waited.json()), (202, json!({"job_id": 2, "status": "running", "total": 3})));
    finished(&sink, 2);
}

#[test]
fn an_event_is_in_one_running_job_only() {
    let (_broker, sink) = sink_with(6, "");
    assert_eq!(post(&sink, "/replay/batch?rate_per_s=1", &json!([1, 2, 3])).status, 202);
    assert_eq!(sink.post("/replay/jobs/1/pause").status, 200);
    let refused = post(&sink, "/replay/batch", &json!([3, 4]));
    assert_eq!((refused.status, &refused.json()["job_id"]), (409, &json!(1)));
    assert!(refused.detail().contains("event 3 is in job 1, which is paused"), "{}", refused.body);
    assert_eq!(post(&sink, "/replay/batch", &json!([4, 5])).status, 202, "others are not held up");
    assert_eq!(sink.post("/replay/jobs/1/cancel").status, 200);
    assert_eq!(post(&sink, "/replay/batch", &json!([3])).status, 202);
    finished(&sink, 3);
}

#[test]
fn no_more_than_eight_jobs_run_at_once() {
    let (_broker, sink) = sink_with(27, "");
    for id in 1..=8 {
        // Three a job, so that it takes longer than asking for a pause does.
        assert_eq!(post(&sink, "/replay/batch?rate_per_s=1", &json!([3 * id, 3 * id + 1, 3 * id + 2])).status, 202);
        sink.post(&format!("/replay/jobs/{id}/pause"));
    }
    let running = sink.get("/replay/jobs?state=paused").json().as_array().unwrap().len()
        + sink.get("/replay/jobs?state=running").json().as_array().unwrap().len();
    let ninth = post(&sink, "/replay/batch", &json!([1]));
    assert_eq!((running, ninth.status), (8, 429), "{}", ninth.body);
    assert_eq!(sink.metric("crm_events_replay_jobs"), 8.0);
    sink.post("/replay/jobs/1/cancel");
    eventually("there is a place again", || post(&sink, "/replay/batch", &json!([1])).status == 202);
}

#[test]
fn an_idempotency_key_gives_the_first_answer_again() {
    let (_broker, sink) = sink_with(6, "");
    let url = format!("http://{}/replay/batch", sink.api);
    let ask = |key: &str, body: &str| curl(&["-X", "POST", "-H", &format!("Idempotency-Key: {key}"), "-d", body, &url]);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| ask("k-1", "[1,2,3]"))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (202, &answers[0].body));
        assert!(answer.head.contains("Location: /replay/jobs/1\r\n"));
    }
    finished(&sink, 1);
    assert_eq!(ask("k-1", "[1,2,3]").body, answers[0].body, "also when it has ended");
    assert_eq!(copies(&sink), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    let reused = ask("k-1", "[1,2,3,4]");
    assert_eq!((reused.status, &reused.json()["job_id"]), (422, &json!(1)), "{}", reused.body);
    assert_eq!(ask(&"k".repeat(256), "[1]").status, 422);
    let one = curl(&["-X", "POST", "-H", "Idempotency-Key: k-2", &format!("http://{}/replay/1", sink.api)]);
    assert_eq!(one.status, 422, "where it would not be kept, it is refused: {}", one.body);
}

#[test]
fn a_job_is_paused_resumed_and_given_another_rate_while_it_runs() {
    let (broker, sink) = sink_with(40, "");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=10").status, 202);
    eventually("it has begun", || count(&job(&sink, 1), "acknowledged") > 0);
    let paused = sink.post("/replay/jobs/1/pause?reason=lunch").json();
    assert_eq!(paused["status"], "paused");
    eventually("nothing is in flight", || count(&job(&sink, 1), "in_flight") == 0);
    let before = job(&sink, 1);
    assert!(count(&before, "acknowledged") < 40, "{before}");
    assert_eq!(sink.post("/replay/jobs/1/pause").status, 409);
    let mut sink = sink;
    assert_eq!(sink.stop(), Some(0));
    let sink = sink.restart();
    // Joining the group takes seconds, in which a job that ran would send.
    send(&broker, 40..41);
    sink.await_events(41 + count(&before, "acknowledged"));
    assert_eq!(job(&sink, 1)["status"], "paused");
    assert_eq!(count(&job(&sink, 1), "acknowledged"), count(&before, "acknowledged"), "a pause outlasts a restart");
    assert_eq!(sink.post("/replay/jobs/1/rate?rate_per_s=2000").json()["rate_per_s"], 2000);
    assert_eq!(sink.post("/replay/jobs/1/rate").status, 422);
    assert_eq!(sink.post("/replay/jobs/1/resume").json()["status"], "running");
    let ended = finished(&sink, 1);
    assert_eq!(count(&ended, "acknowledged"), 40);
    assert_eq!(copies(&sink), (1..=40).map(|id| (id, 1)).collect());
    for verb in ["pause", "resume", "cancel", "rate?rate_per_s=5", "retry-failed"] {
        let refused = sink.post(&format!("/replay/jobs/1/{verb}"));
        assert_eq!(refused.status, 409, "{verb}: {}", refused.body);
        assert!(refused.detail().starts_with("job 1 is finished; "), "{verb}: {}", refused.body);
    }
    assert_eq!(sink.post("/replay/jobs/7/pause").status, 404);
}

#[test]
fn a_cancelled_job_sends_nothing_more_and_accounts_for_everything() {
    let (broker, sink) = sink_with(60, "");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=10").status, 202);
    eventually("it has begun", || count(&job(&sink, 1), "acknowledged") > 3);
    let cancelled = sink.post("/replay/jobs/1/cancel?reason=wrong+day").json();
    assert_eq!(cancelled["status"], "cancelled");
    let sent = records(&broker);
    eventually("nothing is in flight", || count(&job(&sink, 1), "in_flight") == 0);
    let ended = job(&sink, 1);
    let sum: i64 = ["pending", "in_flight", "acknowledged", "failed", "uncertain", "cancelled"]
        .map(|n| count(&ended, n))
        .iter()
        .sum();
    assert_eq!((sum, count(&ended, "total"), count(&ended, "pending")), (60, 60, 0), "{ended}");
    assert!(count(&ended, "cancelled") > 0, "{ended}");
    assert_eq!(sent, records(&broker), "nothing goes out after the answer");
    assert_eq!(records(&broker) as i64, 60 + count(&ended, "acknowledged"));
    sink.await_events(60 + count(&ended, "acknowledged"));
    assert_eq!(
        sink.get("/replay/jobs/1/items?state=cancelled&limit=1000").json().as_array().unwrap().len() as i64,
        count(&ended, "cancelled")
    );
    let row = "SELECT operator || ' ' || reason || ' ' || outcome FROM audit WHERE action = 'replay.job.cancel'";
    assert_eq!(sink.value::<String>(row), "unknown wrong day done");
}

#[test]
fn a_stop_in_the_middle_goes_on_with_the_next_start_and_doubles_nothing() {
    let (_broker, sink) = sink_with(50, "");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=40").status, 202);
    eventually("it has begun", || count(&job(&sink, 1), "acknowledged") > 3);
    let mut sink = sink;
    assert_eq!(sink.stop(), Some(0));
    let in_flight: i64 = sink.value("SELECT count(*) FROM replay_item WHERE state = 'in_flight'");
    assert_eq!(in_flight, 0, "an orderly stop knows of everything");
    let sink = sink.restart();
    let job = finished(&sink, 1);
    assert_eq!((count(&job, "acknowledged"), count(&job, "observed_twice")), (50, 0));
    assert_eq!(copies(&sink), (1..=50).map(|id| (id, 1)).collect());
}

#[test]
fn what_the_broker_refuses_has_failed_and_is_sent_again_when_asked() {
    let (broker, sink) = sink_with(6, "");
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2];
    broker.cluster().request_errors(RDKafkaApiKey::Produce, &refusal);
    assert_eq!(post(&sink, "/replay/batch?rate_per_s=4", &json!([1, 2, 3, 4])).status, 202);
    let job = finished(&sink, 1);
    // The producer takes a topic that was refused for refused until it hears of it again.
    let failed = count(&job, "failed");
    assert!(failed > 0 && count(&job, "acknowledged") == 4 - failed, "{job}");
    let items = sink.get("/replay/jobs/1/items?state=failed").json();
    assert!(items[0]["error"].as_str().unwrap().contains("authorization"), "{items}");
    eventually("all of them go out", || {
        assert_eq!(sink.post("/replay/jobs/1/retry-failed").json()["status"], "running");
        count(&finished(&sink, 1), "failed") == 0
    });
    assert_eq!(count(&finished(&sink, 1), "acknowledged"), 4);
    assert_eq!(copies(&sink), (1..=4).map(|id| (id, 1)).collect());
}

#[test]
fn an_event_that_is_gone_from_the_journal_has_failed_and_the_others_go_out() {
    let (_broker, sink) = sink_with(6, "");
    assert_eq!(post(&sink, "/replay/batch?rate_per_s=1", &json!([1, 2, 3])).status, 202);
    sink.post("/replay/jobs/1/pause");
    eventually("nothing is in flight", || count(&job(&sink, 1), "in_flight") == 0);
    assert!(sink.sql("DELETE FROM event_journal WHERE id = 3").status.success());
    sink.post("/replay/jobs/1/rate?rate_per_s=100");
    sink.post("/replay/jobs/1/resume");
    eventually("it is finished", || job(&sink, 1)["status"] == "finished");
    let items = sink.get("/replay/jobs/1/items?state=failed").json();
    assert_eq!((&items[0]["event_id"], &items[0]["error"]), (&json!(3), &json!("it is no longer in the journal")));
    assert_eq!(count(&job(&sink, 1), "acknowledged"), 2);
}

#[test]
fn a_job_waits_for_the_journal_and_for_kafka_and_says_so() {
    let (broker, sink) = sink_with(30, "");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=10").status, 202);
    eventually("it has begun", || count(&job(&sink, 1), "acknowledged") > 0);
    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    eventually("it says that it waits for the journal", || {
        job(&sink, 1)["waiting_for"].as_str().is_some_and(|what| what.starts_with("the journal: "))
    });
    other.execute_batch("ROLLBACK").unwrap();
    eventually("it goes on", || job(&sink, 1)["waiting_for"].is_null());
    broker.cluster().broker_down(-1).unwrap();
    eventually("it says that it waits for Kafka, or it has ended", || {
        let job = job(&sink, 1);
        job["status"] == "finished" || job["waiting_for"].as_str().is_some_and(|what| what.starts_with("Kafka"))
    });
    broker.cluster().broker_up(-1).unwrap();
    let job = finished(&sink, 1);
    assert_eq!((count(&job, "acknowledged"), count(&job, "uncertain")), (30, 0), "{job}");
    assert_eq!(copies(&sink), (1..=30).map(|id| (id, 1)).collect());
}

#[test]
fn a_replay_goes_to_another_topic_where_that_is_allowed() {
    let (broker, sink) = sink_with(4, "replay.to_topics = ['elsewhere']");
    let refused = sink.post("/replay/1?to_topic=apexflow.jobs.created");
    assert_eq!(refused.status, 422);
    assert!(refused.detail().contains("replay.to_topics has elsewhere"), "{}", refused.body);
    let one = sink.post("/replay/1?to_topic=elsewhere").json();
    assert_eq!((&one["status"], &one["topic"]), (&json!("replayed"), &json!("elsewhere")));
    let ended = post(&sink, "/replay/batch?to_topic=elsewhere&wait=30", &json!([1, 2, 3]));
    assert_eq!((ended.status, &ended.json()["acknowledged"]), (200, &json!(3)), "{}", ended.body);
    let there = kcat_read(&broker.bootstrap(), "elsewhere");
    assert_eq!(there.len(), 4);
    let mut keys: Vec<Value> = there.iter().map(|record| record["key"].clone()).collect();
    let mut expected: Vec<Value> =
        [1, 1, 2, 3].map(|id| sink.get(&format!("/events/{id}")).json()["kafka_key"].clone()).to_vec();
    for keys in [&mut keys, &mut expected] {
        keys.sort_by_key(Value::to_string);
    }
    assert_eq!(keys, expected);
    let item = &sink.get("/replay/jobs/1/items?limit=1").json()[0];
    assert_eq!((&item["topic"], &item["observed"]), (&json!("elsewhere"), &json!(0)), "the sink does not read it");
}

#[test]
fn headers_of_the_first_way_stay_behind_and_repeated_ones_are_kept() {
    let (broker, sink) = sink_with(0, "replay.drop_headers = ['traceparent', 'x-b3-*']");
    Sender::to(&broker.bootstrap()).send(&Record {
        topic: LEADS,
        key: Some(b"acme:lead:17"),
        value: Some(br#"{"tenant_id":"acme"}"#),
        headers: &[
            ("TraceParent", Some(b"00-4bf92f")),
            ("tag", Some(b"a")),
            ("x-b3-spanid", Some(b"7")),
            ("tag", Some(b"b")),
            ("none", None),
            ("tracestate", Some(b"kept: the list says otherwise here")),
        ],
        ..Record::default()
    });
    sink.await_events(1);
    assert_eq!(sink.post("/replay/1").status, 200);
    sink.await_events(2);
    // The copy too: a replay of a replay says where it comes from, and no more than that.
    let ended = post(&sink, "/replay/batch?wait=30", &json!([2]));
    assert_eq!(ended.status, 200, "{}", ended.body);
    for record in &kcat_read(&broker.bootstrap(), LEADS)[1..] {
        let headers = record["headers"].as_array().unwrap();
        let names: Vec<_> = headers.iter().step_by(2).map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names[..4], ["tag", "tag", "none", "tracestate"]);
        let added: Vec<_> = names[4..].iter().filter(|name| !name.starts_with("crm-replay-")).collect();
        assert!(added.is_empty(), "{added:?}");
        assert_eq!(names.iter().filter(|name| **name == "crm-replay-of").count(), 1);
    }
    sink.await_events(3);
    assert_eq!(sink.get("/events/3").json()["replay_of"], 2);
}

#[test]
fn killed_with_replays_in_flight_it_sends_again_only_what_did_not_come_back() {
    let (broker, mut sink) = sink_with(30, "");
    assert_eq!(sink.post("/replay/range?start=2025-11-03&rate_per_s=30").status, 202);
    eventually("it has begun", || count(&job(&sink, 1), "acknowledged") > 3);
    sink.kill();
    let sink = sink.restart();
    let job = finished(&sink, 1);
    assert_eq!((count(&job, "acknowledged"), count(&job, "uncertain"), count(&job, "observed_twice")), (30, 0, 0));
    assert_eq!(records(&broker), 60);
}
