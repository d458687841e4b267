//! `POST /prune`: the oldest events go for good.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;

use super::call::Call;
use super::parameter::Parameter;
use super::removal_answers::{PruneRehearsal, Pruned};
use super::{OperatorApi, PATIENCE, removals};
use crate::archive::ArchiveError;
use crate::audit::{Act, Outcome};
use crate::queue::{Order, OrderError, RemovalOrder};
use crate::removal::PrunePlan;
use crate::serve::reply::{ApiError, Reply};
use crate::store::time_text;

pub const UNTIL: Parameter = Parameter::time("until", "Events received before this time", "2025-01-01").required();
pub const CONFIRM: Parameter =
    Parameter::integer("confirm", (0, i64::MAX), "How many events, as the answer before said", "17");

/// How far a pruning has come.
#[derive(Default)]
struct Progress {
    events: u64,
    last_id: i64,
    failed: Option<ArchiveError>,
}

pub fn post(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let until = call.time(&UNTIL).unwrap_or_default();
    if until > time_text(Timestamp::now()) {
        return Err(ApiError::parameter(
            "until",
            "is in the future, and events keep coming; give a time that has passed",
        ));
    }
    let plan = api.readers.prune_plan(&until)?;
    let act = call.act(format!("events received before {until}")).counting(plan.events as usize);
    if call.flag(&super::jobs::DRY_RUN) {
        api.note(act.with(Outcome::DryRun, ""))?;
        return Ok(Reply::json(200, &PruneRehearsal { plan, dry_run: true }));
    }
    let Some(last_event_id) = plan.last_event_id else { return Err(nothing(&plan)) };
    if call.number(&CONFIRM) != Some(plan.events) {
        let count = plan.events;
        let what = format!(
            "this would delete {count} events for good, so nothing was done; if that is meant, add confirm={count}"
        );
        return Err(ApiError::Confirm { what, more: json!({ "plan": plan }) });
    }
    let _turn = api.removals.turn()?;
    let started_id = api.note(act.with(Outcome::Started, ""))?;
    let progress = prune(api, last_event_id, started_id);
    note_end(api, &act.after(started_id), &progress);
    let left = plan.events - progress.events as i64;
    let pruned = Pruned {
        status: if left > 0 { "partly pruned" } else { "pruned" },
        events: progress.events,
        last_event_id: progress.last_id,
        left,
        stops_before: plan.stops_before,
    };
    if let Some(error) = progress.failed {
        let done = format!("{} events were deleted before", progress.events);
        return Err(ApiError::Partly { error: error.to_string(), done, more: json!(pruned) });
    }
    Ok(Reply::json(200, &pruned))
}

fn nothing(plan: &PrunePlan) -> ApiError {
    let why = plan.stops_before.as_ref().map_or("no event is that old".to_owned(), String::clone);
    ApiError::Nothing(format!("{why}; nothing was done"))
}

/// Until there are no more, something is in the way, or the time is up.
fn prune(api: &OperatorApi, last_id: i64, act: i64) -> Progress {
    let mut progress = Progress::default();
    progress.failed = prune_slices(api, last_id, act, &mut progress).err();
    progress
}

/// What the archive has, slice by slice.
fn prune_slices(api: &OperatorApi, last_id: i64, act: i64, progress: &mut Progress) -> Result<(), ArchiveError> {
    let deadline = Instant::now() + removals::WORK_MAX;
    let goes_on = || Instant::now() < deadline && removals::let_ingestion_pass(api);
    let mut archived = 0;
    while archived < last_id && goes_on() {
        archived = api.archive.step(last_id, || api.jobs.is_stopping())?;
        while goes_on() {
            let order = |answer| Order::Removal(Box::new(RemovalOrder::Prune { last_id: archived, act, answer }));
            let pruned = api.orders.give(PATIENCE, order)?;
            if pruned.events == 0 {
                break;
            }
            progress.events += pruned.events;
            progress.last_id = pruned.last_id;
        }
    }
    Ok(())
}

fn note_end(api: &OperatorApi, act: &Act, progress: &Progress) {
    let (outcome, why) = match &progress.failed {
        None => (Outcome::Done, String::new()),
        Some(error @ ArchiveError::Order(OrderError::Unknown)) => (Outcome::Unknown, format!("; {error}")),
        Some(error) => (Outcome::Failed, format!("; {error}")),
    };
    let detail = format!("{} events, up to {}{why}", progress.events, progress.last_id);
    if let Err(error) = api.note(act.counting(progress.events as usize).with(outcome, detail)) {
        tracing::error!(%error, "the end of a pruning is not in the audit");
    }
}
