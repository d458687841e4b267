//! What each index of event_journal costs: ingestion's speed, bytes written and bytes on the disk for each event, with
//! and without it, one after the other in one run, so that the ratios hold where the figures do not.
//! `cargo bench --bench indexes`; `INDEX_EVENTS` (2,000,000) is how many events the journal holds before.

#[path = "search/make.rs"]
mod make;

use std::fs;
use std::path::Path;
use std::time::Instant;

use crm_events_sink::coverage::Begin;
use crm_events_sink::event::{Bytes, Event, Headers, Position, Record};
use crm_events_sink::queue::Item;
use jiff::Timestamp;
use rusqlite::Connection;

const ROWS: u64 = 40_000;
const BATCH: u64 = 2000;
const ROUNDS: usize = 3;
const TOPIC_OF_OUR_OWN: &str = "apexflow.bench.";

/// What is done to the schema's indexes, and undone after.
const VARIANTS: [(&str, &str, &str); 6] = [
    ("schema.sql", "", ""),
    (
        "- tenant",
        "DROP INDEX event_journal_tenant",
        "CREATE INDEX event_journal_tenant ON event_journal (id >> 10, tenant_id, topic)",
    ),
    (
        "- key",
        "DROP INDEX event_journal_key",
        "CREATE INDEX event_journal_key ON event_journal (id >> 10, kafka_key) WHERE kafka_key IS NOT NULL",
    ),
    (
        "- received",
        "DROP INDEX event_journal_received",
        "CREATE INDEX event_journal_received ON event_journal (received_at)",
    ),
    ("+ (kafka_key)", "CREATE INDEX more ON event_journal (kafka_key) WHERE kafka_key IS NOT NULL", "DROP INDEX more"),
    (
        "+ (tenant_id, received_at), (topic, received_at)",
        "CREATE INDEX more ON event_journal (tenant_id, received_at); CREATE INDEX most ON event_journal (topic, received_at)",
        "DROP INDEX more; DROP INDEX most",
    ),
];

struct Cost {
    rows_per_second: f64,
    written_per_row: f64,
}

fn main() {
    let folder =
        tempfile::tempdir_in(std::env::var("SEARCH_FOLDER").unwrap_or_else(|_| "/var/tmp".to_owned())).unwrap();
    let events = std::env::var("INDEX_EVENTS").map_or(2_000_000, |text| text.parse().unwrap());
    let journal = folder.path().join("journal.db");
    make::make(&journal, events);
    let mut coming = make::Events::after(events);
    let mut costs: Vec<Vec<Cost>> = VARIANTS.iter().map(|_| Vec::new()).collect();
    let mut sizes = vec![0.0; VARIANTS.len()];
    let mut from = 0;
    for round in 0..ROUNDS {
        for turn in 0..VARIANTS.len() {
            // Each goes first as often as the others, nearly.
            let number = (turn + round * 3) % VARIANTS.len();
            let whole = bytes_per_row(&journal);
            change(&journal, VARIANTS[number].1);
            sizes[number] = bytes_per_row(&journal) - whole;
            costs[number].push(append(&journal, from, &mut coming));
            from += ROWS;
            change(&journal, VARIANTS[number].2);
        }
    }
    println!("{events} events before; {ROWS} more in batches of {BATCH}; medians of {ROUNDS}");
    println!("a row takes {:.0} bytes on the disk with schema.sql", bytes_per_row(&journal));
    println!("{:50}  rows/s  ratio  bytes written a row  more bytes on the disk a row", "indexes");
    let base = median(&costs[0], |cost| cost.rows_per_second);
    for ((variant, costs), size) in VARIANTS.iter().zip(&costs).zip(&sizes) {
        let (speed, written) = (median(costs, |cost| cost.rows_per_second), median(costs, |cost| cost.written_per_row));
        println!("{:50}  {speed:6.0}  {:5.2}  {written:19.0}  {size:28.1}", variant.0, speed / base);
    }
}

fn change(journal: &Path, sql: &str) {
    let connection = Connection::open(journal).unwrap();
    connection
        .execute_batch("PRAGMA cache_size = -262144; PRAGMA temp_store = MEMORY; PRAGMA synchronous = OFF")
        .unwrap();
    connection.execute_batch(sql).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Of the pages in use.
fn bytes_per_row(journal: &Path) -> f64 {
    let connection = Connection::open(journal).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let pages = number("PRAGMA page_count") - number("PRAGMA freelist_count");
    pages as f64 * 4096.0 / number("SELECT max(id) FROM event_journal") as f64
}

fn append(journal: &Path, from: u64, coming: &mut make::Events) -> Cost {
    let mut writer = make::writer(journal);
    let topic = |number: usize| format!("{TOPIC_OF_OUR_OWN}{number}.{from}");
    let begin = |number: usize| {
        let at = Position { topic: topic(number).into(), partition: 0, offset: 0 };
        Item::Begin(Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() })
    };
    let begins: Vec<Item> = (0..make::TOPICS.len()).map(begin).collect();
    writer.append(&begins, &[], Timestamp::now()).unwrap();
    let mut offsets = vec![0; make::TOPICS.len()];
    let mut batches = Vec::new();
    for batch in 0..ROWS / BATCH {
        let mut items = Vec::new();
        for number in batch * BATCH..(batch + 1) * BATCH {
            let made = coming.next(number);
            let offset = offsets[made.topic];
            offsets[made.topic] += 1;
            let record = Record {
                position: Position { topic: topic(made.topic).into(), partition: 0, offset },
                key: Some(Bytes(made.key.into_bytes())),
                value: Some(made.payload.into_bytes()),
                headers: Headers::default(),
                timestamp_ms: Some(1_762_200_000_000),
            };
            items.push(Item::Event(Event { record, tenant_id: made.tenant }));
        }
        batches.push(items);
    }
    let (began, written) = (Instant::now(), bytes_written());
    for items in batches {
        writer.append(&items, &[], Timestamp::now()).unwrap();
        writer.checkpoint().unwrap();
    }
    let rows = ROWS as f64;
    let written_per_row = (bytes_written() - written) as f64 / rows;
    Cost { rows_per_second: rows / began.elapsed().as_secs_f64(), written_per_row }
}

/// By this process, to the write-ahead log and the file.
fn bytes_written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn median(costs: &[Cost], of: fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
