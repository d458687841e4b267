//! `events`: what came in.

use super::http::Request;
use super::table::Column::{Left, Right};
use super::{ClientError, Outcome, Shell};

/// The newest events.
///
/// # Errors
/// See [`ClientError`].
pub fn latest(shell: &Shell, limit: Option<u32>) -> Result<Outcome, ClientError> {
    let request = Request::get("/events/latest").with("limit", limit);
    shell.list(&request, &[Right("id"), Left("tenant_id"), Left("topic"), Left("received_at")])
}

/// Everything known of one event.
///
/// # Errors
/// See [`ClientError`].
pub fn show(shell: &Shell, id: i64) -> Result<Outcome, ClientError> {
    shell.show(&Request::get(format!("/events/{id}")))
}
