//! What happens when the group's partitions change hands. Both run inside a poll and hold librdkafka up: every
//! wait here is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client::Context;
use super::intake::Assigned;
use super::{Commit, broker, to_commit};
use crate::queue::Partition;

/// How long a revoked partition's records may take to become durable. What does not is dropped here and read by the
/// next owner.
const DRAIN: Duration = Duration::from_secs(5);
/// How long telling the group may take. The next owner goes on where the group is.
const COMMIT: Duration = Duration::from_secs(5);

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
    context.shared.metrics.broker.partitions_assigned.with_label_values(&[&context.name]).set(assigned as i64);
}

/// Takes the partitions over, paused: where reading them begins is decided outside of this callback, which must not
/// wait for a broker that may be away. What is fetched before the pause takes effect is not taken.
///
/// Never from a logical offset (`End`, `Beginning`): librdkafka asks the broker for those, and where the answer comes
/// after reading began elsewhere it takes it for outdated and asks again, which moves reading there in silence.
fn assign(context: &Context, consumer: &BaseConsumer<Context>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
    let added = names(context, partitions);
    let mut start = TopicPartitionList::new();
    let mut known = Known { context, file_answers: true };
    for (topic, partition) in &added {
        start.add_partition_offset(topic, *partition, Offset::Offset(known.next_offset(topic, *partition)))?;
    }
    consumer.incremental_assign(&start)?;
    consumer.pause(&start)?;
    let mut intake = context.intake();
    for partition in &added {
        intake.assigned.insert(partition.clone(), Assigned::default());
    }
    let assigned = intake.assigned.len();
    tracing::info!(consumer = context.name, added = added.len(), assigned, "partitions assigned");
    Ok(())
}

/// Where reading will begin, as far as that is known without the broker. It need not be right.
struct Known<'a> {
    context: &'a Context,
    /// A file that did not answer once is not waited for again.
    file_answers: bool,
}

impl Known<'_> {
    fn next_offset(&mut self, topic: &Arc<str>, partition: i32) -> i64 {
        let shared = &self.context.shared;
        if let Some(next_offset) = shared.durable.next_offset(&(Arc::clone(topic), partition)) {
            return next_offset;
        }
        let stored = if self.file_answers { shared.readers.position(topic, partition) } else { Ok(None) };
        self.file_answers &= stored.is_ok();
        stored.ok().flatten().map_or(0, |stored| stored.next_offset)
    }
}

/// Lets what is in flight become durable, tells Kafka's group, and gives the partitions up.
fn revoke(context: &Context, consumer: &BaseConsumer<Context>, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
    let revoked = names(context, partitions);
    let durable = &context.shared.durable;
    let in_flight = {
        let mut intake = context.intake();
        if !intake.batch.items.is_empty() {
            intake.offer(&context.shared, DRAIN / 2);
        }
        intake.batch.drop_partitions(&revoked);
        intake.in_flight(&revoked)
    };
    context.shared.inlet.hurry();
    if !durable.wait_for(&in_flight, Instant::now() + DRAIN) {
        // The next owner reads them; stored here as well they would stand twice.
        durable.withdraw(&revoked);
    }
    if !consumer.assignment_lost() {
        let offsets = to_commit(&context.intake(), durable, Commit::EverythingOf(&revoked));
        if offsets.count() > 0
            && let Err(error) = broker::commit(consumer.client(), &offsets, COMMIT)
        {
            tracing::warn!(consumer = context.name, %error, "Kafka's group was not told the last offsets; another member may store some records again");
        }
    }
    let mut intake = context.intake();
    for partition in &revoked {
        intake.assigned.remove(partition);
        context.shared.watermarks.remove(&partition.0, partition.1);
    }
    drop(intake);
    tracing::info!(consumer = context.name, removed = revoked.len(), "partitions revoked");
    consumer.incremental_unassign(partitions)
}

fn names(context: &Context, partitions: &TopicPartitionList) -> Vec<Partition> {
    let mut intake = context.intake();
    partitions.elements().iter().map(|element| (intake.topic(element.topic()), element.partition())).collect()
}
