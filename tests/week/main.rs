//! A branch's week, fast-forwarded: `make week`. The sink's wall clock moves by hours, records come hour by hour from Apache
//! Kafka, and retention and archive have to keep the disk as it is without losing anything.
//! `WEEK_EVENTS` is how many come a day, at least 12,000: 86,400, one a second, unless it says otherwise.

#[allow(dead_code)]
#[path = "../it/harness.rs"]
mod harness;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{ApacheKafka, PROGRAM, Record, Sender, Setup, Sink, event, within};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

const TOPICS: [&str; 3] = ["apexflow.leads.created", "apexflow.leads.status_changed", "apexflow.jobs.created"];
const PARTITIONS: i32 = 2;
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const DAYS: u64 = 7;
const HOURS: u64 = 24;
/// For the sink to take an hour's records, or to prune: it takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// The wall clock of the sink alone.
struct Clock {
    folder: TempDir,
    file: File,
}

impl Clock {
    fn new() -> Clock {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/week/clock.c");
        let mut compile = Command::new("cc");
        compile
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("clock.so"))
            .arg(source);
        assert!(compile.status().unwrap().success());
        let file = File::options().create(true).truncate(true).read(true).write(true).open(folder.path().join("ahead"));
        let clock = Clock { folder, file: file.unwrap() };
        clock.set(0);
        clock
    }

    fn set(&self, seconds_ahead: i64) {
        self.file.write_all_at(&seconds_ahead.to_ne_bytes(), 0).unwrap();
    }

    fn put_into(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.folder.path().join("clock.so"))
            .env("CLOCK_FILE", self.folder.path().join("ahead"));
    }
}

/// What a day's end looked like.
struct Day {
    journal_bytes: u64,
    events: i64,
    archive: String,
}

struct Week {
    kafka: ApacheKafka,
    sender: Sender,
    clock: Clock,
    sink: Sink,
    archive: TempDir,
    sent: u64,
    days: Vec<Day>,
}

impl Week {
    fn begin(rules: &str) -> Week {
        let kafka = ApacheKafka::start();
        kafka.create_topics(&TOPICS, PARTITIONS, "1");
        let (clock, archive) = (Clock::new(), tempfile::tempdir().unwrap());
        let toml =
            format!("{rules}retention.interval = \"1s\"\narchive.folder = {:?}\n", archive.path().join("events"));
        fs::create_dir(archive.path().join("events")).unwrap();
        let sink = Setup::with(&kafka.bootstrap()).toml(&toml).start_with(|command| clock.put_into(command));
        let sender = Sender::to(&kafka.bootstrap());
        Week { kafka, sender, clock, sink, archive, sent: 0, days: Vec::new() }
    }

    fn send(&mut self, topic: &str, value: &[u8]) {
        let key = format!("acme:lead:{}", self.sent % 5000);
        self.sender.queue(&Record { topic, key: Some(key.as_bytes()), value: Some(value), ..Record::default() });
        self.sent += 1;
    }

    /// An hour of the week: its records come, and the sink has them.
    fn hour(&mut self, hour: u64, records: u64) {
        self.clock.set(i64::try_from(hour * 3600).unwrap());
        for _ in 0..records {
            let number = self.sent;
            let pick = |among: &[&'static str]| among[number as usize % among.len()];
            self.send(pick(&TOPICS), event(pick(&TENANTS), number).as_bytes());
        }
        self.sender.flush();
        self.await_all();
    }

    fn await_all(&self) {
        let sent = i64::try_from(self.sent).unwrap();
        within(PATIENCE, "what was sent has been taken", || self.taken() >= sent);
        assert_eq!(self.taken(), sent);
    }

    fn taken(&self) -> i64 {
        self.sink.value("SELECT coalesce(sum(next_offset), 0) FROM kafka_position")
    }

    fn value(&self, sql: &str) -> i64 {
        self.sink.value(sql)
    }

    fn archived(&self) -> String {
        let sql = "SELECT coalesce(sum(rows), 0) || ' events in ' || count(*) || ' files, ' || coalesce(sum(bytes), 0) || ' bytes' FROM archive_file";
        self.sink.value(sql)
    }

    /// Until retention has nothing more to do on this day.
    fn end_day(&mut self, is_settled: impl Fn(&Week) -> bool) {
        within(PATIENCE, "retention is done with the day", || is_settled(self));
        // It holds still for as long as two of retention's rounds.
        let mut before = (0, Instant::now());
        within(PATIENCE, "the file holds still", || {
            let bytes = self.file_bytes();
            if bytes != before.0 {
                before = (bytes, Instant::now());
            }
            before.1.elapsed() > Duration::from_secs(3)
        });
        let day = Day {
            journal_bytes: self.file_bytes(),
            events: self.value("SELECT count(*) FROM event_journal"),
            archive: self.archived(),
        };
        println!(
            "day {}: journal {:.1} MB, {} events; archive {}",
            self.days.len() + 1,
            day.journal_bytes as f64 / 1e6,
            day.events,
            day.archive
        );
        self.days.push(day);
    }

    fn file_bytes(&self) -> u64 {
        self.sink.journal().metadata().unwrap().len()
    }

    /// kill -9, and another process on the same files with the same clock.
    fn kill(self) -> Week {
        let preload = self.clock.folder.path().join("clock.so");
        let file = self.clock.folder.path().join("ahead");
        let mut env = Command::new("env");
        env.arg(format!("LD_PRELOAD={}", preload.display())).arg(format!("CLOCK_FILE={}", file.display()));
        Week { sink: self.sink.restart_under(env), ..self }
    }

    /// Whether each of the broker's records is in the archive, the journal or the dead letters, once.
    fn account(&mut self) {
        assert_eq!(self.sink.stop(), Some(0));
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).create().unwrap();
        let mut lines = String::new();
        let mut all = 0;
        for topic in TOPICS {
            for partition in 0..PARTITIONS {
                let (_, high) = client.fetch_watermarks(topic, partition, Duration::from_secs(30)).unwrap();
                lines += &format!("{topic} {partition} {high}\n");
                all += high;
            }
        }
        assert_eq!(all, i64::try_from(self.sent).unwrap(), "the broker has what was sent");
        let python: PathBuf = Path::new(PROGRAM).ancestors().nth(2).unwrap().join("tools/python/bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/week/account.py");
        let mut account = Command::new(python);
        account.arg(script).arg(self.sink.journal()).arg(self.archive.path().join("events"));
        let mut account = account.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut account.stdin.take().unwrap(), lines.as_bytes()).unwrap();
        let counted = account.wait_with_output().unwrap();
        let text = String::from_utf8(counted.stdout).unwrap();
        print!("{text}");
        assert!(counted.status.success(), "{text}");
    }
}

fn events_a_day() -> u64 {
    std::env::var("WEEK_EVENTS").map_or(86_400, |number| number.parse().unwrap())
}

/// The days of a week under `rules`, a malformed record and a kill -9 among them; what they left is looked at by `settled`.
fn live(rules: &str, settled: impl Fn(&Week, u64) -> bool) -> Week {
    let mut week = Week::begin(rules);
    let an_hour = events_a_day() / HOURS;
    for day in 0..DAYS {
        for hour in 0..HOURS {
            week.hour(day * HOURS + hour, an_hour);
            if (day, hour) == (4, 11) {
                week = week.kill();
            }
        }
        week.send(TOPICS[0], b"{\"tenant_id\": \"acme\", ");
        week.sender.flush();
        week.await_all();
        week.end_day(|week| settled(week, day));
    }
    let open = week.value("SELECT count(*) FROM event_dlq WHERE state = 'open'");
    assert_eq!(open, i64::try_from(DAYS).unwrap(), "every open dead letter stays");
    week
}

fn assert_flat(days: &[Day]) {
    let bytes = days.iter().map(|day| day.journal_bytes);
    let (least, most) = (bytes.clone().min().unwrap(), bytes.max().unwrap());
    assert!(most - least < most / 5, "the file went from {least} to {most} bytes");
}

/// Two whole days stay, and the one that is not over.
#[test]
fn a_week_under_a_limit_of_age_leaves_the_disk_as_it_is_and_everything_in_archive_or_journal() {
    let mut week = live("retention.age_max = \"2d\"\n", |week, day| {
        // The clock of the test is real: the week's days begin at any hour, so that one more is not over.
        let kept = i64::try_from((day + 1).min(3) * events_a_day()).unwrap();
        week.value("SELECT count(*) FROM event_journal") <= kept
    });
    assert_flat(&week.days[3..]);
    let last = &week.days[6];
    assert!(
        last.events >= i64::try_from(2 * (events_a_day() / HOURS) * HOURS).unwrap(),
        "{} events stayed",
        last.events
    );
    week.account();
}

/// As much stays as the limit has room for.
#[test]
fn a_week_under_a_limit_of_size_leaves_the_disk_as_it_is_and_everything_in_archive_or_journal() {
    let size_max = (events_a_day() * 750 * 2).max(16 << 20);
    let mut week =
        live(&format!("retention.size_max = {size_max}\n"), |week, _| week.file_bytes() <= size_max + (8 << 20));
    assert_flat(&week.days[3..]);
    assert!(week.days[6].events > i64::try_from(events_a_day() / 2).unwrap(), "{} events stayed", week.days[6].events);
    week.account();
}
