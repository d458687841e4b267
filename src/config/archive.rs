//! Where events go before they are deleted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Archive {
    /// The folder of the Parquet files, which must exist. Empty: what is deleted is in no archive.
    pub folder: PathBuf,
}

impl Archive {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.folder.as_os_str().is_empty() || self.folder.is_absolute() {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(ConfigError(format!("archive.folder: {folder} is no whole path; give one that begins with /, or none")))
    }
}
