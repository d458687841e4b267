//! The only connection that writes: opening it, and looking after the file. What it writes is in the files beside this.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, params};

use super::coverage::Logs;
use super::{BUSY_TIMEOUT, Occasion, StoreError, audit, chain, journal_info, open_for_writing, settle};
use crate::audit::{Act, Outcome};
use crate::dead_letter::breaker::Limits;
use crate::queue::Partition;

/// Pages in the write-ahead log after which it is copied back: 4 MiB, SQLite's own default.
const CHECKPOINT_PAGES: i32 = 1000;
/// Of a page of the journal, with its head in the log.
const LOG_PAGE_BYTES: u64 = 4096 + 24;
/// Pages after which waiting for readers to leave is the lesser evil: 64 MiB.
const TRUNCATE_PAGES: i32 = 16_000;

thread_local! {
    /// Pages in the log after the last commit of this thread's writer: SQLite's hook takes no state of ours.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// What the writer obeys beside the records.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub dead_letters: Limits,
    /// A gap that is a loss halts its partition.
    pub halt_on_gap: bool,
    /// Whether rows of the journal and of the audit are chained.
    pub chain: bool,
}

/// The only connection that writes.
#[derive(Debug)]
pub struct Writer {
    pub(super) connection: Connection,
    path: PathBuf,
    pub(super) journal_id: String,
    pub(super) logs: Logs,
    pub(super) rules: Rules,
    /// No row is received earlier.
    pub(super) received_floor: Timestamp,
    data_version: i64,
}

impl Writer {
    /// Opens the journal, and makes it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names the file and what to do.
    pub fn open(path: &Path, rules: Rules) -> Result<Writer, StoreError> {
        Writer::open_on(path, rules, Occasion::Start).map_err(|error| error.located(path))
    }

    /// As [`Writer::open`], where that met a fault of the box before.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open_after_fault(path: &Path, rules: Rules) -> Result<Writer, StoreError> {
        Writer::open_on(path, rules, Occasion::Restart).map_err(|error| error.located(path))
    }

    fn open_on(path: &Path, rules: Rules, occasion: Occasion) -> Result<Writer, StoreError> {
        let mut connection = open_for_writing(path, occasion)?;
        connection.wal_hook(Some(|_, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        chain::obey(&mut connection, rules.chain, Timestamp::now())?;
        let mut writer = Writer {
            journal_id: journal_info(&connection, "journal_id")?,
            logs: Logs::stored(&connection)?,
            rules,
            received_floor: Timestamp::from_microsecond(last_received(&connection)?).unwrap_or_default(),
            data_version: 0,
            path: path.to_owned(),
            connection,
        };
        writer.data_version = writer.read_data_version()?;
        Ok(writer)
    }

    /// After a fault of the box: a fresh connection, and the positions as the file has them, so that a commit
    /// whose outcome is unknown is neither repeated nor lost. `unsettled` if there was an I/O error since the last
    /// time: then all that the file shows is put on the disk first (see `settle.rs`).
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn reopen(&mut self, unsettled: bool) -> Result<(), StoreError> {
        let reopened = Writer::open_on(&self.path, self.rules, Occasion::Fault { unsettled });
        let mut reopened = reopened.map_err(|error| error.located(&self.path))?;
        reopened.logs.keep_begun(&self.logs);
        *self = reopened;
        Ok(())
    }

    /// When the newest row was received.
    pub fn last_received(&self) -> Timestamp {
        self.received_floor
    }

    /// The partitions that take nothing, and why.
    pub fn halted(&self) -> Vec<(Partition, String)> {
        self.logs.halted().map(|(partition, why)| (partition.clone(), why.to_owned())).collect()
    }

    /// Takes nothing more of `partitions` until their reading begins again.
    pub fn withdraw(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            if let Some(log) = self.logs.get_mut(&partition) {
                log.is_begun = false;
            }
        }
    }

    /// Ends the halt of the partitions that `is_meant`; which these were.
    ///
    /// # Errors
    /// A fault of the box: they are halted still.
    pub fn resume(
        &mut self,
        is_meant: impl Fn(&Partition) -> bool,
        act: &Act,
        now: Timestamp,
    ) -> Result<Vec<Partition>, StoreError> {
        let meant: Vec<Partition> = self.logs.halted().map(|(p, _)| p.clone()).filter(|p| is_meant(p)).collect();
        let sql = "UPDATE kafka_position SET halted = NULL WHERE topic = ?1 AND kafka_partition = ?2";
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (topic, partition) in &meant {
            transaction.execute(sql, params![&**topic, partition])?;
        }
        let detail = format!("{} partitions", meant.len());
        audit::note(&transaction, &act.with(Outcome::Done, detail).counting(meant.len()), now)?;
        transaction.commit()?;
        for partition in &meant {
            if let Some(log) = self.logs.get_mut(partition) {
                log.at.halted = None;
            }
        }
        Ok(meant)
    }

    /// How many gaps of each topic and reason the file knows.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn gaps(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        let sql = "SELECT topic, kind, count(*) FROM kafka_range WHERE kind <> 'held' AND next_offset > first_offset \
                   GROUP BY topic, kind";
        let mut select = self.connection.prepare(sql)?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many dead letters there are, and how many of them are open.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn dead_letters(&self) -> Result<(i64, i64), StoreError> {
        let sql = "SELECT (SELECT count(*) FROM event_dlq), (SELECT count(*) FROM event_dlq WHERE state = 'open')";
        Ok(self.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Whether another process wrote to the file since the last call.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn was_changed_from_outside(&mut self) -> Result<bool, StoreError> {
        let now = self.read_data_version()?;
        Ok(std::mem::replace(&mut self.data_version, now) != now)
    }

    fn read_data_version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }

    /// Copies the write-ahead log back into the file when it has grown. Errors are this call's to see:
    /// SQLite's automatic checkpoint would swallow them.
    ///
    /// # Errors
    /// A fault of the box; what was appended stays durable in the log.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        match WAL_PAGES.get() {
            pages if pages < CHECKPOINT_PAGES => Ok(()),
            pages if pages < TRUNCATE_PAGES => self.copy_log("PASSIVE"),
            _ => self.begin_log_again(),
        }
    }

    /// Bytes that are in use of the write-ahead log.
    pub fn log_bytes(&self) -> u64 {
        u64::try_from(WAL_PAGES.get()).unwrap_or(0) * LOG_PAGE_BYTES
    }

    /// Copies all of it, and begins it again if nobody needs it.
    ///
    /// # Errors
    /// As [`Writer::checkpoint`].
    pub fn begin_log_again(&mut self) -> Result<(), StoreError> {
        self.copy_log("TRUNCATE")
    }

    pub(super) fn copy_log(&mut self, mode: &str) -> Result<(), StoreError> {
        // A reader that stays must not hold ingestion up: what cannot be copied now is copied next time.
        self.connection.busy_timeout(Duration::ZERO)?;
        let copied = self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        match copied {
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(error.into()),
            Err(_) => Ok(()),
            Ok(pages) => {
                WAL_PAGES.set(pages);
                Ok(())
            }
        }
    }

    /// Empties the write-ahead log into the file, so that the disk has its room back. What readers still use stays.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn empty_log(&self) -> Result<(), StoreError> {
        let emptied = settle::settle(&self.connection, &self.path);
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        emptied
    }

    /// Bytes that deletions have freed inside the file.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let number = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, u32>(0).map(u64::from));
        Ok(number("PRAGMA freelist_count")? * number("PRAGMA page_size")?)
    }
}

fn last_received(connection: &Connection) -> rusqlite::Result<i64> {
    let newest = "SELECT max((SELECT coalesce(max(received_at), '') FROM event_journal), \
                  (SELECT coalesce(max(received_at), '') FROM event_dlq))";
    let text: String = connection.query_row(newest, [], |row| row.get(0))?;
    let parsed = format!("{text}Z").parse::<Timestamp>();
    Ok(parsed.map_or(0, Timestamp::as_microsecond))
}
