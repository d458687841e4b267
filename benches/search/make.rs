//! A journal of a branch office's 60 days: 200 tenants, a few of which make most of the events, six topics, keys with
//! a history, payloads of 361 bytes, some replays. The same for the same number of events, byte for byte.

use std::path::Path;
use std::time::Instant;

use crm_events_sink::dead_letter::breaker::Limits;
use crm_events_sink::store::{Rules, Writer};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};

pub const TENANTS: usize = 200;
/// Each topic, its share of 100 events, and the type of its events.
pub const TOPICS: [(&str, u32, &str); 6] = [
    ("apexflow.leads.created", 20, "lead.created"),
    ("apexflow.leads.status_changed", 35, "lead.status_changed"),
    ("apexflow.leads.note_added", 25, "lead.note_added"),
    ("apexflow.leads.assigned", 10, "lead.assigned"),
    ("apexflow.jobs.created", 7, "job.created"),
    ("apexflow.appointments.created", 3, "appointment.created"),
];
const PARTITIONS: usize = 6;
const DAYS: i64 = 60;
/// Events that one transaction of the sink has stored: they have one `received_at`.
const BATCH: u64 = 50;
/// One event of so many is a replay, and one of a type that is rare.
const REPLAY_EVERY: u64 = 5000;
pub const RARE_EVERY: u64 = 100_000;
const PAYLOAD_BYTES: usize = 361;

/// Makes `journal` with `events` rows, unless it is there.
pub fn make(journal: &Path, events: u64) {
    if journal.exists() {
        return;
    }
    let began = Instant::now();
    let unfinished = journal.with_extension("unfinished");
    std::fs::remove_file(&unfinished).ok();
    drop(writer(&unfinished));
    let connection = Connection::open(&unfinished).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144")
        .unwrap();
    let indexes = take_indexes(&connection);
    let offsets = fill(&connection, events);
    println!("{events} events inserted after {:.0?}", began.elapsed());
    for (index, stat, sql) in indexes {
        connection.execute_batch(&sql).unwrap();
        let sql = "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('event_journal', ?1, ?2)";
        connection.execute(sql, [index, stat]).unwrap();
    }
    for (topic, partitions) in TOPICS.iter().zip(offsets) {
        for (partition, next) in (0i64..).zip(partitions) {
            let sql =
                "INSERT INTO kafka_position (topic, kafka_partition, next_offset, journaled) VALUES (?1, ?2, ?3, ?3)";
            connection.execute(sql, params![topic.0, partition, next]).unwrap();
        }
    }
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    drop(connection);
    std::fs::rename(&unfinished, journal).unwrap();
    println!("made after {:.0?}", began.elapsed());
}

pub fn writer(journal: &Path) -> Writer {
    let dead_letters = Limits { consecutive_max: 100, ratio_max: 0.5 };
    Writer::open(journal, Rules { dead_letters, halt_on_gap: false, chain: false }).unwrap()
}

/// They are made when the rows are there, which is a lot faster: name, what the planner is told of it, and statement.
fn take_indexes(connection: &Connection) -> Vec<(String, String, String)> {
    let sql = "SELECT name, stat, sql FROM sqlite_schema JOIN sqlite_stat1 ON idx = name \
               WHERE type = 'index' AND tbl_name = 'event_journal'";
    let mut select = connection.prepare(sql).unwrap();
    let all = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let all: Vec<(String, String, String)> = all.map(Result::unwrap).collect();
    for (name, _, _) in &all {
        connection.execute_batch(&format!("DROP INDEX {name}")).unwrap();
    }
    all
}

fn fill(connection: &Connection, events: u64) -> Vec<[i64; PARTITIONS]> {
    let mut events_of = Events::new();
    let mut offsets = vec![[0; PARTITIONS]; TOPICS.len()];
    let until = "2025-11-03T20:00:00Z".parse::<Timestamp>().unwrap();
    let step = SignedDuration::from_secs(DAYS * 86_400) / i32::try_from(events.div_ceil(BATCH)).unwrap();
    let mut received = until - SignedDuration::from_secs(DAYS * 86_400);
    let sql = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, \
               kafka_timestamp, replay_of) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)";
    let mut insert = connection.prepare(sql).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for number in 0..events {
        if number % BATCH == 0 {
            received += step;
        }
        let event = events_of.next(number);
        let partition = (event.entity % PARTITIONS as u64) as i64;
        let offset = &mut offsets[event.topic][partition as usize];
        let replay_of = (number % REPLAY_EVERY == REPLAY_EVERY - 1).then(|| number as i64 - 100);
        let received_at = received.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
        let (topic, milliseconds) = (TOPICS[event.topic].0, received.as_millisecond());
        insert
            .execute(params![
                event.tenant,
                topic,
                event.payload,
                received_at,
                partition,
                *offset,
                event.key,
                milliseconds,
                replay_of
            ])
            .unwrap();
        *offset += 1;
    }
    connection.execute_batch("COMMIT").unwrap();
    offsets
}

pub struct Made {
    pub tenant: String,
    /// Into [`TOPICS`].
    pub topic: usize,
    pub entity: u64,
    pub key: String,
    pub payload: String,
}

/// What comes in, one event after the other.
pub struct Events {
    random: Rng,
    /// Of the tenants before and with each: their share of all events, which sinks with their number (Zipf).
    shares: Vec<f64>,
    entities: Vec<u64>,
}

impl Events {
    pub fn new() -> Events {
        let mut sum = 0.0;
        let shares = (1..=TENANTS).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Events { shares: shares.collect(), random: Rng::with_seed(17), entities: vec![0; TENANTS] }
    }

    /// Those that follow the first `events`.
    pub fn after(events: u64) -> Events {
        let mut all = Events::new();
        (0..events).for_each(|number| drop(all.next(number)));
        all
    }

    pub fn next(&mut self, number: u64) -> Made {
        let share = self.random.f64() * self.shares[TENANTS - 1];
        let tenant = self.shares.partition_point(|sum| *sum < share);
        let mut share = self.random.u32(0..100);
        let topic = TOPICS.iter().position(|(_, own, _)| share.checked_sub(*own).map(|left| share = left).is_none());
        let topic = topic.unwrap();
        let is_new = TOPICS[topic].0.ends_with(".created");
        self.entities[tenant] += u64::from(is_new);
        // What happens, happens to the newer ones.
        let age = (self.random.f64().powi(3) * self.entities[tenant] as f64) as u64;
        let entity = if is_new { self.entities[tenant] } else { self.entities[tenant] - age };
        let kind = TOPICS[topic].2.split('.').next().unwrap();
        let name = format!("tenant-{tenant:03}");
        let key = format!("{name}:{kind}:{entity}");
        let payload = self.payload(&name, topic, entity, number);
        Made { tenant: name, topic, entity, key, payload }
    }

    fn payload(&mut self, tenant: &str, topic: usize, entity: u64, number: u64) -> String {
        let kind = if number % RARE_EVERY == 7 { "lead.merged" } else { TOPICS[topic].2 };
        let status = ["new", "contacted", "qualified", "proposal", "won", "lost"][self.random.usize(0..6)];
        let start = format!(
            r#"{{"tenant_id":"{tenant}","event_type":"{kind}","event_version":1,"published_at":"2025-11-03T20:03:58Z","id":{entity},"name":"Person {number}","email":"person{number}@example.com","phone":"+43 316 {entity:07}","source":"web","status":"{status}","assigned_to":"user-{}","tags":["a","b"],"notes":""#,
            entity % 40
        );
        let padding = PAYLOAD_BYTES.saturating_sub(start.len() + 2);
        format!("{start}{}\"}}", "x".repeat(padding))
    }
}
