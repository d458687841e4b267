//! `GET /integrity`: which offsets of each partition the file holds, and why it does not hold the rest.

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::{OperatorApi, dlq};
use crate::serve::reply::{ApiError, Reply};
use crate::store::LogCoverage;
use crate::watermarks::Watermarks;

#[derive(Serialize, JsonSchema)]
pub struct Integrity {
    /// Of every partition below.
    complete: bool,
    journal_id: String,
    member_id: String,
    partitions: Vec<Partition>,
}

#[derive(Serialize, JsonSchema)]
pub struct Partition {
    #[serde(flatten)]
    log: LogCoverage,
    complete: bool,
    broker: Option<Broker>,
    /// Records on the broker that are not in the file yet.
    lag: Option<i64>,
}

/// As the broker said last, about once a second: it has the offsets `low` up to, not including, `high`.
#[derive(Serialize, JsonSchema)]
pub struct Broker {
    low: i64,
    high: i64,
    at: String,
}

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let (readers, topic) = (&api.readers, call.text(&dlq::TOPIC));
    let logs = readers.coverage(topic.as_deref())?;
    if let (Some(topic), true) = (&topic, logs.is_empty()) {
        let problem = format!("topic: {topic:.249?} is not in the journal; leave it out to see every topic");
        return Err(ApiError::Nothing(problem));
    }
    let partitions: Vec<Partition> = logs.into_iter().map(|log| with_broker(log, &api.watermarks)).collect();
    let complete = partitions.iter().all(|partition| partition.complete);
    let (journal_id, member_id) = (readers.journal_id()?, readers.member_id()?);
    Ok(Reply::json(200, &Integrity { complete, journal_id, member_id, partitions }))
}

fn with_broker(log: LogCoverage, watermarks: &Watermarks) -> Partition {
    let mark = watermarks.get(&log.topic.as_str().into(), log.partition).filter(|_| log.current);
    let at = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    let broker = mark.map(|mark| Broker { low: mark.low, high: mark.high, at: at(mark.at) });
    let lag = mark.map(|mark| (mark.high - log.next_offset).max(0));
    Partition { complete: log.is_complete(), log, broker, lag }
}
