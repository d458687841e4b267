//! The judge: each record that the broker holds stands in the file once, with its bytes, and nothing else does.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::rows;
use crate::harness::{DEADLINE, Sink, eventually};

/// Topic, partition, offset.
pub type Place = (String, i32, i64);

/// Stands for a record's value; an absent one differs from an empty one.
pub fn digest(value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What was found.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Records that the broker holds.
    pub broker: usize,
    pub dead_letters: usize,
    /// Of those, how many the file does not have, or has with other bytes.
    pub lost: usize,
    /// Rows beyond the first of a record, and rows of no record.
    pub doubled: usize,
}

/// Waits until the file has as many rows as the broker has records, then compares each.
#[track_caller]
pub fn assert_exactly_once(bootstrap: &str, topics: &[&str], sink: &Sink, acknowledged: &[(Place, u64)]) -> Comparison {
    let held = held_by_broker(bootstrap, topics);
    eventually(&format!("{held} rows (there are {})", rows(sink)), || rows(sink) >= held);
    let broker = read_by_kcat(bootstrap, topics);
    for (place, digest) in acknowledged {
        assert_eq!(broker.get(place), Some(digest), "the broker lost what it acknowledged: {place:?}");
    }
    let comparison = compare(&broker, &sink.journal());
    assert_eq!((comparison.lost, comparison.doubled), (0, 0), "{comparison:?}");
    assert_eq!(comparison.broker as i64, held);
    comparison
}

/// How many records the broker holds, by its own count.
fn held_by_broker(bootstrap: &str, topics: &[&str]) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let mut held = 0;
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), DEADLINE).unwrap();
            held += high - low;
        }
    }
    held
}

/// Every record of the topics, read by kcat: another build of another version of the client, with no group.
pub fn read_by_kcat(bootstrap: &str, topics: &[&str]) -> HashMap<Place, u64> {
    let mut records = HashMap::new();
    for topic in topics {
        each_by_kcat(bootstrap, topic, "%p\\t%o", |head, value| {
            let place = (topic.to_string(), head[0].parse().unwrap(), head[1].parse().unwrap());
            assert_eq!(records.insert(place, digest(value)), None, "kcat read a record twice");
        });
    }
    records
}

/// Shows each record of a topic as kcat reads it: what `format` asks for, parted by tabs, and the value.
pub fn each_by_kcat(bootstrap: &str, topic: &str, format: &str, mut visit: impl FnMut(&[&str], Option<&[u8]>)) {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-X", "fetch.wait.max.ms=50"]);
    // The value's length stands before it: a value may hold any byte. An absent one has the length -1.
    let read = kcat.args(["-f", &format!("%S\\t{format}\\n%s\\n")]).output().unwrap();
    assert!(read.status.success(), "kcat: {}", String::from_utf8_lossy(&read.stderr));
    let mut rest = &read.stdout[..];
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let head: Vec<&str> = std::str::from_utf8(&rest[..end]).unwrap().split('\t').collect();
        let length = usize::try_from(head[0].parse::<i64>().unwrap()).ok();
        let value = &rest[end + 1..][..length.unwrap_or(0)];
        visit(&head[1..], length.map(|_| value));
        rest = &rest[end + 1 + value.len() + 1..];
    }
}

fn compare(broker: &HashMap<Place, u64>, journal: &Path) -> Comparison {
    let mut comparison = Comparison { broker: broker.len(), ..Comparison::default() };
    let mut stored: HashMap<Place, u64> = HashMap::new();
    let file = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for table in ["event_journal", "event_dlq"] {
        let sql = format!("SELECT topic, kafka_partition, kafka_offset, payload FROM {table} ORDER BY id");
        let mut statement = file.prepare(&sql).unwrap();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let place: Place = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
            let value = match row.get_ref(3).unwrap() {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
                _ => None,
            };
            comparison.dead_letters += usize::from(table == "event_dlq");
            if !broker.contains_key(&place) || stored.insert(place.clone(), digest(value)).is_some() {
                eprintln!("{table}: doubled, or never sent: {place:?}");
                comparison.doubled += 1;
            }
        }
    }
    for (place, digest) in broker {
        if stored.get(place) != Some(digest) {
            eprintln!("lost, or with other bytes: {place:?}");
            comparison.lost += 1;
        }
    }
    comparison
}
