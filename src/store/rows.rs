//! The rows of a transaction: an event's or a dead letter's, and what becomes of one that is refused.

use std::sync::LazyLock;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::append::Fate;
use super::coverage::Log;
use super::row::{headers_text, is_constraint, is_the_records, key, key_ref, refusal, value};
use super::{chain, jobs, letters, overlap};
use crate::dead_letter::{DeadLetter, Reason, tenant};
use crate::event::{Event, Record};
use crate::queue::{Item, Partition};

const INSERT_EVENT: &str = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, \
     kafka_offset, kafka_key, kafka_headers, kafka_timestamp, replay_of, kafka_epoch) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
/// [`INSERT_EVENT`] for [`ROWS_AT_ONCE`]: what a statement costs by itself (its cursors, the last id in `sqlite_sequence`) is a
/// fifth of what a row takes.
static INSERT_EVENTS: LazyLock<String> = LazyLock::new(|| {
    let (head, row) = INSERT_EVENT.split_once(" VALUES ").expect("it has values");
    let row = row.replace(|c: char| c.is_ascii_digit(), "");
    format!("{head} VALUES {}", vec![row; ROWS_AT_ONCE].join(", "))
});
const ROWS_AT_ONCE: usize = 32;
const INSERT_DEAD_LETTER: &str = "INSERT INTO event_dlq (topic, payload, error, received_at, reason, \
     kafka_partition, kafka_offset, kafka_key, kafka_headers, kafka_timestamp, kafka_epoch, tenant_id) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)";

/// How much one refused row takes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// The batch: nothing is refused, which is nearly always so.
    None,
    /// The row: each has a savepoint.
    Savepoint,
    /// A trigger that rolls the whole transaction back (`RAISE(ROLLBACK)`) leaves only this: one row a transaction.
    Transaction,
}

/// Why a transaction was not committed.
pub(super) enum Failure {
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

/// The rows of one transaction.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    journal_id: &'a str,
    received_at: &'a str,
    isolation: Isolation,
    /// None while the chain is off.
    pub chain: Option<chain::Head>,
    /// [`INSERT_EVENT`], from the first event on.
    insert: Option<CachedStatement<'a>>,
    /// Events and their epochs, to be inserted by one statement.
    waiting: Vec<(&'a Event, i64)>,
}

impl<'a> Rows<'a> {
    pub fn new(
        connection: &'a Connection,
        journal_id: &'a str,
        received_at: &'a str,
        isolation: Isolation,
        chain: Option<chain::Head>,
    ) -> Rows<'a> {
        Rows { connection, journal_id, received_at, isolation, chain, insert: None, waiting: Vec::new() }
    }

    /// Stores a record of `log`; one that was stored under the log before becomes this one's.
    pub fn store(&mut self, item: &'a Item, partition: &Partition, log: &Log) -> Result<Fate, Failure> {
        let found = match item.record() {
            Some(record) => overlap::adopt(self.connection, partition, log, record)?,
            None => None,
        };
        match (item, found) {
            (_, Some(overlap::Found::Journal)) => Ok(Fate::Journaled),
            (Item::Event(event), None) if self.may_wait(event) => {
                self.waiting.push((event, log.at.epoch));
                if self.waiting.len() == ROWS_AT_ONCE {
                    self.insert_waiting()?;
                }
                Ok(Fate::Journaled)
            }
            (Item::Event(event), None) => {
                self.insert_waiting()?;
                let fate = self.insert(event, log.at.epoch)?;
                self.recognise(&event.record, fate)?;
                Ok(fate)
            }
            (Item::DeadLetter(letter), _) => {
                let fate = Fate::DeadLettered(letter.reason);
                if found.is_none() {
                    self.insert_dead_letter(letter, log.at.epoch)?;
                    self.recognise(&letter.record, fate)?;
                }
                Ok(fate)
            }
            (_, Some(overlap::Found::DeadLetters)) => Ok(Fate::DeadLettered(Reason::Constraint)),
            (Item::Begin(_) | Item::NotDelivered { .. }, None) => Ok(Fate::Skipped),
        }
    }

    /// An event of which nothing but its row is to be known can be inserted with others. If one of them is refused, the
    /// transaction is tried again with more isolation.
    fn may_wait(&self, event: &Event) -> bool {
        self.isolation == Isolation::None && self.chain.is_none() && event.record.headers.0.is_empty()
    }

    /// Inserts what waits, in its order.
    pub fn insert_waiting(&mut self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.len() < ROWS_AT_ONCE {
            return waiting.into_iter().try_for_each(|(event, epoch)| self.insert_event(event, epoch));
        }
        self.insert_at_once(&waiting).map_err(|error| self.blame(error))?;
        self.waiting = waiting;
        self.waiting.clear();
        Ok(())
    }

    fn insert_at_once(&self, events: &[(&Event, i64)]) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached(&INSERT_EVENTS)?;
        let mut parameter = 0;
        let mut bind = |value: ValueRef| {
            parameter += 1;
            insert.raw_bind_parameter(parameter, ToSqlOutput::Borrowed(value))
        };
        for (event, epoch) in events {
            let record = &event.record;
            bind(ValueRef::Text(event.tenant_id.as_bytes()))?;
            bind(ValueRef::Text(record.position.topic.as_bytes()))?;
            bind(ValueRef::Text(record.value.as_deref().unwrap_or_default()))?;
            bind(ValueRef::Text(self.received_at.as_bytes()))?;
            bind(ValueRef::Integer(record.position.partition.into()))?;
            bind(ValueRef::Integer(record.position.offset))?;
            bind(key_ref(record))?;
            bind(ValueRef::Null)?;
            bind(record.timestamp_ms.map_or(ValueRef::Null, ValueRef::Integer))?;
            bind(ValueRef::Null)?;
            bind(ValueRef::Integer(*epoch))?;
        }
        insert.raw_execute().map(drop)
    }

    fn insert(&mut self, event: &Event, epoch: i64) -> Result<Fate, Failure> {
        if self.isolation != Isolation::Savepoint {
            self.insert_event(event, epoch)?;
            return Ok(Fate::Journaled);
        }
        self.connection.execute_batch("SAVEPOINT row")?;
        let refused = match self.insert_event(event, epoch) {
            Ok(()) => None,
            Err(Failure::Refused(error)) if !self.connection.is_autocommit() => Some(refused(event, &error)),
            Err(failure) => return Err(failure),
        };
        if refused.is_some() {
            self.connection.execute_batch("ROLLBACK TO row")?;
        }
        self.connection.execute_batch("RELEASE row")?;
        let Some(letter) = refused else { return Ok(Fate::Journaled) };
        self.insert_dead_letter(&letter, epoch)?;
        Ok(Fate::DeadLettered(letter.reason))
    }

    /// Whether the record or the box is at fault that an event was not inserted.
    fn blame(&self, error: rusqlite::Error) -> Failure {
        if is_the_records(self.connection, INSERT_EVENT, &error) {
            Failure::Refused(error)
        } else {
            Failure::Sqlite(error)
        }
    }

    fn insert_event(&mut self, event: &Event, epoch: i64) -> Result<(), Failure> {
        let record = &event.record;
        let position = &record.position;
        let payload = ValueRef::Text(record.value.as_deref().unwrap_or_default());
        let (key, headers) = (key_ref(record), headers_text(record));
        let replay_of = self.replay_of(record)?;
        if self.insert.is_none() {
            self.insert = Some(self.connection.prepare_cached(INSERT_EVENT).map_err(|error| self.blame(error))?);
        }
        let inserted = self.insert.as_mut().map_or(Ok(0), |insert| {
            insert.execute(params![
                event.tenant_id,
                &*position.topic,
                ToSqlOutput::Borrowed(payload),
                self.received_at,
                position.partition,
                position.offset,
                ToSqlOutput::Borrowed(key),
                headers,
                record.timestamp_ms,
                replay_of,
                epoch,
            ])
        });
        // A trigger may have it ignored.
        let is_there = inserted.map_err(|error| self.blame(error))? == 1;
        let Some(chain) = self.chain.as_mut().filter(|_| is_there) else { return Ok(()) };
        let row = chain::EventRow {
            content: [payload, key, headers.as_deref().map_or(ValueRef::Null, ValueRef::from)],
            rest: [
                ValueRef::Text(event.tenant_id.as_bytes()),
                ValueRef::Text(position.topic.as_bytes()),
                ValueRef::Text(self.received_at.as_bytes()),
                ValueRef::Integer(position.partition.into()),
                ValueRef::Integer(position.offset),
                record.timestamp_ms.map_or(ValueRef::Null, ValueRef::Integer),
                replay_of.map_or(ValueRef::Null, ValueRef::Integer),
                ValueRef::Null,
            ],
        };
        Ok(chain.add(self.connection, self.connection.last_insert_rowid(), &row)?)
    }

    /// The record was inserted just now. If it was sent from here, it has come back.
    fn recognise(&self, record: &Record, fate: Fate) -> rusqlite::Result<()> {
        if record.headers.0.is_empty() {
            return Ok(());
        }
        jobs::observe(self.connection, record, self.journal_id)?;
        let event_id = (fate == Fate::Journaled).then(|| self.connection.last_insert_rowid());
        letters::observe(self.connection, record, self.journal_id, event_id)
    }

    /// The row that the record is a replay of. In a file that was restored from a backup another event may have got
    /// that row's number since: then it is none.
    fn replay_of(&self, record: &Record) -> rusqlite::Result<Option<i64>> {
        let (Some(id), Some(place)) = (record.headers.replay_of(self.journal_id), record.headers.replay_position())
        else {
            return Ok(None);
        };
        let sql = "SELECT topic || '/' || kafka_partition || '/' || kafka_offset = ?2 FROM event_journal WHERE id = ?1";
        let same: Option<bool> =
            self.connection.prepare_cached(sql)?.query_row((id, place), |row| row.get(0)).optional()?;
        Ok((same != Some(false)).then_some(id))
    }

    fn insert_dead_letter(&self, letter: &DeadLetter, epoch: i64) -> Result<(), Failure> {
        let record = &letter.record;
        let row = params![
            &*record.position.topic,
            value(record),
            letter.error(),
            self.received_at,
            letter.reason.as_str(),
            record.position.partition,
            record.position.offset,
            key(record),
            headers_text(record),
            record.timestamp_ms,
            epoch,
            tenant(record),
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
pub(super) fn refused(event: &Event, error: &rusqlite::Error) -> DeadLetter {
    let (reason, message) = refusal(error);
    DeadLetter { record: event.record.clone(), reason, message }
}
