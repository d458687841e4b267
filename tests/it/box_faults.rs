//! The box's own faults, made real: a full disk, a file system that is read-only, I/O and sync errors in the running
//! process, somebody who holds the file. Nothing becomes a dead letter, nothing is lost or doubled, the sink's place
//! in the group stays, the API goes on reading, and all goes on by itself.

use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::harness::{Disk, Embedded, Record, Sender, Setup, Sink, eventually};

const LEADS: &str = "apexflow.leads.created";
/// Shorter than the faults here last: a consumer that stopped polling would lose its partitions.
const POLL_INTERVAL: Duration = Duration::from_secs(7);
/// "Within seconds", with room for a slow machine: retries come every half second.
const RECOVERY: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

/// Transactions of at most 256 KiB, a reserve of 4 MiB.
fn setup(broker: &Embedded) -> Setup {
    Setup::with(&broker.bootstrap()).toml(
        "journal.reserve_bytes = 4194304\nwrite.batch_bytes_max = 262144\nqueue.batch_bytes_max = 65536\n\
         queue.batches_max = 4\nkafka.properties.\"max.poll.interval.ms\" = 7000",
    )
}

/// Sends events numbered `numbers`, of about 1 KiB each.
fn send(sender: &Sender, numbers: std::ops::Range<u64>) {
    let filler = "x".repeat(1000);
    for number in numbers {
        let value = format!(r#"{{"tenant_id":"acme","id":{number},"note":"{filler}"}}"#);
        // Both in turn: the embedded broker keeps 5 MB a partition.
        let partition = Some((number % 2) as i32);
        sender.queue(&Record { topic: LEADS, partition, value: Some(value.as_bytes()), ..Record::default() });
    }
    sender.flush();
}

/// Every number from 0 to `count` once, and no dead letters.
#[track_caller]
fn assert_exactly_once(sink: &Sink, count: i64) {
    sink.await_events(count);
    let ids = "SELECT count(DISTINCT payload->>'id') || ' ' || min(payload->>'id') || ' ' || max(payload->>'id') FROM event_journal";
    assert_eq!(sink.value::<String>(ids), format!("{count} 0 {}", count - 1));
    assert_eq!(sink.dead_letters(), 0);
}

#[track_caller]
fn unhealthy_for(sink: &Sink, reason: &str) {
    eventually(&format!("health says {reason:?}"), || {
        let health = sink.get("/health");
        health.status == 503 && health.body.contains(reason)
    });
}

#[track_caller]
fn recovers(sink: &Sink, since: Instant) {
    eventually("it is healthy again", || sink.get("/health").status == 200);
    assert!(since.elapsed() < RECOVERY, "recovered after {:?}", since.elapsed());
    println!("recovered after {:?}", since.elapsed());
}

/// The sink was never without its partitions.
#[track_caller]
fn assert_place_kept(sink: &Sink) {
    assert_eq!(sink.log().matches("partitions assigned").count(), 1, "{}", sink.log());
    assert!(!sink.log().contains("partitions revoked"), "{}", sink.log());
}

#[test]
fn a_full_disk_at_the_start_is_waited_for_with_the_place_in_the_group_kept() {
    let disk = Disk::mount(16 * MIB);
    disk.fill(0);
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    send(&sender, 0..500);
    let mut sink = setup(&broker).on(&disk).start();
    unhealthy_for(&sink, "nothing is lost");
    assert_eq!(sink.get("/events/latest").status, 503);
    eventually("it has its partitions", || sink.metric_sum("crm_events_partitions_assigned") == 2.0);
    let full_since = Instant::now();
    eventually("the fault outlasts the poll interval", || {
        full_since.elapsed() > POLL_INTERVAL + Duration::from_secs(2)
    });
    assert!(sink.is_running());

    disk.free();
    let freed = Instant::now();
    recovers(&sink, freed);
    assert_exactly_once(&sink, 500);
    assert_place_kept(&sink);
    assert_eq!(sink.metric("crm_events_reserve_bytes"), 4.0 * MIB as f64);
}

#[test]
fn a_disk_that_fills_up_gives_the_reserve_up_takes_it_again_and_loses_nothing() {
    let disk = Disk::mount(24 * MIB);
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = setup(&broker).on(&disk).start();
    send(&sender, 0..2000);
    sink.await_events(2000);
    let reserve = disk.path().join("journal.db.reserve");
    assert_eq!(reserve.metadata().unwrap().len(), 4 * MIB);

    disk.fill(MIB / 4);
    send(&sender, 2000..7000);
    unhealthy_for(&sink, "the disk of");
    assert!(!reserve.exists());
    assert_eq!(sink.metric("crm_events_reserve_bytes"), 0.0);
    let full_since = Instant::now();
    eventually("the fault outlasts the poll interval", || {
        full_since.elapsed() > POLL_INTERVAL + Duration::from_secs(2)
    });
    assert_eq!(sink.get("/events/1").status, 200, "readers do not wait");
    let stored = sink.events();
    assert!(stored < 7000, "the disk was not full");
    assert_place_kept(&sink);

    // What the reserve freed is there for an operator, not for ingestion.
    let deleted = sink.sql("DELETE FROM event_journal WHERE id <= 100; SELECT changes()");
    assert_eq!(String::from_utf8_lossy(&deleted.stdout), "100\n", "{}", String::from_utf8_lossy(&deleted.stderr));
    eventually("the log of the deletion is copied back", || sink.value::<i64>("PRAGMA freelist_count") > 10);
    assert_eq!(sink.events(), stored - 100);

    // A restart in this state starts; it does not loop.
    let sink = sink.restart();
    unhealthy_for(&sink, "the disk of");
    assert_eq!(sink.get("/events/101").status, 200);

    disk.free();
    recovers(&sink, Instant::now());
    sink.await_events(6900);
    let missing = "SELECT 7000 - count(DISTINCT payload->>'id') FROM event_journal";
    assert_eq!((sink.value::<i64>(missing), sink.dead_letters()), (100, 0));
    eventually("the reserve is taken again", || reserve.exists());
    assert_eq!(sink.metric("crm_events_reserve_bytes"), 4.0 * MIB as f64);
}

#[test]
fn deletions_alone_let_a_full_disk_go_on() {
    let disk = Disk::mount(24 * MIB);
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = setup(&broker).on(&disk).start();
    send(&sender, 0..6000);
    sink.await_events(6000);
    disk.fill(MIB / 4);
    send(&sender, 6000..12000);
    unhealthy_for(&sink, "the disk of");
    let mut below = 0;
    eventually("the rest is stored in what deletions freed", || {
        // A deletion is in the log until the writer has copied it back; one more may not fit before.
        let deletion = format!("DELETE FROM event_journal WHERE id <= {}", below + 500);
        if below < 9000 && sink.sql(&deletion).status.success() {
            below += 500;
        }
        sink.value::<Option<i64>>("SELECT max(id) FROM event_journal") >= Some(12000)
    });
    assert_eq!(sink.value::<i64>("SELECT count(*) - count(DISTINCT payload->>'id') FROM event_journal"), 0);
    assert_eq!(sink.value::<i64>("SELECT max(id) FROM event_journal"), 12000);
    assert_eq!(sink.dead_letters(), 0);
    unhealthy_for(&sink, "reserve");
    disk.free();
    recovers(&sink, Instant::now());
}

/// libfiu in the process: system calls that fail when `fiu-ctrl` says so.
struct Faults {
    pid: String,
    pipes: String,
}

impl Faults {
    fn start(setup: Setup) -> (Sink, Faults) {
        let library = |name: &str| format!("/usr/lib/fiu/fiu_{name}_preload.so");
        for name in ["run", "posix"] {
            assert!(
                std::path::Path::new(&library(name)).exists(),
                "{} is missing: apt-get install fiu-utils",
                library(name)
            );
        }
        let pipes = setup.journal().with_file_name("fiu").to_str().unwrap().to_owned();
        let sink = setup.start_with(|command| {
            let preload = format!("{} {}", library("run"), library("posix"));
            command.env("LD_PRELOAD", preload).env("FIU_CTRL_FIFO", &pipes).env("FIU_ENABLE", "");
        });
        let faults = Faults { pid: sink.pid().to_string(), pipes };
        (sink, faults)
    }

    fn control(&self, command: &str) {
        let mut ctrl = Command::new("fiu-ctrl");
        let done = ctrl.args(["-f", &self.pipes, "-c", command, &self.pid]).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn begin(&self, call: &str, errno: i32) {
        self.control(&format!("enable name=posix/io/{call},failinfo={errno}"));
    }

    fn end(&self, call: &str) {
        self.control(&format!("disable name=posix/io/{call}"));
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

#[test]
fn io_errors_in_the_running_process_are_waited_out() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let (sink, faults) = Faults::start(setup(&broker));
    send(&sender, 0..10);
    sink.await_events(10);
    let mut sent = 10;
    for (call, errno, says) in [
        ("rw/pwrite", EIO, "write: disk I/O error"),
        ("rw/pwrite", EROFS, "write: "),
        ("rw/pwrite", ENOSPC, "write: database or disk is full"),
        ("sync/fdatasync", EIO, "write: disk I/O error"),
        ("sync/fdatasync", ENOSPC, "write: disk I/O error"),
        ("rw/pread", EIO, ""),
        ("oc/open", EROFS, ""),
        ("rw/ftruncate", EIO, ""),
    ] {
        faults.begin(call, errno);
        let before = sink.events();
        send(&sender, sent..sent + 200);
        sent += 200;
        // Neither reading, opening nor truncating is part of a commit: those go unnoticed while all is well.
        if !says.is_empty() {
            unhealthy_for(&sink, says);
            assert_eq!(sink.events(), before, "{call}");
        }
        faults.end(call);
        let ended = Instant::now();
        sink.await_events(sent as i64);
        recovers(&sink, ended);
        assert_exactly_once(&sink, sent as i64);
    }
    assert_place_kept(&sink);
}

#[test]
fn a_page_that_the_disk_does_not_give_is_damage_to_the_api_and_does_not_stop_the_writer() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let (sink, faults) = Faults::start(setup(&broker));
    send(&sender, 0..3000);
    sink.await_events(3000);
    faults.begin("rw/pread", EIO);
    // SQLite's own judgement of EIO in a read.
    let answer = sink.get("/events/1500");
    assert_eq!(answer.status, 500);
    assert!(answer.detail().contains("the journal is damaged"), "{answer:?}");
    unhealthy_for(&sink, "journal: ");
    faults.end("rw/pread");
    assert_eq!(sink.get("/events/1500").status, 200);
    send(&sender, 3000..3100);
    assert_exactly_once(&sink, 3100);
}

#[test]
fn writes_cut_short_and_faults_that_come_and_go_lose_and_double_nothing() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let (mut sink, faults) = Faults::start(setup(&broker));
    send(&sender, 0..10);
    sink.await_events(10);
    faults.control("enable_random name=posix/io/rw/pwrite/reduce,probability=0.2");
    faults.control("enable_random name=posix/io/rw/pwrite,probability=0.01,failinfo=5");
    faults.control("enable_random name=posix/io/sync/fdatasync,probability=0.1,failinfo=5");
    send(&sender, 10..3000);
    eventually("some faults were met", || sink.log().matches("not working").count() >= 3 || sink.events() == 3000);
    assert!(sink.log().contains("not working"));
    // Killed in the middle of it, and started again without.
    sink.kill();
    let sink = sink.restart();
    assert_exactly_once(&sink, 3000);
    let check = Command::new(crate::harness::PROGRAM).args(["check-journal", "--journal"]).arg(sink.journal()).output();
    assert!(check.unwrap().status.success());
}

#[test]
fn after_a_failed_sync_nothing_is_appended_before_all_is_on_the_disk() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let (sink, faults) = Faults::start(setup(&broker));
    send(&sender, 0..10);
    sink.await_events(10);
    // A reader that stays keeps the log from being begun again.
    let reader = Connection::open(sink.journal()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM event_journal").unwrap();
    faults.begin("sync/fdatasync", EIO);
    send(&sender, 10..20);
    unhealthy_for(&sink, "disk I/O error");
    faults.end("sync/fdatasync");
    unhealthy_for(&sink, "another program holds the journal");
    assert_eq!(sink.events(), 10);
    assert_eq!(sink.get("/events/10").status, 200);

    reader.execute_batch("COMMIT").unwrap();
    let left = Instant::now();
    sink.await_events(20);
    recovers(&sink, left);
    assert_exactly_once(&sink, 20);
    let wal = std::fs::metadata(sink.journal().with_file_name("journal.db-wal")).unwrap().len();
    assert!(wal < 200_000, "the log was not begun again: {wal} bytes");
}

#[test]
fn a_file_that_is_locked_at_the_start_is_waited_for() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = setup(&broker).start();
    send(&sender, 0..10);
    sink.await_events(10);
    let other = Connection::open(sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    send(&sender, 10..20);
    // The killed process leaves a log behind, which nobody can settle while another writes.
    let sink = sink.restart();
    unhealthy_for(&sink, "not open yet");
    assert_eq!(sink.get("/events/10").status, 200, "readers do not wait");
    other.execute_batch("ROLLBACK").unwrap();
    let released = Instant::now();
    recovers(&sink, released);
    assert_exactly_once(&sink, 20);
}

#[test]
fn a_read_only_disk_at_the_start_is_waited_for_while_the_api_reads() {
    let disk = Disk::mount(24 * MIB);
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = setup(&broker).on(&disk).start();
    send(&sender, 0..10);
    sink.await_events(10);
    for round in [1, 2] {
        sink.kill();
        if round == 2 {
            // Not even the lock is there.
            std::fs::remove_file(disk.path().join("journal.db.lock")).unwrap();
        }
        disk.remount("ro");
        send(&sender, round * 10..round * 10 + 10);
        sink = sink.restart();
        unhealthy_for(&sink, "Read-only file system");
        assert_eq!(sink.get("/events/10").status, 200, "readers do not wait");
        assert_eq!(sink.post("/replay/4711").status, 404);
        disk.remount("rw");
        let writable = Instant::now();
        recovers(&sink, writable);
        assert_exactly_once(&sink, round as i64 * 10 + 10);
    }
}
