//! The one write transaction: events, dead letters, the ranges of offsets they fill and the next offsets, all or nothing.

use std::cell::Cell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::coverage::{Log, Logs, Ranges};
use super::{
    BUSY_TIMEOUT, Occasion, StoreError, audit, jobs, journal_info, letters, open_for_writing, overlap, settle,
};
use crate::audit::{Act, Outcome};
use crate::coverage::{Gap, NewLog};
use crate::dead_letter::breaker::Limits;
use crate::dead_letter::{DeadLetter, Reason};
use crate::event::{Event, Record};
use crate::queue::{Item, Partition, Sighting};

const INSERT_EVENT: &str = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, \
     kafka_offset, kafka_key, kafka_headers, kafka_timestamp, replay_of, kafka_epoch) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
const INSERT_DEAD_LETTER: &str = "INSERT INTO event_dlq (topic, payload, error, received_at, reason, \
     kafka_partition, kafka_offset, kafka_key, kafka_headers, kafka_timestamp, kafka_epoch) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";

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
    /// Its partition is halted, or was given up: it is not in the file, and is read again later.
    Withheld,
}

/// What the writer obeys beside the records.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub dead_letters: Limits,
    /// A gap that is a loss halts its partition.
    pub halt_on_gap: bool,
}

/// What a transaction did.
#[derive(Debug, Default)]
pub struct Appended {
    /// One for each item.
    pub fates: Vec<Fate>,
    pub gaps: Vec<(Partition, Gap)>,
    pub new_logs: Vec<(Partition, NewLog)>,
    /// Partitions that were halted, and why.
    pub halted: Vec<(Partition, String)>,
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
    pub(super) connection: Connection,
    path: PathBuf,
    pub(super) journal_id: String,
    logs: Logs,
    rules: Rules,
    /// Microseconds since 1970; no row is received earlier.
    pub(super) received_floor: i64,
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
        let connection = open_for_writing(path, occasion)?;
        connection.wal_hook(Some(|_, pages| {
            WAL_PAGES.set(pages);
            Ok(())
        }));
        if !matches!(occasion, Occasion::Fault { .. }) {
            letters::forsake(&connection)?;
        }
        let mut writer = Writer {
            journal_id: journal_info(&connection, "journal_id")?,
            logs: Logs::stored(&connection)?,
            rules,
            received_floor: last_received(&connection)?,
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
        Timestamp::from_microsecond(self.received_floor).unwrap_or_default()
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

    /// Makes `items` durable in one transaction, and gives each one's fate. An item that the file holds already is
    /// skipped, so the call may be repeated. A row that is refused becomes a dead letter; its neighbours are stored.
    ///
    /// # Errors
    /// A fault of the box: nothing of `items` is stored, or (if the commit's outcome is unknown) all of it;
    /// [`Writer::reopen`] finds out.
    pub fn append(
        &mut self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let ended = self.of_ended_logs(items);
        if !ended.is_empty() {
            let live: Vec<Item> =
                (0..).zip(items).filter(|(n, _)| !ended.contains(n)).map(|(_, i)| i.clone()).collect();
            let mut appended = self.append(&live, sightings, now)?;
            let mut fates = appended.fates.into_iter();
            let fate = |n| if ended.contains(&n) { Some(Fate::Skipped) } else { fates.next() };
            appended.fates = (0..items.len()).filter_map(fate).collect();
            return Ok(appended);
        }
        for isolation in [Isolation::None, Isolation::Savepoint] {
            match self.transaction(items, sightings, now, isolation) {
                Ok(appended) => return Ok(appended),
                Err(Failure::Refused(_)) => {}
                Err(Failure::Sqlite(error)) => return Err(error.into()),
            }
        }
        let mut all = Appended::default();
        for item in items {
            let alone = self.append_alone(item, sightings, now)?;
            all.fates.extend(alone.fates);
            all.gaps.extend(alone.gaps);
            all.new_logs.extend(alone.new_logs);
            all.halted.extend(alone.halted);
        }
        Ok(all)
    }

    /// The items of a log that has ended, by a later item that was carried out already: the call is repeated. By the
    /// new log's offsets they would look new.
    fn of_ended_logs(&self, items: &[Item]) -> HashSet<usize> {
        let mut ended = HashSet::new();
        for (number, item) in items.iter().enumerate() {
            let Item::Begin(begin) = item else { continue };
            let partition = item.partition();
            let is_done = self.logs.get(&partition).is_some_and(|log| log.at.epoch >= begin.epoch);
            if begin.new_log.is_some() && is_done {
                ended.extend((0..number).filter(|before| items[*before].partition() == partition));
            }
        }
        ended
    }

    fn append_alone(
        &mut self,
        item: &Item,
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let alone = self.transaction(std::slice::from_ref(item), sightings, now, Isolation::Transaction);
        let again = match (alone, item) {
            (Err(Failure::Refused(error)), Item::Event(event)) => {
                let letter = Item::DeadLetter(refused(event, &error));
                self.transaction(&[letter], sightings, now, Isolation::None)
            }
            (alone, _) => alone,
        };
        again.map_err(|(Failure::Refused(error) | Failure::Sqlite(error))| error.into())
    }

    fn transaction(
        &mut self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
        isolation: Isolation,
    ) -> Result<Appended, Failure> {
        let received = now.as_microsecond().max(self.received_floor);
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let filled = self.fill(items, sightings, &received_text(received), isolation);
        let committed = filled.and_then(|filled| {
            match self.connection.execute_batch("COMMIT") {
                Ok(()) => Ok(filled),
                // A constraint that an operator deferred to the commit.
                Err(error) if is_constraint(&error) => Err(Failure::Refused(error)),
                Err(error) => Err(Failure::Sqlite(error)),
            }
        });
        match committed {
            Ok((appended, logs)) => {
                self.logs = logs;
                self.received_floor = received;
                Ok(appended)
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

    /// Inserts what is new of `items`; what it did, and the logs after them.
    fn fill(
        &self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        received_at: &str,
        isolation: Isolation,
    ) -> Result<(Appended, Logs), Failure> {
        let rows = Rows { connection: &self.connection, journal_id: &self.journal_id, received_at, isolation };
        let ranges = Ranges { connection: &self.connection, recorded_at: received_at };
        let compared = self.logs.compares();
        let mut logs = self.logs.clone();
        let mut touched: HashSet<Partition> = HashSet::new();
        let mut appended = Appended::default();
        for item in items {
            let partition = item.partition();
            let fate = self.fill_one(item, &partition, &mut logs, (&rows, &ranges), &mut appended)?;
            appended.fates.push(fate);
            touched.insert(partition);
        }
        for (partition, sighting) in sightings {
            if let Some(log) = logs.get_mut(partition).filter(|_| touched.contains(partition)) {
                log.see(sighting);
            }
        }
        for partition in &touched {
            let after = logs.get(partition);
            if let Some(after) = after.filter(|after| self.logs.get(partition).map(|log| &log.at) != Some(&after.at)) {
                ranges.save(partition, &after.at)?;
            }
        }
        if (compared || !appended.new_logs.is_empty()) && !logs.compares() {
            self.connection.execute_batch(overlap::DROP_INDEX)?;
        }
        Ok((appended, logs))
    }

    fn fill_one(
        &self,
        item: &Item,
        partition: &Partition,
        logs: &mut Logs,
        (rows, ranges): (&Rows, &Ranges),
        appended: &mut Appended,
    ) -> Result<Fate, Failure> {
        if let Item::Begin(begin) = item {
            let known = logs.get(partition).is_some();
            let log = logs.entry(partition);
            let epoch = log.at.epoch;
            let gaps = ranges.begin(partition, log, known, begin)?;
            if let Some(new_log) = begin.new_log.as_ref().filter(|_| known && log.at.epoch != epoch) {
                appended.new_logs.push((partition.clone(), new_log.clone()));
            }
            self.note_gaps(partition, log, gaps, appended);
            return Ok(Fate::Skipped);
        }
        let Some(log) = logs.get_mut(partition).filter(|log| log.takes_records()) else { return Ok(Fate::Withheld) };
        let offset = item.position().offset;
        if let Item::NotDelivered { next_offset, .. } = item {
            let unexplained = ranges.unexplained(partition, log, offset)?;
            log.at.not_delivered += (next_offset - log.at.next_offset).max(0);
            log.at.next_offset = log.at.next_offset.max(*next_offset);
            self.note_gaps(partition, log, unexplained, appended);
            return Ok(Fate::Skipped);
        }
        if offset < log.at.next_offset {
            return Ok(Fate::Skipped);
        }
        let unexplained = ranges.unexplained(partition, log, offset)?;
        self.note_gaps(partition, log, unexplained, appended);
        if log.at.halted.is_some() {
            return Ok(Fate::Withheld);
        }
        let fate = rows.store(item, partition, log)?;
        if let Some(record) = item.record().filter(|record| !record.headers.0.is_empty()) {
            rows.recognise(record, fate)?;
        }
        self.count(fate, log, partition, appended);
        Ok(fate)
    }

    /// Moves the position past a record that is stored.
    fn count(&self, fate: Fate, log: &mut Log, partition: &Partition, appended: &mut Appended) {
        log.at.next_offset += 1;
        if let Fate::DeadLettered(reason) = fate {
            log.at.dead_lettered += 1;
            if let Some(why) = log.breaker.dead_lettered(&self.rules.dead_letters) {
                let why = format!("poisoned: {why}, the last one as {}", reason.as_str());
                appended.halted.push((partition.clone(), why.clone()));
                log.halt(why);
            }
        } else {
            log.at.journaled += 1;
            log.breaker.stored();
        }
    }

    fn note_gaps(
        &self,
        partition: &Partition,
        log: &mut Log,
        gaps: impl IntoIterator<Item = Gap>,
        appended: &mut Appended,
    ) {
        for gap in gaps {
            if self.rules.halt_on_gap && gap.is_loss() {
                let (reason, first) = (gap.reason.as_str(), gap.first_offset);
                let why = format!("gap: offsets {first} to {} are missing ({reason})", gap.next_offset - 1);
                appended.halted.push((partition.clone(), why.clone()));
                log.halt(why);
            }
            appended.gaps.push((partition.clone(), gap));
        }
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

/// The statements of one transaction.
struct Rows<'a> {
    connection: &'a Connection,
    journal_id: &'a str,
    received_at: &'a str,
    isolation: Isolation,
}

impl Rows<'_> {
    /// Stores a record of `log`; one that was stored under the log before becomes this one's.
    fn store(&self, item: &Item, partition: &Partition, log: &Log) -> Result<Fate, Failure> {
        let found = match item.record() {
            Some(record) => overlap::adopt(self.connection, partition, log, record)?,
            None => None,
        };
        match (item, found) {
            (_, Some(overlap::Found::Journal)) => Ok(Fate::Journaled),
            (Item::Event(event), None) => self.insert(event, log.at.epoch),
            (Item::DeadLetter(letter), _) => {
                if found.is_none() {
                    self.insert_dead_letter(letter, log.at.epoch)?;
                }
                Ok(Fate::DeadLettered(letter.reason))
            }
            (_, Some(overlap::Found::DeadLetters)) => Ok(Fate::DeadLettered(Reason::Constraint)),
            (Item::Begin(_) | Item::NotDelivered { .. }, None) => Ok(Fate::Skipped),
        }
    }

    fn insert(&self, event: &Event, epoch: i64) -> Result<Fate, Failure> {
        if self.isolation != Isolation::Savepoint {
            self.insert_event(event, epoch).map_err(|error| self.blame(error))?;
            return Ok(Fate::Journaled);
        }
        self.connection.execute_batch("SAVEPOINT row")?;
        let refused = match self.insert_event(event, epoch).map_err(|error| self.blame(error)) {
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

    fn insert_event(&self, event: &Event, epoch: i64) -> rusqlite::Result<()> {
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
            self.replay_of(record)?,
            epoch,
        ])?;
        Ok(())
    }

    /// A record that was sent from here has come back.
    fn recognise(&self, record: &Record, fate: Fate) -> rusqlite::Result<()> {
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
            headers(record),
            record.timestamp_ms,
            epoch,
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

/// Whether a row's own values are why `insert` failed. A trigger's expression may fail on one record's values with the
/// same code as a trigger that is broken altogether; only with the latter the statement cannot even be prepared.
pub(super) fn is_the_records(connection: &Connection, insert: &str, error: &rusqlite::Error) -> bool {
    let generic = error.sqlite_error_code() == Some(ErrorCode::Unknown);
    is_constraint(error) || (generic && connection.prepare(insert).is_ok())
}

/// The dead letter that a refused event becomes.
fn refused(event: &Event, error: &rusqlite::Error) -> DeadLetter {
    let (reason, message) = refusal(error);
    DeadLetter { record: event.record.clone(), reason, message }
}

/// Why a row was refused, by an error that is its own.
pub(super) fn refusal(error: &rusqlite::Error) -> (Reason, String) {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            let is_trigger = code.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER
                || code.code != ErrorCode::ConstraintViolation;
            let reason = if is_trigger { Reason::Trigger } else { Reason::Constraint };
            (reason, message.clone().unwrap_or_else(|| code.to_string()))
        }
        other => (Reason::Constraint, other.to_string()),
    }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

pub(super) fn value(record: &Record) -> ToSqlOutput<'_> {
    text_or_blob(record.value.as_deref())
}

pub(super) fn key(record: &Record) -> ToSqlOutput<'_> {
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
pub(super) fn received_text(microseconds: i64) -> String {
    Timestamp::from_microsecond(microseconds).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
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
    use crate::coverage::{Begin, GapReason};
    use crate::event::{Headers, Position};

    fn event(offset: i64) -> Item {
        let position = Position { topic: "leads".into(), partition: 0, offset };
        let value = Some(b"{}".to_vec());
        let record = Record { position, key: None, value, headers: Headers::default(), timestamp_ms: None };
        Item::Event(Event { record, tenant_id: "acme".into() })
    }

    const RULES: Rules = Rules { dead_letters: Limits { consecutive_max: 3, ratio_max: 1.0 }, halt_on_gap: false };

    fn begin(offset: i64, epoch: i64, new_log: Option<NewLog>) -> Item {
        let at = Position { topic: "leads".into(), partition: 0, offset };
        Item::Begin(Begin { at, epoch, topic_id: None, new_log, gaps: Vec::new() })
    }

    fn bad(offset: i64) -> Item {
        let Item::Event(event) = event(offset) else { unreachable!("it is made as an event") };
        Item::DeadLetter(DeadLetter { record: event.record, reason: Reason::NotJson, message: String::new() })
    }

    fn writer(folder: &tempfile::TempDir) -> Writer {
        Writer::open(&folder.path().join("journal.db"), RULES).unwrap()
    }

    fn fates(writer: &mut Writer, items: &[Item]) -> Vec<Fate> {
        writer.append(items, &[], Timestamp::now()).unwrap().fates
    }

    fn rows(writer: &Writer) -> i64 {
        writer.connection.query_row("SELECT count(*) FROM event_journal", [], |row| row.get(0)).unwrap()
    }

    /// `first-next kind journaled`, oldest first, the one at the position last.
    fn ranges(writer: &Writer) -> Vec<String> {
        let sql = "SELECT epoch || ': ' || first_offset || '-' || next_offset || ' ' || kind || ' ' || journaled FROM \
                   (SELECT epoch, first_offset, next_offset, kind, journaled FROM kafka_range UNION ALL \
                    SELECT epoch, first_offset, next_offset, 'now', journaled FROM kafka_position) ORDER BY epoch, first_offset, kind";
        let mut select = writer.connection.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_is_appended_again_is_skipped_also_after_the_log_began_again() {
        use Fate::{Journaled, Skipped};
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let first = [begin(7, 0, None), event(7), event(8)];
        assert_eq!(fates(&mut writer, &first), [Skipped, Journaled, Journaled]);
        assert_eq!(fates(&mut writer, &first), [Skipped; 3]);
        let new_log = NewLog { reason: GapReason::Recreated, old_end: 12, compare_from: 9 };
        let again = [begin(0, 1, Some(new_log)), event(0), event(1)];
        assert_eq!(fates(&mut writer, &again), [Skipped, Journaled, Journaled]);
        // The commit's outcome was unknown, and the batch is tried again after a look at the file.
        writer.reopen(true).unwrap();
        assert_eq!(fates(&mut writer, &again), [Skipped; 3]);
        assert_eq!(rows(&writer), 4);
        assert_eq!(ranges(&writer), ["0: 7-9 held 2", "0: 9-12 recreated 0", "1: 0-2 now 2"]);
    }

    #[test]
    fn what_was_read_from_a_new_log_before_that_was_noticed_is_not_stored_twice() {
        use Fate::Journaled;
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1), event(2), event(3)]);
        // Offsets 2 and 3 were the new log's already: the same records come again.
        let new_log = NewLog { reason: GapReason::Recreated, old_end: 4, compare_from: 2 };
        let again = [begin(0, 1, Some(new_log)), event(0), event(1), event(2), event(3), event(4)];
        assert_eq!(fates(&mut writer, &again)[1..], [Journaled; 5]);
        assert_eq!(rows(&writer), 7);
        assert_eq!(ranges(&writer), ["0: 0-2 held 2", "0: 4-4 recreated 0", "1: 0-5 now 5"]);
        let indexes = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%overlap'";
        assert_eq!(writer.connection.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn a_replay_names_its_row_only_if_that_is_still_the_same_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let text = |text: &str| crate::event::Bytes(text.as_bytes().to_vec());
        let replay = |offset: i64, of: &str, place: &str| {
            let Item::Event(mut event) = event(offset) else { unreachable!("it is made as an event") };
            let headers =
                [("crm-replay-of", of), ("crm-replay-journal", &writer.journal_id), ("crm-replay-position", place)];
            event.record.headers = Headers(headers.map(|(name, value)| (text(name), Some(text(value)))).to_vec());
            Item::Event(event)
        };
        // Row 1 is what it was; row 2 got its number after the file was restored; row 9 was deleted since.
        let replays = [replay(2, "1", "leads/0/0"), replay(3, "2", "leads/0/700"), replay(4, "9", "leads/0/9")];
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1)]);
        fates(&mut writer, &replays);
        let sql = "SELECT group_concat(coalesce(replay_of, '-'), ' ') FROM (SELECT * FROM event_journal ORDER BY id)";
        assert_eq!(writer.connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "- - 1 - 9");
    }

    #[test]
    fn a_jump_that_nobody_explains_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let at = Position { topic: "leads".into(), partition: 0, offset: 1 };
        let marker = Item::NotDelivered { at, next_offset: 3 };
        fates(&mut writer, &[begin(0, 0, None), event(0), marker, event(3), event(9)]);
        assert_eq!(ranges(&writer), ["0: 0-4 held 2", "0: 4-9 unexplained 0", "0: 9-10 now 1"]);
    }

    #[test]
    fn too_many_dead_letters_halt_the_partition_until_it_is_resumed_and_begun_again() {
        use Fate::{DeadLettered, Journaled, Skipped, Withheld};
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let dead = DeadLettered(Reason::NotJson);
        let poisoned = [begin(0, 0, None), bad(0), bad(1), bad(2), event(3)];
        assert_eq!(fates(&mut writer, &poisoned), [Skipped, dead, dead, dead, Withheld]);
        assert_eq!(fates(&mut writer, &[event(4)]), [Withheld]);
        let act = Act {
            operator: "anna".to_owned(),
            origin: "127.0.0.1".to_owned(),
            action: "consumer.resume",
            target: "every topic".to_owned(),
            reason: None,
            count: None,
            outcome: Outcome::Done,
            detail: None,
            started_id: None,
        };
        assert_eq!(writer.resume(|_| true, &act, Timestamp::now()).unwrap().len(), 1);
        assert_eq!(fates(&mut writer, &[event(5)]), [Withheld], "it was read before the halt was known");
        assert_eq!(fates(&mut writer, &[begin(3, 0, None), event(3)]), [Skipped, Journaled]);
        assert_eq!(ranges(&writer), ["0: 0-4 now 1"]);
        fates(&mut writer, &[bad(4), bad(5), bad(6)]);
        writer.reopen(true).unwrap();
        assert_eq!(writer.halted().len(), 1, "it outlives the process");
        assert_eq!(fates(&mut writer, &[begin(7, 0, None), event(7)]), [Skipped, Withheld]);
    }

    #[test]
    fn whoever_deletes_a_row_the_ranges_know() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1), event(9), event(10)]);
        writer.connection.execute_batch("DELETE FROM event_journal WHERE kafka_offset IN (0, 10)").unwrap();
        let pruned = "SELECT (SELECT group_concat(pruned) FROM kafka_range WHERE kind = 'held') || ' ' || pruned FROM kafka_position";
        assert_eq!(writer.connection.query_row(pruned, [], |row| row.get::<_, String>(0)).unwrap(), "1 1");
        fates(&mut writer, &[event(11)]);
        assert_eq!(writer.connection.query_row(pruned, [], |row| row.get::<_, String>(0)).unwrap(), "1 1");
    }

    /// What a consumer may hand over next.
    #[derive(Debug, Clone)]
    enum Step {
        Events(u8),
        Bad,
        NotDelivered(u8),
        /// Records go missing between two others.
        Jump(u8),
        /// Retention passed by.
        Expired(u8),
        Recreated,
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            6 => (1..20_u8).prop_map(Step::Events),
            2 => Just(Step::Bad),
            2 => (1..4_u8).prop_map(Step::NotDelivered),
            1 => (1..9_u8).prop_map(Step::Jump),
            1 => (1..9_u8).prop_map(Step::Expired),
            1 => Just(Step::Recreated),
        ]
    }

    fn items(steps: &[Step]) -> Vec<Item> {
        let mut items = vec![begin(0, 0, None)];
        let (mut next, mut epoch) = (0, 0);
        for step in steps {
            match *step {
                Step::Events(count) => items.extend((next..next + i64::from(count)).map(event)),
                Step::Bad => items.push(bad(next)),
                Step::NotDelivered(count) => {
                    let at = Position { topic: "leads".into(), partition: 0, offset: next };
                    items.push(Item::NotDelivered { at, next_offset: next + i64::from(count) });
                }
                Step::Jump(_) => {}
                Step::Expired(count) => {
                    let (first_offset, next_offset) = (next, next + i64::from(count));
                    let gap = Gap { first_offset, next_offset, reason: GapReason::Expired, detail: None };
                    let at = Position { topic: "leads".into(), partition: 0, offset: next_offset };
                    items.push(Item::Begin(Begin { at, epoch, topic_id: None, new_log: None, gaps: vec![gap] }));
                }
                Step::Recreated => {
                    epoch += 1;
                    let new_log = NewLog { reason: GapReason::Recreated, old_end: next, compare_from: next };
                    items.push(begin(0, epoch, Some(new_log)));
                }
            }
            next = match *step {
                Step::Recreated => 0,
                Step::Bad => next + 1,
                Step::Events(n) | Step::NotDelivered(n) | Step::Jump(n) | Step::Expired(n) => next + i64::from(n),
            };
        }
        items
    }

    proptest::proptest! {
        #[test]
        fn the_ranges_have_no_holes_and_say_what_the_rows_are(
            steps in proptest::collection::vec(step(), 1..20),
            cuts in proptest::collection::vec(1..9_usize, 1..60),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = writer(&folder);
            let items = items(&steps);
            let (mut rest, mut cuts) = (&items[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                writer.append(batch, &[], Timestamp::now()).unwrap();
                // The outcome was not known, so it is tried once more.
                writer.append(batch, &[], Timestamp::now()).unwrap();
                rest = after;
            }
            let holes = "SELECT count(*) FROM (SELECT first_offset, lag(next_offset, 1, 0) OVER (PARTITION BY epoch ORDER BY first_offset, next_offset) AS before \
                FROM (SELECT epoch, first_offset, next_offset FROM kafka_range UNION ALL SELECT epoch, first_offset, next_offset FROM kafka_position)) \
                WHERE first_offset <> before";
            proptest::prop_assert_eq!(writer.connection.query_row(holes, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
            let audit = super::super::audit(&folder.path().join("journal.db")).unwrap();
            proptest::prop_assert!(audit.findings.is_empty(), "{:?}", audit.findings);
            let records = items.iter().filter(|item| item.record().is_some()).count() as i64;
            let held: i64 = audit.logs.iter().map(|log| log.stored + log.dead_lettered).sum();
            let halted = audit.logs.iter().any(|log| log.halted.is_some());
            proptest::prop_assert!(held == records || halted, "{held} of {records}");
        }
    }
}
