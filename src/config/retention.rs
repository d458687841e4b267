//! What the journal may grow to, and what goes when it has.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{age, duration, within};

const DAY: Duration = Duration::from_secs(86_400);

/// An age that is zero is never reached, and a size that is zero is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Events and closed dead letters go when they are older, a whole UTC day at once. An hour to 36,500 days.
    #[serde(with = "age")]
    pub age_max: Duration,
    /// Bytes of the journal, without the room that is free inside it. 16 MiB or more.
    pub size_max: u64,
    /// Bytes that stay free on the journal's disk, the room that is free inside the journal included.
    pub free_min: u64,
    /// How often it is looked, 1 s to 1 day.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Other ages, by topic and by tenant.
    pub topics: BTreeMap<String, Other>,
    pub tenants: BTreeMap<String, Other>,
}

/// What a topic or a tenant has instead of `retention.age_max`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    #[serde(with = "age")]
    pub age_max: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            age_max: Duration::ZERO,
            size_max: 0,
            free_min: 0,
            interval: Duration::from_secs(600),
            topics: BTreeMap::new(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Retention {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let others = |section: &'static str, others: &BTreeMap<String, Other>| {
            let named =
                others.iter().map(|(name, other)| (format!("retention.{section}.{name:?}.age_max"), other.age_max));
            named.collect::<Vec<_>>()
        };
        let ages = [("retention.age_max".to_owned(), self.age_max)].into_iter();
        for (key, age) in ages.chain(others("topics", &self.topics)).chain(others("tenants", &self.tenants)) {
            if !age.is_zero() {
                within(&key, age, Duration::from_secs(3600)..=DAY * 36_500)?;
            }
        }
        if self.size_max > 0 {
            within("retention.size_max", self.size_max, 16 << 20..=1 << 60)?;
        }
        within("retention.free_min", self.free_min, 0..=1 << 60)?;
        within("retention.interval", self.interval, Duration::from_secs(1)..=DAY)
    }
}
