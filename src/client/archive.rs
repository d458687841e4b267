//! `archive list`: where events went before they were deleted.

use super::http::Request;
use super::table::Column::{Left, Right};
use super::{ClientError, Outcome, Shell};

/// Which files are wanted.
pub struct Files {
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

/// The next files.
///
/// # Errors
/// See [`ClientError`].
pub fn list(shell: &Shell, wanted: Files) -> Result<Outcome, ClientError> {
    let request = Request::get("/archive").with("limit", wanted.limit).with("cursor", wanted.cursor);
    let columns = [
        Right("id"),
        Left("day"),
        Left("tenant_id"),
        Right("rows"),
        Right("bytes"),
        Right("first_event_id"),
        Right("last_event_id"),
        Left("path"),
    ];
    shell.list(&request, &columns)
}
