//! What the embedded broker cannot prove: the same against Apache Kafka itself, with kcat as the outsider.

use std::io::Write;
use std::process::{Command, Stdio};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::{ApacheKafka, DEADLINE, Sender, Setup, eventually, kcat_read};

const TOPICS: [&str; 6] = [
    "apexflow.leads.created",
    "apexflow.leads.status_changed",
    "apexflow.leads.note_added",
    "apexflow.leads.assigned",
    "apexflow.jobs.created",
    "apexflow.appointments.created",
];

fn kcat_send(bootstrap: &str, topic: &str, arguments: &[&str], value: &str) {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", bootstrap, "-P", "-t", topic]).args(arguments).stdin(Stdio::piped());
    let mut kcat = kcat.spawn().unwrap();
    kcat.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    assert!(kcat.wait().unwrap().success());
}

/// How many records the broker has in a topic.
fn records(bootstrap: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    let ends = |partition| consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
    metadata.topics()[0].partitions().iter().map(|p| ends(p.id())).map(|(low, high)| high - low).sum()
}

#[test]
fn the_operators_page_works_as_written() {
    crate::documents::the_operators_page_works_as_written(&ApacheKafka::start());
}

#[test]
fn what_kcat_sends_is_journaled_and_what_a_replay_sends_kcat_reads_back_the_same() {
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    let sink = Setup::with(&bootstrap).start();
    let value = r#"{"tenant_id": "acme", "event_type":"lead.created", "n": 1.10}"#;
    let arguments = ["-p", "2", "-k", "acme:lead:17", "-H", "trace=a", "-H", "trace=b", "-H", "empty="];
    kcat_send(&bootstrap, TOPICS[0], &arguments, value);
    sink.await_events(1);
    let event = sink.get("/events/1").json();
    assert_eq!((&event["kafka_key"], &event["kafka_partition"]), (&"acme:lead:17".into(), &2.into()));
    assert_eq!(event["kafka_headers"], serde_json::json!([["trace", "a"], ["trace", "b"], ["empty", ""]]));

    assert_eq!(sink.post("/replay/1").status, 200);
    let read = kcat_read(&bootstrap, TOPICS[0]);
    assert_eq!(read.len(), 2);
    for part in ["partition", "key", "payload"] {
        assert_eq!(read[0][part], read[1][part], "{part}");
    }
    assert_eq!(read[1]["payload"], value);
    let (before, after) = (read[0]["headers"].as_array().unwrap(), read[1]["headers"].as_array().unwrap());
    assert_eq!(before[..], after[..before.len()]);
    assert!(after[before.len()..].iter().step_by(2).all(|name| name.as_str().unwrap().starts_with("crm-replay-")));
    sink.await_events(2);
    assert_eq!(sink.get("/events/2").json()["replay_of"], 1);
}

#[test]
fn a_hundred_thousand_events_are_stored_once_each_also_across_a_stop_in_the_middle() {
    const EVENTS: u64 = 100_000;
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    let mut sink = Setup::with(&bootstrap).start();
    let sender = Sender::to(&bootstrap);
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            sender.queue_event(TOPICS[number as usize % TOPICS.len()], ["acme", "globex"][number as usize % 2], number);
        }
        sender.flush();
    };
    send(0..EVENTS / 2);
    eventually("some are stored", || sink.events() > EVENTS as i64 / 10);
    send(EVENTS / 2..EVENTS);
    assert_eq!(sink.stop(), Some(0));
    let before = sink.events();

    let sink = sink.restart();
    sink.await_events(EVENTS as i64);
    assert_eq!(TOPICS.iter().map(|topic| records(&bootstrap, topic)).sum::<i64>(), EVENTS as i64);
    assert_eq!(sink.value::<i64>("SELECT count(DISTINCT payload->>'id') FROM event_journal"), EVENTS as i64);
    let positions = "SELECT count(DISTINCT topic || '/' || kafka_partition || '/' || kafka_offset) FROM event_journal";
    assert_eq!(sink.value::<i64>(positions), EVENTS as i64);
    assert_eq!(sink.dead_letters(), 0);
    let since_restart = EVENTS as f64 - before as f64;
    for counter in ["crm_events_ingested_total", "crm_events_persisted_total"] {
        eventually("the counter equals the rows", || sink.metric_sum(counter) == since_restart);
    }
    for (topic, rows) in TOPICS.map(|topic| {
        let rows: i64 = sink.value(&format!("SELECT count(*) FROM event_journal WHERE topic = '{topic}'"));
        (topic, rows)
    }) {
        assert_eq!(rows, records(&bootstrap, topic), "{topic}");
    }
}

#[test]
fn a_topic_created_later_joins_and_the_groups_offsets_follow_the_file() {
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kcat_send(&bootstrap, TOPICS[0], &[], r#"{"tenant_id":"acme"}"#);
    let sink = Setup::with(&bootstrap).start();
    sink.await_events(1);
    kcat_send(&bootstrap, TOPICS[4], &[], r#"{"tenant_id":"acme"}"#);
    sink.await_events(2);
    let group: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &bootstrap).set("group.id", "crm-events-sink").create().unwrap();
    let committed = || {
        let mut partitions = rdkafka::TopicPartitionList::new();
        for partition in 0..3 {
            partitions.add_partition(TOPICS[0], partition);
            partitions.add_partition(TOPICS[4], partition);
        }
        let offsets = group.committed_offsets(partitions, DEADLINE).unwrap();
        offsets
            .elements()
            .iter()
            .filter_map(|element| element.offset().to_raw())
            .filter(|offset| *offset > 0)
            .sum::<i64>()
    };
    eventually("Kafka's group knows what is durable", || committed() == 2);
}
