//! What is done about dead letters: one by one, or those of a group or a filter.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::call::{Call, REASON};
use super::dlq::{GROUP, SINCE, TOPIC, UNTIL};
use super::jobs::DRY_RUN;
use super::parameter::Parameter;
use super::repair_answers::{
    self as answers, Discarded, Failure, Journaled, ManyDiscarded, Retries, RetriesRehearsal, RetryRehearsal,
};
use super::replay::ended;
use super::{OperatorApi, PATIENCE};
use crate::audit::{Act, Outcome};
use crate::dead_letter::work::{Claim, Edited, LetterFilter, LetterRefusal, ORDER_MAX, Republished, Retried, Retry};
use crate::queue::{LetterOrder, Order, OrderError};
use crate::replay::{Placed, ReplayError};
use crate::serve::reply::{ApiError, Reply};
use crate::store::LetterDetail;

pub const MODE: Parameter = Parameter::word(
    "mode",
    &["ingest", "republish"],
    "Through ingestion here, which is so where it is left out, or to its topic again",
);
pub const AGAIN: Parameter = Parameter {
    // It does not go with the example of `mode`.
    example: "false",
    ..Parameter::flag("again", "Send it although it may be in Kafka already; with mode=republish")
};
pub const EDIT_CONFIRM: Parameter =
    Parameter::text("confirm", "That this very edit is meant, as the answer before said", "0f1e2d3c4b5a6978");
pub const COUNT_CONFIRM: Parameter =
    Parameter::integer("confirm", (0, i64::MAX), "How many dead letters it is about, as the answer before said", "17");
pub const ERROR_REASON: Parameter =
    Parameter::text("error_reason", "Why they are dead letters: the word before the error", "not_json");
pub const GROUP_IN_PATH: Parameter = GROUP.in_path();
pub const WHY: Parameter =
    Parameter::text("reason", "Why, for the audit and the dead letter", "known duplicate").required();
/// The parameters of a retry of the dead letters that a filter means.
pub const FILTERED: &[&Parameter] = &[&TOPIC, &ERROR_REASON, &SINCE, &UNTIL, &GROUP, &DRY_RUN, &COUNT_CONFIRM, &REASON];
/// Failures that an answer lists.
const FAILURES_MAX: usize = 100;
/// How often the end of a republication is told to a writer that cannot write just now.
const RELEASE_ATTEMPTS: usize = 3;

pub fn retry(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let letter = api.readers.dead_letter(call.tenant(), id)?.ok_or(LetterRefusal::NoSuch { id })?;
    let is_republished = call.text(&MODE).as_deref() == Some("republish");
    let (dry_run, again) = (call.flag(&DRY_RUN), call.flag(&AGAIN));
    if is_republished && dry_run {
        return Err(ApiError::parameter("dry_run", "goes with mode=ingest: what Kafka would say cannot be rehearsed"));
    }
    if again && !is_republished {
        return Err(ApiError::parameter("again", "goes with mode=republish"));
    }
    let edit = match call.body() {
        [] => None,
        patch => Some(edit(&letter, patch)?),
    };
    if let Some(edit) = edit.as_ref().filter(|_| !dry_run) {
        edit.expect_confirmed(call)?;
    }
    let edited = edit.map(|edit| edit.edited);
    if let Some(edited) = &edited {
        call.expect_own(edited.tenant_id().as_deref())?;
    }
    match is_republished {
        true => republish(api, call, &letter, edited, again),
        false => ingest(api, call, &letter, edited, dry_run),
    }
}

fn ingest(
    api: &OperatorApi,
    call: &Call,
    letter: &LetterDetail,
    edited: Option<Edited>,
    rehearse: bool,
) -> Result<Reply, ApiError> {
    let id = letter.id;
    let act = call.act(target(id, edited.as_ref(), "through ingestion")).about(letter.tenant_id.as_deref());
    let retry = Retry { ids: vec![id], edited, rehearse };
    let order = |answer| Order::Letter(Box::new(LetterOrder::Retry { retry, act, answer }));
    let retried = api.orders.give(PATIENCE, order)?.pop().map(|(_, retried)| retried);
    Ok(match retried {
        Some(Retried::Journaled { .. }) if rehearse => {
            Reply::json(200, &RetryRehearsal { dry_run: true, would: "pass", error: None })
        }
        Some(Retried::Refused { error, .. }) if rehearse => {
            Reply::json(200, &RetryRehearsal { dry_run: true, would: "fail", error: Some(error) })
        }
        Some(Retried::Journaled { event_id, topic, .. }) => {
            Reply::json(200, &Journaled { status: "journaled", dead_letter_id: id, event_id, topic })
        }
        Some(Retried::Refused { error, attempts }) => {
            let detail = format!("it is refused still: {error}");
            Reply::json(409, &json!({"detail": detail, "dead_letter_id": id, "attempts": attempts}))
        }
        Some(Retried::Not(refusal)) => Reply::error(&refusal.into()),
        None => Reply::error(&LetterRefusal::NoSuch { id }.into()),
    })
}

fn republish(
    api: &OperatorApi,
    call: &Call,
    letter: &LetterDetail,
    edited: Option<Edited>,
    again: bool,
) -> Result<Reply, ApiError> {
    let id = letter.id;
    let how = format!("to {}", letter.topic);
    let act = call.act(target(id, edited.as_ref(), &how)).about(letter.tenant_id.as_deref()).counting(1);
    let claim = Claim { id, again, note: edited.as_ref().map(|edited| edited.note.clone()) };
    let started = act.with(Outcome::Started, "");
    let order = |answer| Order::Letter(Box::new(LetterOrder::Claim { claim, act: started, answer }));
    let started_id = api.orders.give(PATIENCE, order)??;
    let own = letter.payload.as_ref().map(|payload| payload.0.as_slice());
    let value = edited.as_ref().map(|edited| edited.value.as_slice()).or(own);
    let journal_id = api.readers.journal_id();
    let sent = match &journal_id {
        Ok(journal_id) => api.replayer.republish(letter, value, journal_id),
        Err(error) => Err(ReplayError::Refused(error.to_string())),
    };
    let republished = match &sent {
        Ok(_) => Republished::Acknowledged,
        Err(error @ ReplayError::TimedOut { .. }) => Republished::Unknown(error.to_string()),
        Err(error) => Republished::Refused(error.to_string()),
    };
    release(api, id, &republished, &ended(&act.after(started_id), &sent));
    Ok(match sent {
        Ok(Placed { partition, offset }) => {
            let (status, topic) = ("republished", letter.topic.clone());
            Reply::json(200, &answers::Republished { status, dead_letter_id: id, topic, partition, offset })
        }
        Err(error) => Reply::error(&error.into()),
    })
}

/// Whatever the writer says, the record went out or did not. A row that stays claimed is `uncertain` after the next
/// start.
fn release(api: &OperatorApi, id: i64, republished: &Republished, act: &Act) {
    for _ in 0..RELEASE_ATTEMPTS {
        let (republished, act) = (republished.clone(), act.clone());
        let order = |answer| Order::Letter(Box::new(LetterOrder::Release { id, republished, act, answer }));
        match api.orders.give(PATIENCE, order) {
            Ok(()) => return,
            Err(error) => tracing::error!(dead_letter = id, %error, "the end of a republication is not noted"),
        }
    }
}

fn target(id: i64, edited: Option<&Edited>, how: &str) -> String {
    let edited = if edited.is_some() { ", edited" } else { "" };
    format!("dead letter {id} {how}{edited}")
}

/// A JSON Patch, for the API's description.
pub struct Patch;

impl JsonSchema for Patch {
    fn schema_name() -> Cow<'static, str> {
        "JsonPatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pointer = json!({"type": "string", "pattern": "^(?:/(?:[^~/]|~[01])*)*$"});
        let operation = |names: &[&str], needs: &str, form: &Value| {
            let properties = json!({"op": {"enum": names}, "path": pointer, needs: form});
            json!({"type": "object", "properties": properties, "required": ["op", "path", needs]})
        };
        json_schema!({
            "description": "Operations of RFC 6902 on the dead letter's value.",
            "type": "array",
            "items": {"anyOf": [
                operation(&["add", "replace", "test"], "value", &json!({})),
                operation(&["move", "copy"], "from", &pointer),
                {"type": "object", "properties": {"op": {"const": "remove"}, "path": pointer}, "required": ["op", "path"]},
            ]},
        })
    }
}

/// What a JSON Patch makes of a dead letter's value.
struct Edit {
    edited: Edited,
    before: Value,
    /// The value as it is, or its text where it is no JSON.
    shown: Value,
    after: Value,
    /// Names this very change: who gives it has seen it.
    token: String,
}

/// Applies a JSON Patch (RFC 6902). A value that is not JSON counts as `null`, which a patch can replace as a whole.
fn edit(letter: &LetterDetail, patch: &[u8]) -> Result<Edit, ApiError> {
    let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(|error| {
        let example = r#"[{"op":"replace","path":"/name","value":"…"}]"#;
        ApiError::parameter("body", format!("must be a JSON Patch (RFC 6902), as {example}: {error}"))
    })?;
    let own = letter.payload.as_ref().map_or(&b"null"[..], |payload| &payload.0);
    let read: Option<Value> = serde_json::from_slice(own).ok();
    let shown = read.clone().unwrap_or_else(|| String::from_utf8_lossy(own).into());
    let before = read.unwrap_or_default();
    let mut after = before.clone();
    json_patch::patch(&mut after, &patch)
        .map_err(|error| ApiError::Unfitting(format!("body: the patch does not fit: {error}")))?;
    let value = after.to_string().into_bytes();
    let mut hasher = DefaultHasher::new();
    (letter.id, own, &value).hash(&mut hasher);
    let note = format!("edited: {}", patch).chars().take(2000).collect();
    Ok(Edit { edited: Edited { value, note }, before, shown, after, token: format!("{:016x}", hasher.finish()) })
}

impl Edit {
    fn expect_confirmed(&self, call: &Call) -> Result<(), ApiError> {
        if call.text(&EDIT_CONFIRM).as_ref() == Some(&self.token) {
            return Ok(());
        }
        let difference = json_patch::diff(&self.before, &self.after);
        Err(ApiError::Confirm {
            what: format!(
                "nothing was done yet; if this difference is meant, send the same again with confirm={}",
                self.token
            ),
            more: json!({"difference": difference, "before": self.shown, "after": self.after, "confirm": self.token}),
        })
    }
}

pub fn retry_filtered(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let filter = LetterFilter {
        tenant: None,
        topic: call.text(&TOPIC),
        reason: call.text(&ERROR_REASON),
        since: call.time(&SINCE),
        until: call.time(&UNTIL),
        group: call.text(&GROUP),
    };
    if filter.is_empty() {
        let problem =
            "is empty, and that never means every dead letter; give topic, error_reason, since, until or group";
        return Err(ApiError::parameter("filter", problem));
    }
    retry_many(api, call, &filter)
}

pub fn retry_group(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    retry_many(api, call, &group(call))
}

fn group(call: &Call) -> LetterFilter {
    LetterFilter { group: call.text(&GROUP_IN_PATH), ..LetterFilter::default() }
}

fn retry_many(api: &OperatorApi, call: &Call, filter: &LetterFilter) -> Result<Reply, ApiError> {
    let rehearse = call.flag(&DRY_RUN);
    let ids = meant(api, call, filter, !rehearse)?;
    let act = call.act(filter.text());
    let (mut tried, mut passed, mut failures) = (0, 0, Vec::new());
    for some in ids.chunks(ORDER_MAX) {
        let retry = Retry { ids: some.to_vec(), edited: None, rehearse };
        let act = act.clone();
        let order = |answer| Order::Letter(Box::new(LetterOrder::Retry { retry, act, answer }));
        let retried = api.orders.give(PATIENCE, order).map_err(|error| {
            partly(
                error,
                format!("{tried} of {} were tried before", ids.len()),
                json!({"tried": tried, "journaled": passed}),
            )
        })?;
        tried += retried.len();
        for (id, retried) in retried {
            match retried {
                Retried::Journaled { .. } => passed += 1,
                Retried::Refused { error, .. } => failures.push(Failure { dead_letter_id: id, error }),
                Retried::Not(refusal) => failures.push(Failure { dead_letter_id: id, error: refusal.to_string() }),
            }
        }
    }
    let failed = failures.len();
    failures.truncate(FAILURES_MAX);
    Ok(if rehearse {
        let (would_pass, would_fail) = (passed, failed);
        Reply::json(200, &RetriesRehearsal { dry_run: true, tried, would_pass, would_fail, failures })
    } else {
        Reply::json(200, &Retries { status: "retried", tried, journaled: passed, failed, failures })
    })
}

/// The open dead letters that are meant, if the client knows how many these are.
fn meant(api: &OperatorApi, call: &Call, filter: &LetterFilter, needs_confirm: bool) -> Result<Vec<i64>, ApiError> {
    let filter = LetterFilter { tenant: call.tenant().map(str::to_owned), ..filter.clone() };
    let ids = api.readers.open_dead_letters(&filter)?;
    if ids.is_empty() {
        return Err(ApiError::Nothing("no open dead letter is meant by that, so nothing was done".to_owned()));
    }
    let confirmed = call.number::<usize>(&COUNT_CONFIRM);
    let is_many = ids.len() > api.in_force.get().replay.confirm_above as usize;
    if needs_confirm && confirmed.map_or(is_many, |confirmed| confirmed != ids.len()) {
        let count = ids.len();
        let what =
            format!("this is about {count} dead letters, so nothing was done; if that is meant, add confirm={count}");
        return Err(ApiError::Confirm { what, more: json!({ "count": count }) });
    }
    Ok(ids)
}

fn partly(error: OrderError, done: String, more: Value) -> ApiError {
    ApiError::Partly { error: error.to_string(), done, more }
}

pub fn discard(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let note = call.text(&WHY).unwrap_or_default();
    let letter = api.readers.dead_letter(call.tenant(), id)?.ok_or(LetterRefusal::NoSuch { id })?;
    let act = call.act(format!("dead letter {id}")).about(letter.tenant_id.as_deref());
    let order = |answer| Order::Letter(Box::new(LetterOrder::Discard { ids: vec![id], note, act, answer }));
    if api.orders.give(PATIENCE, order)? == 0 {
        let refusal = LetterRefusal::NotOpen { id, state: letter.work.state, event_id: letter.work.event_id };
        return Ok(Reply::error(&refusal.into()));
    }
    Ok(Reply::json(200, &Discarded { status: "discarded", dead_letter_id: id }))
}

pub fn discard_group(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let note = call.text(&WHY).unwrap_or_default();
    let filter = group(call);
    let ids = meant(api, call, &filter, true)?;
    let act = call.act(filter.text());
    let mut discarded = 0;
    for some in ids.chunks(ORDER_MAX) {
        let (ids, note, act) = (some.to_vec(), note.clone(), act.clone());
        let order = |answer| Order::Letter(Box::new(LetterOrder::Discard { ids, note, act, answer }));
        discarded += api.orders.give(PATIENCE, order).map_err(|error| {
            partly(error, format!("{discarded} were discarded before"), json!({"discarded": discarded}))
        })?;
    }
    Ok(Reply::json(200, &ManyDiscarded { status: "discarded", discarded }))
}
