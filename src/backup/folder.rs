//! The folder that has the backups: one box's, and nothing else is removed from it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::process::geteuid;
use tempfile::NamedTempFile;

use super::{BackupError, FREE_BYTES_MIN};
use crate::store::free_bytes;

/// UTC, to the second.
const NAME: &str = "journal-%Y%m%dT%H%M%SZ.db";
/// Begins what is not a backup yet.
const UNFINISHED: &str = ".unfinished-backup-";
/// … and what is not a restored journal yet.
const UNFINISHED_RESTORE: &str = ".unfinished-restore-";
pub const HASH: &str = ".sha256";

pub struct Folder {
    path: PathBuf,
    unfinished: &'static str,
}

/// A backup that is whole: nothing has such a name before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub path: PathBuf,
    pub made_at: Timestamp,
    pub bytes: u64,
}

impl Folder {
    pub fn new(path: &Path) -> Folder {
        Folder { path: path.to_owned(), unfinished: UNFINISHED }
    }

    /// The folder of a journal that is being restored.
    pub fn of_journal(journal: &Path) -> Folder {
        let folder = journal.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Folder { path: folder.to_owned(), unfinished: UNFINISHED_RESTORE }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder where it stands beside the journal. Another must be there: where a disk that is to be mounted is
    /// not, its backups would land on this one.
    pub fn make(&self, journal: &Path) -> Result<(), BackupError> {
        if self.path.is_dir() {
            return Ok(());
        }
        if self.path.parent() != journal.parent() {
            let error = io::Error::new(io::ErrorKind::NotFound, "make it first, for the service's user to write in");
            return Err(BackupError::output(&self.path, "there is no such folder")(error));
        }
        let made = DirBuilder::new().mode(0o700).create(&self.path);
        made.and_then(|()| give_away(&self.path, self.path.parent()))
            .map_err(BackupError::output(&self.path, "cannot make the folder"))
    }

    /// Held while a backup is made.
    pub fn lock(&self) -> Result<File, BackupError> {
        let path = self.path.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.and_then(|file| give_away(&path, Some(&self.path)).map(|()| file));
        let file = file.map_err(BackupError::output(&path, "cannot be written"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(BackupError::Busy { path: self.path.clone() }),
            Err(TryLockError::Error(error)) => Err(BackupError::output(&path, "cannot be locked")(error)),
        }
    }

    /// Removes what a backup, or a restore, that was cut short left behind. Only with the folder's lock, or the journal's.
    pub fn clear(&self) -> Result<(), BackupError> {
        let failed = || BackupError::output(&self.path, "cannot remove what was left behind");
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let lone = name.strip_suffix(HASH).is_some_and(|of| made_at(of).is_some() && !self.path.join(of).exists());
            if name.starts_with(self.unfinished) || lone {
                fs::remove_file(&path).map_err(failed())?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`BackupError::NoRoom`] unless the disk has `bytes`, and room for the sink beside them.
    pub fn ask_for(&self, bytes: u64) -> Result<(), BackupError> {
        let free = free_bytes(&self.path).map_err(BackupError::output(&self.path, "cannot ask for room"))?;
        let needed = bytes.saturating_add(FREE_BYTES_MIN);
        if free < needed {
            return Err(BackupError::NoRoom { path: self.path.clone(), free, needed });
        }
        Ok(())
    }

    /// An empty file, for the service's user alone; gone when it is dropped.
    pub fn unfinished(&self) -> Result<NamedTempFile, BackupError> {
        let made = tempfile::Builder::new().prefix(self.unfinished).tempfile_in(&self.path);
        made.map_err(BackupError::output(&self.path, "cannot make a file"))
    }

    /// A name of this moment that nothing has, with `suffix`.
    pub fn new_name(&self, suffix: &str) -> PathBuf {
        loop {
            let name = Timestamp::now().strftime(NAME).to_string();
            let taken = ["", ".zst"].iter().any(|suffix| self.path.join(format!("{name}{suffix}")).exists());
            if !taken {
                return self.path.join(name + suffix);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Gives a proven file its name, its hash first: what has a backup's name is whole.
    pub fn publish(&self, file: NamedTempFile, name: &Path, hash: &str) -> Result<(), BackupError> {
        let of = name.file_name().unwrap_or_default().to_string_lossy();
        let line = self.unfinished()?;
        let written = fs::write(line.path(), format!("{hash}  {of}\n")).and_then(|()| line.as_file().sync_all());
        written.map_err(BackupError::output(line.path(), "cannot be written"))?;
        for file in [&line, &file] {
            let given = give_away(file.path(), Some(&self.path));
            given.map_err(BackupError::output(file.path(), "cannot be given to the folder's owner"))?;
        }
        for (file, name) in [(line, with_suffix(name, HASH)), (file, name.to_owned())] {
            let named = file.persist_noclobber(&name).map_err(|error| error.error);
            named.map_err(BackupError::output(&name, "cannot be made"))?;
            self.sync()?;
        }
        Ok(())
    }

    /// Removes all but the `keep` newest, the oldest first; those that are gone.
    pub fn keep(&self, keep: u32) -> Result<Vec<PathBuf>, BackupError> {
        let failed = BackupError::output;
        let backups = self.backups().map_err(failed(&self.path, "cannot be read"))?;
        let mut removed = Vec::new();
        for Backup { path, .. } in &backups[..backups.len().saturating_sub(keep as usize)] {
            fs::remove_file(path).map_err(failed(path, "cannot be removed"))?;
            match fs::remove_file(with_suffix(path, HASH)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(path, "its hash cannot be removed")(error));
                }
                _ => removed.push(path.clone()),
            }
        }
        self.sync()?;
        Ok(removed)
    }

    /// The oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn backups(&self) -> io::Result<Vec<Backup>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(made_at) = made_at(&entry.file_name().to_string_lossy()) else { continue };
            found.push(Backup { path: entry.path(), made_at, bytes: entry.metadata()?.len() });
        }
        found.sort_by(|a, b| (a.made_at, &a.path).cmp(&(b.made_at, &b.path)));
        Ok(found)
    }

    fn sync(&self) -> Result<(), BackupError> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(BackupError::output(&self.path, "cannot be synced"))
    }
}

/// What root makes, by hand, belongs to whoever has the folder: the service goes on with it every day.
fn give_away(path: &Path, folder: Option<&Path>) -> io::Result<()> {
    let Some(folder) = folder.filter(|_| geteuid().is_root()) else { return Ok(()) };
    let owner = fs::metadata(folder)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// When a backup of this name was made; `None` for other names.
fn made_at(name: &str) -> Option<Timestamp> {
    let name = name.strip_suffix(".zst").unwrap_or(name);
    let made_at = TimeZone::UTC.to_timestamp(DateTime::strptime(NAME, name).ok()?).ok()?;
    // Only as it is written: a parser takes more.
    (made_at.strftime(NAME).to_string() == name).then_some(made_at)
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::made_at;

    #[test]
    fn only_the_backups_own_names_are_backups() {
        let second = |name| made_at(name).map(|at| at.as_second());
        assert_eq!(second("journal-20261128T150405Z.db"), Some(1_795_878_245));
        assert_eq!(second("journal-20261128T150405Z.db.zst"), Some(1_795_878_245));
        for name in [
            "journal.db",
            "journal-20261128T150405Z.db.sha256",
            "journal-20261128T150405Z.db.zst.part",
            "journal-2026112T150405Z.db",
            "journal-20261328T150405Z.db",
            "my journal-20261128T150405Z.db",
            "journal-20261128T150405Z.db.zst.zst",
        ] {
            assert_eq!(second(name), None, "{name}");
        }
    }
}
