//! Where events go before they are deleted: read back by an engine that is not ours, and kept from the faults of its disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::coverage::{integrity, verify};
use crate::harness::{Disk, Embedded, PROGRAM, Record, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";

fn sink_with(broker: &Embedded, folder: &Path) -> Sink {
    Setup::with(&broker.bootstrap()).toml(&format!("archive.folder = {folder:?}")).start()
}

/// Events of two tenants, so that the newest are old.
fn sink_with_events(events: u64, folder: &Path) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..events {
        sender.queue_event(LEADS, if number % 2 == 0 { "acme" } else { "globex" }, number);
    }
    sender.flush();
    let sink = sink_with(&broker, folder);
    sink.await_events(events as i64);
    (broker, sink)
}

/// Asks for everything that is there now to be pruned; the status.
fn prune(sink: &Sink) -> u16 {
    let now = || sink.value::<String>("SELECT replace(datetime('now'), ' ', 'T')");
    let received = sink.value::<String>("SELECT replace(max(received_at), ' ', 'T') FROM event_journal");
    eventually("the newest event is old", || now() > received);
    let until = now();
    let events = sink.post(&format!("/prune?until={until}&dry_run=true")).json()["events"].clone();
    sink.post(&format!("/prune?until={until}&confirm={events}")).status
}

/// The journal's events as `tests/archive/read.py` writes them.
fn journaled(sink: &Sink) -> Vec<String> {
    let sql = "SELECT json_array(id, tenant_id, topic, hex(payload), \
               CAST(strftime('%s', received_at) AS INTEGER) * 1000000 + CAST(substr(received_at, 21) AS INTEGER), \
               kafka_partition, kafka_offset, iif(kafka_key IS NULL, NULL, hex(kafka_key)), \
               iif(kafka_headers IS NULL, NULL, hex(kafka_headers)), kafka_timestamp, replay_of, kafka_epoch, dlq_id, \
               erased, substr(received_at, 1, 10)) FROM event_journal ORDER BY id";
    let journal = Connection::open(sink.journal()).unwrap();
    let mut select = journal.prepare(sql).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn read_by_duckdb(folder: &Path) -> Vec<String> {
    let python = Path::new(PROGRAM).ancestors().nth(2).unwrap().join("tools/python/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/archive/read.py");
    let read = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(read: &[String], journaled: &[String]) {
    for (read, journaled) in read.iter().zip(journaled) {
        assert_eq!(read, journaled);
    }
    assert_eq!(read.len(), journaled.len());
}

/// `archive verify`: its exit code, and what it said.
fn verify_archive(sink: &Sink) -> (i32, String) {
    let config = sink.folder.path().join("config.toml");
    let ran = program().args(["archive", "verify", "--config"]).arg(config).output().unwrap();
    (ran.status.code().unwrap(), String::from_utf8(ran.stdout).unwrap())
}

/// Every Parquet file that has its name.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let visible = entries.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    visible.flat_map(|path| if path.is_dir() { files(&path) } else { BTreeSet::from([path]) }).collect()
}

fn listed(sink: &Sink) -> Vec<Value> {
    sink.get("/archive?limit=1000").json().as_array().unwrap().clone()
}

#[test]
fn what_was_pruned_is_read_by_duckdb_byte_for_byte_as_the_journal_had_it() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let headers: [(&str, Option<&[u8]>); 3] = [("trace", Some(b"1")), ("trace", Some(b"\xff")), ("none", None)];
    let keys: [Option<&[u8]>; 4] = [Some(b"acme:lead:1"), Some(b"\x00\xff\xfe"), Some(b""), None];
    let tenants = ["acme", "a/b c=é", "17", "..", ""];
    for number in 0..200_usize {
        let tenant = tenants[number % tenants.len()];
        let value = format!(r#"{{ "tenant_id":"{tenant}",  "name":"J\u00f6rg 🦀\u0000", "n":1.10e2,"id":{number}}}"#);
        sender.queue(&Record {
            topic: LEADS,
            key: keys[number % keys.len()],
            value: Some(value.as_bytes()),
            headers: if number % 3 == 0 { &headers } else { &[] },
            ..Record::default()
        });
    }
    sender.flush();
    let folder = TempDir::new().unwrap();
    let sink = sink_with(&broker, folder.path());
    sink.await_events(200);
    assert_eq!(sink.post("/replay/7?reason=again").status, 200);
    sink.await_events(201);
    let mut all = journaled(&sink);
    assert_eq!(prune(&sink), 200);
    assert_eq!(sink.events(), 0);
    assert_same(&read_by_duckdb(folder.path()), &all);

    // What comes later goes to files of its own, and stands behind what was there.
    sender.event(LEADS, "acme", 1000);
    sink.await_events(1);
    all.extend(journaled(&sink));
    assert_eq!(prune(&sink), 200);
    assert_eq!(sink.events(), 0);
    assert_same(&read_by_duckdb(folder.path()), &all);

    assert_eq!(verify_archive(&sink), (0, "6 files with 202 events are as they were written, 0 are not\n".to_owned()));
    assert_eq!((listed(&sink).len(), files(folder.path()).len()), (6, 6));
    let metrics = ["crm_events_archive_files", "crm_events_archived_total"].map(|name| sink.metric(name));
    assert_eq!(metrics, [6.0, 202.0]);
    let bytes: u64 = files(folder.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(sink.metric("crm_events_archive_bytes"), bytes as f64);
    // Nothing is missed.
    let held: Vec<Value> = [0, 1].iter().map(|partition| integrity(&sink, LEADS, *partition)).collect();
    assert_eq!(held.iter().map(|log| log["pruned"].as_i64().unwrap()).sum::<i64>(), 202);
    assert_eq!(verify(&sink, &[]).0, 0);
}

#[test]
fn retention_deletes_what_the_archive_has_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..40 {
        sender.queue_event(LEADS, if number % 2 == 0 { "acme" } else { "kept" }, number);
    }
    sender.flush();
    // The folder is not there at first.
    let archive = folder.path().join("archive");
    let rules = "retention.age_max = \"10d\"\nretention.interval = \"1s\"\nretention.tenants.kept.age_max = \"0s\"";
    let setup = Setup::with(&broker.bootstrap()).toml(&format!("archive.folder = {archive:?}\n{rules}"));
    let sink = setup.start();
    sink.await_events(40);
    let aged = "UPDATE event_journal SET received_at = iif(id <= 20, '2025-11-03', '2025-11-04') || ' 10:00:00.' || \
                substr('000000' || id, -6) WHERE id <= 30";
    assert!(sink.sql(aged).status.success());
    let sink = sink.restart();
    eventually("it is said why nothing goes", || sink.get("/health").body.contains("archive: "));
    assert_eq!(sink.events(), 40);
    fs::create_dir(&archive).unwrap();
    eventually("the old events are gone", || sink.events() == 25);
    let kept: i64 = sink.value("SELECT count(*) FROM event_journal WHERE tenant_id = 'kept' OR id > 30");
    let files: Vec<String> =
        listed(&sink).iter().map(|file| format!("{} {} {}", file["tenant_id"], file["day"], file["rows"])).collect();
    let expected =
        ["acme\" \"2025-11-03\" 10", "kept\" \"2025-11-03\" 10", "acme\" \"2025-11-04\" 5", "kept\" \"2025-11-04\" 5"];
    assert_eq!((kept, files), (25, expected.map(|file| format!("\"{file}")).to_vec()));
    eventually("all is well", || sink.get("/health").status == 200);
    assert_eq!((verify_archive(&sink).0, verify(&sink, &["--offline"]).0), (0, 0));
}

#[test]
fn a_file_of_the_archive_that_was_changed_or_is_gone_is_found() {
    let folder = TempDir::new().unwrap();
    let (_broker, sink) = sink_with_events(20, folder.path());
    assert_eq!((prune(&sink), verify_archive(&sink).0), (200, 0));
    let paths: Vec<PathBuf> = files(folder.path()).into_iter().collect();
    let whole = fs::read(&paths[0]).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    fs::write(&paths[0], changed).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let (code, said) = verify_archive(&sink);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((code, lines.len()), (1, 3), "{said}");
    assert!(lines[0].contains("tenant_id=acme/") && lines[0].contains("other than what was written"), "{said}");
    assert!(lines[1].contains("tenant_id=globex/") && lines[1].contains("No such file"), "{said}");
    assert_eq!(lines[2], "0 files with 0 events are as they were written, 2 are not");
}

#[test]
fn nothing_is_deleted_while_the_archive_cannot_be_written() {
    let disk = Disk::mount(1 << 20);
    disk.fill(20_000);
    let (_broker, sink) = sink_with_events(2000, disk.path());
    assert_eq!((prune(&sink), sink.events()), (503, 2000));
    let health = sink.get("/health");
    assert!(
        health.status == 503 && health.body.contains("archive:") && health.body.contains("make room"),
        "{health:?}"
    );
    assert!((sink.metric("crm_events_archive_failures_total"), files(disk.path()).len()) == (1.0, 1));
    disk.free();
    assert_eq!((prune(&sink), sink.events(), sink.get("/health").status), (200, 0, 200));
    assert_eq!(verify_archive(&sink).0, 0);
}

#[test]
fn nothing_is_deleted_while_the_disk_of_the_archive_is_not_mounted() {
    let folder = TempDir::new().unwrap();
    let (broker, sink) = sink_with_events(10, folder.path());
    assert_eq!((prune(&sink), sink.events()), (200, 0));
    let (there, away) = (folder.path().to_owned(), folder.path().with_extension("away"));
    fs::rename(&there, &away).unwrap();
    fs::create_dir(&there).unwrap();
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 10);
    sink.await_events(1);
    assert_eq!((prune(&sink), sink.events()), (503, 1));
    assert!(sink.get("/health").body.contains("Is its disk mounted?"));
    fs::remove_dir(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    assert_eq!((prune(&sink), sink.events(), verify_archive(&sink).0), (200, 0, 0));
}

#[test]
fn a_crash_between_writing_and_deleting_loses_nothing_and_archives_nothing_twice() {
    let folder = TempDir::new().unwrap();
    let (_broker, mut sink) = sink_with_events(400, folder.path());
    let stop_at = |sink: &Sink, place: &str| {
        let sql = format!("CREATE TRIGGER stop BEFORE {place} BEGIN SELECT RAISE(ABORT, 'stopped here'); END");
        assert!(sink.sql(&sql).status.success());
    };
    let go_on = |mut sink: Sink| {
        sink.kill();
        assert!(sink.sql("DROP TRIGGER IF EXISTS stop").status.success());
        sink.restart()
    };
    // Written, and not listed.
    stop_at(&sink, "INSERT ON archive_file");
    assert_ne!(prune(&sink), 200);
    assert!(files(folder.path()).is_empty() && sink.events() == 400);
    sink = go_on(sink);
    // Listed, and not named: the name of its folder is taken.
    let taken = folder.path().join("tenant_id=globex");
    fs::write(&taken, "").unwrap();
    assert_eq!((prune(&sink), sink.events(), listed(&sink).len()), (503, 400, 2));
    sink = go_on(sink);
    fs::remove_file(&taken).unwrap();
    // Named, and not deleted.
    stop_at(&sink, "DELETE ON event_journal");
    assert_ne!(prune(&sink), 200);
    assert_eq!((sink.events(), files(folder.path()).len(), listed(&sink).len()), (400, 2, 2));
    sink = go_on(sink);

    assert_eq!((prune(&sink), sink.events()), (200, 0));
    assert_eq!(verify_archive(&sink), (0, "2 files with 400 events are as they were written, 0 are not\n".to_owned()));
    let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let own = left.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with('.')).unwrap();
    assert_eq!((fs::read_dir(own).unwrap().count(), verify(&sink, &[]).0), (0, 0));
}

#[test]
fn erasing_a_tenant_removes_its_files_and_erasing_a_key_names_them() {
    let folder = TempDir::new().unwrap();
    let (broker, sink) = sink_with_events(40, folder.path());
    assert_eq!((prune(&sink), files(folder.path()).len()), (200, 2));
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 2);
    sink.await_events(1);
    let erase = |query: &str| {
        let path = format!("/tenants/acme/erase?reason=request+9{query}");
        let confirm = sink.post(&path).json()["confirm"].as_str().unwrap().to_owned();
        sink.post(&format!("{path}&confirm={confirm}")).json()
    };
    let of_acme = listed(&sink).into_iter().find(|file| file["tenant_id"] == "acme").unwrap()["path"].clone();
    let of_key = erase("&key=acme:lead:2");
    assert_eq!((&of_key["events"], &of_key["archive_files_left"]), (&1.into(), &vec![of_acme].into()), "{of_key}");
    assert_eq!(files(folder.path()).len(), 2);

    let of_tenant = erase("");
    assert_eq!((&of_tenant["status"], &of_tenant["archive_files_left"]), (&"erased".into(), &Value::Array(vec![])));
    let left = files(folder.path());
    assert!(left.len() == 1 && left.first().unwrap().to_str().unwrap().contains("tenant_id=globex"), "{left:?}");
    assert_eq!(verify_archive(&sink), (0, "1 files with 20 events are as they were written, 0 are not\n".to_owned()));
    let removed = listed(&sink).into_iter().filter(|file| file["erased"] == of_tenant["certificate"]).count();
    assert_eq!((removed, sink.metric("crm_events_archive_files")), (1, 1.0));
}
