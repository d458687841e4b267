//! Room, files and backups.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{Finding, Patient};
use crate::backup::Folder;
use crate::store::{self, file_sizes, free_bytes};

/// Less room is soon none: a busy box writes so much in hours.
const FREE_SOON_BYTES: u64 = 1 << 30;
/// The log is copied into the file long before it has so many bytes.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// A daily backup that failed once is late; twice is no accident.
const BACKUP_AGE_MAX_S: i64 = 2 * 86_400;

pub fn folder(patient: &Patient) -> Finding {
    let check = "journal folder";
    let folder = store::folder(&patient.config.journal.path);
    let at = folder.display();
    match fs::metadata(folder) {
        Err(error) => Finding::fail(check, format!("{at}: {error}"), "make it, for the service's user to write in"),
        Ok(is) if !is.is_dir() => Finding::fail(check, format!("{at} is no folder"), "set journal.path"),
        Ok(is) if is.mode() & 0o007 != 0 => {
            let what = format!("every user of this box may look into {at} (mode {:o})", is.mode() & 0o777);
            Finding::warn(check, what, format!("chmod o-rwx {at}"))
        }
        Ok(_) => Finding::ok(check, format!("{at} is there")),
    }
}

/// Something that was once done as root leaves files that the service cannot write.
pub fn files(patient: &Patient) -> Finding {
    let check = "journal files";
    let journal = &patient.config.journal.path;
    let Ok(folder) = fs::metadata(store::folder(journal)) else { return Finding::ok(check, "there is no folder") };
    for suffix in ["", "-wal", "-shm", ".lock", ".reserve"] {
        let path = PathBuf::from(format!("{}{suffix}", journal.display()));
        let at = path.display();
        let Ok(file) = fs::symlink_metadata(&path) else { continue };
        if file.uid() != folder.uid() {
            let what = format!("{at} belongs to the user {}, its folder to {}", file.uid(), folder.uid());
            return Finding::fail(check, what, format!("chown --reference={} {at}", store::folder(journal).display()));
        }
        if file.mode() & 0o200 == 0 {
            return Finding::fail(check, format!("{at} is not writable for its owner"), format!("chmod u+w {at}"));
        }
        if file.mode() & 0o006 != 0 && folder.mode() & 0o001 != 0 {
            let what = format!("every user of this box may read {at} (mode {:o})", file.mode() & 0o777);
            return Finding::warn(check, what, format!("chmod o-rwx {at}"));
        }
    }
    Finding::ok(check, "they belong to the folder's user")
}

pub fn room(patient: &Patient) -> Finding {
    let check = "disk";
    let folder = store::folder(&patient.config.journal.path);
    let needed = patient.config.journal.reserve_bytes + patient.config.write.batch_bytes_max as u64;
    let fix = "make room, or prune (docs/erasure.md)";
    match free_bytes(folder) {
        Err(error) => Finding::fail(check, format!("{}: {error}", folder.display()), "see journal folder"),
        Ok(free) if free < needed => {
            Finding::fail(check, format!("{free} bytes are free, and ingestion needs {needed}"), fix)
        }
        Ok(free) if free < FREE_SOON_BYTES => Finding::warn(check, format!("{free} bytes are free"), fix),
        Ok(free) => Finding::ok(check, format!("{} MiB are free", free >> 20)),
    }
}

pub fn log(patient: &Patient) -> Finding {
    let check = "write-ahead log";
    let (_, bytes) = file_sizes(&patient.config.journal.path);
    if bytes > LOG_BYTES_MAX {
        let fix = "somebody reads the journal for a long time (a backup, sql, an export): end it, and look again";
        return Finding::warn(check, format!("{bytes} bytes wait to be copied into the journal"), fix);
    }
    Finding::ok(check, format!("{bytes} bytes"))
}

pub fn backup(patient: &Patient) -> Finding {
    let check = "backup";
    let folder = &patient.config.backup.folder;
    let at = folder.display();
    if folder.as_os_str().is_empty() {
        return Finding::warn(check, "backup.folder names none", "set it, and enable crm-events-sink-backup.timer");
    }
    let fix = "systemctl enable --now crm-events-sink-backup.timer; now: crm-events-sink backup";
    let newest = Folder::new(folder).backups().map(|mut backups| backups.pop());
    match newest {
        Err(error) => Finding::warn(check, format!("{at}: {error}"), fix),
        Ok(None) => Finding::warn(check, format!("{at} has none"), fix),
        Ok(Some(newest)) => {
            let age = patient.now.as_second() - newest.made_at.as_second();
            let what = format!("{} is {} hours old", newest.path.display(), age / 3600);
            let is_old = age > BACKUP_AGE_MAX_S;
            if is_old { Finding::warn(check, what, fix) } else { Finding::ok(check, what) }
        }
    }
}
