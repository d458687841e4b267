//! `crm-events-sink sql`: any SQL on the journal, by the SQLite that the sink itself uses.

use std::io::{self, Write};
use std::path::Path;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, OpenFlags};

use super::{BUSY_TIMEOUT, check_head};

#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("{0}")]
    Store(#[from] super::StoreError),
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

/// Runs the statements of `sql` one after the other and writes their rows to `out` as `sqlite3` does: a line a row,
/// `|` between columns. Each statement commits by itself unless `sql` says BEGIN. It works while the sink runs;
/// a statement that writes waits up to 5 s for the sink's transaction to end.
///
/// # Errors
/// If the journal does not exist, or a statement fails; the statements before it stand.
pub fn run_sql(journal: &Path, sql: &str, read_only: bool, out: &mut impl Write) -> Result<(), SqlError> {
    let access = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    check_head(journal)?;
    let connection = Connection::open_with_flags(journal, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = ON")?;
    let mut statements = Batch::new(&connection, sql);
    while let Some(mut statement) = statements.next()? {
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                if column > 0 {
                    out.write_all(b"|")?;
                }
                write_value(row.get_ref(column)?, out)?;
            }
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

fn write_value(value: ValueRef, out: &mut impl Write) -> io::Result<()> {
    match value {
        ValueRef::Null => Ok(()),
        ValueRef::Integer(number) => write!(out, "{number}"),
        ValueRef::Real(number) => write!(out, "{number:?}"),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => out.write_all(bytes),
    }
}
