//! The broker's log is not what it was: deleted and created again, shortened by retention, or the file is an older one.

use std::fs;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

use crate::coverage::{integrity, verify};
use crate::faults::comparison::Comparison;
use crate::faults::{Proof, await_health};
use crate::harness::{ApacheKafka, DEADLINE, Sender, Setup, Sink, event, eventually};

const LEADS: &str = "apexflow.leads.created";

struct Admin(AdminClient<DefaultClientContext>, tokio::runtime::Runtime);

impl Admin {
    fn of(kafka: &ApacheKafka) -> Admin {
        let client = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
        Admin(client, tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap())
    }

    fn create(&self) {
        let topic = NewTopic::new(LEADS, 1, TopicReplication::Fixed(1));
        eventually("the topic is made", || {
            let made = self.1.block_on(self.0.create_topics([&topic], &AdminOptions::new())).unwrap();
            made[0].is_ok()
        });
    }

    fn delete(&self) {
        let deleted = self.1.block_on(self.0.delete_topics(&[LEADS], &AdminOptions::new())).unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    /// What retention does, at once.
    fn expire_before(&self, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(LEADS, 0, Offset::Offset(offset)).unwrap();
        self.1.block_on(self.0.delete_records(&before, &AdminOptions::new())).unwrap();
    }
}

fn send(sender: &Sender, numbers: std::ops::Range<u64>) {
    for number in numbers {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
}

/// Each number stands once.
#[track_caller]
fn await_numbers(sink: &Sink, numbers: i64) {
    sink.await_events(numbers);
    assert_eq!(sink.value::<i64>("SELECT count(DISTINCT payload->>'id') FROM event_journal"), numbers);
}

fn note(fault: &'static str, records: usize) {
    let mut proof = Proof::of(fault);
    proof.tried();
    proof.write_down(&Comparison { broker: records, ..Comparison::default() });
}

#[test]
fn a_topic_recreated_while_the_sink_runs_is_read_from_its_start() {
    let kafka = ApacheKafka::start();
    let admin = Admin::of(&kafka);
    admin.create();
    send(&Sender::to(&kafka.bootstrap()), 0..30);
    let sink = Setup::with(&kafka.bootstrap()).start();
    await_numbers(&sink, 30);
    // So fast, and with so many records, that the old position is within the new log and reading goes on in it.
    admin.delete();
    admin.create();
    let sender = Sender::to(&kafka.bootstrap());
    send(&sender, 100..170);
    await_numbers(&sink, 100);
    eventually("the ranges are the new log's", || integrity(&sink, LEADS, 0)["epoch"] == 1);
    send(&sender, 170..180);
    await_numbers(&sink, 110);
    let log = integrity(&sink, LEADS, 0);
    assert_eq!(json!([log["first"], log["last"], log["stored"], log["gaps"]]), json!([0, 79, 80, []]));
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE kafka_epoch = 0"), 30);
    assert_eq!(sink.metric_sum("crm_events_log_restarts_total"), 1.0);
    let (code, text) = verify(&sink, &[]);
    assert_eq!(code, 0, "{text}");
    note("topic: deleted and created again, sink running", 110);
}

#[test]
fn a_topic_recreated_while_the_sink_is_down_is_read_from_its_start_and_what_was_unread_is_named() {
    let kafka = ApacheKafka::start();
    let admin = Admin::of(&kafka);
    admin.create();
    send(&Sender::to(&kafka.bootstrap()), 0..30);
    let mut sink = Setup::with(&kafka.bootstrap()).start();
    await_numbers(&sink, 30);
    assert_eq!(sink.stop(), Some(0));
    admin.delete();
    admin.create();
    send(&Sender::to(&kafka.bootstrap()), 100..150);
    let sink = sink.restart();
    await_numbers(&sink, 80);
    let log = integrity(&sink, LEADS, 0);
    assert_eq!(json!([log["epoch"], log["first"], log["last"], log["stored"]]), json!([1, 0, 49, 50]));
    let (code, text) = verify(&sink, &[]);
    assert_eq!(code, 0, "{text}");
    note("topic: deleted and created again, sink down", 80);
}

#[test]
fn what_retention_took_is_named_and_may_halt_the_partition() {
    let kafka = ApacheKafka::start();
    let admin = Admin::of(&kafka);
    admin.create();
    let sender = Sender::to(&kafka.bootstrap());
    send(&sender, 0..20);
    admin.expire_before(5);
    let mut sink = Setup::with(&kafka.bootstrap()).start();
    await_numbers(&sink, 15);
    let log = integrity(&sink, LEADS, 0);
    assert_eq!((&log["gaps"][0]["reason"], &log["complete"]), (&"before_first_read".into(), &true.into()));
    assert_eq!(sink.stop(), Some(0));

    send(&sender, 20..50);
    admin.expire_before(40);
    let config = sink.folder.path().join("config.toml");
    let halting = fs::read_to_string(&config).unwrap() + "consume.on_gap = 'halt'\n";
    fs::write(&config, halting).unwrap();
    let sink = sink.restart();
    eventually("health says so", || sink.get("/health").body.contains("gap: offsets 20 to 39 are missing (expired)"));
    assert_eq!(sink.events(), 15, "nothing is taken before somebody has looked");
    let log = integrity(&sink, LEADS, 0);
    assert_eq!((&log["gaps"][1]["first"], &log["gaps"][1]["last"]), (&20.into(), &39.into()));
    assert_eq!((&log["complete"], &sink.get("/integrity").json()["complete"]), (&false.into(), &false.into()));
    assert_eq!(sink.metric(&format!("crm_events_gaps{{reason=\"expired\",topic=\"{LEADS}\"}}")), 1.0);
    assert_eq!(sink.post("/consumer/resume").status, 200);
    await_numbers(&sink, 25);
    await_health(&sink);
    let (code, text) = verify(&sink, &[]);
    assert_eq!((code, text.contains("20 to 39 are not in the file")), (1, true), "{text}");
}

#[test]
fn retention_that_overtakes_a_running_sink_never_makes_it_jump_in_silence() {
    let kafka = ApacheKafka::start();
    let admin = Admin::of(&kafka);
    admin.create();
    let sender = Sender::to(&kafka.bootstrap());
    send(&sender, 0..10);
    let sink = Setup::with(&kafka.bootstrap()).start();
    await_numbers(&sink, 10);
    sink.signal("STOP");
    send(&sender, 10..40);
    admin.expire_before(30);
    sink.signal("CONT");
    // Which of them had been fetched before is chance; what was not is named.
    eventually("the end is stored", || {
        sink.value::<i64>("SELECT count(*) FROM event_journal WHERE kafka_offset >= 30") == 10
    });
    let missing: i64 = integrity(&sink, LEADS, 0)["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|gap| gap["reason"] == "expired")
        .map(|gap| gap["offsets"].as_i64().unwrap())
        .sum();
    assert_eq!(sink.events() + missing, 40);
}

/// A copy of the journal of a sink that has stopped. Whoever closes it last may have been a reader, and then its log
/// still stands beside it: a connection that may write takes it in.
pub fn backup(sink: &Sink) -> Vec<u8> {
    assert!(sink.sql("SELECT 1").status.success());
    assert!(!sink.journal().with_file_name("journal.db-wal").exists());
    fs::read(sink.journal()).unwrap()
}

/// As docs/operating.md says it.
pub fn restore(sink: &Sink, copy: &[u8]) {
    for beside in ["journal.db-wal", "journal.db-shm"] {
        fs::remove_file(sink.journal().with_file_name(beside)).ok();
    }
    fs::write(sink.journal(), copy).unwrap();
}

#[test]
fn a_restored_older_copy_and_a_lost_file_refill_themselves_without_duplicates() {
    let kafka = ApacheKafka::start();
    Admin::of(&kafka).create();
    let sender = Sender::to(&kafka.bootstrap());
    send(&sender, 0..50);
    let mut sink = Setup::with(&kafka.bootstrap()).start();
    await_numbers(&sink, 50);
    assert_eq!(sink.stop(), Some(0));
    let copy = backup(&sink);
    send(&sender, 50..100);
    let mut sink = sink.restart();
    await_numbers(&sink, 100);
    assert_eq!(sink.stop(), Some(0));

    restore(&sink, &copy);
    let mut sink = sink.restart();
    await_numbers(&sink, 100);
    assert_eq!(integrity(&sink, LEADS, 0)["gaps"], json!([]));
    assert_eq!(verify(&sink, &[]).0, 0);
    assert_eq!(sink.stop(), Some(0));
    note("journal: an older copy restored", 100);

    for lost in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        fs::remove_file(sink.journal().with_file_name(lost)).ok();
    }
    let sink = sink.restart();
    await_numbers(&sink, 100);
    assert_eq!(integrity(&sink, LEADS, 0)["gaps"], json!([]));
    assert_eq!(verify(&sink, &[]).0, 0);
    note("journal: lost", 100);
}

#[test]
fn transaction_markers_and_aborted_records_are_no_gaps() {
    let kafka = ApacheKafka::start();
    Admin::of(&kafka).create();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", "crm");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    let mut number = 0;
    let mut transaction = |records: u64, commit: bool| {
        producer.begin_transaction().unwrap();
        for _ in 0..records {
            let value = event("acme", number);
            producer.send(BaseRecord::<str, str>::to(LEADS).payload(&value)).unwrap();
            number += 1;
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        if commit { producer.commit_transaction(DEADLINE) } else { producer.abort_transaction(DEADLINE) }.unwrap();
    };
    transaction(10, true);
    transaction(5, false);
    transaction(10, true);
    let sink = Setup::with(&kafka.bootstrap()).start();
    sink.await_events(20);
    let log = integrity(&sink, LEADS, 0);
    // 11 offsets, 6 offsets (passed over), 11 offsets: the last marker is the log's end, which no reader is told of.
    assert_eq!(json!([log["stored"], log["not_delivered"], log["gaps"], log["complete"]]), json!([20, 7, [], true]));
    let doubted = sink.log().matches("offsets were passed over; reading again").count();
    assert_eq!(doubted, 1, "a jump is believed when it is there a second time, and those after it at once");
    let (code, text) = verify(&sink, &["--wait", "1s"]);
    assert_eq!(code, 0, "{text}");
}
