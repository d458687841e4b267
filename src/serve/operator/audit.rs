//! `GET /audit`: what operators did, or tried to.

use super::OperatorApi;
use super::call::Call;
use crate::serve::reply::{ApiError, Reply};
use crate::store::AuditFilter;

pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let filter = AuditFilter {
        action: call.text("action")?,
        since: call.time("since")?,
        before_id: call.number("cursor", 1..=i64::MAX)?,
    };
    let limit = call.limit()?;
    let rows = api.readers.audit(&filter, limit)?;
    let next = rows.last().and_then(|last| call.next_page(rows.len(), limit, last.id));
    Ok(Reply::page(&rows, next))
}
