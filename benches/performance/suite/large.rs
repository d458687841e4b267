//! A journal that grows: how fast the store appends at its beginning and at its end, and in between how long a start and an
//! operator's reads take.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crm_events_sink::config::Config;
use crm_events_sink::coverage::Begin;
use crm_events_sink::event::{Bytes, Event, Headers, Position, Record as Taken};
use crm_events_sink::queue::Item;
use crm_events_sink::store::{Writer, free_bytes};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Bench;
use super::bare;
use super::broker;
use super::figures::{median, p99};
use super::quiet::forget;
use super::readers::ask;
use super::records::{PARTITIONS, Record, Records, TOPICS};
use super::sink::{Sink, newest};
use crate::harness::{DEADLINE, eventually};

/// Of the events that are there before a sink starts: topics that no broker has.
const FAMILY: &str = "earlier";
const STARTED: &str = "started";
/// Events that came at once, and have one `received_at`.
const AT_ONCE: u64 = 50;
/// Of a row with its part of the indexes, rather more than it takes.
const ROW_BYTES: u64 = 720;
/// The GETs of the operators' guide.
const GUIDE: [&str; 6] = [
    "/health",
    "/events/latest",
    "/events/latest?limit=50",
    "/events/latest?limit=100",
    "/dlq",
    "/events?tenant_id=acme&topic=leads",
];

/// A journal that is filled without a broker.
pub struct Journal {
    path: PathBuf,
    /// Those that come next.
    pub records: Records,
    offsets: [[i64; PARTITIONS]; TOPICS.len()],
}

impl Journal {
    pub fn make(path: &Path) -> Journal {
        drop(bare::writer(path));
        Journal { path: path.to_owned(), records: Records::new(), offsets: [[0; PARTITIONS]; TOPICS.len()] }
    }

    /// Adds rows as fast as SQLite can, with nothing that would outlast a crash, until there are `rows`.
    pub fn fill(&mut self, rows: u64) {
        let missing = rows.saturating_sub(newest(&self.path) as u64);
        let connection = Connection::open(&self.path).expect("it was just made");
        connection
            .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1048576; BEGIN")
            .expect("nobody else has it");
        self.insert(&connection, missing).expect("there is room");
        connection.execute_batch("COMMIT; PRAGMA journal_mode = WAL").expect("there is room");
        drop(connection);
        fs::File::open(&self.path).and_then(|file| file.sync_all()).expect("there is room");
    }

    fn insert(&mut self, connection: &Connection, rows: u64) -> rusqlite::Result<()> {
        let sql = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, \
                   kafka_timestamp) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)";
        let mut insert = connection.prepare(sql)?;
        let topics = broker::topics(FAMILY);
        let mut now = (0, String::new());
        for number in 0..rows {
            if number % AT_ONCE == 0 {
                let at = Timestamp::now();
                now = (at.as_millisecond(), at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string());
            }
            let (Record { tenant, topic, key, payload }, partition, offset) = self.next();
            insert.execute(params![tenant, topics[topic], payload, now.1, partition as i64, offset, key, now.0])?;
        }
        let sql = "INSERT OR REPLACE INTO kafka_position (topic, kafka_partition, next_offset, journaled) VALUES (?1,?2,?3,?3)";
        for (topic, offsets) in topics.iter().zip(self.offsets) {
            for (partition, next_offset) in offsets.into_iter().enumerate() {
                connection.execute(sql, params![topic, partition as i64, next_offset])?;
            }
        }
        Ok(())
    }

    /// The next record, its partition and its offset.
    fn next(&mut self) -> (Record, usize, i64) {
        let record = self.records.next().expect("they have no end");
        let partition = record.key.bytes().map(usize::from).sum::<usize>() % PARTITIONS;
        let next_offset = &mut self.offsets[record.topic][partition];
        *next_offset += 1;
        (record, partition, *next_offset - 1)
    }

    /// Rows a second of the sink's own store: the median of some pieces, after one that nobody counts.
    fn append(&mut self, pieces: usize, rows: usize) -> f64 {
        let mut writer = bare::writer(&self.path);
        let begins = self.begins();
        writer.append(&begins, &[], Timestamp::now()).expect("there is room");
        let mut rates: Vec<f64> = (0..=pieces).map(|_| self.append_piece(&mut writer, rows)).collect();
        rates.remove(0);
        median(rates)
    }

    fn begins(&self) -> Vec<Item> {
        let topics = broker::topics(FAMILY);
        let of_topic = |(topic, offsets): (&String, [i64; PARTITIONS])| {
            let begin = |partition: usize| {
                let at =
                    Position { topic: topic.as_str().into(), partition: partition as i32, offset: offsets[partition] };
                Item::Begin(Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() })
            };
            (0..PARTITIONS).map(begin).collect::<Vec<_>>()
        };
        topics.iter().zip(self.offsets).flat_map(of_topic).collect()
    }

    fn append_piece(&mut self, writer: &mut Writer, rows: usize) -> f64 {
        let topics = broker::topics(FAMILY);
        let items: Vec<Item> = (0..rows)
            .map(|_| {
                let (record, partition, offset) = self.next();
                let position =
                    Position { topic: topics[record.topic].as_str().into(), partition: partition as i32, offset };
                let (key, value) = (Some(Bytes(record.key.into_bytes())), Some(record.payload.into_bytes()));
                let timestamp_ms = Some(Timestamp::now().as_millisecond());
                let record_taken = Taken { position, key, value, headers: Headers::default(), timestamp_ms };
                Item::Event(Event { record: record_taken, tenant_id: record.tenant.to_owned() })
            })
            .collect();
        let began = Instant::now();
        for batch in items.chunks(Config::default().write.batch_rows_max) {
            writer.append(batch, &[], Timestamp::now()).expect("there is room");
            writer.checkpoint().expect("there is room");
        }
        rows as f64 / began.elapsed().as_secs_f64()
    }
}

pub fn measure(bench: &mut Bench) {
    let folder = bench.fresh("large");
    let [small, middle, mut large] = bench.size.growth;
    let room = free_bytes(&folder).expect("the folder has a disk") / ROW_BYTES;
    if room < large {
        large = room / 1_000_000 * 1_000_000;
        println!("# the disk has room for {large} rows only");
    }
    let mut journal = Journal::make(&folder.join("journal.db"));
    let (pieces, rows) = (bench.size.rounds, bench.size.growth_piece);
    journal.fill(small);
    let at_first = journal.append(pieces, rows);
    fill(&mut journal, middle);
    start(bench, &folder);
    read(bench, &folder);
    fill(&mut journal, large);
    let at_last = journal.append(pieces, rows);
    fs::remove_dir_all(&folder).expect("it is ours");
    bench.report.put("growth", at_last / at_first);
    bench.report.put("growth_first_rows_per_s", at_first);
    bench.report.put("growth_last_rows_per_s", at_last);
    bench.report.put("growth_last_at_rows", large as f64);
}

fn fill(journal: &mut Journal, rows: u64) {
    let began = Instant::now();
    journal.fill(rows);
    println!("# {rows} rows after {:.0?}", began.elapsed());
}

/// A start as after the box's own: nothing of the file is in memory.
fn start(bench: &mut Bench, folder: &Path) {
    broker::create(&bench.kafka, STARTED);
    let (mut ready, mut healthy) = (Vec::new(), Vec::new());
    for _ in 0..bench.size.rounds {
        forget(&folder.join("journal.db"));
        let address = folder.join("notify");
        let socket = UnixDatagram::bind(&address).expect("a socket for what systemd would be told");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut sink = Sink::start_with(folder, &bench.kafka.bootstrap(), &broker::subscription(STARTED), |run| {
            run.env("NOTIFY_SOCKET", &address);
        });
        let mut told = [0; 1024];
        let said = socket.recv(&mut told).expect("the sink says that it is ready");
        ready.push(sink.since.elapsed().as_secs_f64() * 1000.0);
        assert!(String::from_utf8_lossy(&told[..said]).contains("READY=1"), "that comes first");
        while sink.get("/health").is_none() {
            sink.assert_running();
            std::thread::sleep(Duration::from_millis(1));
        }
        healthy.push(sink.since.elapsed().as_secs_f64() * 1000.0);
        sink.stop();
        fs::remove_file(address).expect("it was ours");
    }
    bench.report.put("start_ms", median(ready));
    bench.report.put("start_healthy_ms", median(healthy));
}

/// One operator after the other asks what the guide asks, while the backlog comes in.
fn read(bench: &mut Bench, folder: &Path) {
    let mut sink = Sink::start(folder, &bench.kafka.bootstrap(), "");
    let before = newest(&sink.journal);
    sink.await_health();
    eventually("the backlog comes in", || newest(&sink.journal) > before);
    let mut urls = GUIDE.map(|path| (path, format!("http://{}{path}", sink.api))).to_vec();
    urls.push((":9105/metrics", format!("http://{}/metrics", sink.metrics)));
    let mut times = vec![Vec::new(); urls.len()];
    let agent = ureq::Agent::new_with_defaults();
    let (began, from) = (Instant::now(), newest(&sink.journal));
    let all = before + bench.size.records as i64;
    while times[0].len() < 3 || (began.elapsed() < bench.size.read_for && newest(&sink.journal) < all) {
        for ((_, url), times) in urls.iter().zip(&mut times) {
            let asked = Instant::now();
            ask(&agent, url);
            times.push(asked.elapsed().as_secs_f64() * 1000.0);
        }
    }
    let rate = (newest(&sink.journal) - from) as f64 / began.elapsed().as_secs_f64();
    sink.stop();
    let times: Vec<f64> = times.into_iter().map(p99).collect();
    // The metrics are no part of the API, and shown beside it.
    bench.report.put("read_p99_ms", times[..GUIDE.len()].iter().copied().fold(0.0, f64::max));
    for ((path, _), time) in urls.iter().zip(times) {
        bench.report.put(&format!("read_p99_ms GET {path}").replace(' ', "_"), time);
    }
    bench.report.put("read_ingest_events_per_s", rate);
}
