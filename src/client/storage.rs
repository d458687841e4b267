//! `storage`: the journal's room.

use super::http::Request;
use super::{ClientError, Outcome, Shell};

/// What the journal takes, and how long the disk lasts.
///
/// # Errors
/// See [`ClientError`].
pub fn storage(shell: &Shell) -> Result<Outcome, ClientError> {
    shell.show(&Request::get("/storage"))
}
