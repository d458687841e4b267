//! How events are sent again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{duration, within};

/// The fastest that a replay job may be asked to be, in events a second.
pub const RATE_PER_S_MAX: u32 = 100_000;

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

impl Replay {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("replay.rate_per_s", self.rate_per_s, 1..=RATE_PER_S_MAX)?;
        within("replay.confirm_above", self.confirm_above, 0..=1_000_000)?;
        within("replay.timeout", self.timeout, Duration::from_millis(100)..=Duration::from_secs(300))
    }
}
