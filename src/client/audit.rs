//! `audit`: who did what.

use super::http::Request;
use super::table::Column::{Left, Right};
use super::{ClientError, Outcome, Shell};

/// Which entries are wanted.
pub struct Audit {
    pub limit: Option<u32>,
    pub cursor: Option<String>,
    pub action: Option<String>,
    pub since: Option<String>,
}

/// The newest entries.
///
/// # Errors
/// See [`ClientError`].
pub fn audit(shell: &Shell, wanted: Audit) -> Result<Outcome, ClientError> {
    let request = Request::get("/audit").with("limit", wanted.limit).with("cursor", wanted.cursor);
    let request = request.with("action", wanted.action).with("since", wanted.since);
    let columns = [
        Right("id"),
        Left("at"),
        Left("operator"),
        Left("action"),
        Left("target"),
        Right("count"),
        Left("outcome"),
        Left("reason"),
        Left("detail"),
    ];
    shell.list(&request, &columns)
}
