//! The work on dead letters. A row stays whatever is done about it, and its state says what was.

use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params, params_from_iter};
use schemars::JsonSchema;
use serde::Serialize;

use super::row::{bytes, headers, is_the_records, optional_time, refusal, time, time_text};
use super::{Readers, StoreError, Writer, audit, chain};
use crate::audit::{Act, Outcome};
use crate::dead_letter::work::{self, Claim, Edited, LetterFilter, LetterRefusal, Republished, Retried, Retry};
use crate::dead_letter::{DeadLetter, shown};
use crate::event::{Bytes, Headers, Record, decode};

/// Groups that are listed at most, the largest first.
const GROUPS_MAX: u32 = 200;

/// The event that a dead letter's record becomes. It stands where the record stood.
const INSERT: &str = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, \
     kafka_key, kafka_headers, kafka_timestamp, kafka_epoch, dlq_id) \
     SELECT ?2, topic, ?3, ?4, kafka_partition, kafka_offset, kafka_key, kafka_headers, kafka_timestamp, kafka_epoch, id \
     FROM event_dlq WHERE id = ?1";

/// One line of `GET /dlq`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LetterSummary {
    pub id: i64,
    pub topic: String,
    pub error: String,
    pub received_at: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub work: Option<LetterWork>,
}

/// What was done about a dead letter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LetterWork {
    pub reason: String,
    /// Dead letters of one group failed for the same reason with an error of the same shape.
    pub group: String,
    /// open, journaled, republishing, republished, uncertain, discarded or erased.
    pub state: String,
    /// Retries so far, and how the last one ended.
    pub attempts: i64,
    pub last_error: Option<String>,
    pub last_attempt_at: Option<String>,
    /// The event that it became.
    pub event_id: Option<i64>,
    /// Why it was discarded, or what of it was edited.
    pub note: Option<String>,
}

/// Everything known of one dead letter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LetterDetail {
    pub id: i64,
    pub topic: String,
    pub error: String,
    pub received_at: String,
    pub payload: Option<Bytes>,
    pub kafka_partition: i32,
    pub kafka_offset: i64,
    pub kafka_key: Option<Bytes>,
    pub kafka_headers: Headers,
    /// Milliseconds since 1970-01-01 UTC.
    pub kafka_timestamp: Option<i64>,
    /// Whose it is, as far as its value or its key say.
    pub tenant_id: Option<String>,
    /// The certificate in the audit of its erasure: payload, key and headers are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<i64>,
    #[serde(flatten)]
    pub work: LetterWork,
}

/// Dead letters of one reason and one shape of error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LetterGroup {
    pub group: String,
    pub reason: String,
    pub shape: String,
    pub count: i64,
    pub first_received_at: String,
    pub last_received_at: String,
    /// The newest of them.
    pub sample: LetterSummary,
}

const WORK: &str = "reason, error_group(reason, error), state, attempts, last_error, last_attempt_at, event_id, note";

fn work_from_row(row: &Row, at: usize) -> rusqlite::Result<LetterWork> {
    Ok(LetterWork {
        reason: row.get(at)?,
        group: row.get(at + 1)?,
        state: row.get(at + 2)?,
        attempts: row.get(at + 3)?,
        last_error: row.get(at + 4)?,
        last_attempt_at: optional_time(row, at + 5)?,
        event_id: row.get(at + 6)?,
        note: row.get(at + 7)?,
    })
}

/// Gives a connection `error_group(reason, error)`.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("error_group", 2, flags, |context| {
        Ok(work::group(context.get_raw(0).as_str()?, context.get_raw(1).as_str()?))
    })
}

/// A process that ended while it republished left these: whether they arrived is not known.
pub(super) fn forsake(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "UPDATE event_dlq SET state = 'uncertain', last_error = 'the sink ended while it was being republished' \
               WHERE state = 'republishing'";
    connection.execute(sql, []).map(drop)
}

/// A record that was stored may be a dead letter that was republished: the row learns that it came back, and as what.
pub(super) fn observe(
    connection: &Connection,
    record: &Record,
    journal_id: &str,
    event_id: Option<i64>,
) -> rusqlite::Result<()> {
    let (Some(id), Some(place)) = (record.headers.replay_letter(journal_id), record.headers.replay_position()) else {
        return Ok(());
    };
    let sql = "UPDATE event_dlq SET state = 'republished', event_id = coalesce(?3, event_id), \
               last_error = iif(?3 IS NULL, 'it came back and became a dead letter again', NULL) \
               WHERE id = ?1 AND topic || '/' || kafka_partition || '/' || kafka_offset = ?2 \
               AND state IN ('republishing', 'republished', 'uncertain')";
    connection.prepare_cached(sql)?.execute(params![id, place, event_id]).map(drop)
}

/// Why a retry's transaction has to be begun anew.
enum Interrupted {
    /// A trigger rolled all of it back: each dead letter needs one of its own.
    RolledBack,
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Interrupted {
        Interrupted::Sqlite(error)
    }
}

impl Writer {
    /// Runs dead letters through ingestion again, by the rules of now. What passes is an event, and its row says so;
    /// what does not stays open with the error.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn retry(&mut self, retry: &Retry, act: &Act, now: Timestamp) -> Result<Vec<(i64, Retried)>, StoreError> {
        match self.retry_together(&retry.ids, retry, act, now) {
            Ok(retried) => Ok(retried),
            Err(Interrupted::Sqlite(error)) => Err(error.into()),
            Err(Interrupted::RolledBack) => self.retry_each(retry, act, now),
        }
    }

    /// Each in a transaction of its own, with its own row in the audit.
    fn retry_each(&mut self, retry: &Retry, act: &Act, now: Timestamp) -> Result<Vec<(i64, Retried)>, StoreError> {
        let mut all = Vec::with_capacity(retry.ids.len());
        for id in &retry.ids {
            match self.retry_together(&[*id], retry, act, now) {
                Ok(retried) => all.extend(retried),
                Err(Interrupted::Sqlite(error)) => return Err(error.into()),
                Err(Interrupted::RolledBack) => {
                    let error = "trigger: it rolled the transaction back".to_owned();
                    all.push((*id, self.refuse_alone(*id, error, retry.rehearse, act, now)?));
                }
            }
        }
        Ok(all)
    }

    fn refuse_alone(
        &mut self,
        id: i64,
        error: String,
        rehearse: bool,
        act: &Act,
        now: Timestamp,
    ) -> Result<Retried, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let attempts = if rehearse { 0 } else { refuse(&transaction, id, &error, now)? };
        let retried = Retried::Refused { error, attempts };
        audit::note(&transaction, &how_retried(act, std::slice::from_ref(&retried), rehearse), now)?;
        transaction.commit()?;
        Ok(retried)
    }

    fn retry_together(
        &mut self,
        ids: &[i64],
        retry: &Retry,
        act: &Act,
        now: Timestamp,
    ) -> Result<Vec<(i64, Retried)>, Interrupted> {
        let received = now.max(self.received_floor);
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut retried = Vec::with_capacity(ids.len());
        for id in ids {
            retried.push(retry_one(&transaction, *id, retry.edited.as_ref(), received, now)?);
        }
        if retry.rehearse {
            transaction.rollback()?;
            transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        }
        audit::note(&transaction, &how_retried(act, &retried, retry.rehearse), now)?;
        transaction.commit()?;
        if !retry.rehearse {
            self.received_floor = received;
        }
        Ok(ids.iter().copied().zip(retried).collect())
    }

    /// Takes a dead letter out of everybody's reach, to send it to its topic; the id of the act's row.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn claim(
        &mut self,
        claim: &Claim,
        act: &Act,
        now: Timestamp,
    ) -> Result<Result<i64, LetterRefusal>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(refusal) = not_open(&transaction, claim.id, claim.again)? {
            return Ok(Err(refusal));
        }
        let sql = "UPDATE event_dlq SET state = 'republishing', attempts = attempts + 1, last_attempt_at = ?2, \
                   note = coalesce(?3, note) WHERE id = ?1";
        transaction.execute(sql, params![claim.id, time_text(now), claim.note])?;
        let row = audit::note(&transaction, act, now)?;
        transaction.commit()?;
        Ok(Ok(row))
    }

    /// Says what became of a dead letter that was claimed.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn release(&mut self, id: i64, republished: &Republished, act: &Act, now: Timestamp) -> Result<(), StoreError> {
        let (state, error) = match republished {
            Republished::Acknowledged => ("republished", None),
            Republished::Refused(error) => ("open", Some(error)),
            Republished::Unknown(error) => ("uncertain", Some(error)),
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // It may have come back already.
        let sql = "UPDATE event_dlq SET state = ?2, last_error = ?3 WHERE id = ?1 AND state = 'republishing'";
        transaction.execute(sql, params![id, state, error])?;
        audit::note(&transaction, act, now)?;
        Ok(transaction.commit()?)
    }

    /// Sets those of `ids` that are open aside for good; how many these were.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn discard(&mut self, ids: &[i64], note: &str, act: &Act, now: Timestamp) -> Result<usize, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql =
            "UPDATE event_dlq SET state = 'discarded', note = ?2 WHERE id = ?1 AND state IN ('open', 'uncertain')";
        let mut discarded = 0;
        for id in ids {
            discarded += transaction.prepare_cached(sql)?.execute((id, note))?;
        }
        let outcome = if discarded > 0 { Outcome::Done } else { Outcome::Refused };
        let detail = format!("{discarded} of {} discarded", ids.len());
        audit::note(&transaction, &act.with(outcome, detail).counting(discarded), now)?;
        transaction.commit()?;
        Ok(discarded)
    }
}

/// How a retry went, for the audit.
fn how_retried(act: &Act, retried: &[Retried], rehearse: bool) -> Act {
    let passed = retried.iter().filter(|retried| matches!(retried, Retried::Journaled { .. })).count();
    let all = retried.len();
    match (rehearse, passed) {
        (true, _) => act.with(Outcome::DryRun, format!("{passed} of {all} would pass")).counting(all),
        (false, 0) => act.with(Outcome::Refused, format!("none of {all} became an event")).counting(0),
        (false, _) => act.with(Outcome::Done, format!("{passed} of {all} became events")).counting(passed),
    }
}

fn not_open(connection: &Connection, id: i64, again: bool) -> rusqlite::Result<Option<LetterRefusal>> {
    let sql = "SELECT state, event_id FROM event_dlq WHERE id = ?1";
    let row = connection.prepare_cached(sql)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((state, event_id)): Option<(String, Option<i64>)> = row else {
        return Ok(Some(LetterRefusal::NoSuch { id }));
    };
    Ok(match state.as_str() {
        "open" => None,
        "uncertain" if again => None,
        "uncertain" => Some(LetterRefusal::Uncertain { id }),
        _ => Some(LetterRefusal::NotOpen { id, state, event_id }),
    })
}

fn retry_one(
    transaction: &Transaction,
    id: i64,
    edited: Option<&Edited>,
    received: Timestamp,
    now: Timestamp,
) -> Result<Retried, Interrupted> {
    if let Some(refusal) = not_open(transaction, id, false)? {
        return Ok(Retried::Not(refusal));
    }
    let sql = "SELECT payload, topic FROM event_dlq WHERE id = ?1";
    let (stored, topic): (Option<Bytes>, String) =
        transaction.prepare_cached(sql)?.query_row([id], |row| Ok((bytes(row, 0)?, row.get(1)?)))?;
    let value = edited.map(|edited| edited.value.as_slice()).or(stored.as_ref().map(|bytes| bytes.0.as_slice()));
    let tenant_id = match decode(value) {
        Ok(tenant_id) => tenant_id,
        Err(error) => {
            let (reason, message) = DeadLetter::blame(error);
            let error = shown(reason, &message);
            let attempts = refuse(transaction, id, &error, now)?;
            return Ok(Retried::Refused { error, attempts });
        }
    };
    transaction.execute_batch("SAVEPOINT letter")?;
    let text = ValueRef::Text(value.unwrap_or_default());
    let inserted = transaction.prepare_cached(INSERT).and_then(|mut insert| {
        insert.execute(params![id, tenant_id, rusqlite::types::ToSqlOutput::Borrowed(text), time_text(received)])
    });
    match inserted {
        Ok(_) => {}
        Err(error) if is_the_records(transaction, INSERT, &error) => {
            if transaction.is_autocommit() {
                return Err(Interrupted::RolledBack);
            }
            transaction.execute_batch("ROLLBACK TO letter; RELEASE letter")?;
            let (reason, message) = refusal(&error);
            let error = shown(reason, &message);
            let attempts = refuse(transaction, id, &error, now)?;
            return Ok(Retried::Refused { error, attempts });
        }
        Err(error) => return Err(error.into()),
    }
    let event_id = transaction.last_insert_rowid();
    transaction.execute_batch("RELEASE letter")?;
    chain::add_event(transaction, event_id)?;
    let sql = "UPDATE event_dlq SET state = 'journaled', attempts = attempts + 1, last_error = NULL, last_attempt_at = ?2, \
               event_id = ?3, note = coalesce(?4, note) WHERE id = ?1";
    let note = edited.map(|edited| &edited.note);
    transaction.prepare_cached(sql)?.execute(params![id, time_text(now), event_id, note])?;
    Ok(Retried::Journaled { event_id, topic, tenant_id })
}

/// Notes a retry that failed; how many there were now.
fn refuse(connection: &Connection, id: i64, error: &str, now: Timestamp) -> rusqlite::Result<i64> {
    let sql = "UPDATE event_dlq SET attempts = attempts + 1, last_error = ?2, last_attempt_at = ?3 WHERE id = ?1 \
               RETURNING attempts";
    let mut update = connection.prepare_cached(sql)?;
    update.query_row(params![id, error, time_text(now)], |row| row.get(0))
}

impl Readers {
    /// The newest open dead letters, newest first.
    pub fn latest_dead_letters(&self, tenant: Option<&str>, limit: u32) -> Result<Vec<LetterSummary>, StoreError> {
        let sql = "SELECT id, topic, error, received_at FROM event_dlq WHERE state = 'open' \
                   AND (?1 IS NULL OR tenant_id = ?1) ORDER BY id DESC LIMIT ?2";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let rows = select.query_map((tenant, limit), |row| summary(row, false))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest dead letters before `before_id` that `filter` means and that are in `state` (`None`: any), newest
    /// first, with what was done about them.
    pub fn dead_letters(
        &self,
        filter: &LetterFilter,
        state: Option<&str>,
        before_id: i64,
        limit: u32,
    ) -> Result<Vec<LetterSummary>, StoreError> {
        let reader = self.get()?;
        let (condition, mut values) = conditions(filter, &state);
        let sql = format!(
            "SELECT id, topic, error, received_at, {WORK} FROM event_dlq WHERE {condition} AND id < ? ORDER BY id DESC LIMIT ?"
        );
        values.extend([&before_id as &dyn ToSql, &limit]);
        let mut select = reader.prepare_cached(&sql)?;
        let rows = select.query_map(params_from_iter(values), |row| summary(row, true))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The open dead letters that `filter` means, oldest first.
    pub fn open_dead_letters(&self, filter: &LetterFilter) -> Result<Vec<i64>, StoreError> {
        let reader = self.get()?;
        let state = Some("open");
        let (condition, values) = conditions(filter, &state);
        let mut select = reader.prepare_cached(&format!("SELECT id FROM event_dlq WHERE {condition} ORDER BY id"))?;
        let ids = select.query_map(params_from_iter(values), |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// A dead letter, unless another tenant's is not to be seen.
    pub fn dead_letter(&self, tenant: Option<&str>, id: i64) -> Result<Option<LetterDetail>, StoreError> {
        let sql = format!(
            "SELECT id, topic, error, received_at, payload, kafka_partition, kafka_offset, kafka_key, kafka_headers, \
             kafka_timestamp, tenant_id, erased, {WORK} FROM event_dlq WHERE id = ?1 AND (?2 IS NULL OR tenant_id = ?2)"
        );
        let reader = self.get()?;
        let letter = reader.prepare_cached(&sql)?.query_row((id, tenant), |row| {
            Ok(LetterDetail {
                id: row.get(0)?,
                topic: row.get(1)?,
                error: row.get(2)?,
                received_at: time(row, 3)?,
                payload: bytes(row, 4)?,
                kafka_partition: row.get(5)?,
                kafka_offset: row.get(6)?,
                kafka_key: bytes(row, 7)?,
                kafka_headers: headers(row, 8)?,
                kafka_timestamp: row.get(9)?,
                tenant_id: row.get(10)?,
                erased: row.get(11)?,
                work: work_from_row(row, 12)?,
            })
        });
        Ok(letter.optional()?)
    }

    /// The groups of the dead letters in `state` (`None`: any), the largest first.
    pub fn dead_letter_groups(
        &self,
        tenant: Option<&str>,
        state: Option<&str>,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        let sql = format!(
            "SELECT letter.id, topic, error, received_at, {WORK}, letters, \
                 (SELECT received_at FROM event_dlq WHERE id = oldest) \
             FROM (SELECT count(*) AS letters, min(id) AS oldest, max(id) AS newest FROM event_dlq \
                   WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR tenant_id = ?2) GROUP BY error_group(reason, error)) \
             JOIN event_dlq AS letter ON letter.id = newest ORDER BY letters DESC, newest DESC LIMIT {GROUPS_MAX}"
        );
        let reader = self.get()?;
        let mut select = reader.prepare_cached(&sql)?;
        let rows = select.query_map((state, tenant), |row| {
            let sample = summary(row, false)?;
            Ok(LetterGroup {
                group: row.get(5)?,
                reason: row.get(4)?,
                shape: work::shape(&sample.error),
                count: row.get(12)?,
                first_received_at: time(row, 13)?,
                last_received_at: sample.received_at.clone(),
                sample,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn summary(row: &Row, with_work: bool) -> rusqlite::Result<LetterSummary> {
    let work = if with_work { Some(work_from_row(row, 4)?) } else { None };
    Ok(LetterSummary { id: row.get(0)?, topic: row.get(1)?, error: row.get(2)?, received_at: time(row, 3)?, work })
}

fn conditions<'a>(filter: &'a LetterFilter, state: &'a Option<&'a str>) -> (String, Vec<&'a dyn ToSql>) {
    let mut conditions = vec!["true"];
    let mut values: Vec<&dyn ToSql> = Vec::new();
    for (condition, value) in [
        ("tenant_id = ?", &filter.tenant),
        ("topic = ?", &filter.topic),
        ("reason = ?", &filter.reason),
        ("received_at >= ?", &filter.since),
        ("received_at < ?", &filter.until),
        ("error_group(reason, error) = ?", &filter.group),
    ] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    }
    if let Some(state) = state {
        conditions.push("state = ?");
        values.push(state);
    }
    (conditions.join(" AND "), values)
}
