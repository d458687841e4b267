//! What the writer does about the box's faults: says so, waits, and opens the file again.

use crate::health::JOURNAL;
use crate::store::{Room, StoreError, holders};

use super::{PART, Write};

/// The name of a write-ahead log that grew too long in `/health`.
const LOG: &str = "log";
/// The name of a full disk in `/health`.
const DISK: &str = "disk";

/// What a fault has left to do before anything may be appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// The connection must be replaced: it may not know what became of its last transaction.
    pub reopen: bool,
    /// What the file shows may not be on the disk: see `store/settle.rs`.
    pub unsettled: bool,
    /// The file itself is at fault, which does not pass by itself: no hurry.
    pub damaged: bool,
}

impl Write {
    pub(super) fn fault(&mut self, error: StoreError) {
        let error = error.located(&self.path);
        self.aftermath = Aftermath {
            reopen: true,
            unsettled: self.aftermath.unsettled || error.is_io(),
            damaged: error.is_damage(),
        };
        if error.is_full() || (error.is_io() && self.is_disk_full()) {
            self.give_the_reserve_up();
        }
        if error.is_damage() {
            self.health.fault(JOURNAL, error.to_string());
            self.health.fault(PART, "consumption waits until the journal is mended; nothing is lost".to_owned());
            return;
        }
        self.health.fault(PART, format!("{error}; consumption waits, nothing is lost, and it goes on by itself"));
    }

    /// Whether the file may be appended to now.
    pub(super) fn is_ready(&mut self) -> bool {
        self.is_open() && self.may_take_room()
    }

    /// Whether the file is open. After a fault this is where it is opened again.
    pub(super) fn is_open(&mut self) -> bool {
        if self.aftermath.reopen {
            match self.store.reopen(self.aftermath.unsettled) {
                Ok(()) => self.aftermath = Aftermath::default(),
                Err(error) => {
                    self.fault(error);
                    return false;
                }
            }
        }
        self.may_grow_the_log()
    }

    /// A log that somebody reads cannot begin again and grows with every transaction: past the limit nothing is written.
    pub(super) fn may_grow_the_log(&mut self) -> bool {
        if self.store.log_bytes() > self.log_bytes_max
            && let Err(error) = self.store.begin_log_again()
        {
            self.fault(error);
            return false;
        }
        let bytes = self.store.log_bytes();
        if bytes <= self.log_bytes_max {
            self.health.well(LOG);
            return true;
        }
        let holders = holders(&self.path);
        let who = if holders.is_empty() {
            "a request to this sink, or a process of another user".to_owned()
        } else {
            holders.join(", ")
        };
        self.health.fault(
            LOG,
            format!("the write-ahead log has {bytes} bytes, more than journal.wal_bytes_max, as somebody reads the journal for long: {who}; consumption waits until that has ended, nothing is lost"),
        );
        false
    }

    pub(super) fn may_take_room(&mut self) -> bool {
        self.reserve.is_held() || self.has_room()
    }

    /// While the reserve is given up: whether there is room for ingestion besides what that set free.
    pub(super) fn has_room(&mut self) -> bool {
        // Deletions and earlier transactions wait in the log; in the file they take less. Somebody who reads only
        // makes it wait.
        if let Err(error) = self.store.empty_log()
            && !error.is_passing()
        {
            self.fault(error);
            return false;
        }
        let room = match self.room() {
            Ok(room) => room,
            Err(error) => {
                self.fault(error);
                return false;
            }
        };
        let need = self.reserve.need();
        if need.may_write(room) {
            return true;
        }
        self.health.fault(
            DISK,
            format!(
                "the disk of {} is full: {} bytes are free on it and {} inside the journal, consumption waits until they are {}; delete rows with `crm-events-sink sql` or free room on the disk, nothing is lost",
                self.reserve.folder().display(),
                room.disk,
                room.journal,
                need.bytes(),
            ),
        );
        false
    }

    fn room(&self) -> Result<Room, StoreError> {
        // A system that does not say how much is free does not keep the writer from trying.
        let disk = self.reserve.room_on_disk().unwrap_or(u64::MAX);
        Ok(Room { disk, journal: self.store.free_bytes()? })
    }

    fn is_disk_full(&self) -> bool {
        self.reserve.room_on_disk().is_ok_and(|disk| disk < self.reserve.need().transaction_bytes_max)
    }

    fn give_the_reserve_up(&mut self) {
        if self.reserve.is_held() {
            tracing::warn!(bytes = self.reserve.held_bytes(), "the disk is full: the reserve is given up");
        }
        self.reserve.give_up();
        self.measure_files();
    }

    /// Takes the reserve again when the file can be written and the disk has room. Not before: a disk may be full
    /// although the system says that it has room.
    pub(super) fn look_after_the_reserve(&mut self) {
        if self.reserve.is_held() {
            return;
        }
        let need = self.reserve.need();
        let disk = self.reserve.room_on_disk().unwrap_or(0);
        let taken = need.may_take(Room { disk, journal: 0 }).then(|| self.reserve.take());
        let why = match taken {
            Some(Ok(())) => {
                self.health.well(DISK);
                self.measure_files();
                return;
            }
            Some(Err(error)) => error.to_string(),
            None => format!("{disk} bytes are free"),
        };
        let folder = self.reserve.folder().display();
        let reason = format!(
            "the reserve of {} bytes in {folder} could not be taken ({why}); it is as soon as {} are free",
            need.reserve_bytes,
            need.bytes()
        );
        self.health.fault(DISK, reason);
    }
}
