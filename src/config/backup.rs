//! Copies of the journal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::within;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    /// One box's own. One beside the journal is made where it is not there; any other must exist. Empty: none.
    pub folder: PathBuf,
    /// Backups that stay in the folder, 1 to 10,000.
    pub keep: u32,
    /// Whether they are compressed.
    pub zstd: bool,
}

impl Default for Backup {
    fn default() -> Backup {
        Backup { folder: "/var/lib/crm-events-sink/backups".into(), keep: 7, zstd: false }
    }
}

impl Backup {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("backup.keep", self.keep, 1..=10_000)
    }
}
