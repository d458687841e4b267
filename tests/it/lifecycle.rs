//! How it starts, refuses to start, and stops.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::harness::{Embedded, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";
/// Nobody listens there: port 1 is reserved.
const NO_BROKER: &str = "127.0.0.1:1";

#[track_caller]
fn refuses(mut command: Command, code: i32, says: &[&str]) -> Output {
    let ended = command.output().unwrap();
    let message = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "one clear line, not: {message}");
    for part in says {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    ended
}

#[test]
fn sigterm_ends_it_with_0_and_the_next_start_reads_on() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    let mut sink = Setup::with(&broker.bootstrap()).start();
    sender.event(LEADS, "acme", 1);
    sink.await_events(1);
    assert_eq!(sink.stop(), Some(0));
    sender.event(LEADS, "acme", 2);
    let sink = sink.restart();
    sink.await_events(2);
    assert_eq!(sink.metric_sum("crm_events_duplicates_skipped_total"), 0.0);
}

#[test]
fn a_stop_leaves_everything_in_the_file_itself_although_somebody_has_it_open() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let mut sink = Setup::with(&broker.bootstrap()).start();
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    let count = |path: &Path| {
        let open = Connection::open(path).unwrap();
        let events: i64 = open.query_row("SELECT count(*) FROM event_journal", [], |row| row.get(0)).unwrap();
        (open, events)
    };
    let (_open, events) = count(&sink.journal());
    assert_eq!(events, 1);
    assert_eq!(sink.stop(), Some(0));
    let alone = sink.folder.path().join("alone.db");
    fs::copy(sink.journal(), &alone).unwrap();
    assert_eq!(count(&alone).1, 1, "the event stands in the write-ahead log only");
}

#[test]
fn ctrl_c_ends_it_with_0_also_while_the_broker_is_down() {
    let mut sink = Setup::with(NO_BROKER).start();
    eventually("the log says that there is no broker", || sink.log().contains("no broker of 127.0.0.1:1 is connected"));
    let began = Instant::now();
    sink.signal("INT");
    assert_eq!(sink.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "far beyond shutdown_timeout: {:?}", began.elapsed());
}

/// A `POST /replay/1` that waits for the broker.
fn replay_in_flight(sink: &Sink) -> Child {
    let mut curl = Command::new("curl");
    let url = format!("http://{}/replay/1", sink.api);
    let replay = curl.args(["-s", "-X", "POST", "-w", "%{http_code}", &url]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the replay waits", || {
        let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        fs::read_dir(format!("/proc/{}/task", sink.pid()))
            .unwrap()
            .any(|t| name(t.unwrap()).starts_with("producer pol"))
    });
    replay
}

#[test]
fn a_request_in_flight_is_answered_before_it_ends() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let mut sink = Setup::with(&broker.bootstrap()).toml("replay.timeout = '3s'").start();
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    broker.cluster().broker_down(-1).unwrap();
    let replay = replay_in_flight(&sink);
    assert_eq!(sink.stop(), Some(0));
    let answer = String::from_utf8(replay.wait_with_output().unwrap().stdout).unwrap();
    assert!(answer.ends_with("504") && answer.contains("it may still arrive"), "{answer:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let mut sink = Setup::with(&broker.bootstrap()).toml("shutdown_timeout = '60s'\nreplay.timeout = '60s'").start();
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    broker.cluster().broker_down(-1).unwrap();
    // A request in flight keeps it from stopping before the second signal.
    let mut replay = replay_in_flight(&sink);
    sink.signal("TERM");
    eventually("the stop has begun", || sink.log().contains("stopping: draining"));
    assert!(sink.is_running());
    sink.signal("TERM");
    assert_eq!(sink.wait(), Some(143));
    replay.wait().unwrap();
}

#[test]
fn a_broker_that_is_down_is_said_once_and_does_not_stop_the_api() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    broker.cluster().broker_down(-1).unwrap();
    let sink = Setup::with(&broker.bootstrap()).start();
    eventually("health says so", || sink.get("/health").body.contains("no broker of"));
    let health = sink.get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("unhealthy")));
    assert_eq!(sink.get("/events/latest").body, "[]");
    assert_eq!(sink.metric("crm_events_broker_up"), 0.0);

    broker.cluster().broker_up(-1).unwrap();
    eventually("it is healthy", || sink.get("/health").status == 200);
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    assert_eq!(sink.metric("crm_events_broker_up"), 1.0);

    broker.cluster().broker_down(-1).unwrap();
    eventually("health says so again", || sink.get("/health").status == 503);
    assert_eq!(sink.get("/events/1").status, 200);
    broker.cluster().broker_up(-1).unwrap();
    eventually("it is healthy again", || sink.get("/health").status == 200);
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 2);
    sink.await_events(2);
    let said = sink.log().matches("not working").count();
    assert!((1..=2).contains(&said), "said {said} times:\n{}", sink.log());
}

#[test]
fn the_log_holds_no_payloads() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).toml("log.level = 'trace'").start();
    let sender = Sender::to(&broker.bootstrap());
    // Letters that no address, time or number of the log can spell.
    let stored = br#"{"tenant_id":"acme","event_type":"lead.created","phone":"Wolkenstein"}"#;
    sender.send(&crate::harness::Record { topic: LEADS, value: Some(stored), ..Default::default() });
    let refused = br#"{"phone":"Wolkenstein"#;
    sender.send(&crate::harness::Record { topic: LEADS, value: Some(refused), ..Default::default() });
    sink.await_events(1);
    eventually("the dead letter is there", || sink.dead_letters() == 1);
    assert_eq!(sink.post("/replay/1").status, 200);
    assert!(!sink.log().contains("Wolkenstein"), "{}", sink.log());
}

#[test]
fn a_port_that_is_taken_is_one_line_and_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for setting in ["api", "metrics"] {
        let setup = Setup::with(NO_BROKER);
        let mut command = setup.command();
        command.arg(format!("--{setting}-listen")).arg(&address);
        refuses(command, 69, &[&format!("{setting}.listen"), &address, "Address already in use"]);
        assert!(!setup.journal().exists(), "nothing half-started");
    }
}

#[test]
fn a_second_instance_on_the_same_journal_is_one_line_and_75() {
    let sink = Setup::with(NO_BROKER).start();
    let mut second = program();
    second.arg("run").arg("--config").arg(sink.folder.path().join("config.toml"));
    refuses(second, 75, &["journal.db", "another instance", "journal.path"]);
    assert_eq!(sink.get("/events/latest").status, 200);
}

#[test]
fn a_journal_that_cannot_be_used_is_one_line_and_74_and_left_as_it_is() {
    let setup = Setup::with(NO_BROKER);
    let mut command = setup.command();
    command.args(["--journal", "/proc/nowhere/journal.db"]);
    refuses(command, 74, &["/proc/nowhere/journal.db", "must exist"]);

    let newer = |version: &str, id: &str| {
        let connection = Connection::open(setup.journal()).unwrap();
        let sql = format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (a); PRAGMA user_version = {version}; PRAGMA application_id = {id}"
        );
        connection.execute_batch(&sql).unwrap();
    };
    newer("7", "0x43455331");
    let before = fs::read(setup.journal()).unwrap();
    refuses(setup.command(), 74, &["version 7", "up to 6", "left untouched"]);
    assert_eq!(fs::read(setup.journal()).unwrap(), before);

    for foreign in ["sqlite", "text"] {
        fs::remove_file(setup.journal()).unwrap();
        match foreign {
            "sqlite" => newer("0", "12345"),
            _ => fs::write(setup.journal(), "These are my notes. ".repeat(50)).unwrap(),
        }
        let before = fs::read(setup.journal()).unwrap();
        refuses(setup.command(), 74, &["not a journal of the sink", "left untouched"]);
        assert_eq!(fs::read(setup.journal()).unwrap(), before);
    }
}

#[test]
fn a_wrong_configuration_is_one_line_and_78() {
    let with = |toml: &str| Setup::with(NO_BROKER).toml(toml);
    let setup = with("kafka.group = 'x'");
    refuses(setup.command(), 78, &["config.toml, line 1", "unknown field `group`", "group_id"]);
    let setup = with("kafka.properties.\"sasl.mechanismus\" = 'PLAIN'");
    refuses(setup.command(), 78, &["sasl.mechanismus", "No such configuration property"]);
    let setup =
        with("kafka.properties.\"ssl.key.password\" = 'hunter2'\nkafka.properties.\"security.protocol\" = 'hunter3'");
    let refused = refuses(setup.command(), 78, &["security.protocol"]);
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("hunter"));
    let mut missing = program();
    missing.args(["run", "--config", "/nowhere/config.toml"]);
    refuses(missing, 78, &["/nowhere/config.toml", "create it or name another with --config"]);
    let setup = with("");
    let mut bad_port = setup.command();
    bad_port.env("PROM_PORT", "http");
    refuses(bad_port, 78, &["PROM_PORT", "1-65535"]);
}

#[test]
fn check_config_shows_the_settings_in_force_and_no_secret() {
    let setup = Setup::with("kafka.example:9092").toml("kafka.properties.\"sasl.password\" = 'hunter2'");
    let path = {
        setup.command();
        setup.journal().with_file_name("config.toml")
    };
    let mut check = program();
    let checked = check.args(["check-config", "--config"]).arg(&path).env("GROUP_ID", "from-env").output().unwrap();
    let shown = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success());
    assert!(shown.contains("kafka.example:9092") && shown.contains("from-env"), "{shown}");
    assert!(shown.contains("\"sasl.password\" = \"(not shown)\"") && !shown.contains("hunter2"), "{shown}");
    let mut wrong = program();
    wrong.args(["check-config", "--config"]).arg(&path).env("KAFKA_TOPICS", ",");
    refuses(wrong, 78, &["kafka.topics"]);
}

#[test]
fn sql_reads_the_journal_and_says_what_is_wrong() {
    let sink = Setup::with(NO_BROKER).start();
    let read = sink.sql("SELECT 1, 'two', NULL, x'33', 4.5; SELECT count(*) FROM event_journal");
    assert_eq!(String::from_utf8(read.stdout).unwrap(), "1|two||3|4.5\n0\n");
    let mut wrong = program();
    wrong.args(["sql", "--journal"]).arg(sink.journal()).arg("SELECT a FROM nowhere");
    refuses(wrong, 1, &["journal.db", "no such table: nowhere"]);
    let mut written = program();
    written.args(["sql", "--readonly", "--journal"]).arg(sink.journal()).arg("DELETE FROM event_dlq");
    refuses(written, 1, &["readonly database"]);
    let mut absent = program();
    absent.args(["sql", "--journal", "/nowhere/journal.db", "SELECT 1"]);
    refuses(absent, 1, &["/nowhere/journal.db", "unable to open"]);
}
