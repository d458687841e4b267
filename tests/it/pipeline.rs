//! From a record on the broker to a row in the file.

use crate::harness::{Embedded, Record, Sender, Setup, Sink, eventually};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

#[test]
fn an_event_is_kept_with_everything_kafka_gave() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let value = "{ \"name\":\"Zo\\u00eb\",\"tenant_id\" : \"acme\", \"n\":1.10, \"n\":1e2 }\n";
    Sender::to(&broker.bootstrap()).send(&Record {
        topic: LEADS,
        partition: Some(2),
        key: Some(b"acme:lead:17"),
        value: Some(value.as_bytes()),
        headers: &[
            ("trace", Some(b"a")),
            ("trace", Some(b"b")),
            ("empty", Some(b"")),
            ("none", None),
            ("raw", Some(&[0xff])),
        ],
    });
    sink.await_events(1);
    let event = sink.get("/events/1").json();
    assert_eq!(event["tenant_id"], "acme");
    assert_eq!(event["topic"], LEADS);
    assert_eq!(event["payload"]["name"], "Zoë");
    assert_eq!((&event["kafka_partition"], &event["kafka_offset"]), (&2.into(), &0.into()));
    assert_eq!(event["kafka_key"], "acme:lead:17");
    assert_eq!(
        event["kafka_headers"],
        serde_json::json!([["trace", "a"], ["trace", "b"], ["empty", ""], ["none", null], ["raw", {"base64": "/w=="}]])
    );
    assert!(event["kafka_timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(event["replay_of"], serde_json::Value::Null);
    assert_eq!(sink.value::<String>("SELECT payload FROM event_journal"), value, "the payload's bytes changed");
    assert_eq!(sink.value::<String>("SELECT payload->>'name' FROM event_journal"), "Zoë");
}

#[test]
fn the_tenant_comes_from_the_payload() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let sender = Sender::to(&broker.bootstrap());
    for value in [r#"{"tenant_id":"acme"}"#, r#"{"tenant_id":42}"#, r#"{"tenant_id":null}"#, "{}"] {
        sender.send(&Record { topic: LEADS, value: Some(value.as_bytes()), ..Record::default() });
    }
    sink.await_events(4);
    let tenants: String =
        sink.value("SELECT group_concat(tenant_id, ' ') FROM (SELECT * FROM event_journal ORDER BY id)");
    assert_eq!(tenants, "acme 42 unknown unknown");
}

#[test]
fn what_is_no_event_becomes_a_dead_letter_and_its_neighbours_are_stored() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let deep = [b"[".repeat(1001), b"]".repeat(1001)].concat();
    let deep = [b"{\"a\":".to_vec(), deep, b"}".to_vec()].concat();
    let bad: [Option<&[u8]>; 7] =
        [None, Some(b"\xff\xfe"), Some(b"{\"a\":1,}"), Some(b""), Some(b"[1]"), Some(b"null"), Some(&deep)];
    for value in bad {
        sender.queue_event(LEADS, "acme", 1);
        sender.queue(&Record {
            topic: LEADS,
            key: Some(b"k"),
            value,
            headers: &[("h", Some(b"v"))],
            ..Record::default()
        });
    }
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).start();
    sink.await_events(7);
    eventually("the dead letters are there", || sink.dead_letters() == 7);
    let reasons: String = sink.value("SELECT group_concat(reason, ' ') FROM (SELECT * FROM event_dlq ORDER BY id)");
    assert_eq!(reasons, "value_absent not_utf8 not_json not_json not_an_object not_an_object not_json");
    let error: String = sink.value("SELECT error FROM event_dlq WHERE id = 3");
    assert_eq!(error, "not_json: trailing comma at line 1 column 8");
    assert_eq!(sink.value::<Vec<u8>>("SELECT payload FROM event_dlq WHERE id = 2"), b"\xff\xfe");
    assert_eq!(sink.value::<Option<String>>("SELECT payload FROM event_dlq WHERE id = 1"), None);

    let letter = sink.get("/dlq/2").json();
    assert_eq!(letter["payload"]["base64"], "//4=");
    assert_eq!((&letter["kafka_key"], &letter["reason"]), (&"k".into(), &"not_utf8".into()));
    assert_eq!(letter["kafka_headers"], serde_json::json!([["h", "v"]]));
    assert_eq!(letter["kafka_offset"], 3);

    assert_eq!(sink.metric_sum("crm_events_ingested_total"), 14.0);
    assert_eq!(sink.metric_sum("crm_events_persisted_total"), 7.0);
    assert_eq!(sink.metric(r#"crm_events_dead_letters_total{reason="not_json",topic="apexflow.leads.created"}"#), 3.0);
    assert_eq!(sink.metric("crm_events_dlq_rows"), 7.0);
    // The deepest payload that was let in does not spoil the guide's queries.
    assert_eq!(sink.value::<i64>("SELECT count(payload->>'name') FROM event_journal"), 7);
}

#[test]
fn a_constraint_added_while_the_sink_runs_sends_new_events_to_the_dlq_until_it_is_dropped() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let sender = Sender::to(&broker.bootstrap());
    let added = sink.sql("ALTER TABLE event_journal ADD CONSTRAINT test_constraint CHECK (false);");
    assert!(added.status.success(), "{added:?}");
    sender.event(LEADS, "acme", 1);
    eventually("the event is a dead letter", || sink.dead_letters() == 1);
    let listed = sink.get("/dlq").json();
    assert_eq!(listed[0]["error"], "constraint: CHECK constraint failed: test_constraint");
    assert!(sink.sql("ALTER TABLE event_journal DROP CONSTRAINT test_constraint;").status.success());
    sender.event(LEADS, "acme", 2);
    sink.await_events(1);
    assert_eq!(sink.dead_letters(), 1);
    assert_eq!(sink.get("/health").status, 200);
}

#[test]
fn a_trigger_refuses_single_rows_of_a_batch_however_it_refuses() {
    for (number, raise) in
        ["RAISE(ABORT, 'no thirteens')", "RAISE(FAIL, 'no thirteens')", "RAISE(ROLLBACK, 'no thirteens')"]
            .iter()
            .enumerate()
    {
        let broker = Embedded::start(&[(LEADS, 1)]);
        let sink = Setup::with(&broker.bootstrap()).start();
        let moment = if number == 1 { "AFTER" } else { "BEFORE" };
        let trigger = format!(
            "CREATE TRIGGER no_thirteens {moment} INSERT ON event_journal WHEN NEW.payload->>'id' = 13 BEGIN SELECT {raise}; END"
        );
        assert!(sink.sql(&trigger).status.success());
        let sender = Sender::to(&broker.bootstrap());
        for id in 10..20 {
            sender.queue_event(LEADS, "acme", id);
        }
        sender.flush();
        sink.await_events(9);
        eventually("the thirteenth is a dead letter", || sink.dead_letters() == 1);
        assert_eq!(sink.value::<String>("SELECT error FROM event_dlq"), "trigger: no thirteens", "{raise}");
        assert_eq!(sink.value::<i64>("SELECT payload->>'id' FROM event_dlq"), 13);
        let others: String =
            sink.value("SELECT group_concat(payload->>'id') FROM (SELECT * FROM event_journal ORDER BY id)");
        assert_eq!(others, "10,11,12,14,15,16,17,18,19", "{raise}");
    }
}

#[test]
fn a_broken_trigger_is_the_boxs_fault_and_makes_no_dead_letters() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    sink.sql(
        "CREATE TABLE t (a); CREATE TRIGGER broken BEFORE INSERT ON event_journal BEGIN INSERT INTO t VALUES (1); END",
    );
    assert!(sink.sql("DROP TABLE t").status.success());
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    eventually("health says so", || sink.get("/health").body.contains("no such table"));
    assert_eq!((sink.events(), sink.dead_letters()), (0, 0));
    assert!(sink.sql("DROP TRIGGER broken").status.success());
    sink.await_events(1);
    eventually("it is healthy again", || sink.get("/health").status == 200);
}

#[test]
fn a_topic_created_later_joins_without_a_restart() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "acme", 1);
    sink.await_events(1);
    broker.cluster().create_topic(JOBS, 1, 1).unwrap();
    sender.event(JOBS, "acme", 2);
    sink.await_events(2);
    assert_eq!(sink.value::<String>("SELECT topic FROM event_journal WHERE id = 2"), JOBS);
}

#[test]
fn several_consumers_share_the_partitions_and_every_event_is_stored_once() {
    let broker = Embedded::start(&[(LEADS, 4), (JOBS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    for number in 0..2000 {
        sender.queue_event(if number % 3 == 0 { JOBS } else { LEADS }, "acme", number);
    }
    sender.flush();
    sink.await_events(2000);
    let config = sink.folder.path().join("config.toml");
    let more = format!("{}kafka.consumers = 2\n", std::fs::read_to_string(&config).unwrap());
    std::fs::write(&config, more).unwrap();
    let sink = sink.restart();
    for number in 2000..4000 {
        sender.queue_event(if number % 3 == 0 { JOBS } else { LEADS }, "acme", number);
    }
    sender.flush();
    sink.await_events(4000);
    assert_eq!(sink.value::<i64>("SELECT count(DISTINCT payload->>'id') FROM event_journal"), 4000);
    eventually("both consumers have partitions", || {
        let of = |consumer| sink.metric(&format!("crm_events_partitions_assigned{{consumer=\"{consumer}\"}}"));
        of("consume-0") == 3.0 && of("consume-1") == 3.0
    });
}

#[test]
fn tenants_past_the_limit_share_a_label_and_the_counters_still_add_up() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).toml("metrics.max_tenants = 3").start();
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..10 {
        sender.queue_event(LEADS, &format!("tenant-{number}"), number);
    }
    sender.flush();
    sink.await_events(10);
    eventually("the counters have seen them", || sink.metric_sum("crm_events_persisted_total") == 10.0);
    let labels = |name: &str| sink.metrics_text().lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(labels("crm_events_persisted_total{"), 4);
    assert_eq!(labels("crm_events_ingested_total{"), 4);
    let other = r#"crm_events_persisted_total{tenant_id="_other",topic="apexflow.leads.created"}"#;
    assert_eq!(sink.metric(other), 7.0);
}

#[test]
fn received_at_never_goes_backwards_with_the_id() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "acme", 1);
    sink.await_events(1);
    // A clock that was wrong once: the rows after it keep their order all the same.
    assert!(sink.sql("UPDATE event_journal SET received_at = '2999-01-01 00:00:00.000000'").status.success());
    let sink = sink.restart();
    sender.event(LEADS, "acme", 2);
    sink.await_events(2);
    assert_eq!(
        sink.value::<String>("SELECT received_at FROM event_journal WHERE id = 2"),
        "2999-01-01 00:00:00.000000"
    );
}

#[test]
fn events_that_follow_one_another_share_a_transaction_unless_somebody_waits() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let mut sink =
        Setup::with(&broker.bootstrap()).toml("write.batch_interval = '60s'\nwrite.batch_rows_min = 10").start();
    let sender = Sender::to(&broker.bootstrap());
    let taken = |sink: &Sink, events: f64| {
        eventually("it has taken them", || sink.metric_sum("crm_events_ingested_total") == events);
    };
    let stored = |sink: &Sink| sink.value::<i64>("SELECT count(*) FROM event_journal");
    sender.event(LEADS, "acme", 0);
    sink.await_events(1);
    for number in 1..4 {
        sender.event(LEADS, "acme", number);
        taken(&sink, number as f64 + 1.0);
    }
    assert_eq!(stored(&sink), 1, "a minute has not passed, and they are less than ten");
    // Whatever the writer is asked to do, it does after what it has.
    assert_eq!(sink.post("/consumer/resume").status, 200);
    sink.await_events(4);
    for number in 4..14 {
        sender.event(LEADS, "acme", number);
    }
    sink.await_events(14);
    let received = sink.value::<i64>("SELECT count(DISTINCT received_at) FROM event_journal");
    assert_eq!(received, 3, "the first alone, those before the order, and ten that did not have to wait");
    sender.event(LEADS, "acme", 14);
    taken(&sink, 15.0);
    assert_eq!(sink.stop(), Some(0));
    let sink = sink.restart();
    assert_eq!(stored(&sink), 15, "a stop does not wait");
}
