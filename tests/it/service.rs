//! What systemd hears of the sink, and what it hands to it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{Embedded, Sender, Setup, Sink, eventually, program, within};

const LEADS: &str = "apexflow.leads.created";

/// systemd's end of `NOTIFY_SOCKET`.
struct Systemd {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Systemd {
    fn new() -> Systemd {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Systemd { folder, socket }
    }

    fn start(&self, setup: Setup) -> Sink {
        setup.start_with(|command| {
            command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "6000000");
        })
    }

    /// What comes within a tenth of a second, if anything does.
    fn hears(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    fn hears_soon(&self, what: &str) {
        eventually(what, || self.hears().is_some_and(|message| message.contains(what)));
    }
}

/// A traced sink cannot be ended before its tracer.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn systemd_hears_that_the_sink_is_ready_how_it_goes_and_that_it_stops() {
    let (systemd, broker) = (Systemd::new(), Embedded::start(&[(LEADS, 1)]));
    let mut sink = systemd.start(Setup::with(&broker.bootstrap()));
    systemd.hears_soon("READY=1");
    assert_eq!(sink.get("/health").json()["service"], "crm-events-sink", "ready means that it answers");
    systemd.hears_soon("WATCHDOG=1");
    sink.await_events(0);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..40 {
        sender.event(LEADS, "acme", number);
    }
    sink.await_events(40);
    within(Duration::from_secs(40), "the line says what was stored", || {
        systemd.hears().is_some_and(|line| {
            line.contains("events/s, 0 behind, 0 open dead letters; healthy") && !line.contains("STATUS=0.0")
        })
    });
    sink.signal("TERM");
    eventually("systemd hears of the stop, and that it may take shutdown_timeout and a minute", || {
        systemd.hears().is_some_and(|line| line.contains("STOPPING=1") && line.contains("EXTEND_TIMEOUT_USEC=70000000"))
    });
    assert_eq!(sink.wait(), Some(0));
}

#[test]
fn a_broker_that_is_away_is_in_the_status_line_and_no_reason_to_be_killed() {
    let systemd = Systemd::new();
    let sink = systemd.start(Setup::with("127.0.0.1:1"));
    systemd.hears_soon("READY=1");
    eventually("the status names the broker", || {
        systemd.hears().is_some_and(|line| {
            line.starts_with("STATUS=") && line.contains("127.0.0.1:1") && line.contains("set kafka.brokers")
        })
    });
    assert_eq!(sink.get("/health").status, 503);
    systemd.hears_soon("WATCHDOG=1");
}

#[test]
fn a_writer_that_hangs_is_not_fed_by_the_watchdog() {
    let (systemd, broker) = (Systemd::new(), Embedded::start(&[(LEADS, 1)]));
    let sink = systemd.start(Setup::with(&broker.bootstrap()));
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    systemd.hears_soon("WATCHDOG=1");
    let slow = "--inject=fdatasync,fsync:delay_enter=60000000";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fdatasync,fsync", slow, "-o", "/dev/null", "-p", &sink.pid().to_string()]);
    let mut strace = Ended(strace.stderr(Stdio::null()).spawn().unwrap());
    let sender = Sender::to(&broker.bootstrap());
    let mut number = 2;
    eventually("the writer hangs in a sync of the disk", || {
        sender.event(LEADS, "acme", number);
        number += 1;
        sink.log().contains("not moving any more")
    });
    while systemd.hears().is_some() {}
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let message = systemd.hears().unwrap_or_default();
        assert!(!message.contains("WATCHDOG=1"), "{message}");
    }
    strace.end();
    systemd.hears_soon("WATCHDOG=1");
}

#[test]
fn a_reload_takes_the_level_of_the_log_and_limits_and_names_what_needs_a_restart() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "acme", 1);
    sender.event(LEADS, "acme", 2);
    sink.await_events(2);
    let drop_ins = sink.folder.path().join("config.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(drop_ins.join("10.toml"), "replay.confirm_above = 'many'").unwrap();
    sink.signal("HUP");
    eventually("a mistake leaves the old in force", || sink.log().contains("the old stays in force"));
    let changed = "log.level = 'error'\napi.replays_per_minute = 2\nreplay.confirm_above = 1\nqueue.batches_max = 17\n";
    fs::write(drop_ins.join("10.toml"), changed).unwrap();
    sink.signal("HUP");
    eventually("the log names what needs a restart", || {
        sink.log()
            .lines()
            .any(|line| line.contains("not in force before a restart") && line.contains("queue.batches_max"))
    });
    let plan = sink.post("/replay/range?start=2000-01-01&end=2100-01-01&dry_run=true").json();
    assert_eq!(plan["needs_confirm"], true, "{plan}");
    let statuses: Vec<u16> = (0..3).map(|_| sink.post("/replay/1").status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    eventually("what was replayed came back", || sink.events() == 3);
    let log = sink.log();
    assert!(log.contains("INFO") && !log.contains("replayed"), "the level is another: {log}");
}

#[test]
fn drop_ins_are_laid_over_the_file_and_a_mistake_names_the_one_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let check =
        || program().args(["check-config", "--config"]).arg(folder.path().join("config.toml")).output().unwrap();
    fs::create_dir(folder.path().join("config.d")).unwrap();
    file("config.toml", "[kafka]\nbrokers = 'file:1'\ngroup_id = 'file'\n");
    file("config.d/10-fleet.toml", "[kafka]\nbrokers = 'fleet:1'\n[log]\nlevel = 'debug'\n");
    file("config.d/20-branch.toml", "kafka.brokers = 'branch:1'\n");
    file("config.d/README", "no settings");
    let shown = String::from_utf8(check().stdout).unwrap();
    for line in ["brokers = \"branch:1\"", "group_id = \"file\"", "level = \"debug\""] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    file("config.d/20-branch.toml", "\nkafka.broker = 'branch:1'\n");
    let refused = check();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{error}");
    assert!(error.contains("20-branch.toml, line 2") && error.contains("unknown field"), "{error}");
}

#[test]
fn a_credential_is_read_from_where_systemd_puts_it_and_never_shown() {
    let (credentials, broker) = (tempfile::tempdir().unwrap(), Embedded::start(&[(LEADS, 1)]));
    fs::write(credentials.path().join("client"), "branch-seventeen\n").unwrap();
    let setup = || Setup::with(&broker.bootstrap()).toml("kafka.properties.'client.rack' = 'credential:client'\n");
    let sink = setup().start_with(|command| {
        command.env("CREDENTIALS_DIRECTORY", credentials.path());
    });
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    let check = |directory: &Path, more: &[&str]| {
        let mut check = program();
        check.args(["check-config", "--config"]).arg(sink.folder.path().join("config.toml")).args(more);
        check.env("CREDENTIALS_DIRECTORY", directory).output().unwrap()
    };
    let shown = check(credentials.path(), &[]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("credential:client") && !text.contains("branch-seventeen"), "{text}");
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = check(elsewhere.path(), &[]);
    let error = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(78), "{error}");
    assert!(error.contains("client.rack") && error.contains("LoadCredential=client:"), "{error}");
    assert_eq!(check(elsewhere.path(), &["--no-credentials"]).status.code(), Some(0));
}

#[test]
fn the_packaged_unit_is_one_that_systemd_takes_and_exposes_little() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/crm-events-sink.service");
    let mut analyze = Command::new("systemd-analyze");
    let judged =
        analyze.args(["security", "--offline=true", "--threshold=11", "--no-pager"]).arg(&unit).output().unwrap();
    let text = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{text}\n{}", String::from_utf8_lossy(&judged.stderr));
    assert!(text.contains("Overall exposure level"), "{text}");
}
