//! `crm-events-sink doctor` on boxes with one fault each: it finds that one, and says what to do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::harness::{Disk, Embedded, Record, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";

/// What was found, by its check.
struct Found {
    code: Option<i32>,
    findings: BTreeMap<String, Value>,
}

impl Found {
    fn level(&self, check: &str) -> &str {
        self.findings.get(check).unwrap_or_else(|| panic!("nothing of {check}: {:?}", self.findings))["level"]
            .as_str()
            .unwrap()
    }

    /// The one check has this level and these words, and tells what to do.
    #[track_caller]
    fn has(&self, check: &str, level: &str, words: &[&str]) {
        let finding = &self.findings[check];
        assert_eq!(finding["level"], level, "{finding}");
        let text = finding.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        let fails = self.findings.values().any(|finding| finding["level"] == "fail");
        assert_eq!(self.code, Some(i32::from(fails)));
    }
}

fn command(sink: &Sink) -> Command {
    let mut command = program();
    command.arg("doctor").arg("--config").arg(sink.folder.path().join("config.toml")).env("API_LISTEN", &sink.api);
    command
}

fn doctor(sink: &Sink) -> Found {
    doctor_with(command(sink))
}

fn doctor_with(mut command: Command) -> Found {
    let ran = command.arg("--json").output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&ran.stderr)));
    let by_check = findings.into_iter().map(|finding| (finding["check"].as_str().unwrap().to_owned(), finding));
    Found { code: ran.status.code(), findings: by_check.collect() }
}

fn running(toml: &str) -> (Embedded, Sender, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).toml(toml).start();
    sender.event(LEADS, "acme", 0);
    sink.await_events(1);
    // As the package has it.
    fs::set_permissions(sink.folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
    (broker, sender, sink)
}

#[test]
fn a_box_that_is_well_has_a_line_for_everything_and_none_fails() {
    let backups = tempfile::tempdir().unwrap();
    let (_broker, _, sink) = running(&format!("backup.folder = {:?}", backups.path()));
    let mut backup = program();
    backup.arg("backup").arg("--config").arg(sink.folder.path().join("config.toml"));
    assert!(backup.output().unwrap().status.success());
    let found = doctor(&sink);
    assert_eq!(found.code, Some(0), "{:?}", found.findings);
    let of_the_machine = ["service", "time synchronization"];
    for (check, finding) in found.findings.iter().filter(|(check, _)| !of_the_machine.contains(&check.as_str())) {
        assert_eq!(finding["level"], "ok", "{check}: {finding}");
    }
    assert!(found.findings.len() >= 18, "{:?}", found.findings.keys());
    let lines = String::from_utf8(command(&sink).output().unwrap().stdout).unwrap();
    assert_eq!(lines.lines().count(), found.findings.len(), "a line a finding:\n{lines}");
    assert!(lines.lines().all(|line| ["ok    ", "warn  ", "FAIL  "].iter().any(|word| line.starts_with(word))));
    // A reader that has seen enough is no fault.
    let mut head = Command::new("bash");
    head.args(["-o", "pipefail", "-c", "\"$@\" | head -n 1", "bash"]).arg(program().get_program());
    let read = head.args(command(&sink).get_args()).env("API_LISTEN", &sink.api).output().unwrap();
    assert_eq!((read.status.code(), String::from_utf8_lossy(&read.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn kafkas_faults_are_told_apart() {
    let (broker, sender, mut sink) = running("");
    let mut away = command(&sink);
    away.env("KAFKA_BOOTSTRAP", "127.0.0.1:1");
    doctor_with(away).has("broker", "fail", &["127.0.0.1:1", "reachable"]);
    let mut other = command(&sink);
    other.env("KAFKA_TOPICS", "nothing.of.it,^else\\..*");
    doctor_with(other).has("topics", "fail", &["nothing.of.it", "set kafka.topics"]);
    let mut pattern = command(&sink);
    pattern.env("KAFKA_TOPICS", r"^apexflow\.(leads|jobs)\..*");
    assert_eq!(doctor_with(pattern).level("topics"), "ok");

    assert_eq!(sink.stop(), Some(0));
    // The embedded broker keeps 5 MB of a partition.
    let value = vec![b'x'; 500_000];
    for _ in 0..30 {
        sender.queue(&Record { topic: LEADS, value: Some(&value), ..Record::default() });
    }
    sender.flush();
    let found = doctor(&sink);
    found.has("unread records", "fail", &["retention passed the sink by", "the journal needs 1 next"]);
    found.has("health", "warn", &["systemctl start"]);

    // The partition has been another member's meanwhile.
    let mut member = ClientConfig::new();
    member.set("bootstrap.servers", broker.bootstrap()).set("group.id", "crm-events-sink");
    member.set("partition.assignment.strategy", "cooperative-sticky");
    let member: BaseConsumer = member.create().unwrap();
    member.subscribe(&[LEADS]).unwrap();
    eventually("it has the partition", || {
        member.poll(Duration::from_millis(100));
        member.assignment().unwrap().count() > 0
    });
    let mut read = TopicPartitionList::new();
    read.add_partition_offset(LEADS, 0, Offset::Offset(31)).unwrap();
    member.commit(&read, CommitMode::Sync).unwrap();
    doctor(&sink).has("unread records", "warn", &["the group has read further", "crm-events-sink verify"]);
}

#[test]
fn what_the_sink_says_of_itself_is_passed_on() {
    let (_broker, sender, sink) = running("dlq.max_consecutive = 3");
    for _ in 0..5 {
        sender.queue(&Record { topic: LEADS, value: Some(b"no json"), ..Record::default() });
    }
    sender.flush();
    eventually("it is halted", || sink.get("/health").status == 503);
    let found = doctor(&sink);
    found.has("health", "fail", &["poisoned"]);
    found.has("partitions", "fail", &["halted", "/consumer/resume"]);
    found.has("dead letters", "warn", &["3 are open", "crm-events-sink dlq"]);
}

#[test]
fn a_clock_that_was_set_back_is_seen_by_the_newest_event() {
    let (_broker, _, sink) = running("");
    assert!(sink.sql("UPDATE event_journal SET received_at = '2999-01-01 00:00:00.000000'").status.success());
    doctor(&sink).has("clock", "fail", &["behind the newest event", "timedatectl"]);
}

#[test]
fn files_that_the_service_cannot_use_and_others_can_are_found() {
    let (_broker, _, mut sink) = running("");
    assert_eq!(sink.stop(), Some(0));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(sink.folder.path(), 0o755);
    mode(&sink.journal(), 0o644);
    let found = doctor(&sink);
    found.has("journal folder", "warn", &["may look into", "chmod o-rwx"]);
    found.has("journal files", "warn", &["may read", "chmod o-rwx"]);
    mode(sink.folder.path(), 0o700);
    mode(&sink.journal(), 0o400);
    doctor(&sink).has("journal files", "fail", &["not writable", "chmod u+w"]);
    mode(&sink.journal(), 0o600);

    let file = File::options().write(true).open(sink.journal()).unwrap();
    file.write_all_at(&[0x5a; 200], 100).unwrap();
    let found = doctor(&sink);
    found.has("journal", "fail", &["damaged", "crm-events-sink restore"]);
    fs::remove_file(sink.journal()).unwrap();
    doctor(&sink).has("journal", "warn", &["is not there"]);
}

#[test]
fn a_full_disk_and_missing_or_old_backups_are_found() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let disk = Disk::mount(200 << 20);
    let backups = tempfile::tempdir().unwrap();
    let toml = format!("backup.folder = {:?}", backups.path());
    let sink = Setup::with(&broker.bootstrap()).on(&disk).toml(&toml).start();
    eventually("the sink has made its journal", || sink.get("/health").status == 200);
    let found = doctor(&sink);
    found.has("disk", "warn", &["make room"]);
    found.has("backup", "warn", &["has none", "crm-events-sink-backup.timer"]);
    fs::write(backups.path().join("journal-20200101T000000Z.db"), "old").unwrap();
    disk.fill(1 << 20);
    let found = doctor(&sink);
    found.has("disk", "fail", &["ingestion needs", "make room"]);
    found.has("backup", "warn", &["journal-20200101T000000Z.db", "hours old"]);
}

#[test]
fn people_certificates_and_the_configuration_itself_are_looked_at() {
    let (_broker, _, mut sink) = running("");
    assert_eq!(sink.stop(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let config = sink.folder.path().join("config.toml");
    let plain = fs::read_to_string(&config).unwrap();
    let with = |lines: &str| fs::write(&config, format!("{lines}\n{plain}")).unwrap();
    let users = folder.path().join("users");
    with(&format!("api.auth.users_file = {users:?}"));
    doctor(&sink).has("users", "fail", &["cannot read the users", "crm-events-sink user add"]);

    for (days, level, words) in [(90, "ok", "ends in"), (5, "warn", "ends in"), (-2, "fail", "has ended")] {
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let end = jiff::Timestamp::from_second(now + days * 86_400).unwrap().strftime("%Y %m %d").to_string();
        let end: Vec<i32> = end.split(' ').map(|part| part.parse().unwrap()).collect();
        parameters.not_after = rcgen::date_time_ymd(end[0], end[1] as u8, end[2] as u8);
        let pair = rcgen::KeyPair::generate().unwrap();
        fs::write(&certificate, parameters.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        with(&format!("api.tls.certificate = {certificate:?}\napi.tls.key = {key:?}"));
        doctor(&sink).has("certificate", level, &[words]);
    }

    with("kafka.properties.\"sasl.password\" = \"hunter2\"");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let found = doctor(&sink);
    found.has("configuration", "warn", &["holds a password", "chmod o-rwx"]);
    assert!(!format!("{:?}", found.findings).contains("hunter2"));
    with("kafka.properties.\"no.such.property\" = 1");
    doctor(&sink).has("kafka properties", "fail", &["no.such.property"]);
    with("kafka.broker = \"x\"");
    let found = doctor(&sink);
    found.has("configuration", "fail", &["broker", "config.toml"]);
    assert_eq!(found.findings.len(), 1);
}

#[test]
fn a_support_bundle_tells_of_the_box_and_of_nothing_that_is_secret() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    crate::access::add_user(&users, "vera", "viewer", None, "password-of-vera");
    let hash = fs::read_to_string(&users).unwrap().trim().rsplit('$').next().unwrap().to_owned();
    let jwt = folder.path().join("jwt");
    fs::write(&jwt, "jwt-secret-0123456789-0123456789-0123456789").unwrap();
    fs::set_permissions(&jwt, fs::Permissions::from_mode(0o600)).unwrap();
    let toml = format!(
        "api.auth.users_file = {users:?}\napi.auth.jwt_algorithm = \"HS256\"\napi.auth.jwt_key_file = {jwt:?}\n\
         api.auth.jwt_issuer = \"issuer\"\napi.auth.jwt_audience = \"audience\"\n\
         kafka.properties.\"sasl.password\" = \"sasl-password-17\"\nkafka.properties.\"ssl.key.password\" = \"key-password-17\"\n"
    );
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).toml(&toml).start();
    let value = br#"{"tenant_id":"acme","event_type":"lead.created","name":"payload-of-somebody"}"#;
    let headers: &[(&str, Option<&[u8]>)] = &[("header-name-17", Some(b"header-value-17"))];
    let key = Some(&b"acme:lead:key-of-somebody"[..]);
    sender.send(&Record { topic: LEADS, key, value: Some(value), headers, ..Record::default() });
    let letter = Record {
        topic: LEADS,
        key: Some(b"key-of-a-letter"),
        value: Some(b"payload-of-a-letter"),
        ..Record::default()
    };
    sender.send(&letter);
    eventually("both are stored", || sink.events() == 1 && sink.dead_letters() == 1);
    // An operator's own rule is in the bundle, with the schema.
    let rule =
        "CREATE TRIGGER t BEFORE INSERT ON event_journal WHEN NEW.topic = 'sasl-password-17' BEGIN SELECT 1; END";
    assert!(sink.sql(rule).status.success());

    let file = folder.path().join("bundle.tar.gz");
    let mut bundle = program();
    bundle.arg("support-bundle").arg("--config").arg(sink.folder.path().join("config.toml")).arg("--to").arg(&file);
    bundle.env("API_LISTEN", &sink.api).env("METRICS_LISTEN", &sink.metrics);
    bundle.env("CRM_EVENTS_SINK_USER", "vera").env("CRM_EVENTS_SINK_PASSWORD", "password-of-vera");
    let made = bundle.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    let mut all = String::new();
    for (name, tells) in [
        ("version.txt", env!("CARGO_PKG_VERSION")),
        ("config.toml", "sasl.password"),
        ("doctor.txt", "ok    broker: "),
        ("health.json", "\"healthy\""),
        ("integrity.json", LEADS),
        ("metrics.txt", "crm_events_persisted_total{tenant_id=\"acme\""),
        ("journal.txt", "rows of event_journal: 1"),
        ("journal.txt", "NEW.topic = '(not shown)'"),
        ("log.txt", ""),
        ("unit.txt", ""),
        ("kernel.txt", "Linux"),
        ("disk.txt", "1024-blocks"),
        ("memory.txt", "MemTotal"),
    ] {
        let text = fs::read_to_string(folder.path().join("crm-events-sink-support").join(name)).unwrap();
        assert!(text.contains(tells), "{tells:?} is not in {name}: {text}");
        all += &text;
    }
    for secret in [
        "payload-of-somebody",
        "payload-of-a-letter",
        "key-of-somebody",
        "key-of-a-letter",
        "header-name-17",
        "header-value-17",
        "sasl-password-17",
        "key-password-17",
        "jwt-secret",
        "password-of-vera",
        &hash,
    ] {
        let line = all.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the bundle");
    }
    // What is there is not written over.
    assert_eq!(bundle.output().unwrap().status.code(), Some(73));
}
