//! A new backup: it has its name only when it is proven.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::seal::{compress, read_back};
use super::{BackupError, Step, Watch};
use crate::store::{self, JournalContents, StoreError};

pub struct Take<'a> {
    pub journal: &'a Path,
    pub folder: &'a Path,
    /// How many backups stay in the folder, this one included. `None`: all.
    pub keep: Option<u32>,
    pub zstd: bool,
}

#[derive(Debug)]
pub struct Taken {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: String,
    pub contents: JournalContents,
    /// Older backups that are gone.
    pub removed: Vec<PathBuf>,
    pub took: Duration,
}

/// Copies the journal while the sink may write it, checks the copy, reads it again from the disk, and gives it its name.
/// Only then are older ones removed.
///
/// # Errors
/// See [`BackupError`]. A backup that failed leaves nothing behind, and every older one.
pub fn take(wanted: &Take, watch: &Watch) -> Result<Taken, BackupError> {
    let (began, folder) = (Instant::now(), Folder::new(wanted.folder));
    folder.make(wanted.journal)?;
    let _lock = folder.lock()?;
    folder.clear()?;
    let bytes = store::snapshot_bytes(wanted.journal)?;
    // What is compressed stands beside what it is made of; at worst it is as large.
    folder.ask_for(if wanted.zstd { bytes * 2 } else { bytes })?;

    let name = folder.new_name(if wanted.zstd { ".zst" } else { "" });
    let copy = folder.unfinished()?;
    copy_journal(wanted, copy.path(), bytes, watch)?;
    let contents = store::journal_contents(copy.path())?;

    let failed = BackupError::output;
    let (file, expected) = if wanted.zstd {
        let packed = folder.unfinished()?;
        let hash = compress(copy.path(), packed.as_file(), wanted.folder, watch);
        (packed, hash.map_err(failed(copy.path(), "cannot be compressed"))?)
    } else {
        let (hash, _) = read_back(copy.path(), watch)?;
        (copy, hash)
    };
    file.as_file().sync_all().map_err(failed(file.path(), "cannot be synced"))?;
    let (sha256, inside) = read_back(file.path(), watch)?;
    if inside != expected {
        let what = "the disk does not give back what was written".to_owned();
        return Err(BackupError::NotWhole { path: file.path().to_owned(), what });
    }
    let bytes = file.as_file().metadata().map_err(failed(file.path(), "cannot be read"))?.len();
    folder.publish(file, &name, &sha256)?;
    let removed = wanted.keep.map_or(Ok(Vec::new()), |keep| folder.keep(keep))?;
    Ok(Taken { path: name, bytes, sha256, contents, removed, took: began.elapsed() })
}

fn copy_journal(wanted: &Take, copy: &Path, bytes: u64, watch: &Watch) -> Result<(), BackupError> {
    let (told, written) = (Arc::clone(watch), copy.to_owned());
    let tick = move || told(Step::Copying, store::file_sizes(&written).0, bytes);
    store::snapshot_into(wanted.journal, copy, tick).map_err(|error| no_room(error, wanted.folder))?;
    let told = Arc::clone(watch);
    match store::check_copy(copy, move || told(Step::Checking, 0, 0))? {
        None => Ok(()),
        // A copy is made of what stands in the journal: most likely it is damaged there.
        Some(what) => Err(StoreError::damaged(wanted.journal, format!("a copy of it is not whole: {what}")).into()),
    }
}

/// The disk that is full is the backup's.
fn no_room(error: StoreError, folder: &Path) -> BackupError {
    if error.is_full() {
        let error = std::io::Error::new(std::io::ErrorKind::StorageFull, error.to_string());
        return BackupError::output(folder, "the copy cannot be written")(error);
    }
    error.into()
}
