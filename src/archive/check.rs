//! The files of the archive, held against what the journal lists.

use std::path::Path;

use super::folder::digest_of;
use super::format::Reading;
use super::{ArchiveError, PAGE};
use crate::removal::ArchivedFile;
use crate::store::{Readers, StoreError};

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("{0}")]
    Unreadable(String),
    #[error("holds {bytes} bytes with SHA-256 {sha256}, other than what was written")]
    Changed { bytes: i64, sha256: String },
    #[error("holds {found} events, and {listed} are listed")]
    Rows { found: i64, listed: i64 },
    #[error("is there, and erasure {0} had removed it")]
    Erased(i64),
}

/// Holds every file that the journal lists against the listing, in its order, and gives each with what is wrong with it.
///
/// # Errors
/// If the journal cannot be read.
pub fn check(
    folder: &Path,
    readers: &Readers,
    mut each: impl FnMut(&ArchivedFile, Option<Finding>),
) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let files = readers.archived_files(None, after, PAGE)?;
        let Some(last) = files.last() else { return Ok(()) };
        after = last.id;
        for file in &files {
            each(file, check_file(&folder.join(&file.path), file));
        }
    }
}

fn check_file(path: &Path, listed: &ArchivedFile) -> Option<Finding> {
    if let Some(erasure) = listed.erased {
        return path.exists().then_some(Finding::Erased(erasure));
    }
    let unreadable = |error: ArchiveError| match error {
        ArchiveError::File { error, .. } => Finding::Unreadable(error.to_string()),
        other => Finding::Unreadable(other.to_string()),
    };
    let (sha256, bytes) = match digest_of(path) {
        Ok(found) => found,
        Err(error) => return Some(unreadable(error)),
    };
    if sha256 != listed.sha256 {
        return Some(Finding::Changed { bytes, sha256 });
    }
    match Reading::begin(path) {
        Err(error) => Some(Finding::Unreadable(error.to_string())),
        Ok(reading) if reading.rows() == listed.rows => None,
        Ok(reading) => Some(Finding::Rows { found: reading.rows(), listed: listed.rows }),
    }
}
