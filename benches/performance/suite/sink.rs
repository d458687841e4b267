//! The real program, with its defaults, on a journal of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::process;
use crate::harness::{eventually, free_port, program};

/// Each reads everything anew.
static GROUPS: AtomicU32 = AtomicU32::new(1);

pub struct Sink {
    child: Child,
    pub journal: PathBuf,
    pub api: String,
    pub metrics: String,
    /// When it was started.
    pub since: Instant,
}

impl Sink {
    /// On the journal in `folder`, in a Kafka group that is new. `toml`: what is not left at its default.
    pub fn start(folder: &Path, brokers: &str, toml: &str) -> Sink {
        Sink::start_with(folder, brokers, toml, |_| {})
    }

    pub fn start_with(folder: &Path, brokers: &str, toml: &str, change: impl FnOnce(&mut Command)) -> Sink {
        fs::create_dir_all(folder).expect("a folder of its own");
        let folder = folder.canonicalize().expect("it was just made");
        let journal = folder.join("journal.db");
        let group = GROUPS.fetch_add(1, Ordering::Relaxed);
        let [api, metrics] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let config = format!(
            "{toml}kafka.brokers = {brokers:?}\nkafka.group_id = \"sink-{group}\"\njournal.path = {journal:?}\n\
             api.listen = {api:?}\nmetrics.listen = {metrics:?}\n"
        );
        fs::write(folder.join("config.toml"), config).expect("its configuration");
        let log = File::create(folder.join("log")).expect("its log");
        let mut run = program();
        run.arg("run").arg("--config").arg(folder.join("config.toml"));
        run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        change(&mut run);
        let since = Instant::now();
        Sink { child: run.spawn().expect("the sink starts"), journal, api, metrics, since }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until `GET /health` says that all is well: it has its journal and its partitions.
    pub fn await_health(&mut self) {
        eventually("the sink is healthy", || {
            self.assert_running();
            self.get("/health").is_some()
        });
    }

    pub fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("it is our own");
        let log = self.journal.with_file_name("log");
        assert!(ended.is_none(), "the sink ended: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// An answer of the operators' API, if it is 200.
    pub fn get(&self, path: &str) -> Option<String> {
        get(&format!("http://{}{path}", self.api))
    }

    /// A sample in `GET /metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = get(&format!("http://{}/metrics", self.metrics)).expect("the sink shows its metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// Ends it in order: what was in its log is in its file then. How many bytes it wrote in its life.
    pub fn stop(mut self) -> u64 {
        let stopped = Command::new("kill").arg(self.pid().to_string()).status().expect("kill is there");
        assert!(stopped.success(), "the sink runs");
        process::end(&mut self.child)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn get(url: &str) -> Option<String> {
    ureq::get(url).call().ok()?.body_mut().read_to_string().ok()
}

/// Looks at a file that somebody else writes.
pub fn reader(journal: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

/// The last event's number; 0 without one, or without a journal.
pub fn newest(journal: &Path) -> i64 {
    let newest = "SELECT coalesce(max(id), 0) FROM event_journal";
    reader(journal).and_then(|reader| reader.query_row(newest, [], |row| row.get(0))).unwrap_or(0)
}

/// Waits until the file holds `rows` more than `before`: how many came a second, from the first to be seen to the last.
pub fn watch(journal: &Path, before: i64, rows: u64, mut check: impl FnMut()) -> f64 {
    let last = before + rows as i64;
    eventually("the first row is there", || {
        check();
        newest(journal) > before
    });
    let reader = reader(journal).expect("it is there");
    let mut select = reader.prepare("SELECT max(id) FROM event_journal").expect("so is the table");
    let mut look = || (select.query_row([], |row| row.get::<_, i64>(0)).expect("it can be read"), Instant::now());
    let (first, began) = look();
    let (mut seen, mut since) = (first, began);
    while seen < last {
        std::thread::sleep(Duration::from_millis(10));
        let (now_seen, now) = look();
        assert!(now_seen > seen || now - since < crate::harness::DEADLINE, "no more rows come, after {seen}");
        if now_seen > seen {
            (seen, since) = (now_seen, now);
        }
        check();
    }
    // All in one transaction, as can be where there are few: how long that took, nobody saw.
    (seen - first).max(1) as f64 / (since - began).max(Duration::from_millis(1)).as_secs_f64()
}
