//! Rows that were stored under a partition's old log and may be records of its new one: a topic that is deleted and
//! created again is noticed some seconds late, and what is read meanwhile is read by the old log's offsets. When the
//! new log is read from its beginning, such a row is given to it instead of being stored twice.

use rusqlite::{Connection, OptionalExtension, params};

use super::coverage::Log;
use super::row::{key, value};
use crate::event::Record;
use crate::queue::Partition;

/// Only while something is compared: it would cost every insert its time and the disk its wear.
pub const CREATE_INDEX: &str =
    "CREATE INDEX IF NOT EXISTS event_journal_overlap ON event_journal (topic, kafka_partition, kafka_offset);
     CREATE INDEX IF NOT EXISTS event_dlq_overlap ON event_dlq (topic, kafka_partition, kafka_offset)";
pub const DROP_INDEX: &str = "DROP INDEX IF EXISTS event_journal_overlap; DROP INDEX IF EXISTS event_dlq_overlap";

/// A row of the old log at this offset that is the record to the byte.
const FIND: &str = "SELECT id FROM {table} WHERE topic = ?1 AND kafka_partition = ?2 AND kafka_epoch = ?3 AND kafka_offset = ?4 \
     AND payload IS ?5 AND kafka_key IS ?6 AND kafka_timestamp IS ?7";
const MOVE: &str = "UPDATE {table} SET kafka_epoch = ?2 WHERE id = ?1";
/// The old log's range ends where the first row was taken from it.
const CUT: &str = "UPDATE kafka_range SET next_offset = min(next_offset, max(?4, first_offset)), {count} = {count} - 1 \
     WHERE topic = ?1 AND kafka_partition = ?2 AND epoch = ?3 AND kind = 'held' AND ?4 >= first_offset \
     AND first_offset = (SELECT max(first_offset) FROM kafka_range WHERE topic = ?1 AND kafka_partition = ?2 \
                         AND epoch = ?3 AND kind = 'held' AND first_offset <= ?4)";

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Journal,
    DeadLetters,
}

/// Gives the row that is `record` from the old log to the new one, if there is one.
pub fn adopt(
    connection: &Connection,
    partition: &Partition,
    log: &Log,
    record: &Record,
) -> rusqlite::Result<Option<Found>> {
    let offset = record.position.offset;
    if offset < log.at.verified_offset || offset >= log.at.compare_until {
        return Ok(None);
    }
    let (topic, number) = partition;
    for (found, table, count) in
        [(Found::Journal, "event_journal", "journaled"), (Found::DeadLetters, "event_dlq", "dead_lettered")]
    {
        let old = log.at.epoch - 1;
        let (value, key) = (value(record), key(record));
        let row = params![&**topic, number, old, offset, value, key, record.timestamp_ms];
        // An event that a retry made of a dead letter is no record of its own.
        let own = if found == Found::Journal { " AND dlq_id IS NULL" } else { "" };
        let find = FIND.replace("{table}", table) + own;
        let id: Option<i64> = connection.prepare_cached(&find)?.query_row(row, |row| row.get(0)).optional()?;
        let Some(id) = id else { continue };
        connection.prepare_cached(&MOVE.replace("{table}", table))?.execute((id, log.at.epoch))?;
        connection.prepare_cached(&CUT.replace("{count}", count))?.execute(params![&**topic, number, old, offset])?;
        return Ok(Some(found));
    }
    Ok(None)
}
