//! Whose fault an error is: the box's, which passes; the file's, which does not; and what a fault asks for.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use rustix::io::Errno;

use super::{StoreError, folder_hint};

impl StoreError {
    /// A fault of the box that may pass without anybody touching the journal: a full disk, an I/O error, a file
    /// system that became read-only, a file that another process holds.
    pub fn is_passing(&self) -> bool {
        match self {
            StoreError::Passing { .. } | StoreError::Busy => true,
            StoreError::Locked { .. }
            | StoreError::Unusable { .. }
            | StoreError::Foreign { .. }
            | StoreError::Damaged { .. } => false,
            StoreError::Sqlite(error) => is_passing(error.sqlite_error_code()),
        }
    }

    /// The file does not hold what the sink wrote.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged { .. } => true,
            StoreError::Sqlite(error) => is_damage(error.sqlite_error_code()),
            _ => false,
        }
    }

    /// There is no room on the disk. The index of the write-ahead log is given its room when it is made, and
    /// SQLite calls it an I/O error if there is none.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Passing { is_full, .. } => *is_full,
            StoreError::Sqlite(error) => {
                let no_index = Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
                error.sqlite_error_code() == Some(ErrorCode::DiskFull)
                    || error.sqlite_error().map(|error| error.extended_code) == no_index
            }
            _ => false,
        }
    }

    /// The system failed to read, write or sync: what it holds in memory may differ from what is on the disk.
    pub fn is_io(&self) -> bool {
        matches!(self, StoreError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
    }

    /// Names the file where it is the file that is at fault.
    pub fn located(self, journal: &Path) -> StoreError {
        match self {
            StoreError::Sqlite(error) => StoreError::at(journal, error),
            other => other,
        }
    }

    /// What SQLite said when it was asked for `journal`.
    pub(super) fn at(journal: &Path, error: rusqlite::Error) -> StoreError {
        let code = error.sqlite_error_code();
        if is_damage(code) {
            return StoreError::damaged(journal, error.to_string());
        }
        if is_passing(code) {
            return StoreError::Sqlite(error);
        }
        StoreError::unusable(journal, error.to_string())
    }

    /// What the system said when it was asked for `journal` or a file beside it.
    pub(super) fn from_io(journal: &Path, doing: &str, error: &io::Error) -> StoreError {
        let errno = Errno::from_io_error(error);
        let passing =
            [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
        if errno.is_some_and(|errno| passing.contains(&errno)) {
            let is_full = matches!(errno, Some(Errno::NOSPC | Errno::DQUOT));
            return StoreError::Passing { path: journal.to_owned(), what: format!("{doing}: {error}"), is_full };
        }
        StoreError::unusable(journal, format!("{doing}: {error}; {}", folder_hint(journal)))
    }
}

fn is_passing(code: Option<ErrorCode>) -> bool {
    matches!(
        code,
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

fn is_damage(code: Option<ErrorCode>) -> bool {
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_what_does_not_and_what_asks_for_room() {
        let sqlite = |code| StoreError::Sqlite(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        use rusqlite::ffi::*;
        for (code, passing, full, io, damage) in [
            (SQLITE_FULL, true, true, false, false),
            (SQLITE_IOERR_FSYNC, true, false, true, false),
            (SQLITE_IOERR_SHMSIZE, true, true, true, false),
            (SQLITE_BUSY, true, false, false, false),
            (SQLITE_READONLY, true, false, false, false),
            (SQLITE_CANTOPEN, true, false, false, false),
            (SQLITE_CORRUPT, false, false, false, true),
            (SQLITE_NOTADB, false, false, false, true),
            (SQLITE_ERROR, false, false, false, false),
        ] {
            let error = sqlite(code);
            let is = (error.is_passing(), error.is_full(), error.is_io(), error.is_damage());
            assert_eq!(is, (passing, full, io, damage), "{error}");
        }
        for (errno, passing, full) in [
            (Errno::NOSPC, true, true),
            (Errno::ROFS, true, false),
            (Errno::NOENT, false, false),
            (Errno::ACCESS, false, false),
        ] {
            let error = StoreError::from_io(Path::new("/j.db"), "cannot", &errno.into());
            assert_eq!((error.is_passing(), error.is_full()), (passing, full), "{error}");
        }
    }
}
