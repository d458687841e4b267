//! Copies of the journal in a folder of their own, and the way back.
//!
//! `take` makes one while the sink runs, and lets it have its name only when it is proven; `restore` puts one in the
//! journal's place. `folder` knows the names, `seal` the bytes and their hash.

mod folder;
mod restore;
mod seal;
mod take;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::folder::{Backup, Folder};
pub use self::restore::{Comparison, Restore, Restored, restore};
pub use self::take::{Take, Taken, take};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::StoreError;

/// Bytes on the disk that a backup and a restore leave free: they are ingestion's.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// How often the running sink looks at the folder, for its metrics.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Copying,
    Checking,
    Compressing,
    Reading,
    Unpacking,
}

/// Is told of every step how many bytes of how many are done; of a step that counts none, 0 of 0. It may be called often.
pub type Watch = Arc<dyn Fn(Step, u64, u64) + Send + Sync>;

/// Why there is no backup, or nothing was restored. Each has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}")]
    Journal(#[from] StoreError),
    #[error("{path}: {doing}: {error}", path = path.display())]
    Output { path: PathBuf, doing: &'static str, error: io::Error },
    #[error("{path}: the disk has {free} free bytes, and {needed} are needed ({FREE_BYTES_MIN} of them stay free for the sink); make room, or name a folder on another disk. Nothing was changed", path = path.display())]
    NoRoom { path: PathBuf, free: u64, needed: u64 },
    #[error("{path}: another backup is being made there; wait for its end", path = path.display())]
    Busy { path: PathBuf },
    #[error("{path}: {what}. Nothing was changed; take another backup", path = path.display())]
    NotWhole { path: PathBuf, what: String },
    #[error("{path}: the journal holds what the backup does not:\n  {}\nNothing was changed. What Kafka still has of it would come again; the rest would be in the file that is moved aside only. See it with --dry-run; do it with --force", newer.join("\n  "), path = path.display())]
    Newer { path: PathBuf, newer: Vec<String> },
}

impl BackupError {
    /// From sysexits.h: 65 the backup is not whole, 73 it cannot be written, 75 try again, 1 refused; else the journal's.
    pub fn exit_code(&self) -> u8 {
        match self {
            BackupError::Journal(error) => error.exit_code(),
            BackupError::NotWhole { .. } => 65,
            BackupError::Output { .. } | BackupError::NoRoom { .. } => 73,
            BackupError::Busy { .. } => 75,
            BackupError::Newer { .. } => 1,
        }
    }

    fn output(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.to_owned();
        move |error| BackupError::Output { path, doing, error }
    }
}

/// Shows in the metrics what the folder has, until the sink stops. A folder on a network may keep it waiting.
pub fn show(folder: &Path, metrics: &Metrics, shutdown: &Shutdown) {
    let folder = Folder::new(folder);
    loop {
        let newest = folder.backups().unwrap_or_default().pop();
        metrics.backup.show(newest.map(|newest| (newest.made_at.as_second(), newest.bytes)));
        if shutdown.wait(LOOK_EVERY) {
            return;
        }
    }
}
