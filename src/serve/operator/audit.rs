//! `GET /audit`: what operators did, or tried to.

use super::OperatorApi;
use super::call::{CURSOR, Call};
use super::dlq::SINCE;
use super::parameter::Parameter;
use crate::serve::reply::{ApiError, Reply};
use crate::store::AuditFilter;

pub const ACTION: Parameter = Parameter::text("action", "What was done", "replay.job");

pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let filter = AuditFilter {
        tenant: call.tenant().map(str::to_owned),
        action: call.text(&ACTION),
        since: call.time(&SINCE),
        before_id: call.number(&CURSOR),
    };
    let limit = call.limit();
    let rows = api.readers.audit(&filter, limit)?;
    let next = rows.last().and_then(|last| call.next_page(rows.len(), limit, last.id));
    Ok(Reply::page(&rows, next))
}
