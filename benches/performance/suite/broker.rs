//! Topics and records on Apache Kafka.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::records::{PARTITIONS, Record, Records, TOPICS};
use crate::harness::ApacheKafka;

pub type Sender = ThreadedProducer<DefaultProducerContext>;

/// What the sink's default topics match.
pub const BACKLOG: &str = "apexflow";

/// The six topics under a name of their own, so that what one part sends is no other's.
pub fn topics(family: &str) -> [String; TOPICS.len()] {
    TOPICS.map(|(topic, _)| format!("{family}.{topic}"))
}

/// For a sink that reads these topics only.
pub fn subscription(family: &str) -> String {
    format!("kafka.topics = [\"^{family}\\\\..*\"]\n")
}

pub fn create(kafka: &ApacheKafka, family: &str) {
    let topics = topics(family);
    kafka.create_topics(&topics.each_ref().map(String::as_str), PARTITIONS as i32, "1");
}

/// A producer as a service has it that sends much.
pub fn sender(bootstrap: &str, more: &[(&str, &str)]) -> Sender {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("partitioner", "murmur2_random");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

/// Gives a record to the producer, and waits while its queue is full.
pub fn send(sender: &Sender, topic: &str, key: &str, payload: &str) {
    let mut record = BaseRecord::to(topic).key(key).payload(payload);
    while let Err((error, back)) = sender.send(record) {
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        assert_eq!(error, full, "the producer refuses a record");
        record = back;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends the first `count` records to the topics of `family`.
pub fn fill(kafka: &ApacheKafka, family: &str, count: u64) {
    create(kafka, family);
    let topics = topics(family);
    let sender = sender(&kafka.bootstrap(), &[("linger.ms", "20"), ("compression.type", "lz4"), ("acks", "1")]);
    for Record { topic, key, payload, .. } in Records::new().take(count as usize) {
        send(&sender, &topics[topic], &key, &payload);
    }
    sender.flush(Duration::from_secs(60)).expect("the broker takes the records");
}
