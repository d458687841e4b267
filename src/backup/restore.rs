//! A backup takes the journal's place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::folder::Folder;
use super::seal::{has_its_hash, unpack};
use super::{BackupError, Step, Watch};
use crate::store::{self, JournalContents, Lock, StoreError};

pub struct Restore<'a> {
    pub file: &'a Path,
    pub journal: &'a Path,
    /// Do all but the exchange.
    pub dry_run: bool,
    /// Even if the journal holds what the backup does not.
    pub force: bool,
}

/// The backup beside the journal.
#[derive(Debug)]
pub struct Comparison {
    pub backup: JournalContents,
    /// What the journal holds; why that cannot be seen; `None` where there is no journal.
    pub journal: Option<Result<JournalContents, String>>,
    /// What only the journal holds, a sentence each.
    pub newer: Vec<String>,
    /// Whether the file was held against the hash beside it.
    pub is_sealed: bool,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Restored {
    pub comparison: Comparison,
    /// What was replaced; `None` where nothing was, or in a dry run.
    pub aside: Option<PathBuf>,
}

/// Proves the backup, compares it with the journal, and exchanges the two. The sink must be stopped; for a dry run it may
/// run.
///
/// # Errors
/// See [`BackupError`]; nothing was changed then, unless it says so.
pub fn restore(wanted: &Restore, watch: &Watch) -> Result<Restored, BackupError> {
    let lock = if wanted.dry_run { None } else { Some(Lock::acquire(wanted.journal)?) };
    let (copy, is_sealed) = proven_copy(wanted, watch)?;
    let backup = store::journal_contents(copy.path())?;
    let journal = journal_now(wanted.journal)?;
    let newer = match &journal {
        Some(Ok(journal)) => newer(journal, &backup),
        _ => Vec::new(),
    };
    let bytes = store::file_sizes(copy.path()).0;
    let comparison = Comparison { backup, journal, newer, is_sealed, bytes };
    let Some(lock) = lock else { return Ok(Restored { comparison, aside: None }) };
    if !comparison.newer.is_empty() && !wanted.force {
        return Err(BackupError::Newer { path: wanted.journal.to_owned(), newer: comparison.newer });
    }
    let known = comparison.journal.as_ref().and_then(|journal| journal.as_ref().ok());
    store::prepare_copy(copy.path(), known)?;
    let copy = copy.into_temp_path();
    let aside = store::put_in_place(&lock, wanted.journal, &copy, Timestamp::now())?;
    Ok(Restored { comparison, aside })
}

/// A copy of the journal in the backup, on the journal's disk, that was read to its end and found whole; and whether the
/// backup had a hash.
fn proven_copy(wanted: &Restore, watch: &Watch) -> Result<(NamedTempFile, bool), BackupError> {
    let not_whole = |what: String| BackupError::NotWhole { path: wanted.file.to_owned(), what };
    let sealed = has_its_hash(wanted.file, watch)?;
    if sealed == Some(false) {
        return Err(not_whole("it is not what it was when its .sha256 was written".to_owned()));
    }
    let folder = Folder::of_journal(wanted.journal);
    if !wanted.dry_run {
        folder.clear()?;
    }
    let mut copy = folder.unfinished()?;
    unpack(wanted.file, copy.as_file_mut(), folder.path(), watch).map_err(|error| match error.kind() {
        // What zstd says of bytes that are none of its own, or too few.
        std::io::ErrorKind::Other | std::io::ErrorKind::UnexpectedEof => not_whole(error.to_string()),
        _ => BackupError::output(wanted.file, "cannot be unpacked")(error),
    })?;
    let told = Arc::clone(watch);
    match store::check_copy(copy.path(), move || told(Step::Checking, 0, 0)) {
        Ok(None) => Ok((copy, sealed.is_some())),
        Ok(Some(what)) | Err(StoreError::Unusable { what, .. }) => Err(not_whole(what)),
        Err(StoreError::Foreign { .. }) => Err(not_whole("what is in it is no journal of the sink".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// A damaged journal is what a backup is for; one that cannot be read just now may be well.
fn journal_now(journal: &Path) -> Result<Option<Result<JournalContents, String>>, BackupError> {
    if !journal.exists() {
        return Ok(None);
    }
    match store::journal_contents(journal) {
        Ok(contents) => Ok(Some(Ok(contents))),
        Err(error) if error.is_passing() => Err(error.into()),
        Err(StoreError::Damaged { what, .. } | StoreError::Unusable { what, .. }) => Ok(Some(Err(what))),
        Err(error) => Ok(Some(Err(error.to_string()))),
    }
}

/// What `journal` holds that `backup` does not.
fn newer(journal: &JournalContents, backup: &JournalContents) -> Vec<String> {
    let mut newer = Vec::new();
    if journal.journal_id != backup.journal_id {
        newer.push("it is another journal: the backup was not made of it".to_owned());
    }
    for now in &journal.offsets {
        let then = backup.offsets.iter().find(|then| (&then.topic, then.partition) == (&now.topic, now.partition));
        let then = then.map_or((0, 0), |then| (then.epoch, then.next_offset));
        if (now.epoch, now.next_offset) > then {
            newer
                .push(format!("{}/{}: next offset {} (backup: {})", now.topic, now.partition, now.next_offset, then.1));
        }
    }
    for (table, what) in [
        ("event_journal", "events"),
        ("event_dlq", "dead letters"),
        ("replay_job", "replay jobs"),
        ("audit", "rows of audit"),
    ] {
        let (now, then) = (journal.last_id(table), backup.last_id(table));
        if now > then {
            newer.push(format!("{what} {} to {now}", then + 1));
        }
    }
    if journal.erasures > backup.erasures {
        let count = journal.erasures - backup.erasures;
        newer.push(format!("{count} erasures, which would be undone: erase again afterwards"));
    }
    newer
}
