//! A file that is not the journal it should be: damaged, cut short, somebody else's. It is said in one line with the
//! two ways on, every byte is kept, and after a quarantine the sink refills from Kafka.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::harness::{Embedded, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";
const EVENTS: u64 = 2000;
const PAGE: u64 = 4096;
/// A start looks at the pages for 0.1 s; the rest is for a slow machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

fn beside(journal: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", journal.display()))
}

/// The bytes of the file and its log, as far as they are there.
fn bytes(journal: &Path) -> [Vec<u8>; 2] {
    [journal.to_owned(), beside(journal, "-wal")].map(|path| fs::read(path).unwrap_or_default())
}

fn flip(file: &Path, from: u64, bytes: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut there = vec![0; bytes as usize];
    file.read_exact_at(&mut there, from).unwrap();
    let flipped: Vec<u8> = there.iter().map(|byte| byte ^ 0x5a).collect();
    file.write_all_at(&flipped, from).unwrap();
}

/// A sink with [`EVENTS`] events. Stopped in order, its file has all; killed, the log has some.
fn filled(broker: &Embedded) -> Sink {
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..EVENTS {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).start();
    sink.await_events(EVENTS as i64);
    sink
}

fn verb(verb: &str, journal: &Path) -> Output {
    program().arg(verb).arg("--journal").arg(journal).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `run` ends with 74 and one line that names the file and both ways on; nothing has changed.
#[track_caller]
fn is_refused(sink: &Sink, says: &str) {
    let before = bytes(&sink.journal());
    let mut again = program();
    again.arg("run").arg("--config").arg(sink.folder.path().join("config.toml"));
    let began = Instant::now();
    let mut running = again.stderr(Stdio::piped()).spawn().unwrap();
    while running.try_wait().unwrap().is_none() {
        if began.elapsed() > REFUSED_WITHIN {
            running.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = running.wait_with_output().unwrap();
    let message = text(&ended.stderr);
    assert_eq!((ended.status.code(), message.lines().count()), (Some(74), 1), "{message}");
    for part in [sink.journal().to_str().unwrap(), says, "restore a backup", "crm-events-sink quarantine"] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert!(bytes(&sink.journal()) == before, "the files were changed");
}

/// Quarantine keeps every byte; the next start has everything again, each once.
fn quarantine_refills(sink: Sink) -> Sink {
    let journal = sink.journal();
    let before = bytes(&journal);
    let done = verb("quarantine", &journal);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    let aside = said.split_whitespace().find(|word| word.contains(".quarantined-")).unwrap().trim_end_matches(',');
    assert!(bytes(Path::new(aside)) == before, "the bytes are not those that were there");
    assert!(!journal.exists() && !beside(&journal, "-wal").exists() && beside(&journal, ".lock").exists());
    let sink = sink.restart();
    holds_each_once(&sink);
    sink
}

#[track_caller]
fn holds_each_once(sink: &Sink) {
    sink.await_events(EVENTS as i64);
    assert_eq!(sink.value::<i64>("SELECT count(DISTINCT payload->>'id') FROM event_journal"), EVENTS as i64);
    assert_eq!(sink.dead_letters(), 0);
}

#[test]
fn a_damaged_file_is_refused_as_it_is_and_quarantine_refills() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let mut sink = filled(&broker);
    assert_eq!(sink.stop(), Some(0));
    let whole = fs::read(sink.journal()).unwrap();
    let first_table: i64 = sink.value("SELECT rootpage FROM sqlite_schema WHERE name = 'event_journal'");
    let newest = whole.len() as u64 - PAGE;
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("not a journal of the sink", &|file| flip(file, 0, 8)),
        ("not a journal of the sink", &|file| flip(file, 16, 2)),
        ("not a journal of the sink", &|file| flip(file, 68, 4)),
        ("the journal is damaged", &|file| flip(file, 100, 200)),
        ("the journal is damaged", &|file| flip(file, (first_table as u64 - 1) * PAGE, 100)),
        ("the journal is damaged", &|file| flip(file, whole.len() as u64 / 2 / PAGE * PAGE, PAGE)),
        ("the journal is damaged", &|file| {
            fs::File::options().write(true).open(file).unwrap().set_len(newest).unwrap()
        }),
    ];
    for (says, damage) in damages {
        fs::write(sink.journal(), &whole).unwrap();
        damage(&sink.journal());
        is_refused(&sink, says);
        assert_eq!(verb("check-journal", &sink.journal()).status.code(), Some(74));
    }
    let mut sink = quarantine_refills(sink);
    let running = verb("quarantine", &sink.journal());
    assert_eq!(running.status.code(), Some(75), "{}", text(&running.stderr));
    let checked = verb("check-journal", &sink.journal());
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("the journal is whole"));
    assert_eq!(sink.stop(), Some(0));
    // The shell's file is as good as new again when a backup takes its place.
    fs::write(sink.journal(), &whole).unwrap();
    holds_each_once(&sink.restart());
}

#[test]
fn a_log_without_its_file_is_refused_as_it_is_and_quarantine_keeps_it() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let mut sink = filled(&broker);
    sink.kill();
    assert!(!bytes(&sink.journal())[1].is_empty());
    fs::write(sink.journal(), "").unwrap();
    is_refused(&sink, "its write-ahead log");
    let sql = sink.sql("SELECT 1");
    assert_eq!(sql.status.code(), Some(1));
    fs::remove_file(sink.journal()).unwrap();
    is_refused(&sink, "its write-ahead log");
    assert!(!bytes(&sink.journal())[1].is_empty(), "the log was thrown away");
    quarantine_refills(sink);
}

#[test]
fn a_file_cut_short_under_its_log_is_refused_as_it_is() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let mut sink = filled(&broker);
    assert_eq!(sink.stop(), Some(0));
    let mut sink = sink.restart();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "acme", EVENTS);
    sink.await_events(EVENTS as i64 + 1);
    sink.kill();
    assert!(!bytes(&sink.journal())[1].is_empty());
    let length = sink.journal().metadata().unwrap().len();
    fs::File::options().write(true).open(sink.journal()).unwrap().set_len(length / PAGE / 2 * PAGE).unwrap();
    is_refused(&sink, "cut short");
}

#[test]
fn flipped_bytes_in_the_log_cost_nothing_that_kafka_still_has() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let mut sink = filled(&broker);
    sink.kill();
    let wal = beside(&sink.journal(), "-wal");
    let length = wal.metadata().unwrap().len();
    // The shared index would be believed, as after a kill it is; a power cut takes it away.
    fs::remove_file(beside(&sink.journal(), "-shm")).unwrap();
    flip(&wal, length / 2, 64);
    let before = Connection::open(sink.journal()).unwrap();
    let left: i64 = before.query_row("SELECT count(*) FROM event_journal", [], |row| row.get(0)).unwrap();
    drop(before);
    assert!(left < EVENTS as i64, "nothing was lost to the flipped bytes");
    holds_each_once(&sink.restart());
}

#[test]
fn a_foreign_file_is_refused_as_it_is_also_with_our_mark() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let mut sink = Setup::with(&broker.bootstrap()).start();
    assert_eq!(sink.stop(), Some(0));
    for (sql, says) in [
        ("CREATE TABLE notes (a)", "not a journal of the sink"),
        ("CREATE TABLE notes (a); PRAGMA application_id = 12345", "not a journal of the sink"),
        ("CREATE TABLE notes (a); PRAGMA application_id = 0x43455331; PRAGMA user_version = 1", "no such table"),
        (
            "CREATE TABLE event_journal (id, payload); PRAGMA application_id = 0x43455331; PRAGMA user_version = 1",
            "no such column",
        ),
    ] {
        fs::remove_file(sink.journal()).unwrap();
        let foreign = Connection::open(sink.journal()).unwrap();
        foreign.execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}")).unwrap();
        drop(foreign);
        is_refused(&sink, says);
    }
}

#[test]
fn nothing_to_quarantine_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let done = verb("quarantine", &folder.path().join("journal.db"));
    assert_eq!(done.status.code(), Some(74));
    assert!(text(&done.stderr).contains("nothing to quarantine"), "{}", text(&done.stderr));
}

#[test]
fn damage_met_while_running_is_said_with_both_ways_on_and_ends_nothing() {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let mut sink = filled(&broker);
    assert_eq!(sink.stop(), Some(0));
    let mut sink = sink.restart();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "tenant", EVENTS);
    sink.await_events(EVENTS as i64 + 1);
    // A page of old events, which the start has not kept in memory.
    let sqlite3 = Command::new("sqlite3").arg("-readonly").arg(sink.journal()).arg("PRAGMA page_count").output();
    let pages: u64 = text(&sqlite3.unwrap().stdout).trim().parse().unwrap();
    for page in 12..pages - 4 {
        flip(&sink.journal(), page * PAGE, 64);
    }
    let answers: Vec<_> = (1..EVENTS).step_by(50).map(|id| sink.get(&format!("/events/{id}"))).collect();
    let failed =
        answers.iter().find(|answer| answer.status != 200 && answer.status != 404).expect("a page was damaged");
    assert_eq!(failed.status, 500);
    for part in [sink.journal().to_str().unwrap(), "restore a backup", "crm-events-sink quarantine"] {
        assert!(failed.detail().contains(part), "{failed:?}");
    }
    let health = sink.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.body.contains("journal: ") && health.body.contains("quarantine"), "{}", health.body);

    // The writer meets it too: it waits, and makes no dead letters of it.
    for number in EVENTS + 1..EVENTS + 100 {
        sender.queue_event(LEADS, &format!("tenant-{number}"), number);
    }
    sender.flush();
    eventually("the writer met it", || sink.get("/health").body.contains("write: consumption waits until"));
    assert!(sink.is_running());
    assert!(sink.log().matches("not working").count() <= 3, "{}", sink.log());
    assert_eq!(sink.metric_sum("crm_events_dead_letters_total"), 0.0);
    sink.kill();
    let done = verb("quarantine", &sink.journal());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let sink = sink.restart();
    sink.await_events(EVENTS as i64 + 100);
}
