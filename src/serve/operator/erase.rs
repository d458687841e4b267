//! `POST /tenants/{tenant_id}/erase`: what a tenant's rows, or those of one of its keys, say goes for good.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::call::{Call, REASON};
use super::parameter::Parameter;
use super::removal_answers::{Erased, Erasing, ErasureRehearsal};
use super::{OperatorApi, PATIENCE, removals};
use crate::audit::{Act, Outcome};
use crate::queue::{Order, RemovalOrder};
use crate::removal::{ERASE_MAX, Erasure, ErasurePlan, RemovalRefusal, Rows, Scope};
use crate::serve::reply::{ApiError, Reply};

pub const TENANT: Parameter = Parameter::text("tenant_id", "The tenant", "acme").in_path();
pub const KEY: Parameter =
    Parameter::text("key", "Only the records with this key; left out: all of the tenant", "acme:lead:17");
pub const CONFIRM: Parameter =
    Parameter::text("confirm", "That just this is meant, as the answer before said", "4711-12-0f1e2d3c4b5a6978");
pub const WHY: Parameter = REASON.required();
/// How often the write-ahead log is asked to let go of what was erased, and how long readers have in between.
const LOG_ATTEMPTS: usize = 5;
const LOG_PAUSE: Duration = Duration::from_secs(1);

pub fn post(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let scope = scope(api, call)?;
    let (plan, blocked) = api.readers.erasure_plan(&scope)?;
    let token = token(&scope);
    let act = act(api, call, &scope)?;
    if call.flag(&super::jobs::DRY_RUN) {
        api.note(act.with(Outcome::DryRun, counts(&plan)))?;
        let blocked_by = blocked.map(|blocked| blocked.to_string());
        return Ok(Reply::json(200, &ErasureRehearsal { plan, dry_run: true, confirm: token, blocked_by }));
    }
    if call.text(&CONFIRM).as_ref() != Some(&token) {
        return Err(unconfirmed(&plan, &token));
    }
    if let Some(blocked) = blocked {
        return Err(blocked.into());
    }
    let _turn = api.removals.turn()?;
    let begun = {
        let (scope, act) = (scope.clone(), act.clone());
        let order = |answer| Order::Removal(Box::new(RemovalOrder::Begin { scope, act, answer }));
        api.orders.give(PATIENCE, order)?
    };
    if begun.is_done {
        return erased(api, &scope, &begun);
    }
    match erase(api, &scope, begun.certificate)?
        && erase_archived(api, &scope, begun.certificate)?
        && scrub(api, begun.certificate)?
    {
        true => finish(api, &scope, begun.certificate, &act),
        false => unfinished(api, &scope, begun.certificate),
    }
}

/// What is meant: as much as there is now, or, where that was confirmed, as much as there was then.
fn scope(api: &OperatorApi, call: &Call) -> Result<Scope, ApiError> {
    let tenant_id = call.text(&TENANT).unwrap_or_default();
    if call.tenant().is_some_and(|own| own != tenant_id) {
        return Err(ApiError::Nothing(format!("tenant {tenant_id:.100} not found")));
    }
    let confirmed = call.text(&CONFIRM).and_then(|token| {
        let mut ids = token.split('-').map_while(|id| id.parse::<i64>().ok());
        Some((ids.next()?, ids.next()?))
    });
    let (last_event_id, last_letter_id) = match confirmed {
        Some(ids) => ids,
        None => api.readers.last_ids()?,
    };
    Ok(Scope { tenant_id, key: call.text(&KEY), last_event_id, last_letter_id })
}

/// Names what is meant: who gives it has seen what that is.
fn token(scope: &Scope) -> String {
    let Scope { tenant_id, key, last_event_id, last_letter_id } = scope;
    let mut hasher = DefaultHasher::new();
    (tenant_id, key, last_event_id, last_letter_id).hash(&mut hasher);
    format!("{last_event_id}-{last_letter_id}-{:016x}", hasher.finish())
}

/// The audit stays for ever, so it has a digest of the key.
fn act(api: &OperatorApi, call: &Call, scope: &Scope) -> Result<Act, ApiError> {
    let key = match &scope.key {
        None => String::new(),
        Some(key) => format!(", key sha256:{}", api.readers.key_digest(key)?),
    };
    let Scope { tenant_id, last_event_id, last_letter_id, .. } = scope;
    let target = format!("tenant {tenant_id}{key}: events up to {last_event_id}, dead letters up to {last_letter_id}");
    Ok(call.act(target).about(Some(tenant_id)))
}

fn counts(plan: &ErasurePlan) -> String {
    let ErasurePlan { events, dead_letters, jobs, .. } = plan;
    format!("{events} events, {dead_letters} dead letters, {jobs} job filters")
}

fn unconfirmed(plan: &ErasurePlan, token: &str) -> ApiError {
    if plan.is_empty() {
        return ApiError::Nothing("there is nothing of that, so nothing was done".to_owned());
    }
    let what = format!(
        "this would erase {} for good, so nothing was done; if that is meant, add confirm={token}",
        counts(plan)
    );
    ApiError::Confirm { what, more: json!({ "plan": plan, "confirm": token }) }
}

/// Whether all of it is erased now; if not, the time is up.
fn erase(api: &OperatorApi, scope: &Scope, erasure: i64) -> Result<bool, ApiError> {
    let deadline = Instant::now() + removals::WORK_MAX;
    let mut after = 0;
    loop {
        let (rows, last) = api.readers.next_to_erase(erasure, scope, after)?;
        if rows.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= deadline || !removals::let_ingestion_pass(api) {
            return Ok(false);
        }
        erase_some(api, scope, erasure, rows)?;
        after = last;
    }
}

fn erase_some(api: &OperatorApi, scope: &Scope, erasure: i64, rows: Rows) -> Result<(), ApiError> {
    let scope = scope.clone();
    let order = |answer| Order::Removal(Box::new(RemovalOrder::Erase { erasure, scope, rows, answer }));
    Ok(api.orders.give(PATIENCE, order).map_err(|error| begun(error, erasure))??)
}

/// The rows are empty; what SQLite left of them in unused parts of pages goes too. False when the sink stops.
fn scrub(api: &OperatorApi, erasure: i64) -> Result<bool, ApiError> {
    for pages in api.readers.pages_to_scrub()?.chunks(ERASE_MAX) {
        if !removals::let_ingestion_pass(api) {
            return Ok(false);
        }
        let pages = pages.to_vec();
        let order = |answer| Order::Removal(Box::new(RemovalOrder::Scrub { pages, answer }));
        api.orders.give(PATIENCE, order).map_err(|error| begun(error, erasure))?;
    }
    Ok(true)
}

/// The tenant's files go too. Those that have a key's events stay: they have others' as well.
fn erase_archived(api: &OperatorApi, scope: &Scope, erasure: i64) -> Result<bool, ApiError> {
    if scope.key.is_none() {
        let erased = api.archive.erase(&scope.tenant_id, scope.last_event_id, erasure);
        erased.map_err(|error| begun(error, erasure))?;
    }
    Ok(true)
}

fn begun(error: impl Display, erasure: i64) -> ApiError {
    let done = format!("erasure {erasure} is begun; send the same again, and it goes on");
    ApiError::Partly { error: error.to_string(), done, more: json!({ "certificate": erasure }) }
}

fn finish(api: &OperatorApi, scope: &Scope, erasure: i64, act: &Act) -> Result<Reply, ApiError> {
    let mut refused = RemovalRefusal::Log;
    for attempt in 0..LOG_ATTEMPTS {
        if attempt > 0 {
            thread::sleep(LOG_PAUSE);
        }
        let (scope_of, act) = (scope.clone(), act.clone());
        let order = |answer| Order::Removal(Box::new(RemovalOrder::Finish { erasure, scope: scope_of, act, answer }));
        match api.orders.give(PATIENCE, order)? {
            Ok(done) => return erased(api, scope, &done),
            Err(refusal) => refused = refusal,
        }
    }
    Err(refused.into())
}

fn unfinished(api: &OperatorApi, scope: &Scope, erasure: i64) -> Result<Reply, ApiError> {
    let (left, _) = api.readers.erasure_plan(scope)?;
    let detail = "not all of it is erased yet; send the same again, and it goes on";
    Ok(Reply::json(202, &Erasing { status: "erasing", certificate: erasure, left, detail }))
}

fn erased(api: &OperatorApi, scope: &Scope, done: &Erasure) -> Result<Reply, ApiError> {
    let (tenant_id, detail) = (scope.tenant_id.clone(), "what arrives from now on is stored as ever");
    let archive_files_left = api.readers.archived_files_left(&tenant_id, scope.last_event_id)?;
    let erased = Erased { erasure: done.clone(), status: "erased", tenant_id, archive_files_left, detail };
    Ok(Reply::json(200, &erased))
}
