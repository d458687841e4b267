//! One job, from its first event to its last.
//!
//! An event is noted as in flight before it goes to the producer, and what became of it after the broker said so: a
//! crash in between leaves it in flight, and `settle.rs` finds out about it. The producer tries for ever, in order and
//! without doubling anything, so a broker that is away only takes time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use super::control::{Control, Shared, Want};
use super::outbound::{Context, Delivery, Origin, Outbound, client_config};
use super::pace::Pace;
use crate::job::{Step, Verdict};
use crate::queue::{JobOrder, Order};
use crate::store::{EventDetail, Job};

/// Events that are in flight at once: a quarter of a second's, within this, and within the bytes that the store gives at
/// once. Each chunk waits for a transaction and for the broker.
const CHUNK_MAX: u32 = 10_000;
/// How long the producer waits for company for an event: a job's come one after the other.
const LINGER_MS: u32 = 5;
/// How long the producer is listened to before what else there is to do is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long to wait before what the box or the broker refused is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long the writer may take to begin with an order.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// What a job waits for while batches wait for the writer.
const BEHIND: &str = "ingestion, which is behind";
/// Without an acknowledgement for so long, a job says that it waits for Kafka.
const SILENCE: Duration = Duration::from_secs(2);

/// A job's thread.
pub struct Run {
    pub(super) job: Job,
    pub(super) shared: Arc<Shared>,
    pub(super) control: Arc<Control>,
    journal_id: String,
    producer: BaseProducer<Context>,
    report: Sender<(i64, Delivery)>,
    reports: Receiver<(i64, Delivery)>,
    pace: Pace,
}

impl Run {
    /// # Errors
    /// If the settings are none that a producer can be made with.
    pub fn new(job: Job, journal_id: String, shared: Arc<Shared>, control: Arc<Control>) -> Result<Run, KafkaError> {
        let (report, reports) = mpsc::channel();
        let producer = producer(&shared)?;
        Ok(Run { job, shared, control, journal_id, producer, report, reports, pace: Pace::new(Instant::now()) })
    }

    pub fn run(mut self) {
        if !self.settle() {
            return;
        }
        // What became of the chunk before is noted with the next one's beginning.
        let (mut after, mut verdicts) = (0, Vec::new());
        loop {
            let is_behind = self.is_behind();
            let goes_on = self.control.lock().want == Want::Go && !is_behind && !verdicts.iter().any(is_unsent);
            if !goes_on && !self.note(&mut verdicts) {
                return;
            }
            match self.control.wait_while(Duration::MAX, |want| want == Want::Pause) {
                Want::Go | Want::Pause => {}
                Want::Cancel | Want::Stop => {
                    self.note(&mut verdicts);
                    return;
                }
            }
            if is_behind {
                self.wait_for(BEHIND.to_owned());
                continue;
            }
            let chunk = (self.control.lock().rate_per_s / 4).clamp(1, CHUNK_MAX);
            let events = match self.shared.readers.next_events(self.job.job_id, after, chunk) {
                Ok(events) => events,
                Err(error) => {
                    self.wait_for(format!("the journal: {error}"));
                    continue;
                }
            };
            let Some(last) = events.last().map(id) else {
                let is_done = self.note(&mut verdicts) && self.step(Step::Finish { job_id: self.job.job_id });
                if is_done && self.control.lock().want == Want::Go {
                    tracing::info!(job = self.job.job_id, "replay job finished");
                    return;
                }
                continue;
            };
            let (job_id, event_ids) = (self.job.job_id, events.iter().map(id).collect());
            if !self.step(Step::Next { job_id, verdicts: std::mem::take(&mut verdicts), event_ids }) {
                return;
            }
            verdicts = self.send(&events);
            // Those that were not sent come next, when it goes on.
            let unsent = verdicts.iter().filter(|verdict| is_unsent(verdict)).map(|(id, _)| *id).min();
            after = unsent.map_or(last, |first| first - 1);
        }
    }

    /// Has what became of a chunk noted, if it is not yet. Not so only when the sink stops.
    fn note(&self, verdicts: &mut Vec<(i64, Verdict)>) -> bool {
        let verdicts = std::mem::take(verdicts);
        verdicts.is_empty() || self.step(Step::Record { job_id: self.job.job_id, verdicts })
    }

    /// Ingestion comes first: while batches wait for the writer, nothing is sent.
    fn is_behind(&self) -> bool {
        self.shared.orders.batches_waiting() > self.shared.config.queue.batches_max / 2
    }

    /// Waits a little, and says what for.
    fn wait_for(&self, what: String) {
        self.control.say(Some(what));
        self.control.wait_while(RETRY_AFTER, |want| want == Want::Go);
    }

    /// Has the writer note `step`, however long it takes. Whether it did; not so only when the sink stops.
    pub(super) fn step(&self, step: Step) -> bool {
        loop {
            let done = self
                .shared
                .orders
                .give(ORDER_PATIENCE, |answer| Order::Job(Box::new(JobOrder::Step { step: step.clone(), answer })));
            match done {
                Ok(()) => {
                    self.control.say(None);
                    return true;
                }
                Err(error) => {
                    self.control.say(Some(format!("the journal: {error}")));
                    if self.control.wait_while(RETRY_AFTER, |want| want != Want::Stop) == Want::Stop {
                        return false;
                    }
                }
            }
        }
    }

    /// Sends `events` at the job's rate, and waits for what the broker says of each.
    fn send(&mut self, events: &[Result<EventDetail, i64>]) -> Vec<(i64, Verdict)> {
        let mut verdicts = Vec::with_capacity(events.len());
        let mut open: HashMap<i64, &EventDetail> = HashMap::new();
        let mut is_held = false;
        for event in events {
            match event {
                Err(id) => verdicts.push((*id, Verdict::Failed("it is no longer in the journal".to_owned()))),
                Ok(EventDetail { id, erased: Some(certificate), .. }) => {
                    verdicts.push((*id, Verdict::Failed(format!("it is erased, see audit row {certificate}"))));
                }
                Ok(event) => {
                    is_held = is_held || !self.await_turn();
                    match if is_held { Some(Verdict::Unsent) } else { self.produce(event, true) } {
                        Some(verdict) => {
                            is_held = is_held || verdict == Verdict::Unsent;
                            verdicts.push((event.id, verdict));
                        }
                        None => drop(open.insert(event.id, event)),
                    }
                }
            }
        }
        self.await_deliveries(open, &mut verdicts);
        for (_, verdict) in &verdicts {
            match verdict {
                Verdict::Acknowledged { .. } => self.shared.metrics.count_replay("replayed"),
                Verdict::Failed(_) => self.shared.metrics.count_replay("refused"),
                Verdict::Uncertain(_) => self.shared.metrics.count_replay("uncertain"),
                Verdict::Unsent => {}
            }
        }
        self.replace_producer_if_broken();
        verdicts
    }

    /// Waits until the next event is due; whether it may be sent then.
    fn await_turn(&mut self) -> bool {
        loop {
            let (want, rate_per_s) = {
                let state = self.control.lock();
                (state.want, state.rate_per_s)
            };
            if want != Want::Go {
                return false;
            }
            if self.is_behind() {
                self.control.say(Some(BEHIND.to_owned()));
                self.producer.poll(TICK);
                continue;
            }
            match self.pace.take(rate_per_s, Instant::now()) {
                None => return true,
                Some(left) => self.producer.poll(left.min(TICK)),
            }
        }
    }

    /// Gives an event to the producer; `None` if it took it.
    fn produce(&self, event: &EventDetail, keep_partition: bool) -> Option<Verdict> {
        let token = self.job.token.as_str();
        let drop_headers = &self.shared.config.replay.drop_headers;
        let origin = Origin { journal_id: &self.journal_id, job: Some((self.job.job_id, token)), drop_headers };
        let mut record = match Outbound::event(event, self.job.to_topic.as_deref(), &origin) {
            Ok(record) => record,
            Err(error) => return Some(Verdict::Failed(error.to_string())),
        };
        if !keep_partition {
            record.partition = None;
        }
        loop {
            let sent = {
                let mut state = self.control.lock();
                if state.want != Want::Go {
                    return Some(Verdict::Unsent);
                }
                state.has_unsent = true;
                self.producer.send(record.record(event.id, &self.report))
            };
            let Err((error, _)) = sent else { return None };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => self.producer.poll(TICK),
                // The topic has fewer partitions than when the event came: its key says where it belongs now.
                Some(RDKafkaErrorCode::UnknownPartition) if record.partition.take().is_some() => {}
                _ => return Some(Verdict::Failed(error.to_string())),
            }
        }
    }

    /// Waits until it is known of every event of `open` what became of it. When the sink stops it waits for half of
    /// `shutdown_timeout`; what is open then stays noted as in flight.
    fn await_deliveries(&self, mut open: HashMap<i64, &EventDetail>, verdicts: &mut Vec<(i64, Verdict)>) {
        let (mut heard_at, mut stop_by) = (Instant::now(), None);
        while !open.is_empty() {
            self.producer.poll(TICK);
            let mut acknowledged = 0;
            while let Ok((id, delivery)) = self.reports.try_recv() {
                let Some(event) = open.remove(&id) else { continue };
                let is_elsewhere = delivery.code() == Some(RDKafkaErrorCode::UnknownPartition);
                let again = if is_elsewhere { self.produce(event, false) } else { Some(self.judge(event, delivery)) };
                match again {
                    None => drop(open.insert(id, event)),
                    Some(verdict) => {
                        acknowledged += usize::from(matches!(verdict, Verdict::Acknowledged { .. }));
                        verdicts.push((id, verdict));
                    }
                }
            }
            let now = Instant::now();
            if acknowledged > 0 {
                heard_at = now;
                self.control.lock().note_acknowledged(acknowledged, now);
            }
            let is_silent = now - heard_at > SILENCE;
            let silence = || format!("Kafka, which has not acknowledged anything for {} s", (now - heard_at).as_secs());
            self.control.say(is_silent.then(silence));
            let want = self.control.lock().want;
            match want {
                Want::Go | Want::Pause => {}
                // What the producer has and has not sent, or would send again, must not go out any more.
                Want::Cancel => {
                    self.producer.purge(PurgeConfig::default().queue());
                    self.control.nothing_is_unsent();
                }
                Want::Stop => {
                    let patience = self.shared.config.shutdown_timeout / 2;
                    if now > *stop_by.get_or_insert(now + patience) {
                        return;
                    }
                }
            }
        }
        self.control.nothing_is_unsent();
    }

    fn judge(&self, event: &EventDetail, delivery: Delivery) -> Verdict {
        match delivery {
            Delivery::Acknowledged { partition, offset } => {
                let topic = self.job.to_topic.clone().unwrap_or_else(|| event.topic.clone());
                Verdict::Acknowledged { topic, partition, offset }
            }
            Delivery::Failed { error, may_be_there: true } => Verdict::Uncertain(error.to_string()),
            Delivery::Failed { error, may_be_there: false } => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue) => Verdict::Unsent,
                _ => Verdict::Failed(error.to_string()),
            },
        }
    }

    /// An idempotent producer that lost its sequence cannot be used any more.
    fn replace_producer_if_broken(&mut self) {
        if self.producer.client().fatal_error().is_none() {
            return;
        }
        match producer(&self.shared) {
            Ok(producer) => self.producer = producer,
            Err(error) => tracing::warn!(job = self.job.job_id, %error, "no new producer"),
        }
    }

    pub(super) fn client(&self) -> &rdkafka::client::Client<Context> {
        self.producer.client()
    }
}

fn id(event: &Result<EventDetail, i64>) -> i64 {
    event.as_ref().map_or_else(|id| *id, |event| event.id)
}

fn is_unsent((_, verdict): &(i64, Verdict)) -> bool {
    *verdict == Verdict::Unsent
}

fn producer(shared: &Shared) -> Result<BaseProducer<Context>, KafkaError> {
    client_config(&shared.config, 0, LINGER_MS).create_with_context(Context)
}
