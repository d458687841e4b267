//! What the broker holds of some topics, for `verify`: asked once, without joining the group.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::broker;
use crate::config::Config;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a log's end is looked through for a record.
const TAIL_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot ask the broker ({0}); see kafka.brokers and kafka.properties, or use --offline to check the files alone"
)]
pub struct ViewError(#[from] KafkaError);

/// A partition on the broker: it holds `low..high` of the topic with this id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerPartition {
    pub topic: String,
    pub partition: i32,
    pub topic_id: Option<String>,
    pub low: i64,
    pub high: i64,
}

/// The broker, asked by a consumer that is in no group.
pub struct BrokerView {
    consumer: BaseConsumer,
    /// The settings, with the name of the sink's own group.
    group: ClientConfig,
}

/// # Errors
/// A setting that librdkafka does not accept.
pub fn broker_view(config: &Config) -> Result<BrokerView, ViewError> {
    let mut client = ClientConfig::new();
    client.extend(config.client_properties(&[("enable.partition.eof", "true")]));
    client.set("group.id", format!("{}-verify", config.kafka.group_id)).set("enable.auto.commit", "false");
    client.set("auto.offset.reset", "error").set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    let consumer = client.create_with_context(DefaultConsumerContext)?;
    client.set("group.id", &config.kafka.group_id);
    Ok(BrokerView { consumer, group: client })
}

impl BrokerView {
    /// The names of all topics that it shows.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn topics(&self) -> Result<Vec<String>, ViewError> {
        let metadata = self.consumer.fetch_metadata(None, PATIENCE)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Every partition of `topics` that the broker has.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub fn partitions(&self, topics: &BTreeSet<String>) -> Result<Vec<BrokerPartition>, ViewError> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ids = broker::topic_ids(self.consumer.client(), &names, PATIENCE)?;
        let mut found = Vec::new();
        for (topic, topic_id) in ids {
            let metadata = self.consumer.fetch_metadata(Some(&topic), PATIENCE)?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                let (low, high) = self.consumer.fetch_watermarks(&topic, partition.id(), PATIENCE)?;
                let (topic, topic_id, partition) = (topic.clone(), topic_id.clone(), partition.id());
                found.push(BrokerPartition { topic, partition, topic_id, low, high });
            }
        }
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(found)
    }

    /// The offset that the group of the sink has committed of a partition: how far any of its members has come. The group
    /// is asked, not joined.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>, ViewError> {
        let member: BaseConsumer = self.group.create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = member.committed_offsets(list, PATIENCE)?;
        let offset = committed.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset);
        Ok(offset.and_then(|offset| offset.to_raw()).filter(|offset| *offset >= 0))
    }

    /// Whether a reader gets any record from `from` on: a log may end with transaction markers.
    ///
    /// # Errors
    /// If the broker does not answer in time.
    pub fn has_record(&self, topic: &str, partition: i32, from: i64) -> Result<bool, ViewError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        self.consumer.assign(&list)?;
        let deadline = Instant::now() + TAIL_PATIENCE;
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => return Ok(true),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(false),
                Some(Err(error @ KafkaError::MessageConsumption(_))) => return Err(error.into()),
                Some(Err(_)) | None => {}
            }
        }
        Err(KafkaError::MetadataFetch(rdkafka::error::RDKafkaErrorCode::OperationTimedOut).into())
    }
}
