//! The box's name in its Kafka group. It stands in the journal, and in the lock file beside it, so that a journal that
//! takes the place of a lost or quarantined one keeps it: what the group says this box has read is then known to be the
//! box's own, and it is read again.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::{beside, journal_info};

/// Hexadecimal digits of a name.
const DIGITS: usize = 16;

/// Gives a journal that was just made the name that its predecessor had.
pub fn inherit(connection: &Connection, journal: &Path) -> rusqlite::Result<()> {
    let kept = fs::read_to_string(beside(journal, ".lock")).unwrap_or_default();
    let name = kept.trim();
    if name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        connection.execute("UPDATE journal_info SET value = ?1 WHERE name = 'member_id'", [name])?;
    }
    Ok(())
}

/// Keeps the journal's name beside it.
pub fn keep(connection: &Connection, journal: &Path) -> rusqlite::Result<()> {
    let name = journal_info(connection, "member_id")?;
    let path = beside(journal, ".lock");
    if fs::read_to_string(&path).is_ok_and(|kept| kept.trim() == name) {
        return Ok(());
    }
    if let Err(error) = fs::write(&path, &name) {
        // It matters only when the journal is lost, and the next start tries again.
        tracing::debug!(%error, "the member's name was not noted in the lock file");
    }
    Ok(())
}
