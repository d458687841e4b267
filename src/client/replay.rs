//! `replay`: one event at once, many as a job.

use jiff::{Timestamp, ToSpan};
use serde::Deserialize;

use super::http::{Answer, Request};
use super::plan::Plan;
use super::table::Column::{Left, Right};
use super::table::escape;
use super::watch::{Job, watch_started};
use super::{ClientError, Outcome, Shell, say};
use crate::job::{Change, Filter};

pub use super::watch::watch;

/// How a job sends, and how it is begun.
#[derive(Debug, Default)]
pub struct Sending {
    pub to_topic: Option<String>,
    pub rate: Option<u32>,
    pub skip_superseded: bool,
    pub skip_replays: bool,
    pub reason: Option<String>,
    pub dry_run: bool,
    pub yes: bool,
    pub wait: bool,
}

impl Sending {
    fn request(&self, filter: &Filter) -> Result<Request, ClientError> {
        let body = serde_json::to_vec(filter).map_err(|error| ClientError::Usage(error.to_string()))?;
        let request = Request::post("/replay/jobs").body("application/json", body);
        let request = request.with("to_topic", self.to_topic.as_ref()).with("rate_per_s", self.rate);
        let request = request.flag("skip_superseded", self.skip_superseded).flag("skip_replays", self.skip_replays);
        Ok(request.with("reason", self.reason.as_ref()))
    }
}

#[derive(Deserialize)]
struct Replayed {
    event_id: i64,
    topic: String,
    tenant_id: String,
}

#[derive(Deserialize)]
struct Started {
    job_id: i64,
    total: u64,
}

/// Sends one event again, and waits for the broker.
///
/// # Errors
/// See [`ClientError`].
pub fn one(shell: &Shell, id: i64, to_topic: Option<String>, reason: Option<String>) -> Result<Outcome, ClientError> {
    let request = Request::post(format!("/replay/{id}")).with("to_topic", to_topic).with("reason", reason);
    let answer = shell.client.ask(&request)?;
    shell.print(&answer, |Replayed { event_id, topic, tenant_id }| {
        escape(&format!("replayed event {event_id} of {tenant_id} to {topic}")) + "\n"
    })?;
    Ok(Outcome::Done)
}

/// Shows what would be sent, asks, starts a job and watches it.
///
/// # Errors
/// See [`ClientError`].
pub fn many(shell: &Shell, mut filter: Filter, sending: &Sending) -> Result<Outcome, ClientError> {
    let planned = shell.client.ask(&sending.request(&filter)?.flag("dry_run", true))?;
    if sending.dry_run {
        shell.print(&planned, |plan: Plan| plan.text())?;
        return Ok(Outcome::Done);
    }
    let plan: Plan = planned.read()?;
    // Of nothing there is nothing to ask: the API says that it means nothing.
    if plan.total > 0 {
        say(plan.text().trim_end());
        shell.confirm(&format!("Replay {}?", counted(plan.total, "event")), sending.yes)?;
    }
    end_with(&mut filter, &plan);
    let started = start(shell, &filter, sending, plan.total)?;
    let Started { job_id, .. } = started.read()?;
    if sending.wait {
        return watch_started(shell, job_id);
    }
    shell.print(&started, |Started { job_id, total }| {
        format!("Job {job_id} sends {}. Watch it: crm-events-sink replay watch {job_id}\n", counted(total, "event"))
    })?;
    Ok(Outcome::Done)
}

#[derive(Deserialize)]
struct Changed {
    plan: Plan,
}

/// Starts a job of the `total` events that were agreed to, or of fewer: some may have been superseded meanwhile.
fn start(shell: &Shell, filter: &Filter, sending: &Sending, mut total: u64) -> Result<Answer, ClientError> {
    loop {
        let request = sending.request(filter)?.with("confirm", Some(total)).once();
        match shell.client.ask(&request) {
            Err(ClientError::Refused { status: 409, detail, body }) => match serde_json::from_slice(&body) {
                Ok(Changed { plan }) if plan.total < total => total = plan.total,
                _ => return Err(ClientError::Refused { status: 409, detail, body }),
            },
            answered => return answered,
        }
    }
}

/// Events keep coming: a filter without an end means those that the plan has seen, not one more. Listed ones are fixed.
fn end_with(filter: &mut Filter, plan: &Plan) {
    if let (Filter { event_ids: None, end: end @ None, .. }, Some(last)) = (filter, &plan.last_received_at) {
        *end = just_after(last);
    }
}

/// The end of a half-open range that holds what was received at `time`, a time of the API's.
pub(super) fn just_after(time: &str) -> Option<String> {
    let after = time.parse::<Timestamp>().and_then(|time| time.checked_add(1.microsecond()));
    after.ok().map(|after| after.to_string())
}

/// `1 event`, `2 events`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The newest jobs.
///
/// # Errors
/// See [`ClientError`].
pub fn jobs(shell: &Shell, limit: Option<u32>, state: Option<String>) -> Result<Outcome, ClientError> {
    let request = Request::get("/replay/jobs").with("limit", limit).with("state", state);
    let columns = [
        Right("job_id"),
        Left("status"),
        Right("total"),
        Right("acknowledged"),
        Right("failed"),
        Right("uncertain"),
        Right("rate_per_s"),
        Left("created_at"),
        Left("operator"),
        Left("reason"),
    ];
    shell.list(&request, &columns)
}

/// Everything known of a job.
///
/// # Errors
/// See [`ClientError`].
pub fn job(shell: &Shell, id: i64) -> Result<Outcome, ClientError> {
    shell.show(&Request::get(format!("/replay/jobs/{id}")))
}

/// Which of a job's events are wanted.
pub struct Items {
    pub state: Option<String>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

/// What became of a job's events.
///
/// # Errors
/// See [`ClientError`].
pub fn items(shell: &Shell, id: i64, wanted: Items) -> Result<Outcome, ClientError> {
    let request = Request::get(format!("/replay/jobs/{id}/items")).with("state", wanted.state);
    let request = request.with("limit", wanted.limit).with("cursor", wanted.cursor);
    let columns = [
        Right("event_id"),
        Left("state"),
        Left("topic"),
        Right("partition"),
        Right("offset"),
        Right("observed"),
        Left("error"),
    ];
    shell.list(&request, &columns)
}

/// Tells a job something, and shows how far it is.
///
/// # Errors
/// See [`ClientError`].
pub fn order(shell: &Shell, id: i64, change: Change, reason: Option<String>) -> Result<Outcome, ClientError> {
    let to = |word: &str| Request::post(format!("/replay/jobs/{id}/{word}"));
    let request = match change {
        Change::Pause => to("pause"),
        Change::Resume => to("resume"),
        Change::Cancel => to("cancel"),
        Change::RetryFailed { uncertain } => to("retry-failed").flag("uncertain", uncertain),
        Change::Rate(rate) => to("rate").with("rate_per_s", Some(rate)),
    };
    let answer = shell.client.ask(&request.with("reason", reason))?;
    shell.print(&answer, |job: Job| job.text() + "\n")?;
    Ok(Outcome::Done)
}
