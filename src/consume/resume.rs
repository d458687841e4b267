//! Lets assigned partitions wait, and begin: see [`super::begin`] for the decision.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::begin::{Decision, Facts, decide};
use super::intake::Reading;
use super::ledger::Ledger;
use super::{Consume, broker};
use crate::event::Position;
use crate::queue::{Item, Partition, Sighting};
use crate::store::StoredPosition;

/// How often waiting partitions are looked at.
const BEGIN_EVERY: Duration = Duration::from_millis(100);
/// … where file or broker did not answer: the other partitions are read meanwhile.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
/// How often the topics are asked for their ids: a topic that was deleted and created again is noticed this late.
pub const CHECK_EVERY: Duration = Duration::from_secs(5);
/// For how long that is no news: a rebalance or a change of leader takes a moment.
const BEGIN_SILENTLY: Duration = Duration::from_secs(5);
/// How long one question to the broker may hold up polling.
const PATIENCE: Duration = Duration::from_secs(1);
/// … one that only the leader of a partition can answer, which may be away while the others are well.
const LEADER_PATIENCE: Duration = Duration::from_millis(250);
/// Records that may be polled before a partition is begun.
const ANNOUNCED_MAX: usize = 500;
/// How long the broker's log must have been shorter than the file before that is believed: a new leader knows its own
/// end only after a moment.
const DOUBT: Duration = Duration::from_secs(10);

/// When partitions that wait were looked at.
pub struct Attempts {
    due: Instant,
    failing_since: Option<Instant>,
}

impl Attempts {
    pub fn new(now: Instant) -> Attempts {
        Attempts { due: now, failing_since: None }
    }
}

impl Consume {
    /// Stops reading `partitions`; they begin again when what is in flight of them is durable.
    pub fn wait_to_begin(&self, partitions: &[Partition]) {
        if partitions.is_empty() {
            return;
        }
        let mut paused = TopicPartitionList::new();
        let mut intake = self.intake();
        for partition in partitions {
            if let Some(assigned) = intake.assigned.get_mut(partition)
                && assigned.reading.take().is_some()
            {
                paused.add_partition(&partition.0, partition.1);
            }
        }
        drop(intake);
        if let Err(error) = self.consumer.pause(&paused) {
            tracing::warn!(consumer = self.name, %error, "cannot pause; what still comes is not taken");
        }
    }

    /// An offset was out of range; librdkafka does not say whose. Where some wait to begin it is theirs, most likely: what
    /// they are assigned with is a guess.
    pub fn begin_all_again(&self) {
        let (all, some_wait) = {
            let mut intake = self.intake();
            intake.assigned.values_mut().for_each(|assigned| assigned.is_stopped = true);
            let some_wait = intake.assigned.values().any(|assigned| assigned.reading.is_none());
            (intake.assigned.keys().cloned().collect::<Vec<Partition>>(), some_wait)
        };
        let says = "an offset is not in the broker's log; looking again where to read";
        match some_wait {
            true => tracing::debug!(consumer = self.name, "{says}"),
            false => tracing::warn!(consumer = self.name, "{says}"),
        }
        self.wait_to_begin(&all);
    }

    /// Begins those that wait and can: what is in flight is durable, nobody halted them, the queue has a place, and
    /// file and broker answer. The others go on waiting; `attempts` knows since when, and when to look again.
    pub fn begin_waiting(&self, attempts: &mut Attempts) -> KafkaResult<()> {
        let now = Instant::now();
        if now < attempts.due {
            return Ok(());
        }
        self.stop_interrupted();
        let mut waiting = self.ready_to_begin();
        // One whose leader is away must not keep the same others waiting each time.
        fastrand::shuffle(&mut waiting);
        let begun = if waiting.is_empty() { Ok(()) } else { self.begin_known(&waiting, now + PATIENCE)? };
        attempts.due = Instant::now() + if begun.is_ok() { BEGIN_EVERY } else { BEGIN_AGAIN };
        let part = format!("{} begin", self.name);
        match begun {
            Ok(()) if attempts.failing_since.take().is_some() => self.shared.health.well(&part),
            Ok(()) => {}
            Err(error) => {
                let since = *attempts.failing_since.get_or_insert(now);
                if since.elapsed() >= BEGIN_SILENTLY {
                    let reason =
                        format!("{} partitions are not read: cannot tell yet where to read on: {error}", waiting.len());
                    self.shared.health.fault(&part, reason);
                }
            }
        }
        Ok(())
    }

    fn ready_to_begin(&self) -> Vec<Partition> {
        let waiting: Vec<Partition> = {
            let intake = self.intake();
            let is_ready = |partition: &Partition| !intake.paused && !self.shared.durable.is_halted(partition);
            let waiting = intake.assigned.iter().filter(|(_, assigned)| assigned.reading.is_none());
            waiting.map(|(partition, _)| partition.clone()).filter(is_ready).collect()
        };
        if self.is_durable(&waiting) { waiting } else { Vec::new() }
    }

    fn begin_known(&self, waiting: &[Partition], deadline: Instant) -> KafkaResult<Result<(), String>> {
        let facts = self.facts(waiting, deadline);
        self.poll_what_is_announced()?;
        let begin = || {
            let facts = facts.map_err(|error| error.to_string())?;
            let own = self.shared.readers.member_id().map_err(|error| error.to_string())?;
            for (partition, facts) in &facts {
                self.begin(&own, partition, facts)?;
            }
            if facts.len() < waiting.len() {
                return Err(format!("{} partitions have no leader that answers", waiting.len() - facts.len()));
            }
            Ok(())
        };
        Ok(begin())
    }

    /// librdkafka would take an assignment of ours for the answer to a change of partitions that it has announced and
    /// this thread has not polled yet: the group would go on before that was drained and committed. What was asked
    /// of the broker took a moment, so the announcement is polled first. It leaves less than a millisecond.
    fn poll_what_is_announced(&self) -> KafkaResult<()> {
        let mut empty = 0;
        for _ in 0..ANNOUNCED_MAX {
            // An announcement that was carried out gives nothing, too.
            empty += u8::from(!self.poll(Duration::ZERO)?);
            if empty == 2 {
                break;
            }
        }
        Ok(())
    }

    /// What is in flight of a partition that the writer does not take is read again when it begins.
    fn stop_interrupted(&self) {
        let interrupted = {
            let mut intake = self.intake();
            let interrupted = self.shared.durable.take_interrupted(|partition| intake.assigned.contains_key(partition));
            intake.batch.drop_partitions(&interrupted);
            for partition in &interrupted {
                if let Some(assigned) = intake.assigned.get_mut(partition) {
                    assigned.sent = None;
                }
            }
            interrupted
        };
        self.wait_to_begin(&interrupted);
    }

    fn is_durable(&self, partitions: &[Partition]) -> bool {
        let intake = self.intake();
        let in_hand = intake.batch.items.iter().any(|item| partitions.contains(&item.partition()));
        !in_hand && self.shared.durable.wait_for(&intake.in_flight(partitions), Instant::now())
    }

    /// What the broker says of `partitions`; of as many as it says in time.
    fn facts(&self, partitions: &[Partition], deadline: Instant) -> KafkaResult<Vec<(Partition, Facts)>> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let topics: HashSet<&str> = partitions.iter().map(|(topic, _)| &**topic).collect();
        let ids = broker::topic_ids(self.consumer.client(), &topics.into_iter().collect::<Vec<_>>(), left())?;
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(list, left())?;
        let mut ledgers: HashMap<(&str, i32), Ledger> = HashMap::new();
        let elements = committed.elements();
        for element in &elements {
            if let Offset::Offset(end) = element.offset()
                && let Some(ledger) = Ledger::read(element.metadata(), end)
            {
                ledgers.insert((element.topic(), element.partition()), ledger);
            }
        }
        let mut facts = Vec::new();
        for partition in partitions {
            let Some(topic_id) = ids.get(&*partition.0) else { continue };
            let patience = left().min(LEADER_PATIENCE);
            let Ok((low, high)) = self.consumer.fetch_watermarks(&partition.0, partition.1, patience) else { break };
            let ledger = ledgers.remove(&(&*partition.0, partition.1));
            facts.push((partition.clone(), Facts { low, high, topic_id: topic_id.clone(), ledger }));
        }
        Ok(facts)
    }

    fn begin(&self, own: &str, partition: &Partition, facts: &Facts) -> Result<(), String> {
        // What was announced meanwhile may have taken it away.
        let is_fresh = match self.intake().assigned.get(partition) {
            Some(assigned) if assigned.reading.is_none() => assigned.ledger.is_none() && !assigned.is_stopped,
            _ => return Ok(()),
        };
        let stored = self.shared.readers.position(&partition.0, partition.1).map_err(|error| error.to_string())?;
        if stored.as_ref().is_some_and(|stored| stored.halted.is_some()) {
            return Ok(());
        }
        let at = Position { topic: partition.0.clone(), partition: partition.1, offset: 0 };
        let doubted = self.is_doubted_enough(partition);
        let Decision::Read { begin, until } = decide(own, &at, stored.as_ref(), facts, doubted) else {
            self.doubt(partition, stored.as_ref(), facts);
            return Ok(());
        };
        self.read_from(partition, begin.at.offset, is_fresh).map_err(|error| error.to_string())?;
        let offset = begin.at.offset;
        let mut intake = self.intake();
        let Some(assigned) = intake.assigned.get_mut(partition) else { return Ok(()) };
        let topic_id = facts.topic_id.clone();
        let ledger_before = facts.ledger.as_ref().filter(|_| begin.new_log.is_none());
        let from = ledger_before.map_or(offset, |ledger| ledger.end.max(offset));
        let ledger = Ledger::continued(ledger_before, topic_id.as_deref().unwrap_or_default(), own, from);
        assigned.reading = Some(Reading { from: offset, expected: offset, until, topic_id });
        assigned.ledger = Some(ledger);
        (assigned.doubted_since, assigned.committed, assigned.is_stopped) = (None, None, false);
        assigned.end_seen = Some(facts.high);
        assigned.sighting = Some(Sighting { verified_offset: offset, end_seen: facts.high });
        intake.batch.push(Item::Begin(begin));
        self.shared.watermarks.set(&partition.0, partition.1, facts.low, facts.high);
        tracing::debug!(consumer = self.name, topic = &*partition.0, partition = partition.1, offset, "reading");
        Ok(())
    }

    /// A partition of which nothing was polled since it was assigned is sought, which leaves the group's protocol
    /// alone. Later a pause would bring back the position that was polled last, and one that was out of range is not
    /// fetched any more: then it is assigned anew.
    fn read_from(&self, (topic, partition): &Partition, offset: i64, is_fresh: bool) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        if is_fresh {
            let sought = self.consumer.seek_partitions(list.clone(), LEADER_PATIENCE)?;
            for element in sought.elements() {
                element.error()?;
            }
            return self.consumer.resume(&list);
        }
        // Where an attempt before this one got only half way it is not assigned, and that is as well.
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(consumer = self.name, topic = &**topic, partition, %error, "was not assigned");
        }
        self.consumer.incremental_assign(&list)?;
        self.consumer.resume(&list)
    }

    fn is_doubted_enough(&self, partition: &Partition) -> bool {
        let since = self.intake().assigned.get(partition).and_then(|assigned| assigned.doubted_since);
        since.is_some_and(|since| since.elapsed() >= DOUBT)
    }

    fn doubt(&self, partition: &Partition, stored: Option<&StoredPosition>, facts: &Facts) {
        let mut intake = self.intake();
        let Some(assigned) = intake.assigned.get_mut(partition) else { return };
        if assigned.doubted_since.is_none() {
            let (topic, next_offset) = (&*partition.0, stored.map_or(0, |stored| stored.next_offset));
            tracing::warn!(
                topic,
                partition = partition.1,
                next_offset,
                end = facts.high,
                "the broker's log ends before the file's position; waiting whether that stays so"
            );
            assigned.doubted_since = Some(Instant::now());
        }
    }

    /// Whether every topic that is read is still the same. One that is not was deleted and created again.
    pub fn check_topics(&self) {
        let before: HashMap<Partition, (Option<String>, Sighting)> = {
            let intake = self.intake();
            let reading = intake.assigned.iter().filter_map(|(partition, assigned)| {
                let reading = assigned.reading.as_ref()?;
                let end_seen = assigned.end_seen.unwrap_or(reading.expected).max(reading.expected);
                let sighting = Sighting { verified_offset: reading.expected, end_seen };
                Some((partition.clone(), (reading.topic_id.clone(), sighting)))
            });
            reading.collect()
        };
        let topics: HashSet<&str> = before.keys().map(|(topic, _)| &**topic).collect();
        if topics.is_empty() || self.shared.metrics.broker.up.get() == 0 {
            return;
        }
        let topics: Vec<&str> = topics.into_iter().collect();
        let Ok(ids) = broker::topic_ids(self.consumer.client(), &topics, PATIENCE) else { return };
        let mut other = Vec::new();
        let mut intake = self.intake();
        for (partition, (topic_id, sighting)) in &before {
            match ids.get(&*partition.0) {
                Some(id) if id == topic_id => {
                    if let Some(assigned) = intake.assigned.get_mut(partition) {
                        assigned.sighting = Some(*sighting);
                    }
                }
                Some(_) => other.push(partition.clone()),
                // Deleted: there is nothing to read until it is created again.
                None => {}
            }
        }
        drop(intake);
        for (topic, partition) in &other {
            tracing::warn!(
                topic = &**topic,
                partition,
                "the topic was deleted and created again; reading it from its beginning"
            );
        }
        self.wait_to_begin(&other);
    }
}
