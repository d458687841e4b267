//! How long ingestion waits for a transaction that erases or prunes: half of the rows of a chained journal are erased, then
//! all are pruned. `cargo bench --bench removal`.

use std::path::Path;
use std::time::{Duration, Instant};

use crm_events_sink::audit::Act;
use crm_events_sink::coverage::Begin;
use crm_events_sink::dead_letter::breaker::Limits;
use crm_events_sink::event::{Bytes, Event, Headers, Position, Record};
use crm_events_sink::queue::Item;
use crm_events_sink::removal::{ERASE_MAX, Scope};
use crm_events_sink::store::{Readers, Rules, Writer, file_sizes};
use jiff::Timestamp;

const ROWS: i64 = 400_000;
const BATCH: i64 = 2000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let dead_letters = Limits { consecutive_max: 0, ratio_max: 1.0 };
    let mut writer = Writer::open(&path, Rules { dead_letters, halt_on_gap: false, chain: true }).unwrap();
    fill(&mut writer);
    let readers = Readers::open(&path);
    println!(
        "{ROWS} rows of 361 bytes, {} MB; of each transaction: median, longest, rows a second in all",
        megabytes(&path)
    );

    let scope = Scope { tenant_id: "t0".to_owned(), key: None, last_event_id: ROWS, last_letter_id: 0 };
    let erasure = writer.begin_erasure(&scope, &act(), Timestamp::now()).unwrap().certificate;
    let (mut times, mut after, mut rows) = (Vec::new(), 0, 0);
    loop {
        let (next, last) = readers.next_to_erase(erasure, &scope, after).unwrap();
        if next.is_empty() {
            break;
        }
        rows += next.events.len();
        times.push(timed(|| {
            writer.erase(erasure, &scope, &next).unwrap().unwrap();
            writer.checkpoint().unwrap();
        }));
        after = last;
    }
    report("erase 500", &mut times, rows);

    let began = Instant::now();
    let pages = readers.pages_to_scrub().unwrap();
    println!("looking for unused parts: {:.2} s, {} pages", began.elapsed().as_secs_f64(), pages.len());
    let mut times = Vec::new();
    for some in pages.chunks(ERASE_MAX) {
        times.push(timed(|| {
            writer.scrub(some).unwrap();
            writer.checkpoint().unwrap();
        }));
    }
    report("scrub 500 pages", &mut times, pages.len());
    let began = Instant::now();
    writer.finish_erasure(erasure, &scope, &act(), Timestamp::now()).unwrap().unwrap();
    println!("emptying the log and the certificate: {:.3} s", began.elapsed().as_secs_f64());

    let (mut times, mut rows) = (Vec::new(), 0);
    loop {
        let mut pruned = 0;
        times.push(timed(|| {
            pruned = writer.prune(ROWS, erasure).unwrap().events as usize;
            writer.checkpoint().unwrap();
        }));
        if pruned == 0 {
            break;
        }
        rows += pruned;
    }
    report("prune 500", &mut times, rows);
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn report(what: &str, times: &mut [Duration], rows: usize) {
    times.sort_unstable();
    let all: Duration = times.iter().sum();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let speed = rows as f64 / all.as_secs_f64();
    println!("{what}: {:.1} ms, {:.1} ms, {speed:.0}", ms(times.get(times.len() / 2)), ms(times.last()));
}

fn megabytes(path: &Path) -> u64 {
    file_sizes(path).0 >> 20
}

fn fill(writer: &mut Writer) {
    let at = Position { topic: "leads".into(), partition: 0, offset: 0 };
    let begin = Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() };
    writer.append(&[Item::Begin(begin)], &[], Timestamp::now()).unwrap();
    for batch in 0..ROWS / BATCH {
        let items: Vec<Item> = (batch * BATCH..(batch + 1) * BATCH).map(item).collect();
        writer.append(&items, &[], Timestamp::now()).unwrap();
        writer.checkpoint().unwrap();
    }
}

fn item(offset: i64) -> Item {
    let tenant_id = format!("t{}", offset % 2);
    let start = format!(r#"{{"tenant_id":"{tenant_id}","event_type":"lead.created","id":{offset},"notes":""#);
    let value = Some(format!("{start}{}\"}}", "x".repeat(361 - start.len() - 2)).into_bytes());
    let key = Some(Bytes(format!("lead:{}:{tenant_id}", offset * 7919 % 20_011).into_bytes()));
    let position = Position { topic: "leads".into(), partition: 0, offset };
    Item::Event(Event {
        record: Record { position, key, value, headers: Headers::default(), timestamp_ms: None },
        tenant_id,
    })
}

fn act() -> Act {
    Act::new("bench", "127.0.0.1", "tenant.erase", "tenant t0")
}
