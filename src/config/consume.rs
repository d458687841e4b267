//! What is taken from Kafka, and when to stop taking it.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::within;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consume {
    /// What follows when records are found to be lost before they were read: `alert` (log, metric, `/integrity`), or
    /// `halt`, which also stops the partition until `POST /consumer/resume`.
    pub on_gap: OnGap,
}

impl Default for Consume {
    fn default() -> Consume {
        Consume { on_gap: OnGap::Alert }
    }
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

impl Default for Dlq {
    fn default() -> Dlq {
        // A branch sees a handful of bad records in a row at most; a hundred are a deploy that went wrong.
        Dlq { max_consecutive: 100, max_ratio: 0.5 }
    }
}

impl Dlq {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("dlq.max_consecutive", self.max_consecutive, 0..=1_000_000)?;
        within("dlq.max_ratio", self.max_ratio, 0.01..=1.0)
    }
}
