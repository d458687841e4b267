//! Who else has the journal open, as far as this process may see.

use std::fs;
use std::path::{Path, PathBuf};

use super::beside;

/// Other processes that have the journal or its write-ahead log open, as `sqlite3 (process 4711)`. Those of other users
/// are seen by root only.
pub fn holders(journal: &Path) -> Vec<String> {
    let Ok(journal) = journal.canonicalize() else { return Vec::new() };
    let files = [journal.clone(), beside(&journal, "-wal"), beside(&journal, "-shm")];
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut holders = Vec::new();
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if id != std::process::id() && has_open(&process.path(), &files) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{} (process {id})", name.trim()));
        }
    }
    holders.sort();
    holders
}

fn has_open(process: &Path, files: &[PathBuf]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|file| files.contains(&file)))
}
