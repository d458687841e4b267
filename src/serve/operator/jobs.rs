//! Bulk replays: `POST /replay/batch`, `/replay/range` and `/replay/jobs` make a job; the rest watches and steers it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::OperatorApi;
use super::call::{CURSOR, Call, REASON};
use super::dlq::TOPIC;
use super::job_forms::{Batch, Body, JobView, NamedBatch, Plan, Rehearsal, Started, WAIT_S_MAX};
use super::parameter::{Parameter, bounded, journal_time};
use super::replay::{TO_TOPIC, allowed_topic};
use crate::audit::{Act, Outcome};
use crate::config::RATE_PER_S_MAX;
use crate::job::{Change, Filter, ITEMS_MAX, Idempotency, JobRefusal, Made, NewJob};
use crate::replay::{JobError, ReplayError};
use crate::serve::reply::{ApiError, Reply};
use crate::store::{Choice, Found, Job, Skip, is_active};

pub const ID: Parameter = Parameter::id("The job");
pub const RATE_PER_S: Parameter =
    Parameter::integer("rate_per_s", (1, RATE_PER_S_MAX as i64), "Events a second; else replay.rate_per_s", "50");
pub const NEW_RATE_PER_S: Parameter =
    Parameter::integer("rate_per_s", (1, RATE_PER_S_MAX as i64), "Events a second", "50").required();
pub const SKIP_SUPERSEDED: Parameter =
    Parameter::flag("skip_superseded", "Leave out events of whose key there is a newer one");
pub const SKIP_REPLAYS: Parameter = Parameter::flag("skip_replays", "Leave out events that are replays themselves");
pub const CONFIRM: Parameter = Parameter::integer(
    "confirm",
    (0, ITEMS_MAX as i64),
    "How many events it is about, as the answer before said",
    "17",
);
pub const DRY_RUN: Parameter = Parameter::flag("dry_run", "Only say what would be done");
pub const WAIT: Parameter =
    Parameter::integer("wait", (0, WAIT_S_MAX as i64), "Seconds to wait for the job's end before the answer", "30");
pub const START: Parameter = Parameter::time("start", "Received at or after this time", "2025-11-03");
pub const END: Parameter = Parameter::time("end", "Received before this time", "2025-11-04 12:00:00");
pub const TENANT_ID: Parameter = Parameter::text("tenant_id", "Events of this tenant", "acme");
pub const EVENT_TYPE: Parameter = Parameter::text("event_type", "Events of this payload.event_type", "lead.created");
pub const KEY: Parameter = Parameter::text("key", "Events of this Kafka key", "acme:lead:17");
pub const STATE: Parameter =
    Parameter::word("state", &["running", "paused", "finished", "cancelled"], "Jobs in this state; else all");
pub const ITEM_STATE: Parameter = Parameter::word(
    "state",
    &["pending", "in_flight", "acknowledged", "failed", "uncertain", "cancelled"],
    "Events in this state; else all",
);
pub const UNCERTAIN: Parameter =
    Parameter::flag("uncertain", "Also those of which it is not known whether Kafka has them");

/// The parameters of what makes a job.
pub const OPTIONS: &[&Parameter] =
    &[&TO_TOPIC, &RATE_PER_S, &SKIP_SUPERSEDED, &SKIP_REPLAYS, &CONFIRM, &DRY_RUN, &WAIT, &REASON];
/// … and the filter of a range.
pub const RANGE: &[&Parameter] = &[
    &START,
    &END,
    &TENANT_ID,
    &TOPIC,
    &EVENT_TYPE,
    &KEY,
    &TO_TOPIC,
    &RATE_PER_S,
    &SKIP_SUPERSEDED,
    &SKIP_REPLAYS,
    &CONFIRM,
    &DRY_RUN,
    &WAIT,
    &REASON,
];
/// How often it is looked whether a job has ended.
const WAIT_TICK: Duration = Duration::from_millis(100);

/// How a job is to be done.
#[derive(Debug, Hash)]
struct Options {
    to_topic: Option<String>,
    rate_per_s: u32,
    skip: Skip,
}

/// How this request is to be answered.
struct Manner {
    confirm: Option<u64>,
    dry_run: bool,
    wait: Duration,
    reason: Option<String>,
}

pub fn batch(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let event_ids = match serde_json::from_slice(call.body()) {
        Ok(Batch::List(event_ids) | Batch::Named(NamedBatch { event_ids })) => event_ids,
        Err(_) => {
            let problem = r#"must be a list of event ids, as [5,6,7] or {"event_ids":[5,6,7]}"#;
            return Err(ApiError::parameter("body", problem));
        }
    };
    make(api, call, Body { event_ids: Some(event_ids), ..Body::default() })
}

pub fn range(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let body = Body {
        start: call.text(&START),
        end: call.text(&END),
        tenant_id: call.text(&TENANT_ID),
        topic: call.text(&TOPIC),
        event_type: call.text(&EVENT_TYPE),
        key: call.text(&KEY),
        ..Body::default()
    };
    if body.start.is_none() && body.end.is_none() {
        return Err(ApiError::parameter("start", "give start, end or both, as start=2025-11-03&end=2025-11-04"));
    }
    make(api, call, body)
}

pub fn post(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let body = serde_json::from_slice(call.body()).map_err(|error| {
        let example = r#"{"tenant_id":"acme","start":"2025-11-03","end":"2025-11-04"}"#;
        ApiError::parameter("body", format!("must be a JSON object, as {example}: {error}"))
    })?;
    make(api, call, body)
}

fn make(api: &OperatorApi, call: &Call, body: Body) -> Result<Reply, ApiError> {
    let (options, manner) = (options(api, call, &body)?, manner(call, &body)?);
    let filter = filter(call, body)?;
    let idempotency = call.idempotency_key()?.map(|key| {
        let mut hasher = DefaultHasher::new();
        (&filter, &options).hash(&mut hasher);
        // Two tenants may choose the same key; a line break is in none.
        let key = call.tenant().map_or(key.clone(), |tenant| format!("{tenant}\n{key}"));
        Idempotency { key, fingerprint: format!("{:016x}", hasher.finish()) }
    });
    let tenant = call.tenant().or(filter.tenant_id.as_deref());
    let shown = Filter { key: filter.key.as_ref().map(|key| api.digest(key)), ..filter.clone() };
    let mut act = call.act(shown.to_json()).about(tenant);
    act.reason = manner.reason.clone().or(act.reason);
    let is_repeated = match &idempotency {
        Some(idempotency) => api.readers.has_job_of(&idempotency.key)?,
        None => false,
    };
    let new = |event_ids, skipped| NewJob {
        tenant: tenant.map(str::to_owned),
        filter: filter.clone(),
        event_ids,
        skipped,
        to_topic: options.to_topic.clone(),
        rate_per_s: options.rate_per_s,
        idempotency,
    };
    if is_repeated && !manner.dry_run {
        // The writer finds the job again, whatever the journal holds by now.
        return answer(api, made(api, call, new(Vec::new(), 0), act)?, manner.wait);
    }
    let found = choose(api, call, &filter, options.skip)?;
    let total = found.total;
    let plan = Plan {
        found,
        rate_per_s: options.rate_per_s,
        seconds: total as f64 / f64::from(options.rate_per_s),
        needs_confirm: total > api.in_force.get().replay.confirm_above as usize,
    };
    if manner.dry_run {
        api.note(act.with(Outcome::DryRun, "").counting(total))?;
        return Ok(Reply::json(200, &Rehearsal { plan, dry_run: true }));
    }
    if total == 0 {
        return Err(ApiError::Nothing("no event in the journal is meant by that, so nothing was done".to_owned()));
    }
    if manner.confirm.map_or(plan.needs_confirm, |confirmed| confirmed != total as u64) {
        return Err(unconfirmed(&plan, manner.confirm));
    }
    let Found { event_ids, skipped, .. } = plan.found;
    let made = made(api, call, new(event_ids, skipped), act.counting(total))?;
    answer(api, made, manner.wait)
}

fn unconfirmed(plan: &Plan, confirmed: Option<u64>) -> ApiError {
    let total = plan.found.total;
    let not = |confirmed| format!(", not {confirmed} (where events keep coming, give an end)");
    let not = confirmed.map_or_else(String::new, not);
    let what =
        format!("this would replay {total} events{not}, so nothing was done; if that is meant, say confirm={total}");
    ApiError::Confirm { what, more: json!({ "plan": plan }) }
}

fn made(api: &OperatorApi, call: &Call, new: NewJob, act: Act) -> Result<Made, ApiError> {
    api.jobs.make(new, act).map_err(|error| without_foreign_job(api, call, error))
}

/// A job that whoever asks may not see is not named to them.
fn without_foreign_job(api: &OperatorApi, call: &Call, error: JobError) -> ApiError {
    match &error {
        JobError::Refused(JobRefusal::Overlap { event_id, job_id, .. })
            if !api.readers.shows_job(call.tenant(), *job_id).unwrap_or(false) =>
        {
            let what = format!("event {event_id} is in somebody else's job; try again later, or leave the event out");
            ApiError::Confirm { what, more: json!({ "event_id": event_id }) }
        }
        _ => error.into(),
    }
}

fn options(api: &OperatorApi, call: &Call, body: &Body) -> Result<Options, ApiError> {
    let rate_per_s = call.number(&RATE_PER_S).or(body.rate_per_s);
    let rate_per_s = rate_per_s.unwrap_or(api.in_force.get().replay.rate_per_s);
    if !(1..=RATE_PER_S_MAX).contains(&rate_per_s) {
        return Err(ApiError::parameter("rate_per_s", format!("{rate_per_s} is not within 1 and {RATE_PER_S_MAX}")));
    }
    let to_topic = call.text(&TO_TOPIC).or_else(|| body.to_topic.clone());
    Ok(Options {
        to_topic: allowed_topic(api, to_topic)?,
        rate_per_s,
        skip: Skip {
            superseded: call.flag(&SKIP_SUPERSEDED) || body.skip_superseded.unwrap_or(false),
            replays: call.flag(&SKIP_REPLAYS) || body.skip_replays.unwrap_or(false),
        },
    })
}

fn manner(call: &Call, body: &Body) -> Result<Manner, ApiError> {
    let wait = call.number(&WAIT).or(body.wait).unwrap_or(0);
    if wait > WAIT_S_MAX {
        return Err(ApiError::parameter("wait", format!("{wait} is not within 0 and {WAIT_S_MAX} seconds")));
    }
    Ok(Manner {
        confirm: call.number(&CONFIRM).or(body.confirm),
        dry_run: call.flag(&DRY_RUN) || body.dry_run.unwrap_or(false),
        wait: Duration::from_secs(wait),
        reason: bounded("reason", body.reason.clone())?,
    })
}

fn filter(call: &Call, body: Body) -> Result<Filter, ApiError> {
    let time = |name: &str, text: Option<String>| text.map(|text| journal_time(name, &text)).transpose();
    let event_ids = body.event_ids.map(|mut ids| {
        ids.sort_unstable();
        ids.dedup();
        ids
    });
    let some = |name: &str, text: Option<String>| match text {
        Some(text) if text.is_empty() => Err(ApiError::parameter(name, "is empty; leave it out or give it a value")),
        text => bounded(name, text),
    };
    let mut filter = Filter {
        event_ids,
        start: time("start", body.start)?,
        end: time("end", body.end)?,
        tenant_id: some("tenant_id", body.tenant_id)?,
        topic: some("topic", body.topic)?,
        event_type: some("event_type", body.event_type)?,
        key: some("key", body.key)?,
    };
    if filter.is_empty() {
        let problem = "is empty, and that never means every event; give event_ids, start, end, tenant_id, topic, event_type or key";
        return Err(ApiError::parameter("filter", problem));
    }
    if filter.event_ids.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::parameter("event_ids", "names no event"));
    }
    if let (Some(start), Some(end)) = (&filter.start, &filter.end)
        && start >= end
    {
        return Err(ApiError::parameter("end", "is not after start"));
    }
    if let Some(own) = call.tenant() {
        call.expect_own(filter.tenant_id.as_deref())?;
        filter.tenant_id = Some(own.to_owned());
    }
    Ok(filter)
}

fn choose(api: &OperatorApi, call: &Call, filter: &Filter, skip: Skip) -> Result<Found, ApiError> {
    let found = match api.readers.choose(call.tenant(), filter, skip)? {
        Choice::Found(found) => found,
        Choice::TooMany => {
            let problem = format!("means more than {ITEMS_MAX} events; make several jobs of it");
            return Err(ApiError::parameter("filter", problem));
        }
    };
    if found.unknown.is_empty() && (found.erased == 0 || filter.event_ids.is_none()) {
        return Ok(found);
    }
    if found.unknown.is_empty() {
        let what = format!("{} of these events are erased and cannot be replayed, so nothing was done", found.erased);
        return Err(ApiError::Gone(what));
    }
    let ids: Vec<String> = found.unknown.iter().map(i64::to_string).collect();
    Err(ApiError::Nothing(format!("not found, so nothing was done: event {}", ids.join(", "))))
}

/// 202 with the job; where the client waits, the job as it ended, if it did in time. Only a few may wait at once, the
/// others are answered now.
fn answer(api: &OperatorApi, made: Made, wait: Duration) -> Result<Reply, ApiError> {
    let deadline = Instant::now() + wait;
    let place: Result<_, ReplayError> = api.replayer.waiting_place();
    while place.is_ok() && Instant::now() < deadline && !api.jobs.is_stopping() {
        let has_ended = api.readers.job_state(made.job_id)?.is_some_and(|state| !is_active(&state));
        if has_ended && let Some(job) = api.readers.job(made.job_id)?.filter(|job| job.in_flight == 0) {
            return Ok(Reply::json(200, &view(api, job)).with_header("Location", location(made.job_id)));
        }
        thread::sleep(WAIT_TICK.min(deadline.saturating_duration_since(Instant::now())));
    }
    let body = Started { job_id: made.job_id, status: "running", total: made.total };
    Ok(Reply::json(202, &body).with_header("Location", location(made.job_id)))
}

fn location(job_id: i64) -> String {
    format!("/replay/jobs/{job_id}")
}

fn view(api: &OperatorApi, job: Job) -> JobView {
    let progress = api.jobs.progress(job.job_id);
    let left = (job.pending + job.in_flight) as f64;
    let rate = progress.rate.min(f64::from(job.rate_per_s));
    let seconds_left = (job.status == "running" && rate > 0.0).then(|| tenths(left / rate));
    JobView { job, rate: tenths(progress.rate), seconds_left, waiting_for: progress.waiting_for }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let jobs = api.readers.jobs(call.tenant(), call.text(&STATE).as_deref(), call.limit())?;
    let views: Vec<JobView> = jobs.into_iter().map(|job| view(api, job)).collect();
    Ok(Reply::json(200, &views))
}

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &view(api, job(api, call)?)))
}

pub fn items(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    if !api.readers.shows_job(call.tenant(), id)? {
        return Err(ApiError::NoSuchRow { what: "job", id });
    }
    let state = call.text(&ITEM_STATE);
    let limit = call.limit();
    let after = call.number(&CURSOR).unwrap_or(0);
    let items = api.readers.job_items(id, state.as_deref(), after, limit)?;
    let next = items.last().and_then(|last| call.next_page(items.len(), limit, last.event_id));
    Ok(Reply::page(&items, next))
}

/// The job that is asked about, if whoever asks may see it.
fn job(api: &OperatorApi, call: &Call) -> Result<Job, ApiError> {
    let id = call.id();
    let missing = ApiError::NoSuchRow { what: "job", id };
    if !api.readers.shows_job(call.tenant(), id)? {
        return Err(missing);
    }
    api.readers.job(id)?.ok_or(missing)
}

pub fn pause(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    change(api, call, Change::Pause)
}

pub fn resume(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    change(api, call, Change::Resume)
}

pub fn cancel(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    change(api, call, Change::Cancel)
}

pub fn retry_failed(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let uncertain = call.flag(&UNCERTAIN);
    change(api, call, Change::RetryFailed { uncertain })
}

pub fn rate(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let rate_per_s = call.number(&NEW_RATE_PER_S).unwrap_or(api.in_force.get().replay.rate_per_s);
    change(api, call, Change::Rate(rate_per_s))
}

fn change(api: &OperatorApi, call: &Call, change: Change) -> Result<Reply, ApiError> {
    let Job { job_id: id, tenant_id, .. } = job(api, call)?;
    let act = call.act(format!("job {id}")).about(tenant_id.as_deref());
    let detail = match change {
        Change::Rate(rate_per_s) => format!("{rate_per_s} events a second"),
        Change::RetryFailed { uncertain: true } => "those that are uncertain included".to_owned(),
        _ => String::new(),
    };
    let changed = api.jobs.change(id, change, act.with(Outcome::Done, detail));
    changed.map_err(|error| without_foreign_job(api, call, error))?;
    Ok(Reply::json(200, &view(api, job(api, call)?)))
}
