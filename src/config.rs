//! Every setting, its default, and where it may come from: flag, environment, file, default, in this order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the file is looked for when `--config` is not given. It need not exist there.
pub const DEFAULT_PATH: &str = "/etc/crm-events-sink/config.toml";

/// The librdkafka properties on which the promises rest; a config that sets one is refused.
const OWN_PROPERTIES: [(&str, &str); 11] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group_id"),
    ("group.instance.id", "set kafka.group_instance_id"),
    ("group.protocol", "set kafka.group_protocol"),
    ("partition.assignment.strategy", "partitions are taken over one by one: it is cooperative-sticky"),
    ("enable.auto.commit", "offsets are committed once the journal holds the records"),
    ("enable.auto.offset.store", "offsets are committed once the journal holds the records"),
    ("auto.offset.reset", "the journal decides where reading begins; see consume.on_gap"),
    ("enable.idempotence", "a replay must not be doubled by a retry"),
    ("acks", "a replay is done when all replicas have it"),
];

/// The fastest that a replay job may be asked to be, in events a second.
pub const RATE_PER_S_MAX: u32 = 100_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a stop may take: draining the queue and answering the requests in flight.
    #[serde(with = "duration")]
    pub shutdown_timeout: Duration,
    pub kafka: Kafka,
    pub consume: Consume,
    pub dlq: Dlq,
    pub queue: Queue,
    pub write: Write,
    pub journal: Journal,
    pub metrics: Metrics,
    pub api: Api,
    pub http: Http,
    pub replay: Replay,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Comma-separated `host:port`.
    pub brokers: String,
    pub group_id: String,
    /// Topic names, or regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// How the group shares its partitions: `classic` (cooperative-sticky), or `consumer` (KIP-848, Apache Kafka 4.0).
    pub group_protocol: GroupProtocol,
    /// Static membership: the box's name in the group, unique in it. A restart within the session then moves no
    /// partition. Empty: none. Consumer threads append `-0`, `-1`, …
    pub group_instance_id: String,
    /// Consumer threads, 1 to 64. More than the topics have partitions stay idle.
    pub consumers: usize,
    /// Any other librdkafka property, for TLS and SASL above all.
    pub properties: BTreeMap<String, Property>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    Classic,
    Consumer,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consume {
    /// What follows when records are found to be lost before they were read: `alert` (log, metric, `/integrity`), or
    /// `halt`, which also stops the partition until `POST /consumer/resume`.
    pub on_gap: OnGap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    Alert,
    Halt,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dlq {
    /// So many dead letters in a row stop their partition until `POST /consumer/resume`. 0: never. At most 1,000,000.
    pub max_consecutive: u32,
    /// A larger share of dead letters among 1000 records does so too. 0.01 to 1.0; 1.0: never.
    pub max_ratio: f64,
}

/// A librdkafka property's value: TOML may write it as text, number or boolean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Property {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl Property {
    pub fn text(&self) -> String {
        match self {
            Property::Text(text) => text.clone(),
            Property::Integer(number) => number.to_string(),
            Property::Boolean(boolean) => boolean.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Batches that may wait for the writer, 1 to 1024. With `chunk_bytes_max` this bounds the queue's memory.
    pub batches_max: usize,
    /// Bytes of one batch in the queue, at least one record. 4 KiB to 64 MiB.
    pub batch_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Write {
    /// Rows of one transaction, 1 to 100,000.
    pub batch_rows_max: usize,
    /// Bytes of one transaction, at least one batch of the queue. 4 KiB to 64 MiB.
    pub batch_bytes_max: usize,
    /// How long a record may wait for others to share its transaction. 0 to 10 s.
    #[serde(with = "duration")]
    pub batch_age_max: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    pub path: PathBuf,
    /// Room on the disk that is given up when the disk is full, 0 (none) to 1 GiB.
    pub reserve_bytes: u64,
    /// Whether each row of the journal and of the audit is chained to the one before it, so that `verify --chain` finds
    /// what was changed or removed by hand.
    pub chain: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    pub listen: SocketAddr,
    /// Tenants that get a label of their own; the others share `_other`.
    pub max_tenants: usize,
    /// Whether Prometheus has to say who it is, as `api.auth` has it.
    pub auth: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    pub listen: SocketAddr,
    /// Whether an address that others can reach may be listened on without `api.auth`: everybody there is trusted.
    pub allow_unauthenticated: bool,
    /// Names by which clients may call the API, beside `localhost`, this box's own and every address: a web page
    /// whose name was made to point here has another.
    pub hosts: Vec<String>,
    /// Requests that replay, by one person or program in a minute. 1 to 1,000,000.
    pub replays_per_minute: u32,
    pub auth: Auth,
    pub tls: Tls,
}

/// Who may ask; with neither users nor tokens, everybody who reaches the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// People who log in by name and password, as `crm-events-sink user` writes them. Empty: none.
    pub users_file: PathBuf,
    /// How bearer tokens (JWT) are signed: `HS256`, `RS256` or `ES256`, and by nothing else. Empty: none are taken.
    pub jwt_algorithm: JwtAlgorithm,
    /// HS256: the secret, 32 bytes or more. Else the public keys, as a JWKS (RFC 7517).
    pub jwt_key_file: PathBuf,
    /// What a token's `iss` and `aud` must be.
    pub jwt_issuer: String,
    pub jwt_audience: String,
    /// How far the clocks of this box and the issuer may differ. 0 to 5 min.
    #[serde(with = "duration")]
    pub jwt_leeway: Duration,
    /// Wrong passwords of one name, and wrong tokens, from one address in a minute; more have to wait. 1 to 1000.
    pub failures_per_minute: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    #[serde(rename = "")]
    None,
    HS256,
    RS256,
    ES256,
}

impl Auth {
    /// Whether who asks has to say who it is.
    pub fn is_on(&self) -> bool {
        self.has_users() || self.has_tokens()
    }

    pub fn has_users(&self) -> bool {
        !self.users_file.as_os_str().is_empty()
    }

    pub fn has_tokens(&self) -> bool {
        self.jwt_algorithm != JwtAlgorithm::None
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("api.auth.failures_per_minute", self.failures_per_minute, 1..=1000)?;
        within("api.auth.jwt_leeway", self.jwt_leeway, Duration::ZERO..=Duration::from_secs(300))?;
        if !self.has_tokens() {
            return Ok(());
        }
        not_empty("api.auth.jwt_issuer", &self.jwt_issuer, "https://login.example.com")?;
        not_empty("api.auth.jwt_audience", &self.jwt_audience, "crm-events-sink")?;
        not_empty("api.auth.jwt_key_file", &self.jwt_key_file.to_string_lossy(), "/etc/crm-events-sink/jwks.json")
    }
}

/// Both or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file: the certificate, then those between it and the authority's. Empty: the API speaks plain HTTP.
    pub certificate: PathBuf,
    /// A PEM file that only the service reads: the certificate's private key.
    pub key: PathBuf,
}

impl Tls {
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

/// What a client may ask of each of the two ports. Each port has all of it for itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Connections at once, 40 to 10,000. When all are taken, the one that has waited longest gives way to a new one.
    pub connections_max: usize,
    /// Connections of one address (an IPv6 network of 64 bits counts as one), 40 to 10,000.
    pub connections_per_client_max: usize,
    /// Bytes of a request's line and headers. 1 KiB to 64 KiB.
    pub head_bytes_max: usize,
    /// How long they may take to come, TLS included. 100 ms to 5 min.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// Bytes of a request's body. 1 KiB to 16 MiB.
    pub body_bytes_max: usize,
    /// How long it may take to come. 100 ms to 5 min.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a client may take for the next 64 KiB of an answer. 100 ms to 5 min.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// How long a connection is kept for a next request. 100 ms to 10 min.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Whole requests that may wait for a thread, `/health` and `/metrics` apart, 1 to 5,000; and for how long, 100 ms to
    /// 1 min. They hold connections that cannot give way: 32 must be left of those of one address.
    pub waiting_max: usize,
    #[serde(with = "duration")]
    pub waiting_timeout: Duration,
    /// Bytes in memory of all bodies, and again of all answers that their clients are slow to take. 1 MiB to 1 GiB.
    pub buffered_bytes_max: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// How long `POST /replay/{id}` waits for the broker's acknowledgement. 100 ms to 5 min.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Events a second of a replay job that is not told. 1 to 100,000.
    pub rate_per_s: u32,
    /// A replay of more events, and work on more dead letters, needs the number as a confirmation. 0 to 1,000,000.
    pub confirm_above: u32,
    /// Topics that a replay may send to instead of the event's own.
    pub to_topics: Vec<String>,
    /// Headers that are left behind, whatever their case; a `*` at the end stands for any rest.
    pub drop_headers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub level: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shutdown_timeout: Duration::from_secs(10),
            kafka: Kafka::default(),
            consume: Consume::default(),
            dlq: Dlq::default(),
            queue: Queue::default(),
            write: Write::default(),
            journal: Journal::default(),
            metrics: Metrics::default(),
            api: Api::default(),
            http: Http::default(),
            replay: Replay::default(),
            log: Log::default(),
        }
    }
}

impl Default for Kafka {
    fn default() -> Kafka {
        Kafka {
            brokers: "localhost:9092".into(),
            group_id: "crm-events-sink".into(),
            topics: vec![r"^apexflow\..*".into()],
            group_protocol: GroupProtocol::Classic,
            group_instance_id: String::new(),
            consumers: 1,
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Consume {
    fn default() -> Consume {
        Consume { on_gap: OnGap::Alert }
    }
}

impl Default for Dlq {
    fn default() -> Dlq {
        // A branch sees a handful of bad records in a row at most; a hundred are a deploy that went wrong.
        Dlq { max_consecutive: 100, max_ratio: 0.5 }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        // 16 × 1 MiB: enough for four full transactions, so that the writer never waits for the consumer.
        Queue { batches_max: 16, batch_bytes_max: 1 << 20 }
    }
}

impl Default for Write {
    fn default() -> Write {
        // 20 ms keeps a lone event under 50 ms until it is visible, and lets 1,000 events/s share 50 commits a
        // second instead of paying 1,000. 4,000 rows or 4 MiB are past the point where a commit's fixed cost shows.
        Write { batch_rows_max: 4000, batch_bytes_max: 4 << 20, batch_age_max: Duration::from_millis(20) }
    }
}

impl Default for Journal {
    fn default() -> Journal {
        // Room for some deletions: the log holds each page that they touch until it is copied into the file.
        Journal { path: "/var/lib/crm-events-sink/journal.db".into(), reserve_bytes: 16 << 20, chain: false }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { listen: SocketAddr::from(([127, 0, 0, 1], 9105)), max_tenants: 200, auth: false }
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            listen: SocketAddr::from(([127, 0, 0, 1], 9106)),
            allow_unauthenticated: false,
            hosts: Vec::new(),
            // An operator's loop of curl comes to about 100 a second.
            replays_per_minute: 30_000,
            auth: Auth::default(),
            tls: Tls::default(),
        }
    }
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            users_file: PathBuf::new(),
            jwt_algorithm: JwtAlgorithm::None,
            jwt_key_file: PathBuf::new(),
            jwt_issuer: String::new(),
            jwt_audience: String::new(),
            jwt_leeway: Duration::from_secs(30),
            failures_per_minute: 10,
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        let seconds = Duration::from_secs;
        Http {
            // A branch has a handful of operators, a Prometheus and a probe: this is for the worst day. With both ports
            // full it stays below the 1,024 descriptors that a process has without being told.
            connections_max: 256,
            connections_per_client_max: 64,
            head_bytes_max: 16 << 10,
            head_timeout: seconds(10),
            // About 100,000 event ids.
            body_bytes_max: 1 << 20,
            body_timeout: seconds(20),
            write_timeout: seconds(10),
            // Prometheus asks every 15 s to 60 s.
            idle_timeout: seconds(75),
            waiting_max: 32,
            waiting_timeout: seconds(5),
            buffered_bytes_max: 16 << 20,
        }
    }
}

impl Default for Replay {
    fn default() -> Replay {
        // W3C Trace Context and Baggage, Zipkin's B3, Jaeger's own, Confluent Replicator's provenance: they tell of the
        // way that the record took the first time.
        let drop_headers = ["traceparent", "tracestate", "baggage", "b3", "x-b3-*", "uber-trace-id", "__replicator_id"];
        Replay {
            timeout: Duration::from_secs(10),
            // A branch's live traffic is some events a second: ten times that reaches nobody unprepared.
            rate_per_s: 200,
            confirm_above: 1000,
            to_topics: Vec::new(),
            drop_headers: drop_headers.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::Info }
    }
}

/// What was wrong with the configuration: the key, where it stands, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Settings given on the command line.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub brokers: Option<String>,
    pub group_id: Option<String>,
    pub topics: Option<String>,
    pub journal: Option<PathBuf>,
    pub metrics_listen: Option<SocketAddr>,
    pub api_listen: Option<SocketAddr>,
    pub log_level: Option<Level>,
}

impl Config {
    /// Reads the file (`None`: [`DEFAULT_PATH`] if it exists), then lays environment and flags over it.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, or a value out of its range.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Overrides,
    ) -> Result<Config, ConfigError> {
        let mut config = match file {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_PATH).exists() => read(Path::new(DEFAULT_PATH))?,
            None => Config::default(),
        };
        config.lay_environment(environment)?;
        config.lay_flags(flags);
        config.check()?;
        Ok(config)
    }

    /// What a Kafka client of the sink is made with: `defaults`, and over them what `kafka.properties` says.
    pub fn client_properties(&self, defaults: &[(&str, &str)]) -> BTreeMap<String, String> {
        let common = [
            ("bootstrap.servers", self.kafka.brokers.as_str()),
            ("client.id", "crm-events-sink"),
            ("socket.keepalive.enable", "true"),
            ("reconnect.backoff.max.ms", "5000"),
            ("enable.metrics.push", "false"),
        ];
        let defaults = common.iter().chain(defaults).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = self.kafka.properties.iter().map(|(name, value)| (name.clone(), value.text()));
        defaults.chain(settings).collect()
    }

    fn lay_environment(&mut self, environment: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let get = |name: &str| environment(name).filter(|value| !value.is_empty());
        if let Some(brokers) = get("KAFKA_BOOTSTRAP") {
            self.kafka.brokers = brokers;
        }
        if let Some(group_id) = get("GROUP_ID") {
            self.kafka.group_id = group_id;
        }
        if let Some(topics) = get("KAFKA_TOPICS") {
            self.kafka.topics = list(&topics);
        }
        if let Some(path) = get("JOURNAL_PATH") {
            self.journal.path = path.into();
        }
        if let Some(listen) = get("METRICS_LISTEN") {
            self.metrics.listen = address("METRICS_LISTEN", &listen)?;
        }
        if let Some(port) = get("PROM_PORT") {
            self.metrics.listen.set_port(port.parse().map_err(|_| {
                ConfigError(format!("PROM_PORT: {port:?} is no port number; give one of 1-65535, as PROM_PORT=9105"))
            })?);
        }
        if let Some(listen) = get("API_LISTEN") {
            self.api.listen = address("API_LISTEN", &listen)?;
        }
        Ok(())
    }

    fn lay_flags(&mut self, flags: &Overrides) {
        let flags = flags.clone();
        self.kafka.brokers = flags.brokers.unwrap_or(std::mem::take(&mut self.kafka.brokers));
        self.kafka.group_id = flags.group_id.unwrap_or(std::mem::take(&mut self.kafka.group_id));
        if let Some(topics) = flags.topics {
            self.kafka.topics = list(&topics);
        }
        self.journal.path = flags.journal.unwrap_or(std::mem::take(&mut self.journal.path));
        self.metrics.listen = flags.metrics_listen.unwrap_or(self.metrics.listen);
        self.api.listen = flags.api_listen.unwrap_or(self.api.listen);
        self.log.level = flags.log_level.unwrap_or(self.log.level);
    }

    fn check(&self) -> Result<(), ConfigError> {
        let size = 4096..=64 << 20;
        let ms = Duration::from_millis;
        within("kafka.consumers", self.kafka.consumers, 1..=64)?;
        within("queue.batches_max", self.queue.batches_max, 1..=1024)?;
        within("queue.batch_bytes_max", self.queue.batch_bytes_max, size.clone())?;
        within("write.batch_rows_max", self.write.batch_rows_max, 1..=100_000)?;
        within("write.batch_bytes_max", self.write.batch_bytes_max, size)?;
        within("write.batch_age_max", self.write.batch_age_max, ms(0)..=ms(10_000))?;
        within("dlq.max_consecutive", self.dlq.max_consecutive, 0..=1_000_000)?;
        within("dlq.max_ratio", self.dlq.max_ratio, 0.01..=1.0)?;
        within("journal.reserve_bytes", self.journal.reserve_bytes, 0..=1 << 30)?;
        within("replay.rate_per_s", self.replay.rate_per_s, 1..=RATE_PER_S_MAX)?;
        within("replay.confirm_above", self.replay.confirm_above, 0..=1_000_000)?;
        within("replay.timeout", self.replay.timeout, ms(100)..=ms(300_000))?;
        within("shutdown_timeout", self.shutdown_timeout, ms(100)..=ms(600_000))?;
        within("metrics.max_tenants", self.metrics.max_tenants, 0..=10_000)?;
        within("api.replays_per_minute", self.api.replays_per_minute, 1..=1_000_000)?;
        self.api.auth.check()?;
        self.refuse_open_api()?;
        self.check_http()?;
        not_empty("kafka.brokers", &self.kafka.brokers, "localhost:9092")?;
        not_empty("kafka.group_id", &self.kafka.group_id, "crm-events-sink")?;
        if self.kafka.topics.is_empty() || self.kafka.topics.iter().any(String::is_empty) {
            return Err(ConfigError(
                r#"kafka.topics: names no topic; give names or a ^regex, as ["^apexflow\\..*"]"#.into(),
            ));
        }
        let instance = &self.kafka.group_instance_id;
        if instance.len() > 200 || !instance.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(ConfigError(format!(
                "kafka.group_instance_id: {instance:?} is no name for a member; give up to 200 letters, digits, '.', '_' or '-', as \"branch-17\""
            )));
        }
        for (property, instead) in OWN_PROPERTIES {
            if self.kafka.properties.contains_key(property) {
                return Err(ConfigError(format!(
                    "kafka.properties.{property:?}: is the sink's own ({instead}); remove it"
                )));
            }
        }
        Ok(())
    }
}

impl Config {
    /// An API that others can reach asks who they are, unless the configuration says that they are trusted.
    fn refuse_open_api(&self) -> Result<(), ConfigError> {
        let (listen, auth) = (self.api.listen, &self.api.auth);
        if self.metrics.auth && !auth.is_on() {
            return Err(ConfigError("metrics.auth: nobody could log in; set api.auth.users_file or api.auth.jwt_algorithm, or metrics.auth = false".into()));
        }
        if listen.ip().is_loopback() || auth.is_on() || self.api.allow_unauthenticated {
            return Ok(());
        }
        Err(ConfigError(format!(
            "api.listen: {listen} can be reached from other machines, and everybody there could replay events and see every tenant's; \
             set api.auth.users_file or api.auth.jwt_algorithm, listen on 127.0.0.1, or, if the whole network is trusted, \
             set api.allow_unauthenticated = true"
        )))
    }

    fn check_http(&self) -> Result<(), ConfigError> {
        let http = &self.http;
        let span = Duration::from_millis(100)..=Duration::from_secs(300);
        within("http.connections_max", http.connections_max, 40..=10_000)?;
        within("http.connections_per_client_max", http.connections_per_client_max, 40..=10_000)?;
        within("http.head_bytes_max", http.head_bytes_max, 1 << 10..=64 << 10)?;
        within("http.head_timeout", http.head_timeout, span.clone())?;
        within("http.body_bytes_max", http.body_bytes_max, 1 << 10..=16 << 20)?;
        within("http.body_timeout", http.body_timeout, span.clone())?;
        within("http.write_timeout", http.write_timeout, span)?;
        within("http.idle_timeout", http.idle_timeout, Duration::from_millis(100)..=Duration::from_secs(600))?;
        within("http.waiting_max", http.waiting_max, 1..=5_000)?;
        within("http.waiting_timeout", http.waiting_timeout, Duration::from_millis(100)..=Duration::from_secs(60))?;
        within("http.buffered_bytes_max", http.buffered_bytes_max, 1 << 20..=1 << 30)?;
        let connections = http.connections_max.min(http.connections_per_client_max);
        if http.waiting_max + 32 > connections {
            let most = connections - 32;
            return Err(ConfigError(format!(
                "http.waiting_max: {} could take every connection of an address; give at most {most}, or raise \
                 http.connections_per_client_max and http.connections_max",
                http.waiting_max
            )));
        }
        let Tls { certificate, key } = &self.api.tls;
        if certificate.as_os_str().is_empty() != key.as_os_str().is_empty() {
            return Err(ConfigError(
                "api.tls: certificate and key belong together; name both files, or none for plain HTTP".into(),
            ));
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Config, ConfigError> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let fix = match error.kind() {
            io::ErrorKind::NotFound => "create it or name another with --config FILE",
            io::ErrorKind::PermissionDenied => "let the service's user read it (root:crm-events-sink, 0640)",
            _ => "it must be a readable UTF-8 text file",
        };
        ConfigError(format!("{file}: cannot read the configuration: {error}; {fix}"))
    })?;
    // The error's own text shows the offending line, which may hold a password: only its message is passed on.
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().trim_end();
        ConfigError(format!("{file}, line {line}: {message}; every key is described in the file the package installs"))
    })
}

fn list(commas: &str) -> Vec<String> {
    commas.split(',').map(|item| item.trim().to_owned()).collect()
}

fn address(name: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError(format!("{name}: {text:?} is no address; give ADDRESS:PORT, as {name}=127.0.0.1:9106"))
    })
}

fn within<T: PartialOrd + std::fmt::Debug>(
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!("{key}: {value:?} is out of range; give {:?} to {:?}", range.start(), range.end())))
}

fn not_empty(key: &str, value: &str, example: &str) -> Result<(), ConfigError> {
    if value.trim().is_empty() {
        return Err(ConfigError(format!("{key}: is empty; give it a value, as {example:?}")));
    }
    Ok(())
}

/// A span of time as people write it: `"20ms"`, `"10s"`, `"1m30s"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let example = "give a time with its unit, as \"20ms\" or \"10s\"";
    let span: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no time span; {example}"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative; {example}"))
}

mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match (span.as_millis() % 1000, span.as_secs()) {
            (0, seconds) => to.serialize_str(&format!("{seconds}s")),
            _ => to.serialize_str(&format!("{}ms", span.as_millis())),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, env: &[(&str, &str)], flags: &Overrides) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, toml).unwrap();
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Config::load(Some(&path), env, flags).map_err(|e| e.to_string())
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let toml = "[kafka]\nbrokers = 'file:1'\ngroup_id = 'file'\ntopics = ['file']\n";
        let env = [("KAFKA_BOOTSTRAP", "env:1"), ("GROUP_ID", "env"), ("KAFKA_TOPICS", "")];
        let flags = Overrides { brokers: Some("flag:1".into()), ..Overrides::default() };
        let config = load(toml, &env, &flags).unwrap();
        assert_eq!(config.kafka.brokers, "flag:1");
        assert_eq!(config.kafka.group_id, "env");
        assert_eq!(config.kafka.topics, ["file"]);
        assert_eq!(config.kafka.consumers, 1);
    }

    #[test]
    fn the_environment_of_the_replaced_system_works() {
        let env = [
            ("KAFKA_TOPICS", "a.b, ^c\\..*"),
            ("JOURNAL_PATH", "/tmp/j.db"),
            ("METRICS_LISTEN", "0.0.0.0:1"),
            ("PROM_PORT", "19105"),
            ("API_LISTEN", "[::1]:19106"),
        ];
        let config = load("", &env, &Overrides::default()).unwrap();
        assert_eq!(config.kafka.topics, ["a.b", "^c\\..*"]);
        assert_eq!(config.journal.path, Path::new("/tmp/j.db"));
        assert_eq!(config.metrics.listen.to_string(), "0.0.0.0:19105");
        assert_eq!(config.api.listen.to_string(), "[::1]:19106");
    }

    #[test]
    fn a_mistake_names_the_key_the_place_and_the_fix() {
        let none = Overrides::default();
        for (toml, named) in [
            ("[kafka]\n\nbroker = 'x'\n", vec!["line 3", "unknown field `broker`", "brokers", "config.toml"]),
            ("shutdown_timeout = 10\n", vec!["line 1", "expected a string"]),
            ("[write]\nbatch_age_max = '20'\n", vec!["line 2", "\"20\" is no time span", "20ms"]),
            ("[write]\nbatch_rows_max = 0\n", vec!["write.batch_rows_max", "1 to 100000"]),
            ("[kafka]\ntopics = []\n", vec!["kafka.topics", "apexflow"]),
            ("[kafka]\nbrokers = ' '\n", vec!["kafka.brokers", "localhost:9092"]),
            ("[kafka.properties]\n'acks' = 1\n", vec!["kafka.properties.\"acks\"", "remove it"]),
            ("[api]\nlisten = 'x'\n", vec!["line 2", "socket address"]),
            ("[api.tls]\nkey = 'key.pem'\n", vec!["api.tls", "name both files"]),
            ("[http]\nwaiting_max = 33\n", vec!["http.waiting_max", "at most 32"]),
            ("[http]\nhead_bytes_max = 10\n", vec!["http.head_bytes_max", "1024 to 65536"]),
        ] {
            let error = load(toml, &[], &none).unwrap_err();
            for name in named {
                assert!(error.contains(name), "{error:?} lacks {name:?}");
            }
        }
        let error = load("", &[("PROM_PORT", "abc")], &none).unwrap_err();
        assert!(error.contains("PROM_PORT") && error.contains("PROM_PORT=9105"), "{error}");
    }

    #[test]
    fn a_mistake_never_shows_the_line_that_may_hold_a_password() {
        let toml = "[kafka.properties]\n'sasl.password' = 'hunter2' x\n";
        let error = load(toml, &[], &Overrides::default()).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}
