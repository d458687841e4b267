//! What the archive takes from the journal, slice by slice in the order of the ids, and how its files are listed.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::row::{bytes, iso, time_text};
use super::search::Order;
use super::segment::Segments;
use super::{Readers, StoreError, Writer};
use crate::removal::{ArchivedFile, Slice};

/// A row of `event_journal`, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub id: i64,
    pub tenant_id: String,
    pub topic: String,
    pub payload: String,
    /// Microseconds since 1970-01-01 UTC.
    pub received_at: i64,
    pub kafka_partition: i64,
    pub kafka_offset: i64,
    pub kafka_key: Option<Vec<u8>>,
    pub kafka_headers: Option<String>,
    pub kafka_timestamp: Option<i64>,
    pub replay_of: Option<i64>,
    pub kafka_epoch: i64,
    pub dlq_id: Option<i64>,
    pub erased: Option<i64>,
}

impl JournalRow {
    const COLUMNS: &str = "id, tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, \
         kafka_headers, kafka_timestamp, replay_of, kafka_epoch, dlq_id, erased";

    fn from_row(row: &Row) -> rusqlite::Result<JournalRow> {
        Ok(JournalRow {
            id: row.get(0)?,
            tenant_id: row.get(1)?,
            topic: row.get(2)?,
            payload: row.get(3)?,
            received_at: microseconds(row, 4)?,
            kafka_partition: row.get(5)?,
            kafka_offset: row.get(6)?,
            kafka_key: bytes(row, 7)?.map(|key| key.0),
            kafka_headers: row.get(8)?,
            kafka_timestamp: row.get(9)?,
            replay_of: row.get(10)?,
            kafka_epoch: row.get(11)?,
            dlq_id: row.get(12)?,
            erased: row.get(13)?,
        })
    }

    /// About how much room it takes in memory.
    fn size(&self) -> usize {
        let texts = [&self.tenant_id, &self.topic, &self.payload].map(String::len).iter().sum::<usize>();
        texts + self.kafka_key.as_ref().map_or(0, Vec::len) + self.kafka_headers.as_ref().map_or(0, String::len)
    }
}

fn microseconds(row: &Row, column: usize) -> rusqlite::Result<i64> {
    let text = row.get_ref(column)?.as_str()?;
    let at = format!("{text}Z").parse::<Timestamp>().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(at.as_microsecond())
}

/// The last event that the archive has, and 0 where it has none: it has every event up to there that is in the journal.
fn archived_up_to(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(last_event_id), 0) FROM archive_file";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

impl Readers {
    /// See [`Slice`]; `None`: the archive has every event up to `last_id`.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn next_slice(&self, last_id: i64, rows_max: u32) -> Result<Option<Slice>, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let sql = "SELECT id, received_at FROM event_journal WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1";
        let first: Option<(i64, String)> = snapshot
            .prepare_cached(sql)?
            .query_row((archived_up_to(&snapshot)?, last_id), |row| row.try_into())
            .optional()?;
        let Some((first_id, first_received_at)) = first else { return Ok(None) };
        let day = first_received_at.get(..10).unwrap_or_default().to_owned();
        let sql = "SELECT max(id), count(*) FROM (SELECT id, received_at FROM event_journal \
                   WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3) WHERE substr(received_at, 1, 10) = ?4";
        let values = params![first_id, last_id, rows_max, day];
        let (last_id, rows) = snapshot.prepare_cached(sql)?.query_row(values, |row| row.try_into())?;
        Ok(Some(Slice { day, first_id, last_id, rows }))
    }

    /// Whose events are in a slice.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn tenants_of(&self, slice: &Slice) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT DISTINCT tenant_id FROM event_journal WHERE id BETWEEN ?1 AND ?2 ORDER BY 1";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let tenants = select.query_map((slice.first_id, slice.last_id), |row| row.get(0))?;
        Ok(tenants.collect::<Result<_, _>>()?)
    }

    /// The next events of a tenant in a slice, in the order of their ids, after `after_id`: at most `rows_max`, and those
    /// that come when `bytes_max` are reached are left for the next time.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn rows_of(
        &self,
        slice: &Slice,
        tenant: &str,
        after_id: i64,
        (rows_max, bytes_max): (usize, usize),
    ) -> Result<Vec<JournalRow>, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let ids = slice.first_id.max(after_id.saturating_add(1))..slice.last_id.saturating_add(1);
        let mut segments = Segments::of(&snapshot, &ids, Order::OldestFirst)?;
        let mut select_ids = snapshot.prepare_cached(
            "SELECT id FROM event_journal INDEXED BY event_journal_tenant \
             WHERE id >> 10 = ?1 AND tenant_id = ?2 AND id >= ?3 AND id < ?4 ORDER BY id",
        )?;
        let mut select =
            snapshot.prepare_cached(&format!("SELECT {} FROM event_journal WHERE id = ?1", JournalRow::COLUMNS))?;
        let (mut rows, mut size) = (Vec::new(), 0);
        while let Some(segment) = segments.next()? {
            for id in select_ids.query_map(params![segment, tenant, ids.start, ids.end], |row| row.get::<_, i64>(0))? {
                if rows.len() >= rows_max || size >= bytes_max {
                    return Ok(rows);
                }
                let row = select.query_row([id?], JournalRow::from_row)?;
                size += row.size();
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The files of the archive in the order in which they were listed, after `after`, at most `limit`: everybody's, or a
    /// tenant's.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn archived_files(
        &self,
        tenant: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<ArchivedFile>, StoreError> {
        let sql = "SELECT id, path, tenant_id, day, rows, bytes, sha256, first_event_id, last_event_id, written_at, \
                   erased FROM archive_file WHERE id > ?1 AND (?2 IS NULL OR tenant_id = ?2) ORDER BY id LIMIT ?3";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let files = select.query_map((after, tenant, limit), file)?;
        Ok(files.collect::<Result<_, _>>()?)
    }

    /// Files that hold events of a tenant up to `last_event_id`: at most 1000.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn archived_files_left(&self, tenant: &str, last_event_id: i64) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT path FROM archive_file WHERE tenant_id = ?1 AND first_event_id <= ?2 AND erased IS NULL \
                   ORDER BY id LIMIT 1000";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let paths = select.query_map((tenant, last_event_id), |row| row.get(0))?;
        Ok(paths.collect::<Result<_, _>>()?)
    }

    /// The file that is listed with this content.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn archived_as(&self, sha256: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT path FROM archive_file WHERE sha256 = ?1 AND erased IS NULL";
        Ok(self.get()?.query_row(sql, [sha256], |row| row.get(0)).optional()?)
    }

    /// How many files the archive has, and how many bytes these are.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn archive_size(&self) -> Result<(i64, i64), StoreError> {
        let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM archive_file WHERE erased IS NULL";
        Ok(self.get()?.query_row(sql, [], |row| row.try_into())?)
    }
}

fn file(row: &Row) -> rusqlite::Result<ArchivedFile> {
    Ok(ArchivedFile {
        id: row.get(0)?,
        path: row.get(1)?,
        tenant_id: row.get(2)?,
        day: row.get(3)?,
        rows: row.get(4)?,
        bytes: row.get(5)?,
        sha256: row.get(6)?,
        first_event_id: row.get(7)?,
        last_event_id: row.get(8)?,
        written_at: iso(&row.get::<_, String>(9)?),
        erased: row.get(10)?,
    })
}

impl Writer {
    /// Lists the files of a slice, all or none.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn list_archived(&mut self, files: &[ArchivedFile], now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "INSERT INTO archive_file (path, tenant_id, day, rows, bytes, sha256, first_event_id, last_event_id, \
                   written_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let mut insert = transaction.prepare_cached(sql)?;
        for file in files {
            let ArchivedFile { path, tenant_id, day, rows, bytes, sha256, first_event_id, last_event_id, .. } = file;
            let now = time_text(now);
            insert.execute(params![path, tenant_id, day, rows, bytes, sha256, first_event_id, last_event_id, now])?;
        }
        drop(insert);
        transaction.commit()?;
        Ok(())
    }

    /// Says of files that an erasure removed them.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn erase_archived(&mut self, erasure: i64, ids: &[i64]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in ids {
            let sql = "UPDATE archive_file SET erased = ?2 WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute([id, &erasure])?;
        }
        transaction.commit()?;
        Ok(())
    }
}
