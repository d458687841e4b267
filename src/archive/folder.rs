//! The archive's folder: temporary files, names, and what a crash left.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ArchiveError;
use crate::store::{Readers, hex};

/// The archive's folder, with the journal's own folder in it. That one holds the temporary files, and where the journal
/// lists files, it says that this is where they are: a disk that is not mounted has no such folder.
pub struct Folder {
    path: PathBuf,
    own: PathBuf,
}

impl Folder {
    pub fn open(path: &Path, readers: &Readers) -> Result<Folder, ArchiveError> {
        let mark = format!(".crm-events-sink-{}", readers.journal_id()?);
        let own = path.join(&mark);
        if !own.is_dir() {
            if !readers.archived_files(None, 0, 1)?.is_empty() {
                return Err(ArchiveError::Foreign { folder: path.to_owned(), mark });
            }
            fs::create_dir(&own).map_err(at(&own))?;
            sync(path)?;
        }
        Ok(Folder { path: path.to_owned(), own })
    }

    pub fn temporary(&self, number: usize) -> PathBuf {
        self.own.join(format!("{number}.parquet"))
    }

    /// Gives the temporary files that are listed their names, and removes the others.
    pub fn settle(&self, readers: &Readers) -> Result<(), ArchiveError> {
        for entry in fs::read_dir(&self.own).map_err(at(&self.own))? {
            let temporary = entry.map_err(at(&self.own))?.path();
            match readers.archived_as(&digest_of(&temporary)?.0)? {
                Some(listed) => self.name(&temporary, &listed)?,
                None => fs::remove_file(&temporary).map_err(at(&temporary))?,
            }
        }
        Ok(())
    }

    /// The first of the names that `name` gives that no file has, or that a file with just this content has: a journal
    /// that was restored from a backup archives once more what it did not know to be archived.
    pub fn free_name(&self, sha256: &str, name: impl Fn(u32) -> String) -> Result<String, ArchiveError> {
        for copy in 0.. {
            let name = name(copy);
            let path = self.path.join(&name);
            if !path.exists() || digest_of(&path)?.0 == sha256 {
                return Ok(name);
            }
        }
        unreachable!("there are more numbers than files")
    }

    /// Gives a temporary file its name, so that the name outlives a loss of power. A file that has it has its content.
    pub fn name(&self, temporary: &Path, name: &str) -> Result<(), ArchiveError> {
        let path = self.path.join(name);
        let day = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(day).map_err(at(day))?;
        if path.exists() {
            return fs::remove_file(temporary).map_err(at(temporary));
        }
        fs::rename(temporary, &path).map_err(at(&path))?;
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.path)) {
            sync(folder)?;
        }
        Ok(())
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
            Ok(()) => sync(path.parent().unwrap_or(&self.path)),
        }
    }
}

fn sync(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    move |error| ArchiveError::File { path: path.to_owned(), error }
}

/// SHA-256 of a file in hexadecimal digits, and its size in bytes.
pub fn digest_of(path: &Path) -> Result<(String, i64), ArchiveError> {
    let mut file = File::open(path).map_err(at(path))?;
    let (mut digest, mut part, mut bytes) = (Sha256::new(), vec![0; 64 << 10], 0);
    loop {
        let read = file.read(&mut part).map_err(at(path))?;
        if read == 0 {
            return Ok((hex(&digest.finalize()), bytes));
        }
        digest.update(&part[..read]);
        bytes += i64::try_from(read).unwrap_or_default();
    }
}
