//! What retention asks of the file, and what it has the writer do: rows go by their ids, pages back to the disk.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Readers, StoreError, Writer, chain};
use crate::removal::{Outdated, Retired};

/// An event or a dead letter, for its age and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    pub id: i64,
    pub tenant_id: Option<String>,
    pub topic: String,
    /// As the file has it.
    pub received_at: String,
}

impl Aged {
    fn from_row(row: &Row) -> rusqlite::Result<Aged> {
        Ok(Aged { id: row.get(0)?, tenant_id: row.get(1)?, topic: row.get(2)?, received_at: row.get(3)? })
    }
}

/// Bytes of the journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRoom {
    pub used: u64,
    /// That deletions have freed inside the file.
    pub free: u64,
    /// Whether they can go back to the disk: files of the first versions keep them for new rows.
    pub can_shrink: bool,
}

/// How many rows the large tables have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RowCounts {
    pub events: i64,
    pub dead_letters: i64,
    pub audit: i64,
}

/// States of dead letters with which there is nothing left to do.
const CLOSED: &str = "('journaled', 'republished', 'discarded', 'erased')";

impl Readers {
    /// The next events after `after` up to `last`, by id.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn aged_events(&self, after: i64, last: i64, limit: u32) -> Result<Vec<Aged>, StoreError> {
        let sql = "SELECT id, tenant_id, topic, received_at FROM event_journal WHERE id > ?1 AND id <= ?2 \
                   ORDER BY id LIMIT ?3";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        Ok(select.query_map((after, last, limit), Aged::from_row)?.collect::<Result<_, _>>()?)
    }

    /// The next dead letters after `after` that were received before `until` and are closed, by id.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn aged_letters(&self, after: i64, until: &str, limit: u32) -> Result<Vec<Aged>, StoreError> {
        let sql = format!(
            "SELECT id, tenant_id, topic, received_at FROM event_dlq NOT INDEXED \
             WHERE id > ?1 AND received_at < ?2 AND state IN {CLOSED} ORDER BY id LIMIT ?3"
        );
        let reader = self.get()?;
        let mut select = reader.prepare_cached(&sql)?;
        Ok(select.query_map((after, until, limit), Aged::from_row)?.collect::<Result<_, _>>()?)
    }

    /// When the first event after `after` was received, as the file has it.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn oldest_received(&self, after: i64) -> Result<Option<String>, StoreError> {
        let sql = "SELECT received_at FROM event_journal WHERE id > ?1 ORDER BY id LIMIT 1";
        Ok(self.get()?.prepare_cached(sql)?.query_row([after], |row| row.get(0)).optional()?)
    }

    /// The last event that was received before `until`; ids are in the order of the times.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn last_received_before(&self, until: &str) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT id FROM event_journal WHERE received_at < ?1 ORDER BY received_at DESC, id DESC LIMIT 1";
        Ok(self.get()?.prepare_cached(sql)?.query_row([until], |row| row.get(0)).optional()?)
    }

    /// # Errors
    /// If the journal cannot be read now.
    pub fn file_room(&self) -> Result<FileRoom, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let number = |sql: &str| snapshot.query_row(sql, [], |row| row.get::<_, u32>(0).map(u64::from));
        let page_size = number("PRAGMA page_size")?;
        let (pages, free) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
        Ok(FileRoom {
            used: pages.saturating_sub(free) * page_size,
            free: free * page_size,
            can_shrink: number("PRAGMA auto_vacuum")? > 0,
        })
    }

    /// The events from `first` to `last` that belong to a job which is not at its end.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn events_of_jobs(&self, first: i64, last: i64) -> Result<HashSet<i64>, StoreError> {
        Ok(of_jobs(&*self.get()?, first, last)?)
    }

    /// Reads an index from end to end.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn row_counts(&self) -> Result<RowCounts, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM event_journal), (SELECT count(*) FROM event_dlq), (SELECT count(*) FROM audit)";
        Ok(self.get()?.query_row(sql, [], |row| {
            Ok(RowCounts { events: row.get(0)?, dead_letters: row.get(1)?, audit: row.get(2)? })
        })?)
    }

    /// Whether rows of the journal are chained, or were: then they go in the order of their ids only.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn has_chain(&self) -> Result<bool, StoreError> {
        Ok(has_chain(&*self.get()?)?)
    }
}

fn has_chain(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM chain_segment WHERE chain = 'journal')";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn of_jobs(connection: &Connection, first: i64, last: i64) -> rusqlite::Result<HashSet<i64>> {
    // The jobs come first: their items are found by job and event.
    let sql = "SELECT item.event_id FROM replay_job AS job CROSS JOIN replay_item AS item ON item.job_id = job.id \
               WHERE job.state IN ('running', 'paused') AND item.event_id BETWEEN ?1 AND ?2";
    let mut select = connection.prepare_cached(sql)?;
    select.query_map((first, last), |row| row.get(0))?.collect()
}

impl Writer {
    /// Deletes the rows, but for events of a job that is not at its end and dead letters that are not closed any more.
    /// Where there is a chain, only those before the first that stays.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn retire(&mut self, outdated: &Outdated) -> Result<Retired, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut retired = Retired::default();
        if let (Some(first), Some(last)) = (outdated.events.first(), outdated.events.last()) {
            let of_jobs = of_jobs(&transaction, *first, *last)?;
            let is_chained = has_chain(&transaction)?;
            let oldest = "SELECT min(id) FROM event_journal";
            let oldest: Option<i64> = transaction.prepare_cached(oldest)?.query_row([], |row| row.get(0))?;
            retired.is_blocked = is_chained && oldest.is_some_and(|oldest| oldest < *first);
            let mut delete = transaction.prepare_cached("DELETE FROM event_journal WHERE id = ?1 RETURNING topic")?;
            let mut last_deleted = None;
            for id in outdated.events.iter().filter(|_| !retired.is_blocked) {
                if of_jobs.contains(id) {
                    if is_chained {
                        retired.is_blocked = true;
                        break;
                    }
                    continue;
                }
                if let Some(topic) = delete.query_row([id], |row| row.get::<_, String>(0)).optional()? {
                    *retired.events.entry(topic).or_default() += 1;
                    last_deleted = Some(*id);
                }
            }
            if let (Some(last), true) = (last_deleted, is_chained) {
                chain::pruned(&transaction, last, outdated.act)?;
            }
        }
        let sql = format!("DELETE FROM event_dlq WHERE id = ?1 AND state IN {CLOSED}");
        for id in &outdated.letters {
            retired.letters += transaction.prepare_cached(&sql)?.execute([id])? as u64;
        }
        transaction.commit()?;
        Ok(retired)
    }

    /// Gives at most so many free pages back to the disk; how many these were.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn vacuum(&mut self, pages: u32) -> Result<u32, StoreError> {
        let free =
            |connection: &Connection| connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0));
        let before = free(&self.connection)?;
        let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(vacuum);
        let freed = before.saturating_sub(free(&self.connection)?);
        if freed > 0 {
            // The file gets shorter when the log is copied into it.
            self.copy_log("PASSIVE")?;
        }
        Ok(freed)
    }
}
