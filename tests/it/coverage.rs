//! What the file says of the offsets it holds: gaps, halts, recreated topics. Those that the embedded broker cannot
//! show are in `apache_kafka/`.

use serde_json::{Value, json};

use crate::harness::{Embedded, Record, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

/// The entry of a partition's current log in `GET /integrity`.
pub fn integrity(sink: &Sink, topic: &str, partition: i64) -> Value {
    let answer = sink.get(&format!("/integrity?topic={topic}")).json();
    let partitions = answer["partitions"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let is_meant = |entry: &&Value| entry["partition"] == partition && entry["current"] == true;
    partitions.iter().find(is_meant).unwrap_or_else(|| panic!("{answer}")).clone()
}

/// `crm-events-sink verify` on the sink's own configuration: the exit code and what it printed.
pub fn verify(sink: &Sink, arguments: &[&str]) -> (i32, String) {
    let mut verify = program();
    verify.arg("verify").arg("--config").arg(sink.folder.path().join("config.toml")).args(arguments);
    let done = verify.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.code().unwrap(), text)
}

#[test]
fn integrity_and_verify_answer_the_auditor() {
    let broker = Embedded::start(&[(LEADS, 2), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..20 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.queue(&Record { topic: JOBS, value: Some(b"no json"), ..Record::default() });
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).start();
    sink.await_events(20);
    eventually("the dead letter is there", || sink.dead_letters() == 1);
    eventually("the broker's end is known", || integrity(&sink, JOBS, 0)["broker"]["high"] == 1);
    let jobs = integrity(&sink, JOBS, 0);
    let counts = json!([jobs["first"], jobs["last"], jobs["stored"], jobs["dead_lettered"], jobs["lag"], jobs["gaps"]]);
    assert_eq!(counts, json!([0, 0, 0, 1, 0, []]));
    assert_eq!((&jobs["complete"], &sink.get("/integrity").json()["complete"]), (&true.into(), &true.into()));
    let wrong = sink.get("/integrity?topic=nowhere");
    assert_eq!((wrong.status, wrong.detail().contains("nowhere")), (404, true));

    let (code, text) = verify(&sink, &[]);
    assert_eq!(
        (code, text.contains("21 records in 1 file(s), 3 partitions, compared with the broker")),
        (0, true),
        "{text}"
    );
    // A row that vanishes is accounted for as deleted; one that nobody accounts for is found, and so is a doubled one.
    assert!(sink.sql("DELETE FROM event_journal WHERE id = 3").status.success());
    let (code, text) = verify(&sink, &["--offline"]);
    assert_eq!((code, text.contains("1 rows were deleted")), (0, true), "{text}");
    let sql = "UPDATE event_journal SET kafka_offset = (SELECT kafka_offset FROM event_journal AS o WHERE o.id = 5), \
               kafka_partition = (SELECT kafka_partition FROM event_journal AS o WHERE o.id = 5) WHERE id = 6";
    assert!(sink.sql(sql).status.success());
    let (code, text) = verify(&sink, &["--offline"]);
    assert_eq!((code, text.contains("stands 2 times")), (1, true), "{text}");
}

#[test]
fn verify_finds_what_is_on_the_broker_and_not_in_the_file() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = Setup::with(&broker.bootstrap()).start();
    sender.event(LEADS, "acme", 0);
    sink.await_events(1);
    assert_eq!(sink.stop(), Some(0));
    sender.event(LEADS, "acme", 1);
    let (code, text) = verify(&sink, &["--wait", "0s"]);
    assert_eq!((code, text.contains("1 to 1 are on the broker and in no file")), (1, true), "{text}");
    let (code, text) = verify(&sink, &["--brokers", "127.0.0.1:1"]);
    assert_eq!((code, text.contains("cannot ask the broker")), (69, true), "{text}");
    let (code, text) = verify(&sink, &["--journal", "/nowhere/journal.db"]);
    assert_eq!((code, text.contains("/nowhere/journal.db")), (74, true), "{text}");
}

#[test]
fn a_poisoned_partition_is_halted_the_others_go_on_and_resume_reads_every_record() {
    let broker = Embedded::start(&[(LEADS, 1), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).toml("dlq.max_consecutive = 5").start();
    assert!(sink.sql("CREATE TRIGGER t BEFORE INSERT ON event_journal WHEN NEW.topic LIKE '%leads%' BEGIN SELECT RAISE(ABORT, 'new schema'); END").status.success());
    for number in 0..200 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    eventually("health says so", || sink.get("/health").body.contains("poisoned: 5 records in a row"));
    sender.event(JOBS, "acme", 1);
    sink.await_events(1);
    assert_eq!(sink.dead_letters(), 5);
    assert_eq!(sink.metric_sum("crm_events_partition_halted"), 1.0);
    assert!(integrity(&sink, LEADS, 0)["halted"].as_str().unwrap().contains("trigger"));

    // It outlives a restart: the DLQ does not fill up by restarting.
    let sink = sink.restart();
    eventually("health says so again", || sink.get("/health").body.contains("poisoned"));
    eventually("the lag shows what waits", || sink.metric_sum("crm_events_consumer_lag") == 195.0);
    assert_eq!(sink.dead_letters(), 5);
    let refused = sink.post("/consumer/resume?partition=0");
    assert_eq!((refused.status, sink.get("/consumer/resume").status), (422, 405));
    assert_eq!(sink.post(&format!("/consumer/resume?topic={JOBS}")).json()["partitions"], json!([]));

    // Resumed before the cause is gone, it is halted again after as many.
    let resumed = sink.post("/consumer/resume").json();
    assert_eq!(resumed, json!({"status": "resumed", "partitions": [{"topic": LEADS, "partition": 0}]}));
    eventually("halted again", || sink.dead_letters() == 10 && sink.get("/health").status == 503);
    assert!(sink.sql("DROP TRIGGER t").status.success());
    assert_eq!(sink.post(&format!("/consumer/resume?topic={LEADS}&partition=0")).status, 200);
    sink.await_events(191);
    eventually("it is healthy", || sink.get("/health").status == 200);
    assert_eq!((sink.dead_letters(), sink.metric_sum("crm_events_partition_halted")), (10, 0.0));
    assert_eq!(verify(&sink, &[]).0, 0);
}

#[test]
fn a_journal_of_version_1_is_brought_up_to_date() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..10 {
        sender.queue_event(LEADS, "acme", number);
    }
    // Dead letters by a trigger, whose tenants are in the value, in the key and nowhere, and by bad bytes.
    for (key, value) in [
        (Some("bolt:lead:1"), &br#"{"tenant_id":"core","dead":1}"#[..]),
        (None, br#"{"tenant_id":7.50,"dead":1}"#),
        (Some("bolt:lead:1"), br#"{"tenant_id":null,"dead":1}"#),
        (Some("bolt"), br#"{"dead":1}"#),
        (Some("bolt:lead:2"), b"\xff no json"),
        (Some(":lead:2"), br#"["array"]"#),
    ] {
        let key = key.map(str::as_bytes);
        sender.queue(&Record { topic: LEADS, key, value: Some(value), ..Record::default() });
    }
    let mut sink = Setup::with(&broker.bootstrap()).start();
    let trigger = "CREATE TRIGGER dead BEFORE INSERT ON event_journal WHEN NEW.payload->>'dead' BEGIN SELECT RAISE(ABORT, 'dead'); END";
    assert!(sink.sql(trigger).status.success());
    sender.flush();
    sink.await_events(10);
    eventually("the dead letters are there", || sink.dead_letters() == 6);
    assert!(sink.sql("DROP TRIGGER dead").status.success());
    let whose = "SELECT group_concat(coalesce(tenant_id, '-'), ' ') FROM (SELECT * FROM event_dlq ORDER BY id)";
    assert_eq!(sink.value::<String>(whose), "core 7.50 bolt - bolt -");
    assert_eq!(sink.stop(), Some(0));
    let journal = rusqlite::Connection::open(sink.journal()).unwrap();
    let made_new = schema(&journal);
    let back = "DROP TABLE audit; DROP TABLE replay_job; DROP TABLE replay_item;
        DROP TABLE event_chain; DROP TABLE audit_chain; DROP TABLE chain_segment; DROP TABLE erasure;
        DROP TABLE archive_file;
        ALTER TABLE event_journal DROP COLUMN erased; ALTER TABLE event_dlq DROP COLUMN erased;
        DROP INDEX event_journal_key; DROP INDEX event_dlq_open; DROP INDEX event_journal_replays;
        DROP INDEX event_journal_tenant; DROP TABLE sqlite_stat1; DROP TABLE IF EXISTS sqlite_stat4;
        CREATE INDEX event_journal_tenant_received ON event_journal (tenant_id, received_at);
        CREATE INDEX event_journal_topic_received ON event_journal (topic, received_at);
        DROP TRIGGER event_journal_pruned; DROP TRIGGER event_dlq_pruned; DROP TABLE kafka_range;
        ALTER TABLE event_journal DROP COLUMN dlq_id;
        ALTER TABLE event_dlq DROP COLUMN state; ALTER TABLE event_dlq DROP COLUMN attempts;
        ALTER TABLE event_dlq DROP COLUMN last_error; ALTER TABLE event_dlq DROP COLUMN last_attempt_at;
        ALTER TABLE event_dlq DROP COLUMN event_id; ALTER TABLE event_dlq DROP COLUMN note;
        ALTER TABLE event_dlq DROP COLUMN tenant_id;
        ALTER TABLE event_journal DROP COLUMN kafka_epoch; ALTER TABLE event_dlq DROP COLUMN kafka_epoch;
        CREATE TABLE p (topic TEXT NOT NULL, kafka_partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
            PRIMARY KEY (topic, kafka_partition)) STRICT, WITHOUT ROWID;
        INSERT INTO p SELECT topic, kafka_partition, next_offset FROM kafka_position;
        DROP TABLE kafka_position; ALTER TABLE p RENAME TO kafka_position;
        DELETE FROM journal_info WHERE name IN ('member_id', 'unused_parts'); PRAGMA user_version = 1";
    journal.execute_batch(back).unwrap();
    drop(journal);
    sender.event(LEADS, "acme", 10);
    let sink = sink.restart();
    sink.await_events(11);
    let leads = integrity(&sink, LEADS, 0);
    assert_eq!((&leads["first"], &leads["last"], &leads["stored"]), (&0.into(), &16.into(), &11.into()));
    assert_eq!(sink.value::<String>(whose), "core 7.50 bolt - bolt -");
    assert_eq!(verify(&sink, &[]).0, 0);
    assert_eq!(schema(&rusqlite::Connection::open(sink.journal()).unwrap()), made_new);
}

/// Every column of every table, and every index and trigger.
fn schema(journal: &rusqlite::Connection) -> Vec<String> {
    let sql = "SELECT master.type || ' ' || master.name || ' ' || coalesce(col.name || ' ' || col.type || ' ' || \"notnull\" \
                   || ' ' || coalesce(dflt_value, '') || ' ' || pk, '') \
               FROM sqlite_master AS master LEFT JOIN pragma_table_info(master.name) AS col ORDER BY 1";
    let mut select = journal.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Where librdkafka looked an offset up itself, its answer came after reading had begun, and moved reading to the end.
#[test]
fn a_slow_broker_does_not_move_reading_anywhere_else() {
    for round_trip_ms in [60, 120, 180] {
        let broker = Embedded::start(&[(LEADS, 2)]);
        let sender = Sender::to(&broker.bootstrap());
        for number in 0..200 {
            sender.queue_event(LEADS, "acme", number);
        }
        sender.flush();
        broker.cluster().broker_round_trip_time(1, std::time::Duration::from_millis(round_trip_ms)).unwrap();
        let sink = Setup::with(&broker.bootstrap()).start();
        eventually("it reads", || sink.events() > 0);
        for number in 200..400 {
            sender.queue_event(LEADS, "acme", number);
        }
        sender.flush();
        sink.await_events(400);
        for partition in 0..2 {
            assert_eq!(integrity(&sink, LEADS, partition)["not_delivered"], 0, "{round_trip_ms} ms");
        }
    }
}
