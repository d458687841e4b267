//! The one write transaction: events, dead letters and the next offsets, all or nothing.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, params};

use super::{BUSY_TIMEOUT, Positions, StoreError, open_for_writing};
use crate::dead_letter::{DeadLetter, Reason};
use crate::event::{Event, Record};
use crate::queue::{Item, Partition};

const INSERT_EVENT: &str = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, \
     kafka_offset, kafka_key, kafka_headers, kafka_timestamp, replay_of) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)";
const INSERT_DEAD_LETTER: &str = "INSERT INTO event_dlq (topic, payload, error, received_at, reason, \
     kafka_partition, kafka_offset, kafka_key, kafka_headers, kafka_timestamp) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)";
const UPSERT_POSITION: &str = "INSERT INTO kafka_position (topic, kafka_partition, next_offset) VALUES (?1, ?2, ?3) \
     ON CONFLICT (topic, kafka_partition) DO UPDATE SET next_offset = excluded.next_offset";

/// Pages in the write-ahead log after which it is copied back: 4 MiB, SQLite's own default.
const CHECKPOINT_PAGES: i32 = 1000;
/// Pages after which waiting for readers to leave is the lesser evil: 64 MiB.
const TRUNCATE_PAGES: i32 = 16_000;

thread_local! {
    /// Pages in the log after the last commit of this thread's writer: SQLite's hook takes no state of ours.
    static WAL_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Journaled,
    DeadLettered(Reason),
    /// The file held it already, or it was no record.
    Skipped,
}

/// How much one refused row takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// The batch: nothing is refused, which is nearly always so.
    None,
    /// The row: each has a savepoint.
    Savepoint,
    /// A trigger that rolls the whole transaction back (`RAISE(ROLLBACK)`) leaves only this: one row a transaction.
    Transaction,
}

/// Why a transaction was not committed.
enum Failure {
    /// A rule that an operator added refused a row: the record's fault. Try again with more isolation.
    Refused(rusqlite::Error),
    /// The box's fault.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure::Sqlite(error)
    }
}

/// The only connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    path: PathBuf,
    journal_id: String,
    positions: Positions,
    /// Microseconds since 1970; no row is received earlier.
    received_floor: i64,
    data_version: i64,
}

impl Writer {
    /// Opens the journal, and makes it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] names the file and what to do.
    pub fn open(path: &Path) -> Result<Writer, StoreError> {
        let connection = open_for_writing(path)?;
        connection.wal_hook(Some(|_, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        let mut writer = Writer {
            journal_id: connection.query_row(
                "SELECT value FROM journal_info WHERE name = 'journal_id'",
                [],
                |row| row.get(0),
            )?,
            positions: stored_positions(&connection)?,
            received_floor: last_received(&connection)?,
            data_version: 0,
            path: path.to_owned(),
            connection,
        };
        writer.data_version = writer.read_data_version()?;
        Ok(writer)
    }

    /// After a fault of the box: a fresh connection, and the positions as the file has them, so that a commit
    /// whose outcome is unknown is neither repeated nor lost.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        *self = Writer::open(&self.path)?;
        Ok(())
    }

    pub fn journal_id(&self) -> &str {
        &self.journal_id
    }

    /// When the newest row was received.
    pub fn last_received(&self) -> Timestamp {
        Timestamp::from_microsecond(self.received_floor).unwrap_or_default()
    }

    pub fn dead_letters(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM event_dlq", [], |row| row.get(0))?)
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

    /// Makes `items` durable in one transaction, and gives each one's fate. An item that the file holds already is
    /// skipped, so the call may be repeated. A row that is refused becomes a dead letter; its neighbours are stored.
    ///
    /// # Errors
    /// A fault of the box: nothing of `items` is stored, or (if the commit's outcome is unknown) all of it;
    /// [`Writer::reopen`] finds out.
    pub fn append(&mut self, items: &[Item], now: Timestamp) -> Result<Vec<Fate>, StoreError> {
        for isolation in [Isolation::None, Isolation::Savepoint] {
            match self.transaction(items, now, isolation) {
                Ok(fates) => return Ok(fates),
                Err(Failure::Refused(_)) => {}
                Err(Failure::Sqlite(error)) => return Err(error.into()),
            }
        }
        let mut fates = Vec::with_capacity(items.len());
        for item in items {
            fates.push(self.append_alone(item, now)?);
        }
        Ok(fates)
    }

    fn append_alone(&mut self, item: &Item, now: Timestamp) -> Result<Fate, StoreError> {
        match (self.transaction(std::slice::from_ref(item), now, Isolation::Transaction), item) {
            (Ok(fates), _) => Ok(fates[0]),
            (Err(Failure::Refused(error)), Item::Event(event)) => {
                let letter = Item::DeadLetter(refused(event, &error));
                match self.transaction(&[letter], now, Isolation::None) {
                    Ok(fates) => Ok(fates[0]),
                    Err(Failure::Refused(error) | Failure::Sqlite(error)) => Err(error.into()),
                }
            }
            (Err(Failure::Refused(error) | Failure::Sqlite(error)), _) => Err(error.into()),
        }
    }

    fn transaction(&mut self, items: &[Item], now: Timestamp, isolation: Isolation) -> Result<Vec<Fate>, Failure> {
        let received = now.as_microsecond().max(self.received_floor);
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let filled = self.fill(items, &received_text(received), isolation);
        let committed = filled.and_then(|filled| {
            match self.connection.execute_batch("COMMIT") {
                Ok(()) => Ok(filled),
                // A constraint that an operator deferred to the commit.
                Err(error) if is_constraint(&error) => Err(Failure::Refused(error)),
                Err(error) => Err(Failure::Sqlite(error)),
            }
        });
        match committed {
            Ok((fates, positions)) => {
                self.positions = positions;
                self.received_floor = received;
                Ok(fates)
            }
            Err(failure) => {
                if !self.connection.is_autocommit() {
                    // Whatever this answers, the batch was not committed; a fault shows at the next BEGIN.
                    self.connection.execute_batch("ROLLBACK").ok();
                }
                Err(failure)
            }
        }
    }

    /// Inserts what is new of `items`; gives each one's fate and the positions after them.
    fn fill(&self, items: &[Item], received_at: &str, isolation: Isolation) -> Result<(Vec<Fate>, Positions), Failure> {
        let rows = Rows { connection: &self.connection, journal_id: &self.journal_id, received_at };
        let mut fates = Vec::with_capacity(items.len());
        let mut positions = self.positions.clone();
        let mut moved: HashSet<Partition> = HashSet::new();
        for item in items {
            let position = item.position();
            let partition = (Arc::clone(&position.topic), position.partition);
            let next_offset = positions.get(&partition).copied().unwrap_or(i64::MIN);
            let (fate, reached) = match item {
                // Only once: when a commit whose outcome was unknown turns out to stand, the position has moved on.
                Item::LogRestart { expected, .. } if *expected == next_offset => (Fate::Skipped, position.offset),
                Item::LogRestart { .. } => (Fate::Skipped, next_offset),
                _ if position.offset < next_offset => (Fate::Skipped, next_offset),
                Item::Event(event) => (rows.insert(event, isolation)?, position.offset + 1),
                Item::DeadLetter(letter) => {
                    rows.insert_dead_letter(letter)?;
                    (Fate::DeadLettered(letter.reason), position.offset + 1)
                }
            };
            fates.push(fate);
            if reached != next_offset {
                positions.insert(partition.clone(), reached);
                moved.insert(partition);
            }
        }
        for partition in &moved {
            let mut upsert = self.connection.prepare_cached(UPSERT_POSITION)?;
            upsert.execute(params![&*partition.0, partition.1, positions[partition]])?;
        }
        Ok((fates, positions))
    }

    /// Copies the write-ahead log back into the file when it has grown. Errors are this call's to see:
    /// SQLite's automatic checkpoint would swallow them.
    ///
    /// # Errors
    /// A fault of the box; what was appended stays durable in the log.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let mode = match WAL_PAGES.get() {
            pages if pages < CHECKPOINT_PAGES => return Ok(()),
            pages if pages < TRUNCATE_PAGES => "PASSIVE",
            _ => "TRUNCATE",
        };
        // A reader that stays must not hold ingestion up: what cannot be copied now is copied next time.
        self.connection.busy_timeout(Duration::ZERO)?;
        let copied = self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        match copied {
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The statements of one transaction.
struct Rows<'a> {
    connection: &'a Connection,
    journal_id: &'a str,
    received_at: &'a str,
}

impl Rows<'_> {
    fn insert(&self, event: &Event, isolation: Isolation) -> Result<Fate, Failure> {
        if isolation != Isolation::Savepoint {
            self.insert_event(event).map_err(|error| self.blame(error))?;
            return Ok(Fate::Journaled);
        }
        self.connection.execute_batch("SAVEPOINT row")?;
        let refused = match self.insert_event(event).map_err(|error| self.blame(error)) {
            Ok(()) => None,
            Err(Failure::Refused(error)) if !self.connection.is_autocommit() => Some(refused(event, &error)),
            Err(failure) => return Err(failure),
        };
        if refused.is_some() {
            self.connection.execute_batch("ROLLBACK TO row")?;
        }
        self.connection.execute_batch("RELEASE row")?;
        let Some(letter) = refused else { return Ok(Fate::Journaled) };
        self.insert_dead_letter(&letter)?;
        Ok(Fate::DeadLettered(letter.reason))
    }

    /// Whether the record or the box is at fault that an event was not inserted. A trigger's expression may fail
    /// on one record's values with the same code as a trigger that is broken altogether; only with the latter the
    /// statement cannot even be prepared.
    fn blame(&self, error: rusqlite::Error) -> Failure {
        let generic = error.sqlite_error_code() == Some(ErrorCode::Unknown);
        if is_constraint(&error) || (generic && self.connection.prepare(INSERT_EVENT).is_ok()) {
            Failure::Refused(error)
        } else {
            Failure::Sqlite(error)
        }
    }

    fn insert_event(&self, event: &Event) -> rusqlite::Result<()> {
        let record = &event.record;
        let payload = record.value.as_deref().unwrap_or_default();
        self.connection.prepare_cached(INSERT_EVENT)?.execute(params![
            event.tenant_id,
            &*record.position.topic,
            ToSqlOutput::Borrowed(ValueRef::Text(payload)),
            self.received_at,
            record.position.partition,
            record.position.offset,
            key(record),
            headers(record),
            record.timestamp_ms,
            record.headers.replay_of(self.journal_id),
        ])?;
        Ok(())
    }

    fn insert_dead_letter(&self, letter: &DeadLetter) -> Result<(), Failure> {
        let record = &letter.record;
        let row = params![
            &*record.position.topic,
            text_or_blob(record.value.as_deref()),
            letter.error(),
            self.received_at,
            letter.reason.as_str(),
            record.position.partition,
            record.position.offset,
            key(record),
            headers(record),
            record.timestamp_ms,
        ];
        let inserted = self.connection.prepare_cached(INSERT_DEAD_LETTER).and_then(|mut insert| insert.execute(row));
        // There is no second DLQ: a rule on this table is the box's fault, not the record's.
        inserted
            .map(|_| ())
            .map_err(|error| Failure::Sqlite(if is_constraint(&error) { refused_by_dlq() } else { error }))
    }
}

fn refused_by_dlq() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT);
    let message = "a constraint or trigger on event_dlq refuses dead letters; drop it with `crm-events-sink sql`";
    rusqlite::Error::SqliteFailure(code, Some(message.to_owned()))
}

/// The dead letter that a refused event becomes.
fn refused(event: &Event, error: &rusqlite::Error) -> DeadLetter {
    let (reason, message) = match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            let is_trigger = code.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER
                || code.code != ErrorCode::ConstraintViolation;
            let reason = if is_trigger { Reason::Trigger } else { Reason::Constraint };
            (reason, message.clone().unwrap_or_else(|| code.to_string()))
        }
        other => (Reason::Constraint, other.to_string()),
    };
    DeadLetter { record: event.record.clone(), reason, message }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

fn key(record: &Record) -> ToSqlOutput<'_> {
    text_or_blob(record.key.as_ref().map(|key| key.0.as_slice()))
}

fn text_or_blob(bytes: Option<&[u8]>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match bytes {
        None => ValueRef::Null,
        Some(bytes) if std::str::from_utf8(bytes).is_ok() => ValueRef::Text(bytes),
        Some(bytes) => ValueRef::Blob(bytes),
    })
}

fn headers(record: &Record) -> Option<String> {
    let headers = &record.headers;
    (!headers.0.is_empty()).then(|| serde_json::to_string(headers).expect("names and values are strings"))
}

/// `2025-11-03 20:03:58.586440`, UTC.
fn received_text(microseconds: i64) -> String {
    Timestamp::from_microsecond(microseconds).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

fn stored_positions(connection: &Connection) -> rusqlite::Result<Positions> {
    let mut select = connection.prepare("SELECT topic, kafka_partition, next_offset FROM kafka_position")?;
    let rows = select.query_map([], |row| Ok(((row.get::<_, String>(0)?.into(), row.get(1)?), row.get(2)?)))?;
    rows.collect()
}

fn last_received(connection: &Connection) -> rusqlite::Result<i64> {
    let newest = "SELECT max((SELECT coalesce(max(received_at), '') FROM event_journal), \
                  (SELECT coalesce(max(received_at), '') FROM event_dlq))";
    let text: String = connection.query_row(newest, [], |row| row.get(0))?;
    let parsed = format!("{text}Z").parse::<Timestamp>();
    Ok(parsed.map_or(0, Timestamp::as_microsecond))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Headers, Position};

    fn event(offset: i64) -> Item {
        let position = Position { topic: "leads".into(), partition: 0, offset };
        let value = Some(b"{}".to_vec());
        let record = Record { position, key: None, value, headers: Headers::default(), timestamp_ms: None };
        Item::Event(Event { record, tenant_id: "acme".into() })
    }

    #[test]
    fn what_is_appended_again_is_skipped_also_after_the_log_began_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(&folder.path().join("journal.db")).unwrap();
        let first = [event(7), event(8)];
        let at = Position { topic: "leads".into(), partition: 0, offset: 0 };
        let again = [Item::LogRestart { at, expected: 9 }, event(0), event(1)];
        for (batch, fate) in [(&first[..], Fate::Journaled), (&first, Fate::Skipped), (&again, Fate::Journaled)] {
            let fates = writer.append(batch, Timestamp::now()).unwrap();
            assert!(fates.iter().zip(batch).all(|(f, item)| *f == fate || item.record().is_none()), "{fates:?}");
        }
        // The commit's outcome was unknown, and the batch is tried again after a look at the file.
        writer.reopen().unwrap();
        assert_eq!(writer.append(&again, Timestamp::now()).unwrap(), [Fate::Skipped; 3]);
        let rows: i64 = writer.connection.query_row("SELECT count(*) FROM event_journal", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 4);
    }
}
