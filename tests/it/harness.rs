//! Starts the real program against a broker, and looks at it from outside: curl, kcat, the file.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_crm-events-sink");
/// Generous: a condition that holds is seen at once, and a busy machine is slow.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a condition, and fails with `what` if it does not come true.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(DEADLINE, what, condition);
}

/// The same for what takes long by design.
#[track_caller]
pub fn within(time: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {time:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The broker inside the test's own process.
pub struct Embedded(MockCluster<'static, DefaultProducerContext>);

impl Embedded {
    pub fn start(topics: &[(&str, i32)]) -> Embedded {
        let cluster = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).unwrap();
        }
        Embedded(cluster)
    }

    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }

    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.0
    }
}

/// Apache Kafka, each node in a process of its own.
pub struct ApacheKafka {
    folder: TempDir,
    ports: Vec<u16>,
}

impl ApacheKafka {
    pub fn start() -> ApacheKafka {
        ApacheKafka::start_nodes(1)
    }

    pub fn start_nodes(nodes: usize) -> ApacheKafka {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let pairs: Vec<String> = ports.iter().map(|port| format!("{port}:{}", free_port())).collect();
        let mut arguments = vec!["start", folder.path().to_str().unwrap()];
        arguments.extend(pairs.iter().map(String::as_str));
        let started = kafka_script(&arguments);
        assert!(started.success(), "Apache Kafka did not start; `tests/kafka/kafka.sh fetch` says what is missing");
        ApacheKafka { folder, ports }
    }

    pub fn bootstrap(&self) -> String {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// kill -9. Nodes count from 1.
    pub fn kill_node(&self, node: i32) {
        let signalled = self.signal_node(node, "KILL");
        assert!(signalled, "node {node} ran");
        eventually("the node's port is closed", || {
            TcpStream::connect(("127.0.0.1", self.ports[node as usize - 1])).is_err()
        });
    }

    /// Starts a killed node again, and returns when it listens.
    pub fn restart_node(&self, node: i32) {
        let started = kafka_script(&["restart", self.folder.path().to_str().unwrap(), &node.to_string()]);
        assert!(started.success());
        eventually("the node listens", || TcpStream::connect(("127.0.0.1", self.ports[node as usize - 1])).is_ok());
    }

    pub fn signal_node(&self, node: i32, signal: &str) -> bool {
        let pid = fs::read_to_string(self.folder.path().join(format!("node-{node}/pid"))).unwrap();
        Command::new("kill").arg(format!("-{signal}")).arg(pid.trim()).status().unwrap().success()
    }

    /// Makes topics with a copy on every node, of which `in_sync_min` must have a record before it is acknowledged.
    pub fn create_topics(&self, topics: &[&str], partitions: i32, in_sync_min: &str) {
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let mut new = Vec::new();
        for topic in topics {
            let replicas = TopicReplication::Fixed(self.ports.len() as i32);
            new.push(NewTopic::new(topic, partitions, replicas).set("min.insync.replicas", in_sync_min));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let made = runtime.block_on(admin.create_topics(&new, &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        kafka_script(&["stop", self.folder.path().to_str().unwrap()]);
    }
}

fn kafka_script(arguments: &[&str]) -> ExitStatus {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/kafka.sh");
    Command::new(script).args(arguments).status().unwrap()
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A record to send.
#[derive(Clone, Default)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Sends records and waits until the broker has them.
pub struct Sender(ThreadedProducer<DefaultProducerContext>);

impl Sender {
    pub fn to(bootstrap: &str) -> Sender {
        Sender(Sender::config(bootstrap).create().unwrap())
    }

    /// In the order of the calls, whatever the broker makes it try again.
    pub fn in_order_to(bootstrap: &str) -> Sender {
        Sender(Sender::config(bootstrap).set("enable.idempotence", "true").create().unwrap())
    }

    fn config(bootstrap: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("partitioner", "murmur2_random").set("linger.ms", "5");
        config
    }

    pub fn send(&self, record: &Record) {
        self.queue(record);
        self.flush();
    }

    pub fn queue(&self, record: &Record) {
        let mut message = BaseRecord::<[u8], [u8]>::to(record.topic);
        message.partition = record.partition;
        message.key = record.key;
        message.payload = record.value;
        if !record.headers.is_empty() {
            let add = |headers: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| {
                headers.insert(Header { key, value: *value })
            };
            message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), add));
        }
        while let Err((_, back)) = self.0.send(message) {
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn flush(&self) {
        self.0.flush(DEADLINE).unwrap();
    }

    /// An event of `tenant` with a number in it.
    pub fn event(&self, topic: &str, tenant: &str, number: u64) {
        self.queue_event(topic, tenant, number);
        self.flush();
    }

    pub fn queue_event(&self, topic: &str, tenant: &str, number: u64) {
        let key = format!("{tenant}:lead:{number}");
        let value = event(tenant, number);
        self.queue(&Record { topic, key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Record::default() });
    }
}

pub fn event(tenant: &str, number: u64) -> String {
    format!(r#"{{"tenant_id":"{tenant}","event_type":"lead.created","id":{number},"name":"Lead {number}"}}"#)
}

/// The program with a configuration and a journal of its own.
pub struct Sink {
    child: Child,
    pub folder: TempDir,
    journal: PathBuf,
    pub api: String,
    pub metrics: String,
}

/// What a sink is started with.
pub struct Setup {
    folder: TempDir,
    journal: PathBuf,
    brokers: String,
    toml: String,
    session_ms: u32,
}

impl Setup {
    pub fn with(brokers: &str) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        Setup { folder, journal, brokers: brokers.to_owned(), toml: String::new(), session_ms: 6000 }
    }

    /// The journal on a disk of its own.
    pub fn on(mut self, disk: &Disk) -> Setup {
        self.journal = disk.path().join("journal.db");
        self
    }

    /// After how long the group gives a dead member's partitions away. The embedded broker hangs with 3000 and less.
    /// 0: the broker says.
    pub fn session_ms(mut self, session_ms: u32) -> Setup {
        self.session_ms = session_ms;
        self
    }

    /// More lines for the configuration file.
    pub fn toml(mut self, lines: &str) -> Setup {
        self.toml = lines.to_owned();
        self
    }

    pub fn journal(&self) -> PathBuf {
        self.journal.clone()
    }

    /// `crm-events-sink run`, not started yet.
    pub fn command(&self) -> Command {
        let session = format!(
            "kafka.properties.\"session.timeout.ms\" = {}\nkafka.properties.\"heartbeat.interval.ms\" = {}\n",
            self.session_ms,
            self.session_ms / 4
        );
        let path = self.folder.path().join("config.toml");
        // Tests wait for one event after another.
        let each_at_once =
            if self.toml.contains("write.batch_interval") { "" } else { "write.batch_interval = '0s'\n" };
        let config = format!(
            "{}\n{each_at_once}journal.path = {:?}\nmetrics.listen = \"127.0.0.1:0\"\napi.listen = \"127.0.0.1:0\"\n\
             kafka.brokers = {:?}\n{}\
             kafka.properties.\"fetch.wait.max.ms\" = 10\n\
             kafka.properties.\"topic.metadata.refresh.interval.ms\" = 1000\n\
             kafka.properties.\"reconnect.backoff.max.ms\" = 500\n",
            self.toml,
            self.journal(),
            self.brokers,
            if self.session_ms > 0 { &session } else { "" },
        );
        fs::write(&path, config).unwrap();
        let mut command = program();
        command.arg("run").arg("--config").arg(path);
        command
    }

    pub fn start(self) -> Sink {
        self.start_with(|_| {})
    }

    /// With a command line or environment that `change` has changed.
    pub fn start_with(self, change: impl FnOnce(&mut Command)) -> Sink {
        let mut command = self.command();
        change(&mut command);
        Sink::start(command, self.folder, self.journal)
    }

    /// As the child of a program that looks at it and takes its command line as its last arguments.
    pub fn start_under(self, watcher: Command) -> Sink {
        let command = under(watcher, &self.command());
        Sink::start(command, self.folder, self.journal)
    }
}

fn under(mut watcher: Command, command: &Command) -> Command {
    watcher.arg(command.get_program()).args(command.get_args());
    for (name, _) in command.get_envs() {
        watcher.env_remove(name);
    }
    watcher
}

/// A small disk of its own, in memory: full, read-only and gone as a test likes.
pub struct Disk(TempDir);

impl Disk {
    pub fn mount(bytes: u64) -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        as_root(&["mount", "-t", "tmpfs", "-o", &size, "crm-events-sink-test", folder.path().to_str().unwrap()]);
        as_root(&["chmod", "0777", folder.path().to_str().unwrap()]);
        Disk(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn remount(&self, how: &str) {
        as_root(&["mount", "-o", &format!("remount,{how}"), self.path().to_str().unwrap()]);
    }

    /// Takes what is free but for `left` bytes.
    pub fn fill(&self, left: u64) {
        let free = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output().unwrap();
        let free = String::from_utf8(free.stdout).unwrap();
        let free: u64 = free.lines().nth(1).unwrap().trim().parse().unwrap();
        let file = File::create(self.path().join("somebody-elses")).unwrap();
        let bytes = vec![7; usize::try_from(free.saturating_sub(left)).unwrap()];
        std::io::Write::write_all(&mut &file, &bytes).unwrap();
    }

    pub fn free(&self) {
        fs::remove_file(self.path().join("somebody-elses")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a sink of a test that failed may still be there.
        as_root(&["umount", "-l", self.path().to_str().unwrap()]);
    }
}

/// Mounting is root's.
fn as_root(command: &[&str]) {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let sudo: &[&str] = if id == b"0\n" { &[] } else { &["sudo", "-n"] };
    let words = [sudo, command].concat();
    let done = Command::new(words[0]).args(&words[1..]).output();
    let done =
        done.unwrap_or_else(|error| panic!("{words:?}: {error}; this test needs root, or sudo without password"));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{words:?}: {said}; this test needs root, or sudo without password, and mount");
}

/// The program, with nothing of the test's own environment that would configure it.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for name in
        ["KAFKA_BOOTSTRAP", "GROUP_ID", "KAFKA_TOPICS", "JOURNAL_PATH", "METRICS_LISTEN", "PROM_PORT", "API_LISTEN"]
    {
        command.env_remove(name);
    }
    command
}

impl Sink {
    fn start(mut command: Command, folder: TempDir, journal: PathBuf) -> Sink {
        let log = folder.path().join("log");
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let before = fs::read_to_string(&log).unwrap().len();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut sink = Sink { child, folder, journal, api: String::new(), metrics: String::new() };
        let mut running = String::new();
        eventually("the sink is running", || {
            assert!(sink.child.try_wait().unwrap().is_none(), "the sink ended at once:\n{}", sink.log());
            running =
                sink.log()[before..].lines().find(|line| line.contains("running journal=")).unwrap_or("").to_owned();
            !running.is_empty()
        });
        let field = |name: &str| running.split(name).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        (sink.api, sink.metrics) = (field(" api="), field(" metrics="));
        sink
    }

    /// Ends this process if it still runs and starts another on the same files.
    pub fn restart(self) -> Sink {
        self.restart_as(|command| command)
    }

    pub fn restart_under(self, watcher: Command) -> Sink {
        self.restart_as(|command| under(watcher, &command))
    }

    fn restart_as(mut self, change: impl FnOnce(Command) -> Command) -> Sink {
        self.kill();
        let mut command = program();
        command.arg("run").arg("--config").arg(self.folder.path().join("config.toml"));
        let command = change(command);
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        Sink::start(command, folder, self.journal.clone())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the sink ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn journal(&self) -> PathBuf {
        self.journal.clone()
    }

    /// One value from the file.
    pub fn value<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let connection = Connection::open_with_flags(self.journal(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(DEADLINE).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn events(&self) -> i64 {
        self.value("SELECT count(*) FROM event_journal")
    }

    pub fn dead_letters(&self) -> i64 {
        self.value("SELECT count(*) FROM event_dlq")
    }

    #[track_caller]
    pub fn await_events(&self, count: i64) {
        eventually(&format!("{count} events are in the journal (there are {})", self.events()), || {
            self.events() >= count
        });
        assert_eq!(self.events(), count, "more events than were sent");
    }

    /// `crm-events-sink sql`.
    pub fn sql(&self, statements: &str) -> Output {
        program().args(["sql", "--journal"]).arg(self.journal()).arg(statements).output().unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        curl(&[&format!("http://{}{path}", self.api)])
    }

    pub fn post(&self, path: &str) -> Answer {
        curl(&["-X", "POST", &format!("http://{}{path}", self.api)])
    }

    /// A sample's value in `GET /metrics`; 0 where there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics_text();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let of_name = samples.filter_map(|line| line.rsplit_once(' ')).filter(|(sample, _)| *sample == name);
        of_name.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    /// The sum over all labels of a metric.
    pub fn metric_sum(&self, name: &str) -> f64 {
        let text = self.metrics_text();
        let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
        samples.filter(|(s, _)| s.split('{').next() == Some(name)).map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }

    pub fn metrics_text(&self) -> String {
        curl(&[&format!("http://{}/metrics", self.metrics)]).body
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the sink's log\n{}", self.log());
        }
    }
}

/// What curl got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The text under `detail`, which every error has.
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().expect("an error has a detail").to_owned()
    }
}

pub fn curl(arguments: &[&str]) -> Answer {
    let got = Command::new("curl").args(["-sS", "-i", "--max-time", "40"]).args(arguments).output().unwrap();
    let text = String::from_utf8(got.stdout).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("curl {arguments:?} got no answer: {}", String::from_utf8_lossy(&got.stderr)));
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Where `tests/tools.sh` put promtool, else the machine's own.
pub fn promtool() -> PathBuf {
    let unpacked = Path::new(PROGRAM).ancestors().nth(2).unwrap().join("tools/promtool");
    if unpacked.exists() { unpacked } else { "promtool".into() }
}

/// Everything in a topic, as kcat (a client of its own) sees it.
pub fn kcat_read(bootstrap: &str, topic: &str) -> Vec<Value> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", bootstrap, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J", "-X", "fetch.wait.max.ms=50"]);
    let read = kcat.output().unwrap();
    assert!(read.status.success(), "kcat: {}", String::from_utf8_lossy(&read.stderr));
    let text = String::from_utf8(read.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
