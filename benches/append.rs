//! What the sink's write transaction costs beside a plain loop of inserts, and what the hash chain costs on top: the same
//! rows, indexes, pragmas and batches, one after the other in one run, so that the ratios hold where the figures do not.
//! `cargo bench --bench append`.

use std::path::Path;
use std::time::Instant;

use crm_events_sink::coverage::Begin;
use crm_events_sink::dead_letter::breaker::Limits;
use crm_events_sink::event::{Bytes, Event, Headers, Position, Record};
use crm_events_sink::queue::Item;
use crm_events_sink::store::{Rules, Writer};
use jiff::Timestamp;
use rusqlite::{Connection, params};

const ROWS: i64 = 100_000;
const BATCH: i64 = 2000;
const PARTITIONS: i64 = 6;
const ROUNDS: usize = 7;
const TOPIC: &str = "apexflow.leads.created";

/// What it is called, and how it writes the rows into the file.
type Way = (&'static str, fn(&Path));

/// The same rows, in a new file each time.
const WAYS: [Way; 3] =
    [("plain loop", plain_loop), ("write transaction", write_transaction), ("the same with journal.chain", chained)];

fn main() {
    println!("{ROWS} rows of 361 bytes in batches of {BATCH}, synchronous = FULL; rows/s");
    let mut speeds = [const { Vec::new() }; WAYS.len()];
    let mut bytes = [0; WAYS.len()];
    for round in 0..ROUNDS {
        // Each goes first as often as the others.
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            let (speed, size) = measure(WAYS[way].1);
            speeds[way].push(speed);
            bytes[way] = size / ROWS as u64;
        }
        let line: Vec<String> = speeds.iter().map(|speeds| format!("{:9.0}", speeds[round])).collect();
        println!("round {:2} {}", round + 1, line.join(" "));
    }
    for (way, (name, _)) in WAYS.iter().enumerate() {
        let bytes = bytes[way];
        println!("{name}: {bytes} bytes a row in the file, of the way before {:.2} of the speed", ratio(&speeds, way));
    }
}

/// The median of the rounds' ratios to the way before.
fn ratio(speeds: &[Vec<f64>], way: usize) -> f64 {
    let before = &speeds[way.saturating_sub(1)];
    let mut ratios: Vec<f64> = speeds[way].iter().zip(before).map(|(own, before)| own / before).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Rows a second, and the size of the file.
fn measure(append: fn(&Path)) -> (f64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    drop(writer(&journal, false));
    let began = Instant::now();
    append(&journal);
    let speed = ROWS as f64 / began.elapsed().as_secs_f64();
    (speed, journal.metadata().unwrap().len())
}

fn writer(journal: &Path, chain: bool) -> Writer {
    let dead_letters = Limits { consecutive_max: 100, ratio_max: 0.5 };
    Writer::open(journal, Rules { dead_letters, halt_on_gap: false, chain }).unwrap()
}

fn payload(number: i64) -> String {
    let start = format!(r#"{{"tenant_id":"acme","event_type":"lead.created","id":{number},"notes":""#);
    let padding = "x".repeat(361 - start.len() - 2);
    format!("{start}{padding}\"}}")
}

fn write_transaction(journal: &Path) {
    append(writer(journal, false));
}

fn chained(journal: &Path) {
    append(writer(journal, true));
}

fn append(mut writer: Writer) {
    let begin = |partition: i64| {
        let at = Position { topic: TOPIC.into(), partition: partition as i32, offset: 0 };
        Item::Begin(Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() })
    };
    let begins: Vec<Item> = (0..PARTITIONS).map(begin).collect();
    writer.append(&begins, &[], Timestamp::now()).unwrap();
    for batch in 0..ROWS / BATCH {
        let items: Vec<Item> = (batch * BATCH..(batch + 1) * BATCH).map(item).collect();
        writer.append(&items, &[], Timestamp::now()).unwrap();
        writer.checkpoint().unwrap();
    }
}

fn item(number: i64) -> Item {
    let position =
        Position { topic: TOPIC.into(), partition: (number % PARTITIONS) as i32, offset: number / PARTITIONS };
    let record = Record {
        position,
        key: Some(Bytes(format!("acme:lead:{}", number % 5000).into_bytes())),
        value: Some(payload(number).into_bytes()),
        headers: Headers::default(),
        timestamp_ms: Some(1_762_200_000_000 + number),
    };
    Item::Event(Event { record, tenant_id: "acme".to_owned() })
}

fn plain_loop(journal: &Path) {
    let connection = Connection::open(journal).unwrap();
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY")
        .unwrap();
    let insert = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, \
                  kafka_timestamp) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)";
    let advance = "INSERT INTO kafka_position (topic, kafka_partition, next_offset) VALUES (?1,?2,?3) \
                   ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset";
    for batch in 0..ROWS / BATCH {
        let rows: Vec<Item> = (batch * BATCH..(batch + 1) * BATCH).map(item).collect();
        let received_at = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for row in &rows {
            let Item::Event(event) = row else { continue };
            let (record, position) = (&event.record, &event.record.position);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let row = params![
                event.tenant_id,
                TOPIC,
                text(record.value.as_ref().unwrap()),
                received_at,
                position.partition,
                position.offset,
                text(&record.key.as_ref().unwrap().0),
                record.timestamp_ms,
            ];
            connection.prepare_cached(insert).unwrap().execute(row).unwrap();
        }
        for partition in 0..PARTITIONS {
            let next_offset = (batch + 1) * BATCH / PARTITIONS;
            connection.prepare_cached(advance).unwrap().execute(params![TOPIC, partition, next_offset]).unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
    }
}
