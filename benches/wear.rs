//! What a quiet box writes to its flash: bytes a day at 1, 10 and 100 events a second, under each setting that changes it.
//! `cargo bench --bench wear`; `WEAR_EVENTS` (500,000) is how many events each journal holds before, `WEAR_SECONDS` (120)
//! for how long it is measured, `WEAR_FOLDER` where the twelve journals stand.
//!
//! All sinks run at once, on one embedded broker: what is counted is bytes, not time. They are what the kernel says that
//! the process had it write to disks (`write_bytes` of /proc/PID/io); file system and device add their own to it.

#[path = "search/make.rs"]
mod make;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const RATES: [u32; 3] = [1, 10, 100];
/// A name, and what stands in the configuration.
const SETTINGS: [(&str, &str); 4] = [
    ("the defaults", ""),
    ("write.batch_interval = \"0s\"", "write.batch_interval = \"0s\"\n"),
    ("write.batch_interval = \"10s\"", "write.batch_interval = \"10s\"\nwrite.batch_rows_min = 1000\n"),
    ("journal.chain = true", "journal.chain = true\n"),
];
/// The group's first rebalance is over, and the first checkpoint too.
const WARM_UP: Duration = Duration::from_secs(20);

struct Box {
    sink: Child,
    before: u64,
}

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (events, seconds) = (number("WEAR_EVENTS", 500_000), number("WEAR_SECONDS", 120));
    let place = std::env::var("WEAR_FOLDER").map_or_else(|_| std::env::temp_dir(), Into::into);
    let folder = tempfile::Builder::new().prefix("wear-").tempdir_in(place).expect("a folder for the journals");
    let before = folder.path().join("before.db");
    make::make(&before, events);
    let broker = MockCluster::new(1).expect("a broker inside the process");
    let bootstrap = broker.bootstrap_servers();
    for rate in RATES {
        broker.create_topic(&topic(rate), 3, 1).expect("a topic");
        let bootstrap = bootstrap.clone();
        let until = Instant::now() + WARM_UP + Duration::from_secs(seconds) + Duration::from_secs(60);
        thread::spawn(move || produce(&bootstrap, rate, until, make::Events::after(events)));
    }
    let mut boxes = Vec::new();
    for (number, (_, toml)) in SETTINGS.iter().enumerate() {
        let started = RATES.map(|rate| start(&before, &format!("{number}-{rate}"), &bootstrap, rate, toml));
        boxes.push(started);
    }
    thread::sleep(WARM_UP);
    let mut measured_from = Vec::new();
    for each in boxes.iter_mut().flatten() {
        each.before = written(each.sink.id());
        measured_from.push(Instant::now());
    }
    thread::sleep(Duration::from_secs(seconds));
    let mut since = measured_from.into_iter();
    println!(
        "GB written a day, over {seconds} s; {events} events before\n{:32}{:>9}{:>9}{:>9}",
        "setting, events a second", 1, 10, 100
    );
    for ((name, _), started) in SETTINGS.iter().zip(&mut boxes) {
        print!("{name:32}");
        for each in started {
            let elapsed = since.next().expect("as many as boxes").elapsed();
            let bytes = written(each.sink.id()) - each.before;
            print!("{:>9.2}", bytes as f64 / elapsed.as_secs_f64() * 86_400.0 / 1e9);
            each.sink.kill().expect("the sink is our own");
            each.sink.wait().expect("the sink is our own");
        }
        println!();
    }
}

fn topic(rate: u32) -> String {
    format!("apexflow.leads.rate{rate}")
}

fn start(before: &Path, name: &str, bootstrap: &str, rate: u32, toml: &str) -> Box {
    let folder = before.with_file_name(name);
    fs::create_dir(&folder).expect("a folder of its own");
    let config = folder.join("config.toml");
    let journal = folder.join("journal.db");
    fs::copy(before, &journal).expect("room for its journal");
    forget(&journal);
    // Unlike Apache Kafka the embedded broker lets a fetch wait although records come: they would arrive in lumps.
    let text = format!(
        "{toml}kafka.brokers = {bootstrap:?}\nkafka.group_id = {name:?}\nkafka.topics = [{:?}]\njournal.path = {journal:?}\n\
         metrics.listen = \"127.0.0.1:0\"\napi.listen = \"127.0.0.1:0\"\nlog.level = \"error\"\n\
         kafka.properties.\"fetch.wait.max.ms\" = 10\n",
        topic(rate)
    );
    fs::write(&config, text).expect("its configuration");
    let mut run = Command::new(env!("CARGO_BIN_EXE_crm-events-sink"));
    let sink = run.arg("run").arg("--config").arg(&config).stdin(Stdio::null()).spawn().expect("the sink starts");
    Box { sink, before: 0 }
}

/// Takes a file out of the page cache: what was copied stands there in large pieces, and the kernel would count a whole
/// piece for each page that is written.
fn forget(path: &Path) {
    let file = File::open(path).expect("it was just made");
    file.sync_all().expect("it can be written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux takes the advice");
}

fn written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("the sink runs");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("Linux counts them");
    line.parse().expect("a number")
}

/// `rate` events a second, evenly.
fn produce(bootstrap: &str, rate: u32, until: Instant, mut coming: make::Events) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("linger.ms", "0").create().expect("a producer");
    let begun = Instant::now();
    for number in 0u64.. {
        let due = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
        if due > until {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let event = coming.next(number);
        producer.send(BaseRecord::to(&topic(rate)).key(&event.key).payload(&event.payload)).expect("room in the queue");
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(5)).expect("the broker is in this process");
}
