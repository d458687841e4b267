//! `GET /archive`: the files that events went to before they were deleted.

use super::OperatorApi;
use super::call::{CURSOR, Call};
use crate::serve::reply::{ApiError, Reply};

pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let limit = call.limit();
    let files = api.readers.archived_files(call.tenant(), call.number(&CURSOR).unwrap_or_default(), limit)?;
    let next = files.last().and_then(|last| call.next_page(files.len(), limit, last.id));
    Ok(Reply::page(&files, next))
}
