//! The journal away and back: a backup is taken from a sink that ingests, and is nothing before it is proven; a restore never
//! loses what it replaces, and Kafka gives the rest again, each record once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::{Connection, OpenFlags};

use crate::harness::{Disk, Embedded, Sender, Setup, Sink, curl, eventually, program};

const LEADS: &str = "apexflow.leads.created";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn verb(sink: &Sink, name: &str, more: &[&str]) -> Output {
    command(sink, name, more).output().unwrap()
}

fn command(sink: &Sink, name: &str, more: &[&str]) -> Command {
    let mut command = program();
    command.arg(name).arg("--config").arg(sink.folder.path().join("config.toml")).args(more);
    command
}

/// Takes one, and gives its file.
#[track_caller]
fn backup(sink: &Sink, folder: &Path, more: &[&str]) -> PathBuf {
    let taken = verb(sink, "backup", &[&["--to", folder.to_str().unwrap()], more].concat());
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    let said = text(&taken.stdout);
    let path = PathBuf::from(said.split(": ").next().unwrap());
    assert!(path.exists(), "{said}");
    path
}

fn restore(sink: &Sink, file: &Path, more: &[&str]) -> (Option<i32>, String) {
    let done = verb(sink, "restore", &[&[file.to_str().unwrap()], more].concat());
    (done.status.code(), text(&done.stdout) + &text(&done.stderr))
}

/// Every file of a folder, hidden ones too, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).into_keys().filter(|name| name != ".lock").collect()
}

/// A sink on one partition that has `events`, and its topic's sender.
fn filled(events: u64) -> (Embedded, Sender, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    send(&sender, 0, events);
    let sink = Setup::with(&broker.bootstrap()).start();
    sink.await_events(events as i64);
    (broker, sender, sink)
}

fn send(sender: &Sender, from: u64, until: u64) {
    for number in from..until {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
}

/// Reads on in a file that is no sink's.
fn number(file: &Path, sql: &str) -> i64 {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{}: {sql}: {error}", file.display()))
}

#[track_caller]
fn each_once(sink: &Sink, events: i64) {
    sink.await_events(events);
    let distinct = "SELECT count(DISTINCT payload->>'id') FROM event_journal";
    assert_eq!((sink.value::<i64>(distinct), sink.dead_letters()), (events, 0));
}

#[test]
fn a_backup_that_is_taken_while_the_sink_ingests_is_one_moment_of_the_journal() {
    let (broker, sender, sink) = filled(5_000);
    let folder = tempfile::tempdir().unwrap();
    let sending = std::thread::spawn(move || send(&sender, 5_000, 20_000));
    let mut backups = Vec::new();
    while !sending.is_finished() || backups.len() < 2 {
        let zstd: &[&str] = if backups.len() % 2 == 1 { &["--zstd"] } else { &[] };
        backups.push(backup(&sink, folder.path(), zstd));
    }
    sending.join().unwrap();
    each_once(&sink, 20_000);
    for file in &backups {
        let hash = format!("{}.sha256", file.display());
        let checked = Command::new("sha256sum").arg("-c").arg(hash).current_dir(folder.path()).output().unwrap();
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let plain = folder.path().join("looked-at.db");
        match file.extension().unwrap().to_str().unwrap() {
            "zst" => {
                let done = Command::new("zstd").args(["-q", "-d", "-f"]).arg(file).arg("-o").arg(&plain).status();
                assert!(done.unwrap().success());
            }
            _ => drop(fs::copy(file, &plain).unwrap()),
        }
        let whole = program().arg("check-journal").arg("--journal").arg(&plain).output().unwrap();
        assert!(whole.status.success(), "{}", text(&whole.stdout));
        let events = number(&plain, "SELECT count(*) FROM event_journal");
        assert!((5_000..=20_000).contains(&events), "{events}");
        // The first so many records, and where to read on stands right after them.
        assert_eq!(number(&plain, "SELECT max(CAST(payload->>'id' AS INTEGER)) FROM event_journal"), events - 1);
        assert_eq!(number(&plain, "SELECT count(DISTINCT kafka_offset) FROM event_journal"), events);
        assert_eq!(number(&plain, "SELECT next_offset FROM kafka_position"), events);
    }
    drop(broker);
}

#[test]
fn the_oldest_go_once_the_new_one_is_proven_and_nothing_else_of_the_folder_does() {
    let (_broker, _, sink) = filled(10);
    let folder = tempfile::tempdir().unwrap();
    let old = |day| format!("journal-202001{day:02}T000000Z.db");
    for day in 1..=5 {
        fs::write(folder.path().join(old(day)), "an old one").unwrap();
        fs::write(folder.path().join(old(day) + ".sha256"), "its hash").unwrap();
    }
    fs::write(folder.path().join("journal.db"), "somebody's").unwrap();
    let new = backup(&sink, folder.path(), &["--keep", "3"]);
    let name = new.file_name().unwrap().to_str().unwrap().to_owned();
    let mut left: Vec<String> =
        [old(4), old(5), name].iter().flat_map(|of| [of.clone(), format!("{of}.sha256")]).collect();
    left.push("journal.db".to_owned());
    left.sort();
    assert_eq!(names(folder.path()), left);

    // One that fails takes no older one with it: here two at once would.
    let lock = File::options().write(true).open(folder.path().join(".lock")).unwrap();
    lock.try_lock().unwrap();
    let busy = verb(&sink, "backup", &["--to", folder.path().to_str().unwrap(), "--keep", "1"]);
    assert_eq!((busy.status.code(), names(folder.path())), (Some(75), left), "{}", text(&busy.stderr));
}

#[test]
fn a_disk_that_is_too_small_is_said_before_anything_is_written() {
    let (_broker, _, sink) = filled(2_000);
    let disk = Disk::mount((64 << 20) + (64 << 10));
    let refused = verb(&sink, "backup", &["--to", disk.path().to_str().unwrap()]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(73), "{said}");
    assert!(said.contains("free bytes") && said.contains("another disk"), "{said}");
    assert_eq!(names(disk.path()), Vec::<String>::new());
    let nowhere = verb(&sink, "backup", &["--to", "/nowhere/backups"]);
    assert_eq!((nowhere.status.code(), text(&nowhere.stderr).contains("make it first")), (Some(73), true));
    assert_eq!(sink.get("/health").status, 200);
}

#[test]
fn a_damaged_backup_is_refused_and_the_journal_stays() {
    let (_broker, _, mut sink) = filled(3_000);
    let folder = tempfile::tempdir().unwrap();
    let plain = backup(&sink, folder.path(), &[]);
    let packed = backup(&sink, folder.path(), &["--zstd"]);
    assert_eq!(sink.stop(), Some(0));
    let before = files(sink.folder.path());
    let with_hash = |file: &Path| format!("{}.sha256", file.display());
    let flip = |file: &Path, at: u64| {
        let file = File::options().read(true).write(true).open(file).unwrap();
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, at).unwrap();
        file.write_all_at(&bytes.map(|byte| byte ^ 0x5a), at).unwrap();
    };
    for file in [&plain, &packed] {
        let middle = fs::metadata(file).unwrap().len() / 2 / 4096 * 4096;
        flip(file, middle);
        let (code, said) = restore(&sink, file, &["--force"]);
        assert_eq!((code, said.contains(".sha256")), (Some(65), true), "{said}");
        // Without its hash it is what is inside that tells.
        fs::remove_file(with_hash(file)).unwrap();
        let (code, said) = restore(&sink, file, &["--force"]);
        assert_eq!((code, said.contains("Nothing was changed")), (Some(65), true), "{said}");
        flip(file, middle);
        File::options().write(true).open(file).unwrap().set_len(middle).unwrap();
        let (code, said) = restore(&sink, file, &["--force"]);
        assert_eq!(code, Some(65), "{said}");
    }
    fs::write(&plain, "nothing of the kind").unwrap();
    assert_eq!(restore(&sink, &plain, &["--force"]).0, Some(65));
    assert_eq!(files(sink.folder.path()), before);
}

#[test]
fn after_a_restore_what_came_later_comes_again_once_and_its_ids_are_new() {
    let (_broker, sender, mut sink) = filled(1_000);
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&sink, folder.path(), &["--zstd"]);
    send(&sender, 1_000, 1_500);
    sink.await_events(1_500);
    let (running, _) = restore(&sink, &file, &["--force"]);
    assert_eq!(running, Some(75), "the sink runs");
    sink.kill();
    let before = files(sink.folder.path());

    let (code, said) = restore(&sink, &file, &["--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "The backup holds 1000 events",
        "next offset 1000",
        "The journal holds 1500 events",
        "next offset 1500 (backup: 1000)",
        "events 1001 to 1500",
        "nothing was changed. It would need --force",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let (code, said) = restore(&sink, &file, &[]);
    assert_eq!((code, said.contains("--force")), (Some(1), true), "{said}");
    let after = files(sink.folder.path());
    // The locks of SQLite's index are taken by whoever reads.
    assert!(before.iter().all(|(name, bytes)| name.ends_with("-shm") || after.get(name) == Some(bytes)));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());

    let (code, said) = restore(&sink, &file, &["--force"]);
    assert_eq!(code, Some(0), "{said}");
    let aside = said.split_whitespace().find(|word| word.contains(".replaced-")).unwrap().trim_end_matches(',');
    // To the microsecond.
    assert_eq!(aside.rsplit_once(".replaced-").unwrap().1.len(), "20261128T150405.123456Z".len(), "{aside}");
    assert_eq!(fs::read(aside).unwrap(), before["journal.db"]);
    assert_eq!(fs::read(format!("{aside}-wal")).unwrap(), before["journal.db-wal"]);
    assert_eq!(number(Path::new(aside), "SELECT count(*) FROM event_journal"), 1_500);

    let sink = sink.restart();
    each_once(&sink, 1_500);
    assert_eq!(sink.value::<i64>("SELECT max(id) FROM event_journal WHERE kafka_offset < 1000"), 1_000);
    assert_eq!(sink.value::<i64>("SELECT min(id) FROM event_journal WHERE kafka_offset >= 1000"), 1_501);
    let verified = verb(&sink, "verify", &[]);
    assert!(verified.status.success(), "{}", text(&verified.stdout));
}

#[test]
fn a_restore_over_no_journal_or_a_damaged_one_needs_no_force_and_two_replace_no_file_twice() {
    let (_broker, _, mut sink) = filled(500);
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&sink, folder.path(), &[]);
    assert_eq!(sink.stop(), Some(0));
    fs::write(sink.journal(), "damaged in its head").unwrap();
    // Whoever restores, as root, the service goes on with it.
    chown(sink.journal(), Some(4711), Some(4711)).ok();
    fs::set_permissions(sink.journal(), fs::Permissions::from_mode(0o640)).unwrap();
    let owned = |file: PathBuf| fs::metadata(file).map(|file| (file.uid(), file.gid(), file.mode() & 0o777)).unwrap();
    let before = owned(sink.journal());
    for expected in ["The journal cannot be read", "The journal holds 500 events"] {
        let (code, said) = restore(&sink, &file, &[]);
        assert_eq!((code, said.contains(expected)), (Some(0), true), "{said}");
        assert_eq!(owned(sink.journal()), before);
    }
    fs::remove_file(sink.journal()).unwrap();
    let (code, said) = restore(&sink, &file, &[]);
    assert_eq!((code, said.contains("There is no journal now")), (Some(0), true), "{said}");
    let replaced = names(sink.folder.path()).into_iter().filter(|name| name.contains(".replaced-"));
    assert_eq!(replaced.filter(|name| !name.ends_with("-shm") && !name.ends_with("-wal")).count(), 2);
    each_once(&sink.restart(), 500);
}

#[test]
fn a_restore_that_was_cut_short_is_not_taken_for_an_empty_box() {
    let (_broker, _, mut sink) = filled(500);
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&sink, folder.path(), &[]);
    assert_eq!(sink.stop(), Some(0));
    // As the power leaves it between the two renames.
    fs::copy(&file, sink.folder.path().join("journal.db.restoring")).unwrap();
    fs::rename(sink.journal(), sink.folder.path().join("journal.db.replaced-by-hand")).unwrap();
    let run = command(&sink, "run", &[]);
    let refused = Command::new("timeout").arg("30").arg(run.get_program()).args(run.get_args()).output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), said.contains("a restore was cut short")), (Some(74), true), "{said}");
    assert_eq!(restore(&sink, &file, &[]).0, Some(0));
    assert!(!sink.folder.path().join("journal.db.restoring").exists());
    each_once(&sink.restart(), 500);
}

#[test]
fn a_replay_job_that_was_running_waits_after_a_restore() {
    let (_broker, _, mut sink) = filled(300);
    let folder = tempfile::tempdir().unwrap();
    let ids = format!("{:?}", (1..=100).collect::<Vec<_>>());
    let url = format!("http://{}/replay/batch?rate_per_s=1", sink.api);
    let made = curl(&["-X", "POST", "-H", "Content-Type: application/json", "-d", &ids, &url]);
    assert_eq!(made.status, 202, "{}", made.body);
    let file = backup(&sink, folder.path(), &[]);
    assert_eq!(number(&file, "SELECT count(*) FROM replay_job WHERE state = 'running'"), 1);
    assert_eq!(sink.stop(), Some(0));
    let (code, said) = restore(&sink, &file, &["--force"]);
    assert_eq!((code, said.contains("wait until somebody resumes them")), (Some(0), true), "{said}");
    let sink = sink.restart();
    assert_eq!(sink.value::<String>("SELECT state FROM replay_job"), "paused");
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_that_looks_like_one() {
    let (_broker, _, sink) = filled(20_000);
    let folder = tempfile::tempdir().unwrap();
    let whole = |name: &String| name.starts_with("journal-");
    let mut killed = 0;
    // At every step that leaves a trace in the folder, and somewhere between.
    while killed < 10 {
        let to = ["--to", folder.path().to_str().unwrap(), "--zstd"];
        let mut running = command(&sink, "backup", &to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it has begun", || {
            names(folder.path()).iter().any(|name| name.starts_with(".unfinished-"))
                || running.try_wait().unwrap().is_some()
        });
        std::thread::sleep(std::time::Duration::from_millis(killed * 12));
        running.kill().unwrap();
        running.wait().unwrap();
        killed += 1;
        for name in names(folder.path()).iter().filter(|name| whole(name) && !name.ends_with(".sha256")) {
            let (code, said) = restore(&sink, &folder.path().join(name), &["--dry-run"]);
            assert_eq!(code, Some(0), "{said}");
        }
    }
    let last = backup(&sink, folder.path(), &["--keep", "1"]);
    let name = last.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(names(folder.path()), [name.clone(), name + ".sha256"], "what was left behind is gone");
}

#[test]
fn the_running_sink_shows_the_age_and_size_of_the_newest_backup() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let folder = tempfile::tempdir().unwrap();
    // Taken by root, by hand, it is the service's all the same.
    chown(folder.path(), Some(4711), Some(4711)).ok();
    let sink = Setup::with(&broker.bootstrap()).toml(&format!("backup.folder = {:?}", folder.path())).start();
    eventually("the sink has made its journal", || sink.journal().exists());
    assert_eq!(sink.metric("crm_events_backup_last_timestamp_seconds"), 0.0);
    let taken = verb(&sink, "backup", &[]);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    eventually("it is shown", || sink.metric("crm_events_backup_last_timestamp_seconds") > 1_700_000_000.0);
    let file = files(folder.path()).into_iter().find(|(name, _)| name.ends_with(".db")).unwrap();
    assert_eq!(sink.metric("crm_events_backup_bytes"), file.1.len() as f64);
    let owner = fs::metadata(folder.path()).unwrap().uid();
    for entry in fs::read_dir(folder.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().uid(), owner);
    }
}

#[test]
fn the_packaged_units_are_valid_and_shut_in_and_the_timer_waits_to_be_enabled() {
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let unit = systemd.join("crm-events-sink-backup.service");
    let analyze = |arguments: &[&str]| {
        let ran = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        (ran.status.success(), text(&ran.stdout) + &text(&ran.stderr))
    };
    // In tenths.
    let (shut_in, said) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=11"]);
    assert!(shut_in, "{said}");
    // The program is not where the package puts it.
    let (_, said) = analyze(&["verify", "--man=no"]);
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains("crm-events-sink-backup")).collect();
    assert!(
        complaints.iter().all(|line| line.contains("/usr/bin/crm-events-sink is not executable")),
        "{complaints:?}"
    );
    let package = fs::read_to_string(systemd.with_file_name("Cargo.toml")).unwrap();
    assert!(
        package.contains(
            "unit-name = \"crm-events-sink-backup\", unit-scripts = \"systemd\", enable = false, start = false"
        )
    );
}
