//! Some of the journal's events in an SQLite file of their own, for taking away.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, params};

use super::query::EventDetail;
use super::reserve::free_bytes;
use super::row::{headers_json, text_or_blob};
use super::{Readers, StoreError, folder};

/// Bytes on the disk that stay free: they are ingestion's.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// The columns of the journal's own table.
const TABLE: &str = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048;
    CREATE TABLE event_journal (
        id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, topic TEXT NOT NULL, payload TEXT NOT NULL,
        received_at TEXT NOT NULL, kafka_partition INTEGER NOT NULL, kafka_offset INTEGER NOT NULL, kafka_key ANY,
        kafka_headers TEXT, kafka_timestamp INTEGER, replay_of INTEGER, kafka_epoch INTEGER NOT NULL, dlq_id INTEGER,
        erased INTEGER
    ) STRICT";
const INSERT: &str = "INSERT INTO event_journal VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)";

/// A file that has no name any more: whatever happens, it is gone when it is closed.
#[derive(Debug)]
pub struct JournalCopy {
    connection: Connection,
    file: File,
    folder: PathBuf,
    journal: PathBuf,
}

impl Readers {
    /// An empty one, on the journal's disk.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new_copy(&self) -> Result<JournalCopy, StoreError> {
        let journal = self.path.clone();
        let failed = |error: &std::io::Error| StoreError::from_io(&journal, "cannot make a file for an export", error);
        let folder = folder(&journal).to_owned();
        let named = tempfile::Builder::new().prefix(".export-").tempfile_in(&folder).map_err(|error| failed(&error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(named.path(), flags)?;
        connection.execute_batch(TABLE)?;
        let (file, path) = named.into_parts();
        fs::remove_file(&path).map_err(|error| failed(&error))?;
        Ok(JournalCopy { connection, file, folder, journal })
    }
}

impl JournalCopy {
    /// # Errors
    /// If the disk would have less than 64 MiB left, or is broken.
    pub fn add(&mut self, events: &[EventDetail]) -> Result<(), StoreError> {
        let free = free_bytes(&self.folder);
        let free = free.map_err(|error| StoreError::from_io(&self.journal, "cannot ask for room", &error))?;
        if free < FREE_BYTES_MIN {
            let what = format!(
                "an export needs {FREE_BYTES_MIN} free bytes on the disk, and {free} are; take less out at once, or ndjson"
            );
            return Err(StoreError::Passing { path: self.journal.clone(), what, is_full: true });
        }
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for event in events {
                insert.execute(params![
                    event.id,
                    event.tenant_id,
                    event.topic,
                    event.payload.0,
                    event.received_at.trim_end_matches("+00:00").replacen('T', " ", 1),
                    event.kafka_partition,
                    event.kafka_offset,
                    ToSqlOutput::Borrowed(text_or_blob(event.kafka_key.as_ref().map(|key| key.0.as_slice()))),
                    headers_json(&event.kafka_headers),
                    event.kafka_timestamp,
                    event.replay_of,
                    event.kafka_epoch,
                    event.dlq_id,
                    event.erased,
                ])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// The whole file, from its beginning.
    ///
    /// # Errors
    /// If the disk is broken.
    pub fn finish(self) -> Result<File, StoreError> {
        self.connection.close().map_err(|(_, error)| error)?;
        let mut file = self.file;
        let start = file.seek(SeekFrom::Start(0));
        start.map_err(|error| StoreError::from_io(&self.journal, "cannot read an export", &error))?;
        Ok(file)
    }
}
