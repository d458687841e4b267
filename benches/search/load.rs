//! The sink at work on a journal, and events that come in as fast as it takes them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rusqlite::{Connection, OpenFlags};

use super::make::{Events, TOPICS};

/// Records on their way at most: the embedded broker keeps 5 MB of a partition and forgets the rest.
const IN_FLIGHT_MAX: i64 = 30_000;
const PARTITIONS: i32 = 6;

pub struct Sink {
    child: Child,
    pub api: String,
}

impl Sink {
    pub fn start(journal: &Path, brokers: &str) -> Sink {
        let folder = journal.parent().unwrap();
        let (config, log) = (folder.join("config.toml"), folder.join("log"));
        let settings = format!(
            "journal.path = {journal:?}\nkafka.brokers = {brokers:?}\nkafka.topics = [\"^live\\\\..*\"]\n\
             api.listen = \"127.0.0.1:0\"\nmetrics.listen = \"127.0.0.1:0\"\n"
        );
        fs::write(&config, settings).unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_crm-events-sink"));
        run.arg("run").arg("--config").arg(config).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let mut sink = Sink { child: run.spawn().unwrap(), api: String::new() };
        loop {
            let mut said = String::new();
            fs::File::open(&log).unwrap().read_to_string(&mut said).unwrap();
            if let Some((_, rest)) = said.split_once(" api=") {
                let address = rest.split_whitespace().next().unwrap();
                sink.api = format!("http://{address}");
                return sink;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }
}

/// A broker inside this process, and a thread that fills it.
pub struct Load {
    _broker: MockCluster<'static, DefaultProducerContext>,
    pub brokers: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn prepare() -> Load {
        let broker = MockCluster::new(1).unwrap();
        for (topic, _, _) in TOPICS {
            broker.create_topic(&live(topic), PARTITIONS, 1).unwrap();
        }
        let brokers = broker.bootstrap_servers();
        Load { _broker: broker, brokers, stop: Arc::default(), thread: None }
    }

    /// Sends what follows `events` to the sink that writes `journal`, until it is dropped.
    pub fn begin(&mut self, journal: &Path, events: u64) {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "100000");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().unwrap();
        let (stop, journal) = (Arc::clone(&self.stop), journal.to_owned());
        self.thread = Some(thread::spawn(move || {
            let mut coming = Events::after(events);
            let first = newest(&journal);
            let (mut sent, mut stored) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                if sent - stored >= IN_FLIGHT_MAX {
                    thread::sleep(Duration::from_millis(5));
                    stored = newest(&journal) - first;
                    continue;
                }
                let event = coming.next(sent as u64);
                let topic = live(TOPICS[event.topic].0);
                let partition = (event.entity % PARTITIONS as u64) as i32;
                let mut record = BaseRecord::to(&topic).key(&event.key).payload(&event.payload).partition(partition);
                while let Err((_, back)) = producer.send(record) {
                    record = back;
                    thread::sleep(Duration::from_millis(1));
                }
                sent += 1;
            }
        }));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Not one of a run before: this broker's log of it would be another.
fn live(topic: &str) -> String {
    format!("live.{}.{topic}", std::process::id())
}

pub fn reader(journal: &Path) -> Connection {
    let connection = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

/// The last event's number.
pub fn newest(journal: &Path) -> i64 {
    reader(journal).query_row("SELECT max(id) FROM event_journal", [], |row| row.get(0)).unwrap()
}

/// Events stored a second while `during` goes on.
pub fn rate(journal: &Path, during: impl FnOnce()) -> f64 {
    let (began, before) = (Instant::now(), newest(journal));
    during();
    (newest(journal) - before) as f64 / began.elapsed().as_secs_f64()
}
