//! Replay jobs: which events they are about and what became of each.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, TransactionBehavior, params};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::row::{optional_time, time, time_text};
use super::{EventDetail, Readers, StoreError, Writer, audit};
use crate::audit::{Act, Outcome};
use crate::event::Record;
use crate::job::{Change, JobRefusal, Made, NewJob, Step, Verdict};

/// A job and how far it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Job {
    pub job_id: i64,
    /// running, paused, finished or cancelled.
    #[schemars(example = &"running")]
    pub status: String,
    pub request: Box<RawValue>,
    pub to_topic: Option<String>,
    pub rate_per_s: u32,
    /// The sum of the next six.
    pub total: i64,
    pub pending: i64,
    pub in_flight: i64,
    pub acknowledged: i64,
    pub failed: i64,
    pub uncertain: i64,
    pub cancelled: i64,
    /// Superseded events and replays that were left out, beside the total.
    pub skipped: i64,
    /// Events that the sink has read back; of those, how many more than once.
    pub observed: i64,
    pub observed_twice: i64,
    pub created_at: String,
    pub ended_at: Option<String>,
    pub operator: String,
    pub reason: Option<String>,
    /// Goes along with each of its records.
    #[serde(skip)]
    pub token: String,
    /// The only tenant whose events it may hold.
    pub tenant_id: Option<String>,
}

/// What became of one event of a job.
#[derive(Debug, Serialize, JsonSchema)]
pub struct JobItem {
    pub event_id: i64,
    pub state: String,
    /// Where the broker put it.
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    /// How often the sink has read it back, and where it did last.
    pub observed: i64,
    pub observed_partition: Option<i32>,
    pub observed_offset: Option<i64>,
    pub error: Option<String>,
}

/// Bytes of the events that a job has in hand at once: eight jobs may run, and the producer holds them once more.
const NEXT_BYTES_MAX: usize = 4 << 20;

const SELECT_JOB: &str = "SELECT id, state, request, to_topic, rate_per_s, total, skipped, created_at, ended_at, operator, reason, token, tenant_id \
     FROM replay_job";

impl Writer {
    /// Makes a job of `job`, unless a request with the same key has made it already.
    ///
    /// # Errors
    /// A fault of the box: it was not made, or (if the commit's outcome is unknown) it was.
    pub fn make_job(
        &mut self,
        job: &NewJob,
        act: &Act,
        now: Timestamp,
    ) -> Result<Result<Made, JobRefusal>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let made = match made_before(&transaction, job)? {
            Some(before) => before,
            None => insert_job(&transaction, job, act, now)?,
        };
        match &made {
            Ok(made) if made.is_new => {
                let act = Act { target: format!("job {}: {}", made.job_id, act.target), ..act.clone() };
                audit::note(&transaction, &act.with(Outcome::Started, ""), now)?;
                transaction.commit()?;
            }
            Ok(made) => {
                let same = format!("the Idempotency-Key's first answer again: job {}", made.job_id);
                audit::note(&transaction, &act.with(Outcome::Done, same), now)?;
                transaction.commit()?;
            }
            Err(_) => transaction.rollback()?,
        }
        Ok(made)
    }

    /// # Errors
    /// A fault of the box.
    pub fn change_job(
        &mut self,
        id: i64,
        change: Change,
        act: &Act,
        now: Timestamp,
    ) -> Result<Result<(), JobRefusal>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change_job(&transaction, id, change, now)?;
        if changed.is_ok() {
            audit::note(&transaction, act, now)?;
            transaction.commit()?;
        } else {
            transaction.rollback()?;
        }
        Ok(changed)
    }

    /// Takes a job one step further.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn step_job(&mut self, step: &Step, now: Timestamp) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match step {
            Step::Next { job_id, verdicts, event_ids } => {
                record(&transaction, *job_id, verdicts)?;
                begin(&transaction, *job_id, event_ids)?;
            }
            Step::Record { job_id, verdicts } => record(&transaction, *job_id, verdicts)?,
            Step::Settle { job_id, verdict } => {
                for event_id in in_flight(&transaction, *job_id)? {
                    record(&transaction, *job_id, &[(event_id, verdict.clone())])?;
                }
            }
            Step::Finish { job_id } => finish(&transaction, *job_id, now)?,
        }
        Ok(transaction.commit()?)
    }
}

fn made_before(transaction: &Transaction, job: &NewJob) -> rusqlite::Result<Option<Result<Made, JobRefusal>>> {
    let Some(idempotency) = &job.idempotency else { return Ok(None) };
    let sql = "SELECT id, total, fingerprint IS ?2 FROM replay_job WHERE idempotency_key = ?1";
    let before = transaction.query_row(sql, (&idempotency.key, &idempotency.fingerprint), |row| {
        let made = Made { job_id: row.get(0)?, total: row.get(1)?, is_new: false };
        let is_same: bool = row.get(2)?;
        Ok(if is_same { Ok(made) } else { Err(JobRefusal::KeyReused { job_id: made.job_id }) })
    });
    before.optional()
}

fn insert_job(
    transaction: &Transaction,
    job: &NewJob,
    act: &Act,
    now: Timestamp,
) -> rusqlite::Result<Result<Made, JobRefusal>> {
    let total = i64::try_from(job.event_ids.len()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO replay_job (state, created_at, operator, reason, request, to_topic, rate_per_s, total, skipped, token, \
               idempotency_key, fingerprint, tenant_id) \
               VALUES ('running',?1,?2,?3,?4,?5,?6,?7,?8,lower(hex(randomblob(8))),?9,?10,?11)";
    transaction.execute(
        sql,
        params![
            time_text(now),
            act.operator,
            act.reason,
            job.filter.to_json(),
            job.to_topic,
            job.rate_per_s,
            total,
            job.skipped,
            job.idempotency.as_ref().map(|idempotency| &idempotency.key),
            job.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint),
            job.tenant,
        ],
    )?;
    let job_id = transaction.last_insert_rowid();
    let mut insert =
        transaction.prepare("INSERT INTO replay_item (job_id, event_id, state) VALUES (?1, ?2, 'pending')")?;
    for event_id in &job.event_ids {
        insert.execute((job_id, event_id))?;
    }
    if let Some(overlap) = overlap(transaction, job_id)? {
        return Ok(Err(overlap));
    }
    Ok(Ok(Made { job_id, total, is_new: true }))
}

/// An event that `job_id` and another job both are to send.
fn overlap(transaction: &Transaction, job_id: i64) -> rusqlite::Result<Option<JobRefusal>> {
    let unsent = "state IN ('pending', 'in_flight')";
    let sql = format!(
        "SELECT other.event_id, other.job_id, job.state FROM replay_job AS job \
         JOIN replay_item AS other ON other.job_id = job.id AND other.{unsent} \
         WHERE job.state IN ('running', 'paused') AND job.id <> ?1 AND other.event_id IN \
             (SELECT event_id FROM replay_item WHERE job_id = ?1 AND {unsent}) LIMIT 1"
    );
    let found = transaction.query_row(&sql, [job_id], |row| {
        Ok(JobRefusal::Overlap { event_id: row.get(0)?, job_id: row.get(1)?, state: row.get(2)? })
    });
    found.optional()
}

fn change_job(
    transaction: &Transaction,
    id: i64,
    change: Change,
    now: Timestamp,
) -> rusqlite::Result<Result<(), JobRefusal>> {
    let state =
        transaction.query_row("SELECT state FROM replay_job WHERE id = ?1", [id], |row| row.get::<_, String>(0));
    let Some(state) = state.optional()? else { return Ok(Err(JobRefusal::NoSuchJob { id })) };
    let wrong = |instead| Ok(Err(JobRefusal::WrongState { id, state: state.clone(), instead }));
    let is_active = is_active(&state);
    let set_state = |state: &str| transaction.execute("UPDATE replay_job SET state = ?2 WHERE id = ?1", (id, state));
    let now = time_text(now);
    match change {
        Change::Pause if state == "running" => set_state("paused").map(drop)?,
        Change::Pause => return wrong("only a running job can be paused"),
        Change::Resume if state == "paused" => set_state("running").map(drop)?,
        Change::Resume => return wrong("only a paused job can be resumed"),
        Change::Cancel if is_active => {
            let sql = "UPDATE replay_job SET state = 'cancelled', ended_at = ?2 WHERE id = ?1";
            transaction.execute(sql, (id, now))?;
            let sql = "UPDATE replay_item SET state = 'cancelled' WHERE job_id = ?1 AND state = 'pending'";
            transaction.execute(sql, [id])?;
        }
        Change::Cancel => return wrong("it has ended already"),
        Change::RetryFailed { .. } if is_active => return wrong("wait until it has ended"),
        Change::RetryFailed { .. } if !in_flight(transaction, id)?.is_empty() => {
            return wrong("what it had in flight is not known yet, so wait until in_flight is 0");
        }
        Change::RetryFailed { uncertain } => {
            let sql = "UPDATE replay_item SET state = 'pending', error = NULL \
                       WHERE job_id = ?1 AND (state = 'failed' OR (?2 AND state = 'uncertain'))";
            if transaction.execute(sql, (id, uncertain))? == 0 {
                return wrong("none of its events failed");
            }
            if let Some(overlap) = overlap(transaction, id)? {
                return Ok(Err(overlap));
            }
            let sql = "UPDATE replay_job SET state = 'running', ended_at = NULL WHERE id = ?1";
            transaction.execute(sql, [id])?;
        }
        Change::Rate(rate_per_s) if is_active => {
            let sql = "UPDATE replay_job SET rate_per_s = ?2 WHERE id = ?1";
            transaction.execute(sql, (id, rate_per_s))?;
        }
        Change::Rate(_) => return wrong("it has ended already"),
    }
    Ok(Ok(()))
}

fn begin(transaction: &Transaction, job_id: i64, event_ids: &[i64]) -> rusqlite::Result<()> {
    let sql = "UPDATE replay_item SET state = 'in_flight' WHERE job_id = ?1 AND event_id = ?2 AND state = 'pending'";
    let mut update = transaction.prepare_cached(sql)?;
    for event_id in event_ids {
        update.execute((job_id, event_id))?;
    }
    Ok(())
}

/// An event that came back meanwhile is acknowledged already, which stands.
fn record(transaction: &Transaction, job_id: i64, verdicts: &[(i64, Verdict)]) -> rusqlite::Result<()> {
    let placed = "UPDATE replay_item SET state = 'acknowledged', topic = ?3, kafka_partition = ?4, kafka_offset = coalesce(?5, kafka_offset), error = NULL \
                  WHERE job_id = ?1 AND event_id = ?2";
    let failed =
        "UPDATE replay_item SET state = ?3, error = ?4 WHERE job_id = ?1 AND event_id = ?2 AND state = 'in_flight'";
    let unsent = "UPDATE replay_item SET state = iif((SELECT state FROM replay_job WHERE id = ?1) = 'cancelled', 'cancelled', 'pending') \
                  WHERE job_id = ?1 AND event_id = ?2 AND state = 'in_flight'";
    for (event_id, verdict) in verdicts {
        match verdict {
            Verdict::Acknowledged { topic, partition, offset } => {
                transaction.prepare_cached(placed)?.execute(params![job_id, event_id, topic, partition, offset])?
            }
            Verdict::Failed(error) => {
                transaction.prepare_cached(failed)?.execute((job_id, event_id, "failed", error))?
            }
            Verdict::Uncertain(error) => {
                transaction.prepare_cached(failed)?.execute((job_id, event_id, "uncertain", error))?
            }
            Verdict::Unsent => transaction.prepare_cached(unsent)?.execute((job_id, event_id))?,
        };
    }
    Ok(())
}

fn in_flight(connection: &Connection, job_id: i64) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT event_id FROM replay_item WHERE job_id = ?1 AND state = 'in_flight' ORDER BY event_id";
    connection.prepare_cached(sql)?.query_map([job_id], |row| row.get(0))?.collect()
}

/// The job's last row in the audit says how it went.
fn finish(transaction: &Transaction, job_id: i64, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE replay_job SET state = 'finished', ended_at = ?2 WHERE id = ?1 AND state = 'running'";
    if transaction.execute(sql, (job_id, time_text(now)))? == 0 {
        return Ok(());
    }
    let sql = format!("{SELECT_JOB} WHERE id = ?1");
    let mut job = transaction.query_row(&sql, [job_id], job_from_row)?;
    job.count(transaction)?;
    let detail = format!("acknowledged {}, failed {}, uncertain {}", job.acknowledged, job.failed, job.uncertain);
    let act = Act {
        reason: job.reason,
        count: Some(job.acknowledged),
        detail: Some(detail),
        tenant_id: job.tenant_id,
        ..Act::new(job.operator, "the sink", "replay.job", format!("job {job_id}"))
    };
    audit::note(transaction, &act, now).map(drop)
}

/// A record that was stored may be one that a job sent: the job learns that it came back, and where.
pub(super) fn observe(connection: &Connection, record: &Record, journal_id: &str) -> rusqlite::Result<()> {
    let Some((job_id, token)) = record.headers.replay_job(journal_id) else { return Ok(()) };
    let Some(event_id) = record.headers.replay_of(journal_id) else { return Ok(()) };
    // What was not known of it is known now.
    let sql = "UPDATE replay_item SET observed = observed + 1, observed_partition = ?4, observed_offset = ?5, \
               topic = coalesce(topic, ?6), kafka_partition = coalesce(kafka_partition, ?4), \
               kafka_offset = coalesce(kafka_offset, ?5), \
               error = iif(state IN ('in_flight', 'uncertain'), NULL, error), \
               state = iif(state IN ('in_flight', 'uncertain'), 'acknowledged', state) \
               WHERE job_id = ?1 AND event_id = ?2 AND (SELECT token FROM replay_job WHERE id = ?1) = ?3";
    let at = &record.position;
    connection.prepare_cached(sql)?.execute(params![job_id, event_id, token, at.partition, at.offset, &*at.topic])?;
    Ok(())
}

fn job_from_row(row: &Row) -> rusqlite::Result<Job> {
    let request: String = row.get(2)?;
    Ok(Job {
        job_id: row.get(0)?,
        status: row.get(1)?,
        request: RawValue::from_string(request).unwrap_or_default(),
        to_topic: row.get(3)?,
        rate_per_s: row.get(4)?,
        total: row.get(5)?,
        skipped: row.get(6)?,
        created_at: time(row, 7)?,
        ended_at: optional_time(row, 8)?,
        operator: row.get(9)?,
        reason: row.get(10)?,
        token: row.get(11)?,
        tenant_id: row.get(12)?,
        pending: 0,
        in_flight: 0,
        acknowledged: 0,
        failed: 0,
        uncertain: 0,
        cancelled: 0,
        observed: 0,
        observed_twice: 0,
    })
}

/// Of a job that is not at its end.
pub fn is_active(state: &str) -> bool {
    matches!(state, "running" | "paused")
}

impl Job {
    fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT state, count(*), sum(observed > 0), sum(observed > 1) FROM replay_item WHERE job_id = ?1 GROUP BY state";
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query([self.job_id])?;
        while let Some(row) = rows.next()? {
            let items = row.get(1)?;
            match row.get_ref(0)?.as_str()? {
                "pending" => self.pending = items,
                "in_flight" => self.in_flight = items,
                "acknowledged" => self.acknowledged = items,
                "failed" => self.failed = items,
                "uncertain" => self.uncertain = items,
                _ => self.cancelled = items,
            }
            self.observed += row.get::<_, i64>(2)?;
            self.observed_twice += row.get::<_, i64>(3)?;
        }
        Ok(())
    }
}

impl Readers {
    pub fn job(&self, id: i64) -> Result<Option<Job>, StoreError> {
        Ok(self.jobs_where("id = ?1", [id])?.pop())
    }

    /// A job's state alone: what counting its items costs is not paid.
    pub fn job_state(&self, id: i64) -> Result<Option<String>, StoreError> {
        let reader = self.get()?;
        let mut select = reader.prepare_cached("SELECT state FROM replay_job WHERE id = ?1")?;
        Ok(select.query_row([id], |row| row.get(0)).optional()?)
    }

    /// Whether there is such a job, and whoever may see `tenant` only may see it.
    pub fn shows_job(&self, tenant: Option<&str>, id: i64) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM replay_job WHERE id = ?1 AND (?2 IS NULL OR tenant_id = ?2))";
        Ok(self.get()?.prepare_cached(sql)?.query_row((id, tenant), |row| row.get(0))?)
    }

    /// Whether a request with that key has made a job.
    pub fn has_job_of(&self, idempotency_key: &str) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM replay_job WHERE idempotency_key = ?1)";
        Ok(self.get()?.prepare_cached(sql)?.query_row([idempotency_key], |row| row.get(0))?)
    }

    /// The newest jobs, newest first; all, or those in a state.
    pub fn jobs(&self, tenant: Option<&str>, state: Option<&str>, limit: u32) -> Result<Vec<Job>, StoreError> {
        let condition = "(?1 IS NULL OR state = ?1) AND (?2 IS NULL OR tenant_id = ?2) ORDER BY id DESC LIMIT ?3";
        self.jobs_where(condition, (state, tenant, limit))
    }

    /// Those that are not at their end, or were cancelled with something in flight; oldest first.
    pub fn unended_jobs(&self) -> Result<Vec<Job>, StoreError> {
        let condition = "(state IN ('running', 'paused') OR (state = 'cancelled' AND EXISTS \
             (SELECT 1 FROM replay_item WHERE job_id = id AND replay_item.state = 'in_flight'))) ORDER BY id";
        self.jobs_where(condition, [])
    }

    fn jobs_where(&self, condition: &str, values: impl Params) -> Result<Vec<Job>, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let mut select = snapshot.prepare_cached(&format!("{SELECT_JOB} WHERE {condition}"))?;
        let mut jobs = select.query_map(values, job_from_row)?.collect::<Result<Vec<_>, _>>()?;
        for job in &mut jobs {
            job.count(&snapshot)?;
        }
        Ok(jobs)
    }

    /// The events of a job after `after`, in their order; all, or those in a state.
    pub fn job_items(
        &self,
        job_id: i64,
        state: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<JobItem>, StoreError> {
        let sql = "SELECT event_id, state, topic, kafka_partition, kafka_offset, observed, observed_partition, observed_offset, error \
                   FROM replay_item WHERE job_id = ?1 AND (?2 IS NULL OR state = ?2) AND event_id > ?3 ORDER BY event_id LIMIT ?4";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let rows = select.query_map(params![job_id, state, after, limit], |row| {
            Ok(JobItem {
                event_id: row.get(0)?,
                state: row.get(1)?,
                topic: row.get(2)?,
                partition: row.get(3)?,
                offset: row.get(4)?,
                observed: row.get(5)?,
                observed_partition: row.get(6)?,
                observed_offset: row.get(7)?,
                error: row.get(8)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The events that a job sends next, after `after`; `Err` has the id of one that is no longer in the journal. At
    /// most `limit`, and fewer where their values are larger than [`NEXT_BYTES_MAX`] together.
    pub fn next_events(
        &self,
        job_id: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Result<EventDetail, i64>>, StoreError> {
        let sql = "SELECT event_id FROM replay_item WHERE job_id = ?1 AND state = 'pending' AND event_id > ?2 \
                   ORDER BY event_id LIMIT ?3";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let ids = select.query_map((job_id, after, limit), |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        let (mut events, mut bytes) = (Vec::with_capacity(ids.len()), 0);
        for id in ids {
            let event = super::query::event_alone(&reader, id)?;
            bytes += event.as_ref().map_or(0, |event| event.payload.0.len());
            events.push(event.ok_or(id));
            if bytes > NEXT_BYTES_MAX {
                break;
            }
        }
        Ok(events)
    }

    /// The topics and partitions to which what is in flight of a job may have gone; partition `None`: any.
    pub fn in_flight_places(&self, job_id: i64) -> Result<Vec<(String, Option<i32>)>, StoreError> {
        let sql = "SELECT DISTINCT coalesce(job.to_topic, event.topic), iif(job.to_topic IS NULL, event.kafka_partition, NULL) \
                   FROM replay_item AS item JOIN replay_job AS job ON job.id = item.job_id \
                   JOIN event_journal AS event ON event.id = item.event_id WHERE item.job_id = ?1 AND item.state = 'in_flight'";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let rows = select.query_map([job_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
