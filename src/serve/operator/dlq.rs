//! `GET /dlq`, `GET /dlq/{id}` and `GET /dlq/groups`.

use super::OperatorApi;
use super::call::Call;
use crate::dead_letter::work::LetterFilter;
use crate::serve::reply::{ApiError, Reply};

const STATES: [&str; 7] = ["open", "journaled", "republishing", "republished", "uncertain", "discarded", "all"];

/// The open ones, as the replaced system showed them; with a condition, with everything that was done about them.
pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let limit = call.limit()?;
    if call.names().all(|name| name == "limit") {
        return Ok(Reply::json(200, &api.readers.latest_dead_letters(limit)?));
    }
    let filter = LetterFilter {
        topic: call.text("topic")?,
        reason: call.text("reason")?,
        since: call.time("since")?,
        until: call.time("until")?,
        group: call.text("group")?,
    };
    let state = state(call)?;
    let before = call.number("cursor", 1..=i64::MAX)?.unwrap_or(i64::MAX);
    let letters = api.readers.dead_letters(&filter, state.as_deref(), before, limit)?;
    let next = letters.last().and_then(|last| call.next_page(letters.len(), limit, last.id));
    Ok(Reply::page(&letters, next))
}

pub fn groups(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &api.readers.dead_letter_groups(state(call)?.as_deref())?))
}

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id()?;
    let letter = api.readers.dead_letter(id)?.ok_or(ApiError::NoSuchRow { what: "dead letter", id })?;
    Ok(Reply::json(200, &letter))
}

/// `None`: any. Those that are open where nothing else is asked for.
fn state(call: &Call) -> Result<Option<String>, ApiError> {
    let state = call.word("state", &STATES)?.unwrap_or_else(|| "open".to_owned());
    Ok(Some(state).filter(|state| state != "all"))
}
