//! What a bulk replay is: which events, how fast, where to; and what becomes of each.

use serde::Serialize;

/// Events of one job at most: they are frozen in one transaction, which ingestion waits for.
pub const ITEMS_MAX: usize = 1_000_000;

/// Which events. Every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_ids: Option<Vec<i64>>,
    /// Received at or after this time, as `event_journal.received_at` is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Received before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Filter {
    /// Names no event, which never means every event.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// As a job and the audit show it: of many ids the first, the job's items have them all.
    pub fn to_json(&self) -> String {
        const IDS_SHOWN: usize = 20;
        let mut shown = self.clone();
        let ids = shown.event_ids.as_mut();
        let left_out = ids.map_or(0, |ids| {
            let left_out = ids.len().saturating_sub(IDS_SHOWN);
            ids.truncate(IDS_SHOWN);
            left_out
        });
        let mut json = serde_json::json!(shown);
        if left_out > 0 {
            json["event_ids_left_out"] = left_out.into();
        }
        json.to_string()
    }
}

/// A job to be made. Its events are those that its plan found, and stay so.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The only tenant whose events it may hold; `None`: any.
    pub tenant: Option<String>,
    pub filter: Filter,
    /// In the order in which they are sent.
    pub event_ids: Vec<i64>,
    /// Superseded events and replays that were left out.
    pub skipped: i64,
    pub to_topic: Option<String>,
    pub rate_per_s: u32,
    pub idempotency: Option<Idempotency>,
}

/// A name that the client gave to its request, so that it is carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Of the request: the same key with another one is the client's mistake.
    pub fingerprint: String,
}

/// Why a job was not made, or not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefusal {
    #[error("event {event_id} is in job {job_id}, which is {state}; wait for it, cancel it, or leave the event out")]
    Overlap { event_id: i64, job_id: i64, state: String },
    #[error(
        "this Idempotency-Key came with another request before, which made job {job_id}; give each request a key of its own"
    )]
    KeyReused { job_id: i64 },
    #[error("job {id} not found")]
    NoSuchJob { id: i64 },
    #[error("job {id} is {state}; {instead}")]
    WrongState { id: i64, state: String, instead: &'static str },
}

/// A job that was made, now or by an earlier request with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    pub job_id: i64,
    pub total: i64,
    pub is_new: bool,
}

/// What an operator changes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Pause,
    Resume,
    Cancel,
    /// Those that failed, and where asked those whose fate is unknown, are sent again.
    RetryFailed {
        uncertain: bool,
    },
    Rate(u32),
}

/// How a job's event was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Acknowledged {
        topic: String,
        partition: i32,
        /// Not always does the broker say it.
        offset: Option<i64>,
    },
    /// It is not in Kafka.
    Failed(String),
    /// It may be in Kafka.
    Uncertain(String),
    /// It was not given to the producer, or taken back from it before it went out.
    Unsent,
}

/// How far a job has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// That became of those before, and these go out next.
    Next { job_id: i64, verdicts: Vec<(i64, Verdict)>, event_ids: Vec<i64> },
    /// That became of them.
    Record { job_id: i64, verdicts: Vec<(i64, Verdict)> },
    /// What was in flight when the sink ended, as far as it did not come back. `Unsent` sends it again.
    Settle { job_id: i64, verdict: Verdict },
    /// Nothing is left to send.
    Finish { job_id: i64 },
}
