//! The power goes: what could be on the disk is whole, and holds all that Kafka was told is held.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use rusqlite::Connection;

use crate::faults::comparison::{Comparison, assert_exactly_once};
use crate::faults::disk::{Act, Disk, Event, Fate, read_trace, strace_arguments, write_files};
use crate::faults::load::Load;
use crate::faults::{Proof, TOPICS, await_more_than, chance, rows, times};
use crate::harness::{ApacheKafka, DEADLINE, Setup, Sink, eventually, program};

const PARTITIONS: i32 = 3;
/// Long enough that what is committed to Kafka before it is durable is seen committed before it is durable.
const SYNC_DELAY_US: u32 = 40_000;
/// The journal is made in about as many steps: each is a place to lose the power.
const FIRST_STEPS: usize = 60;

/// What was safe comes first: the others must hold at least that.
const FATES: [Fate; 4] = [Fate::Dropped, Fate::ByWrite, Fate::BySector, Fate::Kept];

type Offsets = HashMap<(String, i32), i64>;

/// What Kafka's group had committed, and by when (seconds since 1970).
struct Commits {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<(f64, Offsets)>>,
}

impl Commits {
    fn watch(bootstrap: &str) -> Commits {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "crm-events-sink");
        let group: BaseConsumer = config.create().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // No answer while Kafka makes the topic that holds the offsets.
                let Some(offsets) = committed(&group) else { continue };
                seen.push((SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64(), offsets));
                thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Commits { stop, thread }
    }

    fn stop(self) -> Vec<(f64, Offsets)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn committed(group: &BaseConsumer) -> Option<Offsets> {
    let mut asked = TopicPartitionList::new();
    for topic in TOPICS {
        asked.add_partition_range(topic, 0, PARTITIONS - 1);
    }
    let answer = group.committed_offsets(asked, DEADLINE).ok()?;
    let mut offsets = Offsets::new();
    for element in answer.elements() {
        if let Some(offset) = element.offset().to_raw().filter(|offset| *offset >= 0) {
            offsets.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Some(offsets)
}

/// The next offset of each partition in a file after a power cut. The file is whole, and for each partition it holds
/// exactly the records below that offset.
fn checked_offsets(journal: &Path, what: &str) -> Offsets {
    let file = Connection::open(journal).unwrap();
    let value = |sql: &str| file.query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(value("PRAGMA integrity_check").as_deref(), Ok("ok"), "{what}");
    let tables =
        value("SELECT count(*) || '' FROM sqlite_schema WHERE type = 'table' AND name LIKE 'event_%'").unwrap();
    if tables == "0" {
        return Offsets::new();
    }
    let sql = "SELECT topic, kafka_partition, next_offset, coalesce(n, 0), coalesce(lowest, 0), coalesce(highest, -1)
         FROM kafka_position LEFT JOIN
        (SELECT topic, kafka_partition, count(*) AS n, min(kafka_offset) AS lowest, max(kafka_offset) AS highest FROM
           (SELECT topic, kafka_partition, kafka_offset FROM event_journal UNION ALL
            SELECT topic, kafka_partition, kafka_offset FROM event_dlq)
         GROUP BY 1, 2) USING (topic, kafka_partition)";
    let mut statement = file.prepare(sql).unwrap();
    let mut found = statement.query([]).unwrap();
    let mut offsets = Offsets::new();
    while let Some(row) = found.next().unwrap() {
        let [next_offset, n, lowest, highest]: [i64; 4] = [2, 3, 4, 5].map(|column| row.get(column).unwrap());
        assert_eq!((n, lowest, highest), (next_offset, 0, next_offset - 1), "{what}: rows and position differ");
        offsets.insert((row.get(0).unwrap(), row.get(1).unwrap()), next_offset);
    }
    let rows: i64 = file
        .query_row("SELECT (SELECT count(*) FROM event_journal) + (SELECT count(*) FROM event_dlq)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(rows, offsets.values().sum::<i64>(), "{what}: rows of a partition without a position");
    offsets
}

/// What the real program does to its files: two starts and two stops under load.
fn record(bootstrap: &str, rows_per_start: i64) -> (Sink, Vec<Event>) {
    let scratch = tempfile::tempdir().unwrap();
    let watcher = |trace: &str| {
        let mut strace = Command::new("strace");
        strace.args(strace_arguments(SYNC_DELAY_US)).arg("-o").arg(scratch.path().join(trace));
        strace
    };
    let setup = Setup::with(bootstrap).session_ms(1500).toml("write.batch_rows_max = 300");
    let mut sink = setup.start_under(watcher("first"));
    let traced = |pid: u32, trace: &str| {
        let end = format!("{pid} ");
        eventually("strace has written everything", || {
            let text = fs::read(scratch.path().join(trace)).unwrap();
            let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
            tail.lines().any(|line| line.starts_with(&end) && line.ends_with("+++"))
        });
    };
    await_more_than(&sink, rows_per_start);
    assert_eq!(sink.stop(), Some(0));
    traced(sink.pid(), "first");
    let before = rows(&sink);
    let mut sink = sink.restart_under(watcher("second"));
    await_more_than(&sink, before + rows_per_start);
    // Not a kill: whether the write that it interrupts was made, no trace tells.
    assert_eq!(sink.stop(), Some(0));
    traced(sink.pid(), "second");
    let mut events = read_trace(&scratch.path().join("first"), sink.folder.path());
    events.extend(read_trace(&scratch.path().join("second"), sink.folder.path()));
    (sink, events)
}

/// That nothing was missed: the model's files are the real ones.
fn assert_the_model_is_true(events: &[Event], folder: &Path) {
    let mut disk = Disk::default();
    events.iter().for_each(|event| disk.take(&event.act));
    for (name, bytes) in disk.after_power_cut(Fate::Kept, &mut fastrand::Rng::with_seed(0)) {
        assert!(bytes == fs::read(folder.join(&name)).unwrap(), "{name}: the trace does not lead to the real file");
    }
}

fn cut_points(events: usize, cuts: u64, chance: &mut fastrand::Rng) -> Vec<usize> {
    let mut points: Vec<usize> = (0..cuts / 3).map(|_| chance.usize(..FIRST_STEPS)).collect();
    points.extend((cuts / 3..cuts).map(|_| chance.usize(..events)));
    points.sort();
    points
}

/// The newest observation that was complete at `at`.
fn committed_by(commits: &[(f64, Offsets)], at: f64) -> Option<&Offsets> {
    commits[..commits.partition_point(|(seen, _)| *seen <= at)].last().map(|(_, offsets)| offsets)
}

#[test]
fn after_a_power_cut_the_file_is_whole_and_holds_all_that_kafka_was_told() {
    let cuts = times("FAULT_CUTS", 45);
    let mut chance = chance("power cut");
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&TOPICS, PARTITIONS, "1");
    let load = Load::start(&bootstrap, &TOPICS, 700, 1200, chance.fork());
    let commits = Commits::watch(&bootstrap);
    let (sink, events) = record(&bootstrap, if cuts < 100 { 2500 } else { 8000 });
    let (commits, acknowledged) = (commits.stop(), load.stop());
    assert_the_model_is_true(&events, sink.folder.path());
    let syncs = events.iter().filter(|event| matches!(event.act, Act::Sync(_))).count();
    eprintln!("{} steps, {syncs} syncs, {} looks at Kafka's offsets", events.len(), commits.len());

    let mut proof = Proof::of("power cut (files rebuilt at any step)");
    // On these the sink itself is started: chosen beforehand, for all of them do not fit in memory.
    let restarts = (cuts / 50).max(2);
    let mut chosen: Vec<(u64, Fate)> = (0..restarts).map(|_| (chance.u64(..cuts), FATES[chance.usize(..4)])).collect();
    let mut comparison = Comparison::default();
    let mut disk = Disk::default();
    let mut taken = 0;
    for (number, point) in (0..).zip(cut_points(events.len(), cuts, &mut chance)) {
        events[taken..point].iter().for_each(|event| disk.take(&event.act));
        taken = point;
        // The state lasts until the next step counts.
        let told = committed_by(&commits, events[point].at).cloned().unwrap_or_default();
        let mut safe = Offsets::new();
        for fate in FATES {
            let what = format!("cut before step {point}, {fate:?}");
            let files = disk.after_power_cut(fate, &mut chance);
            let held = judge(&files, &told, &safe, &what);
            if fate == Fate::Dropped {
                safe = held;
            }
            proof.tried();
            while let Some(at) = chosen.iter().position(|chosen| *chosen == (number, fate)) {
                chosen.remove(at);
                let began = Instant::now();
                let (sink, before) = restart_on(&files, &bootstrap, &sink);
                await_more_than(&sink, before);
                proof.recovered_in(began.elapsed());
                comparison = assert_exactly_once(&bootstrap, &TOPICS, &sink, &acknowledged);
            }
        }
    }
    proof.write_down(&comparison);
}

/// What a rebuilt file holds: whole, at least what was safe, and at least what Kafka was told.
fn judge(files: &BTreeMap<String, Vec<u8>>, told: &Offsets, safe: &Offsets, what: &str) -> Offsets {
    let folder = tempfile::tempdir().unwrap();
    write_files(files, folder.path());
    let journal = folder.path().join("journal.db");
    if journal.exists() {
        let opened = program().args(["sql", "SELECT 1", "--journal"]).arg(&journal).output().unwrap();
        assert!(opened.status.success(), "{what}: {}", String::from_utf8_lossy(&opened.stderr));
    }
    let held = if journal.exists() { checked_offsets(&journal, what) } else { Offsets::new() };
    for (partition, offset) in told.iter().chain(safe) {
        let next_offset = held.get(partition).copied().unwrap_or(0);
        assert!(
            *offset <= next_offset,
            "{what}: {partition:?} was committed up to {offset}, the file has {next_offset}"
        );
    }
    held
}

/// The sink on a rebuilt file: what is missing there is in Kafka still. And how many rows it began with.
fn restart_on(files: &BTreeMap<String, Vec<u8>>, bootstrap: &str, recorded: &Sink) -> (Sink, i64) {
    let setup = Setup::with(bootstrap).session_ms(1500);
    let folder = setup.journal().parent().unwrap().to_owned();
    write_files(files, &folder);
    // By now the group has heard more of this box than it had at the cut: it must be known to be the same box.
    let lock = "journal.db.lock";
    fs::copy(recorded.folder.path().join(lock), folder.join(lock)).unwrap();
    let held =
        if setup.journal().exists() { checked_offsets(&setup.journal(), "before the restart") } else { Offsets::new() };
    (setup.start(), held.values().sum())
}
