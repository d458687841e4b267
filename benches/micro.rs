//! What one record costs on its way: made an event of, collected into a batch, written into the file.
//! `cargo bench --bench micro`, or of these only `-- decode`, `-- batch`, `-- append`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use crm_events_sink::coverage::Begin;
use crm_events_sink::dead_letter::breaker::Limits;
use crm_events_sink::event::{Bytes, DEPTH_MAX, Event, Headers, Position, Record, decode};
use crm_events_sink::queue::{Batch, Item, bounded};
use crm_events_sink::store::{Rules, Writer};
use jiff::Timestamp;

const TOPIC: &str = "apexflow.leads.created";
const ROWS_A_BATCH: usize = 2000;

/// A lead of as many bytes.
fn lead(bytes: usize) -> String {
    let start = r#"{"tenant_id":"tenant-017","event_type":"lead.created","event_version":1,"published_at":"2025-11-03T20:03:58Z","id":4711,"name":"Person 4711","email":"person4711@example.com","phone":"+43 316 0004711","source":"web","status":"new","assigned_to":"user-31","tags":["a","b"],"notes":""#;
    format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2))
}

/// A lead whose every field has an old and a new value.
fn changes(bytes: usize) -> String {
    let field = |number| format!(r#""field_{number}":{{"old":"before {number}","new":{number}.5,"is_own":true}}"#);
    let fields: Vec<String> = (0..bytes / field(10).len()).map(field).collect();
    format!(r#"{{"tenant_id":"tenant-017",{}}}"#, fields.join(","))
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, json) in [
        ("361 bytes", lead(361)),
        ("2 KiB of text", lead(2048)),
        ("2 KiB of fields", changes(2048)),
        (
            "escaped names",
            r#"{"tenant\u005fid":"acme","stra\u00dfe":"Am B\u00e4chl 1","\"note\"":"\u00d6"}"#.to_owned(),
        ),
        ("lone surrogate", lead(361).replace("notes", r"\ud800")),
        ("deepest", format!("{}1{}", r#"{"a":"#.repeat(DEPTH_MAX), "}".repeat(DEPTH_MAX))),
    ] {
        group.throughput(Throughput::Bytes(json.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(Some(black_box(json.as_bytes()))).unwrap()));
    }
    group.finish();
}

fn record(number: usize, value: &[u8]) -> Record {
    Record {
        position: Position { topic: TOPIC.into(), partition: 0, offset: number as i64 },
        key: Some(Bytes(format!("tenant-017:lead:{}", number % 5000).into_bytes())),
        value: Some(value.to_vec()),
        headers: Headers::default(),
        timestamp_ms: Some(1_762_200_000_000 + number as i64),
    }
}

fn event(record: Record) -> Item {
    let tenant_id = decode(record.value.as_deref()).unwrap();
    Item::Event(Event { record, tenant_id })
}

fn batching(criterion: &mut Criterion) {
    let value = lead(361);
    let (inlet, _orders, outlet) = bounded(1);
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(ROWS_A_BATCH as u64));
    group.bench_function("decoded, collected and queued", |bencher| {
        bencher.iter(|| {
            let mut batch = Batch::new(Instant::now());
            for number in 0..ROWS_A_BATCH {
                batch.push(event(record(number, black_box(value.as_bytes()))));
            }
            inlet.offer(batch, Duration::ZERO).unwrap();
            outlet.next(Instant::now())
        });
    });
    group.finish();
}

fn appending(criterion: &mut Criterion) {
    let value = lead(361);
    let folder = tempfile::tempdir().unwrap();
    let dead_letters = Limits { consecutive_max: 100, ratio_max: 0.5 };
    let rules = Rules { dead_letters, halt_on_gap: false, chain: false };
    let mut writer = Writer::open(&folder.path().join("journal.db"), rules).unwrap();
    let at = record(0, b"").position;
    let begin = Item::Begin(Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() });
    writer.append(&[begin], &[], Timestamp::now()).unwrap();

    let mut group = criterion.benchmark_group("append");
    group.sample_size(20);
    let mut written = 0;
    for rows in [10, 100, ROWS_A_BATCH] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("{rows} rows"), |bencher| {
            let writer = std::cell::RefCell::new(&mut writer);
            let next = || {
                writer.borrow_mut().checkpoint().unwrap();
                written += rows;
                (written - rows..written).map(|number| event(record(number, value.as_bytes()))).collect::<Vec<_>>()
            };
            let append = |items: Vec<Item>| writer.borrow_mut().append(&items, &[], Timestamp::now()).unwrap();
            bencher.iter_batched(next, append, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, batching, appending);
criterion_main!(benches);
