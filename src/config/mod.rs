//! Every setting, its default, and where it may come from: flag, environment, file, default, in this order.
//! A file holds a section or some that belong together, with what is checked of them.

mod api;
mod archive;
mod backup;
mod consume;
mod credentials;
mod files;
mod http;
mod in_force;
mod kafka;
mod log;
mod replay;
mod retention;
mod shown;
mod value;
mod write;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use api::{Api, Auth, JwtAlgorithm, Metrics, Tls};
pub use archive::Archive;
pub use backup::Backup;
pub use consume::{Consume, Dlq, OnGap};
pub use credentials::with_credentials;
use files::Files;
pub use http::Http;
pub use in_force::{Changes, InForce, RELOADABLE};
pub use kafka::{GroupProtocol, Kafka, Property};
pub use log::{Level, Log};
pub use replay::{RATE_PER_S_MAX, Replay};
pub use retention::Retention;
pub use value::parse_duration;
use value::{address, duration, list, within};
pub use write::{Journal, Queue, Write};

/// Where the file is looked for when `--config` is not given. It need not exist there.
pub const DEFAULT_PATH: &str = "/etc/crm-events-sink/config.toml";

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
    pub retention: Retention,
    pub archive: Archive,
    pub metrics: Metrics,
    pub api: Api,
    pub http: Http,
    pub replay: Replay,
    pub backup: Backup,
    pub log: Log,
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
            retention: Retention::default(),
            archive: Archive::default(),
            metrics: Metrics::default(),
            api: Api::default(),
            http: Http::default(),
            replay: Replay::default(),
            backup: Backup::default(),
            log: Log::default(),
        }
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
    /// Reads the file (`None`: [`DEFAULT_PATH`] if it exists) and the drop-ins of `config.d` beside it, then lays environment
    /// and flags over them.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, or a value out of its range.
    pub fn load(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Overrides,
    ) -> Result<Config, ConfigError> {
        let files = Files::read(file.unwrap_or(Path::new(DEFAULT_PATH)), file.is_some())?;
        let of_files = files.merged()?;
        let mut config = of_files.clone();
        config.lay_environment(environment)?;
        config.lay_flags(flags);
        config.check().map_err(|error| {
            // What environment or flags brought in stands in no file.
            let is_of_files = of_files.check().is_err_and(|own| own.0 == error.0);
            if is_of_files { files.locate(error) } else { error }
        })?;
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
        within("shutdown_timeout", self.shutdown_timeout, Duration::from_millis(100)..=Duration::from_secs(600))?;
        self.kafka.check()?;
        self.dlq.check()?;
        self.queue.check()?;
        self.write.check()?;
        self.journal.check()?;
        self.retention.check()?;
        self.archive.check()?;
        self.metrics.check(&self.api.auth)?;
        self.api.check()?;
        self.http.check()?;
        self.replay.check()?;
        self.backup.check()
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
            ("[write]\nbatch_rows_max = 0\n", vec!["write.batch_rows_max", "1 to 100000", "config.toml, line 2"]),
            ("[kafka]\ntopics = []\n", vec!["kafka.topics", "apexflow"]),
            ("[kafka]\nbrokers = ' '\n", vec!["kafka.brokers", "localhost:9092"]),
            ("[kafka.properties]\n'acks' = 1\n", vec!["kafka.properties.\"acks\"", "remove it", "line 2"]),
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
