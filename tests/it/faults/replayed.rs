//! The judge of replays: what kcat sees of each event on the topics, against what the job says became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::comparison::{Place, each_by_kcat};
use crate::harness::{Answer, Record, Sender, Sink, curl, within};

/// How long a job may take: it waits for more than a test's usual condition.
pub const JOB_DEADLINE: Duration = Duration::from_secs(300);

/// Two topics with three partitions each, unless a test makes others.
pub const TOPICS: [&str; 2] = [super::TOPICS[0], super::TOPICS[1]];

/// Sends `events` events of `keys` keys, each with the number that it has among those of its key, and waits until they
/// are in the journal, which is empty before.
pub fn fill(bootstrap: &str, sink: &Sink, events: u64, keys: u64) {
    let sender = Sender::in_order_to(bootstrap);
    for number in 0..events {
        let (lead, sequence) = (number % keys, number / keys);
        let tenant = ["acme", "globex", "initech"][lead as usize % 3];
        let key = format!("{tenant}:lead:{lead}");
        let value =
            format!(r#"{{"tenant_id":"{tenant}","event_type":"lead.moved","lead":{lead},"sequence":{sequence}}}"#);
        let topic = TOPICS[lead as usize % TOPICS.len()];
        sender.queue(&Record { topic, key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Record::default() });
    }
    sender.flush();
    sink.await_events(events as i64);
}

/// A record as kcat sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub place: Place,
    pub key: String,
    pub value: Vec<u8>,
    /// The `crm-replay-…` headers.
    origin: BTreeMap<String, String>,
}

impl Seen {
    pub fn origin(&self, name: &str) -> Option<&str> {
        self.origin.get(&format!("crm-replay-{name}")).map(String::as_str)
    }

    /// The headers that say where it comes from.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.origin.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The row of the journal that this is a replay of.
    fn event_id(&self) -> Option<i64> {
        Some(self.origin("of")?.parse().unwrap())
    }

    fn sequence(&self) -> u64 {
        let value: Value = serde_json::from_slice(&self.value).unwrap();
        value["sequence"].as_u64().unwrap()
    }
}

/// All records of some topics, in the order of each partition.
#[derive(Debug, PartialEq)]
pub struct Log(Vec<Seen>);

/// Where the replays of each event stand.
pub type Replays<'a> = BTreeMap<i64, Vec<&'a Seen>>;

impl Log {
    /// Read by kcat: another build of another version of the client.
    pub fn read(bootstrap: &str, topics: &[&str]) -> Log {
        let mut log = Vec::new();
        for topic in topics {
            each_by_kcat(bootstrap, topic, "%p\\t%o\\t%k\\t%h", |head, value| {
                let headers = head[3].split(',').filter_map(|header| header.split_once('='));
                let origin = headers.filter(|(name, _)| name.starts_with("crm-replay-"));
                log.push(Seen {
                    place: (topic.to_string(), head[0].parse().unwrap(), head[1].parse().unwrap()),
                    key: head[2].to_owned(),
                    value: value.unwrap_or_default().to_vec(),
                    origin: origin.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                });
            });
        }
        log.sort_by(|one, other| one.place.cmp(&other.place));
        Log(log)
    }

    /// Those that a job sent.
    pub fn of_job(mut self, id: i64) -> Log {
        let own = format!("{id}-");
        self.0.retain(|seen| seen.origin("job").is_some_and(|job| job.starts_with(&own)));
        self
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn records(&self) -> impl Iterator<Item = &Seen> {
        self.0.iter()
    }

    /// The replays of each event. Each is the record again that it says it is: the key and the value are the same, and
    /// on its own topic the partition is.
    #[track_caller]
    pub fn replays<'a>(&'a self, originals: &Log) -> Replays<'a> {
        let places = originals.0.iter().map(|seen| {
            let (topic, partition, offset) = &seen.place;
            (format!("{topic}/{partition}/{offset}"), seen)
        });
        let places: HashMap<String, &Seen> = places.collect();
        let mut replays = Replays::new();
        for seen in &self.0 {
            let Some(id) = seen.event_id() else { continue };
            let original = places[seen.origin("position").unwrap()];
            assert_eq!((&seen.key, &seen.value), (&original.key, &original.value), "{:?}", seen.place);
            if seen.place.0 == original.place.0 {
                assert_eq!(seen.place.1, original.place.1, "{:?} is on another partition", seen.place);
            }
            replays.entry(id).or_default().push(seen);
        }
        replays
    }

    /// Of each key, the replays stand in the order in which the events came. None may stand twice.
    #[track_caller]
    pub fn assert_replays_are_in_order(&self) {
        assert_in_order(self.0.iter().filter(|seen| seen.event_id().is_some()));
    }

    /// The same of what was sent first.
    #[track_caller]
    pub fn assert_originals_are_in_order(&self) {
        assert_in_order(self.0.iter().filter(|seen| seen.event_id().is_none()));
    }
}

#[track_caller]
fn assert_in_order<'a>(records: impl Iterator<Item = &'a Seen>) {
    let mut last: HashMap<(&str, &str), u64> = HashMap::new();
    for seen in records {
        let sequence = seen.sequence();
        if let Some(before) = last.insert((&seen.place.0, &seen.key), sequence) {
            assert!(before < sequence, "{} of {} comes after {before}: {:?}", sequence, seen.key, seen.place);
        }
    }
}

/// The events whose replay stands more than once.
pub fn doubled(replays: &Replays) -> BTreeSet<i64> {
    replays.iter().filter(|(_, places)| places.len() > 1).map(|(id, _)| *id).collect()
}

/// Asks for a job as an operator does, with curl, and gives its number.
#[track_caller]
pub fn make_job(sink: &Sink, path: &str, body: Option<&Value>) -> i64 {
    let made = post(sink, path, body);
    assert_eq!(made.status, 202, "{}", made.body);
    let id = made.json()["job_id"].as_i64().unwrap();
    assert!(made.head.contains(&format!("Location: /replay/jobs/{id}")), "{}", made.head);
    id
}

pub fn post(sink: &Sink, path: &str, body: Option<&Value>) -> Answer {
    let (url, body) = (format!("http://{}{path}", sink.api), body.map(Value::to_string));
    let mut arguments = vec!["-X", "POST", "-H", "X-Operator: anna", &url];
    if let Some(body) = &body {
        arguments.extend(["-H", "Content-Type: application/json", "-d", body]);
    }
    curl(&arguments)
}

pub fn job(sink: &Sink, id: i64) -> Value {
    let job = sink.get(&format!("/replay/jobs/{id}")).json();
    let parts = ["pending", "in_flight", "acknowledged", "failed", "uncertain", "cancelled"];
    let sum: i64 = parts.iter().map(|part| count(&job, part)).sum();
    assert_eq!(sum, count(&job, "total"), "{job}");
    job
}

pub fn count(job: &Value, part: &str) -> i64 {
    job[part].as_i64().unwrap_or_else(|| panic!("{part} of {job}"))
}

/// Waits until the job is as `condition` wants it.
#[track_caller]
pub fn await_job(sink: &Sink, id: i64, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    within(JOB_DEADLINE, what, || {
        last = job(sink, id);
        condition(&last)
    });
    last
}

/// Waits until the job has finished; it must not end otherwise.
#[track_caller]
pub fn await_finished(sink: &Sink, id: i64) -> Value {
    await_job(sink, id, "the job has finished", |job| {
        assert_ne!(job["status"], "cancelled");
        job["status"] == "finished"
    })
}

/// Every event of a job and what became of it, page by page.
pub fn items(sink: &Sink, id: i64) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = Some(format!("/replay/jobs/{id}/items?limit=1000"));
    while let Some(path) = next {
        let page = sink.get(&path);
        items.extend(page.json().as_array().unwrap().iter().cloned());
        let link = page.head.lines().find_map(|line| line.strip_prefix("Link: <"));
        next = link.map(|link| link.split('>').next().unwrap().to_owned());
    }
    items
}

/// What the job says of each event is what kcat sees: an acknowledged one stands where the job says, one that failed,
/// was cancelled or waits stands nowhere.
#[track_caller]
pub fn assert_items_are_true(items: &[Value], replays: &Replays) {
    for item in items {
        let id = item["event_id"].as_i64().unwrap();
        let stands = replays.get(&id).map_or(&[][..], Vec::as_slice);
        match item["state"].as_str().unwrap() {
            "acknowledged" => {
                let is_there = |seen: &&&Seen| {
                    let (topic, partition, offset) = &seen.place;
                    (&item["topic"], &item["partition"], &item["offset"])
                        == (&topic.as_str().into(), &(*partition).into(), &(*offset).into())
                };
                assert!(stands.iter().find(is_there).is_some(), "not where it says: {item}; it stands at {stands:?}");
            }
            "uncertain" => {}
            _ => assert!(stands.is_empty(), "it was sent: {item}; it stands at {stands:?}"),
        }
    }
}
