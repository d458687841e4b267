//! Room on the disk that nobody else can take: a file beside the journal, given up when the disk is full, so that
//! the API, deletions and checkpoints still work then, and taken again when there is room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{beside, folder};

/// Room in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// That this process may still take on the disk.
    pub disk: u64,
    /// That deletions have freed inside the journal.
    pub journal: u64,
}

/// What a full disk is held against.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub reserve_bytes: u64,
    pub transaction_bytes_max: u64,
}

impl Need {
    pub fn bytes(&self) -> u64 {
        self.reserve_bytes + self.transaction_bytes_max
    }

    /// Whether ingestion may go on after the reserve was given up, without eating what that set free.
    pub fn may_write(&self, room: Room) -> bool {
        room.disk.saturating_add(room.journal) >= self.bytes()
    }

    /// Whether the reserve may be taken again, with room for a transaction beside it.
    pub fn may_take(&self, room: Room) -> bool {
        room.disk >= self.bytes()
    }
}

#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    folder: PathBuf,
    need: Need,
    is_held: bool,
}

impl Reserve {
    /// Nothing is taken yet.
    pub fn new(journal: &Path, need: Need) -> Reserve {
        Reserve { path: beside(journal, ".reserve"), folder: folder(journal).to_owned(), need, is_held: false }
    }

    pub fn need(&self) -> Need {
        self.need
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Not so from a full disk until there is room again.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// On the disk for us now; 0 while given up.
    pub fn held_bytes(&self) -> u64 {
        if self.is_held { self.need.reserve_bytes } else { 0 }
    }

    /// # Errors
    /// If the system does not say.
    pub fn room_on_disk(&self) -> io::Result<u64> {
        free_bytes(&self.folder)
    }

    /// At a start: what an earlier process took is kept, however full the disk is; else it is taken if there is room.
    ///
    /// # Errors
    /// As [`Reserve::take`].
    pub fn keep_or_take(&mut self) -> io::Result<()> {
        let is_there = self.path.metadata().is_ok_and(|file| file.len() == self.need.reserve_bytes);
        if is_there || self.need.may_take(Room { disk: self.room_on_disk()?, journal: 0 }) {
            return self.take();
        }
        Ok(())
    }

    /// Takes the room, for good: a file with holes would keep nothing.
    ///
    /// # Errors
    /// If the disk has not that much, or is broken; then nothing is held.
    pub fn take(&mut self) -> io::Result<()> {
        let taken = self.allocate();
        self.is_held = taken.is_ok();
        if taken.is_err() {
            self.give_up();
        }
        taken
    }

    fn allocate(&mut self) -> io::Result<()> {
        if self.need.reserve_bytes == 0 {
            return remove(&self.path);
        }
        let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.need.reserve_bytes) {
            Err(Errno::OPNOTSUPP) => {
                tracing::warn!(folder = %self.folder.display(), "this file system cannot set room aside; going on without journal.reserve_bytes");
                self.need.reserve_bytes = 0;
                return remove(&self.path);
            }
            allocated => allocated?,
        }
        file.set_len(self.need.reserve_bytes)
    }

    /// Frees the room for those who need it now.
    pub fn give_up(&mut self) {
        self.is_held = false;
        if let Err(error) = remove(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "cannot give the reserve up");
        }
    }
}

/// Bytes that this process may still take on the disk of `folder`.
///
/// # Errors
/// If the disk cannot be asked.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_the_reserve_freed_is_not_for_ingestion() {
        let need = Need { reserve_bytes: 16, transaction_bytes_max: 4 };
        for (disk, journal, may_write, may_take) in [
            (0, 0, false, false),
            (16, 0, false, false), // what was given up
            (19, 0, false, false),
            (20, 0, true, true), // somebody freed room on the disk
            (16, 3, false, false),
            (16, 4, true, false), // somebody deleted rows
            (0, 20, true, false),
        ] {
            let room = Room { disk, journal };
            assert_eq!((need.may_write(room), need.may_take(room)), (may_write, may_take), "{room:?}");
        }
    }

    #[test]
    fn what_is_taken_is_on_the_disk_and_gone_when_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let file = folder.path().join("journal.db.reserve");
        let with = |reserve_bytes| Reserve::new(&journal, Need { reserve_bytes, transaction_bytes_max: 0 });
        for bytes in [1 << 20, 1 << 16] {
            let mut reserve = with(bytes);
            reserve.keep_or_take().unwrap();
            assert_eq!((file.metadata().unwrap().len(), reserve.held_bytes()), (bytes, bytes));
            assert!(file.metadata().unwrap().blocks() * 512 >= bytes);
        }
        let mut reserve = with(1 << 16);
        reserve.keep_or_take().unwrap();
        reserve.give_up();
        assert!(!file.exists() && reserve.held_bytes() == 0);
        fs::write(&file, "left from another setting").unwrap();
        let mut none = with(0);
        none.keep_or_take().unwrap();
        assert!(!file.exists() && none.is_held());
        // More than any disk has: nothing is left of the attempt.
        assert!(with(1 << 60).take().is_err() && !file.exists());
    }
}
