//! Makes sure that what the file shows is on the disk.
//!
//! When writing back or syncing fails, Linux reports it once, marks the pages clean and keeps them: they read as if
//! they had been written, and the next sync of the same file answers that all is well ("fsyncgate"). So a commit
//! that failed in its sync may be found in the write-ahead log by the next one to open it, valid by its checksums,
//! and be gone after a power cut; its offsets would have been committed to Kafka by then.
//!
//! Hence after an I/O error, and at a start that finds a log (the process before may have died of one), nothing is
//! appended, and nothing is called durable, before one whole `wal_checkpoint(TRUNCATE)`: it writes every page that
//! the log shows into the file anew, syncs that, and begins the log again, so that no later commit stands behind
//! frames of doubtful fate. A checkpoint that fails changes nothing of that: SQLite counts pages as copied only
//! after the file's sync, and the next attempt writes all of them again.
//!
//! A reader that stays keeps the log from being begun again. That delays ingestion until it leaves, and health
//! names the cause.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{StoreError, beside};

/// How long one attempt waits for readers to leave. The writer comes back every half second, and looks in between
/// whether the sink is to stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// # Errors
/// A fault of the box, or [`StoreError::Passing`] while somebody reads or writes.
pub(super) fn settle(connection: &Connection, journal: &Path) -> Result<(), StoreError> {
    connection.busy_timeout(PATIENCE)?;
    let held = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?;
    if !held {
        return Ok(());
    }
    let what = format!(
        "another program holds the journal, so that its write-ahead log cannot be emptied after a fault or a crash; end what `fuser {}` lists beside the sink",
        beside(journal, "-wal").display()
    );
    Err(StoreError::Passing { path: journal.to_owned(), what, is_full: false })
}
