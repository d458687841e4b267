//! `GET /dlq`, `GET /dlq/{id}` and `GET /dlq/groups`.

use super::OperatorApi;
use super::call::{CURSOR, Call, LIMIT};
use super::parameter::Parameter;
use crate::dead_letter::work::LetterFilter;
use crate::serve::reply::{ApiError, Reply};

pub const ID: Parameter = Parameter::id("The dead letter");
pub const TOPIC: Parameter = Parameter::text("topic", "The topic's whole name", "apexflow.leads.created");
pub const REASON: Parameter =
    Parameter::text("reason", "Why they are dead letters: the word before the error", "not_json");
pub const SINCE: Parameter = Parameter::time("since", "Received at or after this time", "2025-11-03");
pub const UNTIL: Parameter = Parameter::time("until", "Received before this time", "2025-11-04 12:00:00");
pub const GROUP: Parameter =
    Parameter::text("group", "One group of errors, as GET /dlq/groups names it", "0f1e2d3c4b5a6978");
pub const STATE: Parameter = Parameter::word(
    "state",
    &["open", "journaled", "republishing", "republished", "uncertain", "discarded", "erased", "all"],
    "What was done about them; open where it is left out",
);

/// The parameters of the list.
pub const FILTERS: &[&Parameter] = &[&TOPIC, &REASON, &SINCE, &UNTIL, &GROUP, &STATE, &CURSOR, &LIMIT];

/// The open ones, as the replaced system showed them; with a condition, with everything that was done about them.
pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let limit = call.limit();
    if !call.is_conditional() {
        return Ok(Reply::json(200, &api.readers.latest_dead_letters(call.tenant(), limit)?));
    }
    let filter = LetterFilter {
        tenant: call.tenant().map(str::to_owned),
        topic: call.text(&TOPIC),
        reason: call.text(&REASON),
        since: call.time(&SINCE),
        until: call.time(&UNTIL),
        group: call.text(&GROUP),
    };
    let before = call.number(&CURSOR).unwrap_or(i64::MAX);
    let letters = api.readers.dead_letters(&filter, state(call).as_deref(), before, limit)?;
    let next = letters.last().and_then(|last| call.next_page(letters.len(), limit, last.id));
    Ok(Reply::page(&letters, next))
}

pub fn groups(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &api.readers.dead_letter_groups(call.tenant(), state(call).as_deref())?))
}

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let letter = api.readers.dead_letter(call.tenant(), id)?;
    Ok(Reply::json(200, &letter.ok_or(ApiError::NoSuchRow { what: "dead letter", id })?))
}

/// `None`: any. Those that are open where nothing else is asked for.
fn state(call: &Call) -> Option<String> {
    let state = call.text(&STATE).unwrap_or_else(|| "open".to_owned());
    Some(state).filter(|state| state != "all")
}
