//! What happens when the group's partitions change hands. Both run inside a poll and hold librdkafka up: every
//! wait here is bounded.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client::Context;
use super::{Intake, add};
use crate::queue::Partition;

/// How long a revoked partition's records may take to become durable. What does not is read again by the next
/// owner, and skipped by a writer that has it.
const DRAIN: Duration = Duration::from_secs(5);

pub fn handle(
    context: &Context,
    consumer: &BaseConsumer<Context>,
    event: RDKafkaRespErr,
    partitions: &mut TopicPartitionList,
) {
    let done = match event {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assign(context, consumer, partitions),
        _ => revoke(context, consumer, partitions),
    };
    if let Err(error) = done {
        tracing::error!(consumer = context.name, %error, "the group's change of partitions was not taken over");
    }
    let assigned = context.intake().assigned.len();
    context.shared.metrics.partitions_assigned.with_label_values(&[&context.name]).set(assigned as i64);
}

/// Reads on where the file ends, and from the beginning what the file does not know.
fn assign(context: &Context, consumer: &BaseConsumer<Context>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
    let mut start = TopicPartitionList::new();
    for partition in names(context, partitions) {
        let next_offset = stored_next_offset(context, &partition);
        let mut intake = context.intake();
        match next_offset {
            Some(next_offset) => {
                add(&mut start, &partition, next_offset);
                intake.expected.insert(partition.clone(), next_offset);
            }
            None => {
                start.add_partition_offset(&partition.0, partition.1, Offset::Beginning)?;
                intake.expected.remove(&partition);
            }
        }
        intake.assigned.insert(partition, next_offset);
    }
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&start)?,
        _ => consumer.assign(&start)?,
    }
    let intake = context.intake();
    tracing::info!(
        consumer = context.name,
        added = start.count(),
        assigned = intake.assigned.len(),
        "partitions assigned"
    );
    if intake.paused {
        consumer.pause(&start)?;
    }
    Ok(())
}

/// `None` as well if the file cannot be read just now: what is then read twice is skipped by the writer.
fn stored_next_offset(context: &Context, (topic, partition): &Partition) -> Option<i64> {
    context.shared.readers.next_offset(topic, *partition).unwrap_or_else(|error| {
        tracing::warn!(topic = &**topic, partition, %error, "cannot read the stored position; reading from the beginning, what is stored is skipped");
        None
    })
}

/// Lets what is in flight become durable, tells Kafka's group, and gives the partitions up.
fn revoke(context: &Context, consumer: &BaseConsumer<Context>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
    let revoked = names(context, partitions);
    let deadline = Instant::now() + DRAIN;
    let in_flight = drain(context, &revoked);
    if context.shared.durable.wait_for(&in_flight, deadline) && !consumer.assignment_lost() {
        let mut offsets = TopicPartitionList::new();
        for (partition, next_offset) in &in_flight {
            add(&mut offsets, partition, *next_offset);
        }
        if offsets.count() > 0
            && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(consumer = context.name, %error, "offsets not committed to Kafka");
        }
    }
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions)?,
        _ => consumer.unassign()?,
    }
    context.intake().forget(&revoked);
    tracing::info!(consumer = context.name, removed = revoked.len(), "partitions revoked");
    Ok(())
}

/// Hands the batch to the writer; the offsets up to which the revoked partitions were handed over.
fn drain(context: &Context, revoked: &[Partition]) -> Vec<(Partition, i64)> {
    let mut intake = context.intake();
    if !intake.batch.items.is_empty() {
        // If the queue stays full the batch stays in hand, and the writer skips what another owner stored first.
        intake.offer(&context.shared, DRAIN / 2);
    }
    revoked.iter().filter_map(|partition| Some((partition.clone(), *intake.sent.get(partition)?))).collect()
}

impl Intake {
    fn forget(&mut self, revoked: &[Partition]) {
        for partition in revoked {
            self.assigned.remove(partition);
            self.expected.remove(partition);
            self.sent.remove(partition);
            self.committed.remove(partition);
        }
    }
}

fn names(context: &Context, partitions: &TopicPartitionList) -> Vec<Partition> {
    let mut intake = context.intake();
    partitions.elements().iter().map(|element| (intake.topic(element.topic()), element.partition())).collect()
}
