//! What clients may ask of the two ports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{duration, within};

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

impl Http {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let span = Duration::from_millis(100)..=Duration::from_secs(300);
        within("http.connections_max", self.connections_max, 40..=10_000)?;
        within("http.connections_per_client_max", self.connections_per_client_max, 40..=10_000)?;
        within("http.head_bytes_max", self.head_bytes_max, 1 << 10..=64 << 10)?;
        within("http.head_timeout", self.head_timeout, span.clone())?;
        within("http.body_bytes_max", self.body_bytes_max, 1 << 10..=16 << 20)?;
        within("http.body_timeout", self.body_timeout, span.clone())?;
        within("http.write_timeout", self.write_timeout, span)?;
        within("http.idle_timeout", self.idle_timeout, Duration::from_millis(100)..=Duration::from_secs(600))?;
        within("http.waiting_max", self.waiting_max, 1..=5_000)?;
        within("http.waiting_timeout", self.waiting_timeout, Duration::from_millis(100)..=Duration::from_secs(60))?;
        within("http.buffered_bytes_max", self.buffered_bytes_max, 1 << 20..=1 << 30)?;
        let connections = self.connections_max.min(self.connections_per_client_max);
        if self.waiting_max + 32 > connections {
            let most = connections - 32;
            return Err(ConfigError(format!(
                "http.waiting_max: {} could take every connection of an address; give at most {most}, or raise \
                 http.connections_per_client_max and http.connections_max",
                self.waiting_max
            )));
        }
        Ok(())
    }
}
