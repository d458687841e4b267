//! The settings in force: those that a reload may change, and those that wait for a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use toml::{Table, Value};

use super::{Config, ConfigError};

/// What a reload changes. Every other setting is read at the start alone.
pub const RELOADABLE: [&str; 4] = ["log.level", "api.replays_per_minute", "replay.confirm_above", "replay.rate_per_s"];

pub struct InForce(RwLock<Arc<Config>>);

/// What a reload came to, by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub taken: Vec<String>,
    pub waiting: Vec<String>,
}

impl InForce {
    pub fn new(config: Config) -> InForce {
        InForce(RwLock::new(Arc::new(config)))
    }

    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes of `new` what is [`RELOADABLE`], and says which keys these were and which others differ.
    ///
    /// # Errors
    /// If the settings cannot be told apart; the old ones stay.
    pub fn take(&self, new: &Config) -> Result<Changes, ConfigError> {
        let old = self.get();
        let (before, after) = (keys(&old)?, keys(new)?);
        let all = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
        let differing = all.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned();
        let (taken, waiting) = differing.partition(|key| RELOADABLE.contains(&key.as_str()));
        let mut now = Config::clone(&old);
        now.log.level = new.log.level;
        now.api.replays_per_minute = new.api.replays_per_minute;
        now.replay.confirm_above = new.replay.confirm_above;
        now.replay.rate_per_s = new.replay.rate_per_s;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
        Ok(Changes { taken, waiting })
    }
}

/// `kafka.brokers` and its value, one for each setting.
fn keys(config: &Config) -> Result<BTreeMap<String, Value>, ConfigError> {
    let table = Table::try_from(config).map_err(|error| ConfigError(error.to_string()))?;
    let mut found = BTreeMap::new();
    let mut left: Vec<(String, Value)> = table.into_iter().collect();
    while let Some((key, value)) = left.pop() {
        match value {
            Value::Table(inner) => left.extend(inner.into_iter().map(|(name, value)| (format!("{key}.{name}"), value))),
            value => drop(found.insert(key, value)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_takes_what_it_may_and_names_the_rest() {
        let in_force = InForce::new(Config::default());
        let mut new = Config::default();
        new.replay.rate_per_s = 7;
        new.kafka.brokers = "elsewhere:9092".into();
        new.kafka.properties.insert("client.rack".into(), super::super::Property::Text("a".into()));
        let changes = in_force.take(&new).unwrap();
        assert_eq!(changes.taken, ["replay.rate_per_s"]);
        assert_eq!(changes.waiting, ["kafka.brokers", "kafka.properties.client.rack"]);
        assert_eq!((in_force.get().replay.rate_per_s, in_force.get().kafka.brokers.as_str()), (7, "localhost:9092"));
        assert_eq!(in_force.take(&new).unwrap().taken, Vec::<String>::new());
    }

    #[test]
    fn every_reloadable_key_is_a_setting() {
        let keys = keys(&Config::default()).unwrap();
        assert!(RELOADABLE.iter().all(|key| keys.contains_key(*key)));
    }
}
