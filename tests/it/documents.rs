//! What the pages say is what the program does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crm_events_sink::config::Config;
use serde_json::Value;

use crate::harness::{ApacheKafka, Embedded, PROGRAM, Record, Sender, Setup, Sink, eventually, promtool};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// `kafka.brokers = "localhost:9092"`, one for each setting.
fn settings(config: &toml::Table) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in config {
        match value {
            toml::Value::Table(inner) => {
                found.extend(settings(inner).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            value => {
                found.insert(name.clone(), value.to_string());
            }
        }
    }
    found
}

fn defaults() -> BTreeMap<String, String> {
    settings(&toml::Table::try_from(Config::default()).unwrap())
}

#[test]
fn the_packaged_file_lists_every_setting_with_its_default() {
    let file = page("packaging/config.toml");
    assert_eq!(toml::from_str::<Config>(&file).unwrap(), Config::default(), "as it is, the file changes nothing");
    let is_setting =
        |line: &str| line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("#  ") && line.len() > 1;
    let uncommented: String = file
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(settings(&uncommented.parse().unwrap()), defaults());
    toml::from_str::<Config>(&uncommented).unwrap();
}

#[test]
fn the_readmes_table_lists_every_setting_with_its_default() {
    let readme = page("README.md");
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        rows.insert(cells[1].trim_matches('`').to_owned(), cells[3].trim_matches('`').to_owned());
    }
    rows.remove("kafka.properties.*").expect("the properties have a row");
    let parsed = |(key, value): (String, String)| {
        let table: toml::Table = format!("v = {value}").parse().unwrap();
        (key, table["v"].to_string())
    };
    assert_eq!(rows.into_iter().map(parsed).collect::<BTreeMap<_, _>>(), defaults());
}

/// Which journals the program reads stands in schema.sql; the package must not be put over a newer one.
#[test]
fn the_package_knows_which_journals_its_program_reads() {
    let after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1).unwrap_or_else(|| panic!("no {mark:?}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<i64>().unwrap()
    };
    let schema = after(&page("schema.sql"), "PRAGMA user_version = ");
    assert_eq!(after(&page("packaging/debian/scripts/preinst"), "\nreads="), schema);
}

/// Debian's version, in the package's own changelog, is the program's.
#[test]
fn the_packages_changelog_is_of_this_version() {
    let newest = page("packaging/debian/changelog");
    let program = concat!("crm-events-sink (", env!("CARGO_PKG_VERSION"), "-");
    assert!(newest.starts_with(program), "{}", newest.lines().next().unwrap());
}

/// A fenced block of a page, with the heading it stands under.
struct Block {
    heading: String,
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut heading, mut open) = (String::new(), false);
    for line in page.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                found.push(Block { heading: heading.clone(), language: language.to_owned(), text: String::new() });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => found.last_mut().unwrap().text += &format!("{line}\n"),
            (None, false) if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            (None, false) => {}
        }
    }
    found
}

/// Runs the blocks of the operators' page, and holds each answer against the one printed after it.
struct Reader<'a> {
    sink: &'a Sink,
    bootstrap: &'a str,
    answer: String,
}

impl Reader<'_> {
    fn read(&mut self, block: &Block) {
        match block.language.as_str() {
            "bash" => self.answer = self.bash(&block.text),
            "powershell" => self.answer = self.bash(&as_bash(&block.text)),
            "sql" => self.sql(&block.text),
            "json" => same_shape(&serde_json::from_str(&block.text).unwrap(), &self.last_json(), "$"),
            "promql" => self.promql(&block.text),
            other => panic!("nothing runs a block of {other:?}"),
        }
    }

    fn here(&self, text: &str) -> String {
        text.replace("localhost:9106", &self.sink.api)
            .replace("localhost:9105", &self.sink.metrics)
            .replace("localhost:9092", self.bootstrap)
            .replace("/var/lib/crm-events-sink/journal.db", self.sink.journal().to_str().unwrap())
    }

    fn bash(&self, script: &str) -> String {
        let script = self.here(&script.replace("curl ", "curl -sS --fail-with-body "));
        let path = format!("{}:{}", Path::new(PROGRAM).parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", path);
        // For the verbs that go through the API: where a configuration would say that it is.
        let ran = bash.env("API_LISTEN", &self.sink.api).output().unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8_lossy(&ran.stderr).into_owned());
        assert!(ran.status.success(), "{script}\n{out}\n{err}");
        assert!(!out.is_empty(), "no answer to {script}");
        out
    }

    fn last_json(&self) -> Value {
        serde_json::from_str(&self.answer).unwrap_or_else(|error| panic!("{error}: {}", self.answer))
    }

    /// In the sink's own SQLite; and what reads, in Debian's as well.
    fn sql(&self, statements: &str) {
        let run = || {
            let ran = self.sink.sql(statements);
            assert!(ran.status.success(), "{statements}\n{}", String::from_utf8_lossy(&ran.stderr));
            ran.stdout
        };
        if !statements.starts_with("SELECT") {
            return drop(run());
        }
        // A replay of the block before may come back between the two.
        eventually(&format!("both read the same: {statements}"), || {
            let mut sqlite3 = Command::new("sqlite3");
            let read = sqlite3.arg("-readonly").arg(self.sink.journal()).arg(statements).output().unwrap();
            assert!(read.status.success(), "{statements}\n{}", String::from_utf8_lossy(&read.stderr));
            !read.stdout.is_empty() && read.stdout == run()
        });
    }

    /// Each line is an expression that Prometheus accepts, of metrics that the sink has.
    fn promql(&self, expressions: &str) {
        let metrics = self.sink.metrics_text();
        let mut rules = String::from("groups:\n- name: page\n  rules:\n");
        for (number, expression) in expressions.lines().enumerate() {
            rules += &format!("  - record: page:{number}\n    expr: {expression}\n");
            for word in expression.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| w.starts_with("crm_"))
            {
                assert!(metrics.contains(&format!("\n{word}")), "{word} is no metric of the sink");
            }
        }
        let file = self.sink.folder.path().join("rules.yml");
        fs::write(&file, rules).unwrap();
        let checked = Command::new(promtool()).args(["check", "rules"]).arg(file).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// Debian has no PowerShell: its two commands, as the requests that they make.
fn as_bash(powershell: &str) -> String {
    let invoke = "Invoke-RestMethod -Method POST -Uri ";
    let headers = "-H 'Content-Type: application/x-www-form-urlencoded' -A 'Mozilla/5.0 (Windows NT; PowerShell)'";
    powershell.replace(invoke, &format!("curl -X POST {headers} -d '' ")).replace("Select-String ", "grep ")
}

/// What differs from run to run: ids, times, versions, and how many events there are just then.
const DIFFERS: [&str; 20] = [
    "id",
    "received_at",
    "version",
    "event_id",
    "started_id",
    "at",
    "detail",
    "total",
    "bytes",
    "replays",
    "seconds",
    "first_received_at",
    "last_received_at",
    "by_topic",
    "by_tenant",
    "acknowledged",
    "observed",
    "created_at",
    "ended_at",
    "rate",
];

/// The printed answer is the real one, but for what [`DIFFERS`]; of a list its first item is printed.
fn same_shape(printed: &Value, real: &Value, place: &str) {
    match (printed, real) {
        (Value::Object(printed), Value::Object(real)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(printed), names(real), "{place}");
            for (name, value) in printed {
                match name.as_str() {
                    name if DIFFERS.contains(&name) => {
                        assert_eq!(value.is_string(), real[name].is_string(), "{place}.{name}");
                    }
                    _ => same_shape(value, &real[name], &format!("{place}.{name}")),
                }
            }
        }
        (Value::Array(printed), Value::Array(real)) if !printed.is_empty() => same_shape(&printed[0], &real[0], place),
        _ => assert_eq!(printed, real, "{place}"),
    }
}

fn send_event(sender: &Sender, topic: &str, number: u64) {
    sender.event(topic, "acme", number);
}

fn follow_the_page(bootstrap: &str) {
    let page = page("docs/operating.md");
    let blocks = blocks(&page);
    let (simulation, rest): (Vec<&Block>, Vec<&Block>) =
        blocks.iter().partition(|block| block.heading == "Simulate a dead letter");
    assert!(simulation.len() >= 5 && rest.len() >= 20, "the page has lost its blocks");

    let sink = Setup::with(bootstrap).start();
    let sender = Sender::to(bootstrap);
    let mut reader = Reader { sink: &sink, bootstrap, answer: String::new() };
    for block in simulation {
        reader.read(block);
        if block.text.contains("ADD CONSTRAINT") {
            send_event(&sender, LEADS, 1);
            eventually("the refused event is a dead letter", || sink.dead_letters() == 1);
        }
        if block.text.contains("DROP CONSTRAINT") {
            send_event(&sender, LEADS, 2);
            sink.await_events(1);
        }
    }

    for number in 3..=59 {
        // The page replays event 5 and prints its topic.
        let is_first = number < 13;
        sender.queue_event(if number % 2 == 0 && !is_first { JOBS } else { LEADS }, "acme", number);
        sender.flush();
        if number == 12 {
            sink.await_events(11);
        }
    }
    sender.send(&Record { topic: LEADS, value: Some(b"{\"tenant_id\":\"acme\",\"a\":"), ..Record::default() });
    eventually("all are stored", || sink.events() == 58 && sink.dead_letters() == 2);
    send_event(&sender, JOBS, 60);
    sink.await_events(59);
    eventually("the lag is shown", || sink.metrics_text().contains("crm_events_consumer_lag{"));
    for block in rest {
        reader.read(block);
    }
    let sent: i64 = sink.value("SELECT count(*) FROM replay_item WHERE state = 'acknowledged'");
    // One by one: 5 five times, 42 and 43 twice. A dead letter became an event.
    sink.await_events(59 + sent + 9 + 1);
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM audit WHERE action = 'replay' AND outcome = 'done'"), 9);
    let copies = sink.value::<i64>("SELECT count(*) FROM event_journal WHERE replay_of IS NOT NULL");
    assert_eq!(copies, sent + 9);
}

#[test]
fn the_operators_page_works_as_written_on_the_embedded_broker() {
    let broker = Embedded::start(&[(LEADS, 3), (JOBS, 3)]);
    follow_the_page(&broker.bootstrap());
}

pub fn the_operators_page_works_as_written(kafka: &ApacheKafka) {
    follow_the_page(&kafka.bootstrap());
}
