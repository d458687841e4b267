//! How Kafka is reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{not_empty, within};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    Classic,
    Consumer,
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

impl Kafka {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("kafka.consumers", self.consumers, 1..=64)?;
        not_empty("kafka.brokers", &self.brokers, "localhost:9092")?;
        not_empty("kafka.group_id", &self.group_id, "crm-events-sink")?;
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            return Err(ConfigError(
                r#"kafka.topics: names no topic; give names or a ^regex, as ["^apexflow\\..*"]"#.into(),
            ));
        }
        let instance = &self.group_instance_id;
        if instance.len() > 200 || !instance.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(ConfigError(format!(
                "kafka.group_instance_id: {instance:?} is no name for a member; give up to 200 letters, digits, '.', '_' or '-', as \"branch-17\""
            )));
        }
        for (property, instead) in OWN_PROPERTIES {
            if self.properties.contains_key(property) {
                return Err(ConfigError(format!(
                    "kafka.properties.{property:?}: is the sink's own ({instead}); remove it"
                )));
            }
        }
        Ok(())
    }
}
