//! `crm-events-sink quarantine`: a journal that cannot be used goes aside, every byte of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Lock, StoreError, beside, folder};

/// Moves the journal and what SQLite keeps beside it to names of `now`; the journal's new name. The three keep
/// belonging together: the new name opens as the database that it was. The lock file stays where it is.
///
/// # Errors
/// If a sink runs, if there is nothing to move, or the system refuses.
pub fn quarantine(journal: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let _lock = Lock::acquire(journal)?;
    let aside = beside(journal, &format!(".quarantined-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    let moved = move_aside(journal, &aside)?;
    if moved == 0 {
        return Err(StoreError::unusable(journal, "there is nothing to quarantine; give the file with --journal"));
    }
    let synced = File::open(folder(journal)).and_then(|folder| folder.sync_all());
    synced.map_err(|error| StoreError::from_io(journal, "cannot sync the folder", &error))?;
    Ok(aside)
}

/// Renames the journal and what SQLite keeps beside it, without ever going over another file; how many there were.
pub(super) fn move_aside(journal: &Path, aside: &Path) -> Result<usize, StoreError> {
    // The file first: should this be cut short, its log without it is refused at the next start, while the file
    // without its log would be taken for the whole.
    let mut moved = 0;
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (beside(journal, suffix), beside(aside, suffix));
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).map_err(|error| {
            let doing = format!("cannot move {} to {}", from.display(), to.display());
            StoreError::from_io(journal, &doing, &error.into())
        })?;
        moved += 1;
    }
    Ok(moved)
}
