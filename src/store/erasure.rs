//! Erasing what a tenant's, or one key's, rows say. The rows stay, empty, where they were: their places in Kafka, their
//! times and the chain are none of what is erased.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::row::time_text;
use super::search::Order;
use super::segment::Segments;
use super::{Readers, StoreError, Writer, audit, chain, hex, journal_info, removal_block};
use crate::audit::{Act, Outcome};
use crate::removal::{ERASE_MAX, Erasure, ErasurePlan, RemovalRefusal, Rows, Scope};

/// The events of `?1` tenant, `?2` key, up to `?3`. In a segment each is to be found by its index.
fn events(scope: &Scope) -> &'static str {
    match scope.key {
        None => "tenant_id = ?1 AND ?2 IS NULL AND +id <= ?3 AND erased IS NULL",
        Some(_) => "+tenant_id = ?1 AND kafka_key = ?2 AND +id <= ?3 AND erased IS NULL",
    }
}

/// The dead letters of `?1` tenant, `?2` key, up to event `?3` and letter `?4`: its own, those that its events were made
/// of (also where the erasure `?5` has had these already), and those that are nobody's and name it.
const LETTERS: &str = "letter.id <= ?4 AND letter.erased IS NULL AND ( \
         (?2 IS NULL AND letter.tenant_id = ?1) \
         OR (letter.kafka_key = ?2 AND coalesce(letter.tenant_id, ?1) = ?1) \
         OR EXISTS (SELECT 1 FROM event_journal AS event WHERE event.id = letter.event_id AND event.tenant_id = ?1 \
                    AND event.id <= ?3 AND (?2 IS NULL OR event.kafka_key = ?2 OR event.erased = ?5)) \
         OR (?2 IS NULL AND letter.tenant_id IS NULL AND names(letter.payload, ?1)))";

/// Of `?1` tenant, `?2` key: jobs whose filter has the key.
const JOBS: &str = "json_valid(request) AND request->>'key' IS NOT NULL AND request->>'key' NOT LIKE 'erased:%' \
     AND ((?2 IS NOT NULL AND request->>'key' = ?2) \
          OR (?2 IS NULL AND (request->>'tenant_id' = ?1 OR tenant_id = ?1 OR substr(request->>'key', 1, length(?1) + 1) = ?1 || ':')))";

/// Of `?1` tenant: files with its events up to `?2`, and with none after.
const ARCHIVE_FILES: &str =
    "SELECT count(*) FROM archive_file WHERE tenant_id = ?1 AND last_event_id <= ?2 AND erased IS NULL";

/// Gives a connection `names(payload, tenant_id)`: whether the bytes have the tenant's id as a JSON string.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    use rusqlite::functions::FunctionFlags;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("names", 2, flags, |context| {
        let name = json!(context.get_raw(1).as_str()?).to_string();
        let payload = context.get_raw(0).as_bytes_or_null()?.unwrap_or_default();
        Ok(payload.windows(name.len()).any(|part| part == name.as_bytes()))
    })
}

/// What a certificate, and the audit altogether, has of a key: SHA-256 of `journal_id:key`, in hexadecimal digits. Who
/// knows the key can tell that it is meant.
pub(super) fn key_digest(connection: &Connection, key: &str) -> rusqlite::Result<String> {
    let journal_id = journal_info(connection, "journal_id")?;
    let digest = Sha256::digest(format!("{journal_id}:{key}"));
    Ok(hex(&digest))
}

fn digest_of(connection: &Connection, scope: &Scope) -> rusqlite::Result<Option<String>> {
    scope.key.as_ref().map(|key| key_digest(connection, key)).transpose()
}

impl Readers {
    /// See [`key_digest`].
    pub fn key_digest(&self, key: &str) -> Result<String, StoreError> {
        Ok(key_digest(&*self.get()?, key)?)
    }

    /// The newest event and dead letter: what an erasure that is planned now is about ends there.
    pub fn last_ids(&self) -> Result<(i64, i64), StoreError> {
        let sql =
            "SELECT (SELECT coalesce(max(id), 0) FROM event_journal), (SELECT coalesce(max(id), 0) FROM event_dlq)";
        Ok(self.get()?.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// What `scope` means and is not erased yet; and what keeps it from being erased now.
    pub fn erasure_plan(&self, scope: &Scope) -> Result<(ErasurePlan, Option<RemovalRefusal>), StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let (tenant, key, events) = (&scope.tenant_id, &scope.key, events(scope));
        let of_events = params![tenant, key, scope.last_event_id];
        let sql = format!(
            "SELECT count(*), coalesce(sum(octet_length(payload)), 0), min(id), max(id) FROM event_journal WHERE {events}"
        );
        let found = snapshot.query_row(&sql, of_events, |row| row.try_into())?;
        let (events_found, bytes, first_event_id, last_event_id) = found;
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE ?2 IS NULL AND letter.tenant_id IS NULL) \
             FROM event_dlq AS letter WHERE {LETTERS}"
        );
        let of_letters = params![tenant, key, scope.last_event_id, scope.last_letter_id, None::<i64>];
        let (dead_letters, dead_letters_by_name) = snapshot.query_row(&sql, of_letters, |row| row.try_into())?;
        let sql = format!("SELECT count(*) FROM replay_job WHERE {JOBS}");
        let jobs = snapshot.query_row(&sql, params![tenant, key], |row| row.get(0))?;
        let archive_files =
            snapshot.query_row(ARCHIVE_FILES, params![tenant, scope.last_event_id], |row| row.get(0))?;
        let is_meant = format!("EXISTS (SELECT 1 FROM event_journal WHERE id = own.event_id AND {events})");
        let blocked = removal_block(&snapshot, &is_meant, of_events)?;
        let plan = ErasurePlan {
            events: events_found,
            bytes,
            first_event_id,
            last_event_id,
            dead_letters,
            dead_letters_by_name,
            jobs,
            archive_files,
        };
        Ok((plan, blocked))
    }

    /// The next rows of an erasure: events after `after` first, in their order; and where to go on.
    pub fn next_to_erase(&self, id: i64, scope: &Scope, after: i64) -> Result<(Rows, i64), StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let mut rows = Rows { events: next_events(&snapshot, scope, after)?, letters: Vec::new() };
        let last = rows.events.last().copied().unwrap_or(after);
        if rows.is_empty() {
            let sql = format!(
                "SELECT letter.id FROM event_dlq AS letter WHERE {LETTERS} ORDER BY letter.id LIMIT {ERASE_MAX}"
            );
            let (tenant, key) = (&scope.tenant_id, &scope.key);
            let mut select = snapshot.prepare_cached(&sql)?;
            let of_letters = params![tenant, key, scope.last_event_id, scope.last_letter_id, id];
            rows.letters = select.query_map(of_letters, |row| row.get(0))?.collect::<Result<_, _>>()?;
        }
        Ok((rows, last))
    }
}

/// The next events after `after` that `scope` means, at most [`ERASE_MAX`].
fn next_events(snapshot: &Connection, scope: &Scope, after: i64) -> rusqlite::Result<Vec<i64>> {
    let index = if scope.key.is_some() { "event_journal_key" } else { "event_journal_tenant" };
    let sql = format!(
        "SELECT id FROM event_journal INDEXED BY {index} WHERE id >> 10 = ?4 AND {} AND id > ?5 ORDER BY id LIMIT ?6",
        events(scope)
    );
    let mut select = snapshot.prepare_cached(&sql)?;
    let ids = after.saturating_add(1)..scope.last_event_id.saturating_add(1);
    let mut segments = Segments::of(snapshot, &ids, Order::OldestFirst)?;
    let mut events: Vec<i64> = Vec::new();
    while events.len() < ERASE_MAX
        && let Some(segment) = segments.next()?
    {
        let left = (ERASE_MAX - events.len()) as i64;
        let values = params![scope.tenant_id, scope.key, scope.last_event_id, segment, after, left];
        for id in select.query_map(values, |row| row.get(0))? {
            events.push(id?);
        }
    }
    Ok(events)
}

impl Writer {
    /// Begins the erasure of `scope`, or finds it begun or done.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn begin_erasure(&mut self, scope: &Scope, act: &Act, now: Timestamp) -> Result<Erasure, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let digest = digest_of(&transaction, scope)?;
        let sql = "SELECT id FROM erasure WHERE tenant_id = ?1 AND key_digest IS ?2 AND last_event_id = ?3 AND last_letter_id = ?4";
        let values = params![scope.tenant_id, digest, scope.last_event_id, scope.last_letter_id];
        let begun: Option<i64> = transaction.query_row(sql, values, |row| row.get(0)).optional()?;
        if let Some(id) = begun {
            return Ok(erasure(&transaction, id)?);
        }
        let id = audit::note(&transaction, &act.with(Outcome::Started, ""), now)?;
        let sql = "INSERT INTO erasure (id, tenant_id, key_digest, last_event_id, last_letter_id) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![id, scope.tenant_id, digest, scope.last_event_id, scope.last_letter_id];
        transaction.execute(sql, row)?;
        let begun = erasure(&transaction, id)?;
        transaction.commit()?;
        Ok(begun)
    }

    /// Erases `rows`, of those that `scope` means.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn erase(&mut self, id: i64, scope: &Scope, rows: &Rows) -> Result<Result<(), RemovalRefusal>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids = json!(rows.events).to_string();
        if let Some(refusal) = removal_block(&transaction, "own.event_id IN (SELECT value FROM json_each(?1))", [ids])?
        {
            return Ok(Err(refusal));
        }
        for event in &rows.events {
            erase_event(&transaction, id, scope, *event)?;
        }
        for letter in &rows.letters {
            if let Some(refusal) = erase_letter(&transaction, id, scope, *letter)? {
                return Ok(Err(refusal));
            }
        }
        transaction.commit()?;
        Ok(Ok(()))
    }

    /// Ends an erasure of which nothing is left: the write-ahead log forgets what it held, and the audit has the
    /// certificate.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn finish_erasure(
        &mut self,
        id: i64,
        scope: &Scope,
        act: &Act,
        now: Timestamp,
    ) -> Result<Result<Erasure, RemovalRefusal>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        forget_key_of_jobs(&transaction, id, scope)?;
        let is_left: bool = transaction.query_row(
            &format!("SELECT EXISTS (SELECT 1 FROM event_journal WHERE {})", events(scope)),
            params![scope.tenant_id, scope.key, scope.last_event_id],
            |row| row.get(0),
        )?;
        transaction.commit()?;
        if is_left {
            return Ok(Err(RemovalRefusal::Unfinished));
        }
        // Only then is it gone from every file.
        match self.empty_log() {
            Ok(()) => {}
            Err(error) if error.is_passing() => return Ok(Err(RemovalRefusal::Log)),
            Err(error) => return Err(error),
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "UPDATE erasure SET done_at = ?2 WHERE id = ?1 AND done_at IS NULL";
        let is_first = transaction.execute(sql, (id, time_text(now)))? == 1;
        let done = erasure(&transaction, id)?;
        if is_first {
            let act = Act { count: Some(done.events + done.dead_letters), ..act.after(id) };
            audit::note(&transaction, &act.with(Outcome::Done, certificate(&done)), now)?;
        }
        transaction.commit()?;
        Ok(Ok(done))
    }
}

fn erase_event(transaction: &Transaction, id: i64, scope: &Scope, event: i64) -> rusqlite::Result<()> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM event_journal WHERE {} AND id = ?4)", events(scope));
    let values = params![scope.tenant_id, scope.key, scope.last_event_id, event];
    if !transaction.prepare_cached(&sql)?.query_row(values, |row| row.get(0))? {
        return Ok(());
    }
    chain::seal(transaction, event)?;
    let sql =
        "UPDATE event_journal SET payload = '{}', kafka_key = NULL, kafka_headers = NULL, erased = ?2 WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute((event, id))?;
    let sql = "UPDATE erasure SET events = events + 1, min_event_id = min(coalesce(min_event_id, ?2), ?2), \
               max_event_id = max(coalesce(max_event_id, ?2), ?2) WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute((id, event)).map(drop)
}

/// One that waits for repair cannot be repaired any more; what became of the others stands.
fn erase_letter(
    transaction: &Transaction,
    id: i64,
    scope: &Scope,
    letter: i64,
) -> rusqlite::Result<Option<RemovalRefusal>> {
    let sql = format!("SELECT state FROM event_dlq AS letter WHERE {LETTERS} AND letter.id = ?6");
    let values = params![scope.tenant_id, scope.key, scope.last_event_id, scope.last_letter_id, id, letter];
    let state: Option<String> = transaction.prepare_cached(&sql)?.query_row(values, |row| row.get(0)).optional()?;
    match state.as_deref() {
        None => return Ok(None),
        Some("republishing") => return Ok(Some(RemovalRefusal::Republishing { id: letter })),
        Some(_) => {}
    }
    let sql = "UPDATE event_dlq SET payload = NULL, kafka_key = NULL, kafka_headers = NULL, error = reason || ': erased', \
               last_error = iif(last_error IS NULL, NULL, 'erased'), note = iif(note IS NULL, NULL, 'erased'), \
               state = iif(state IN ('open', 'uncertain'), 'erased', state), erased = ?2 WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute((letter, id))?;
    transaction.prepare_cached("UPDATE erasure SET letters = letters + 1 WHERE id = ?1")?.execute([id])?;
    Ok(None)
}

fn forget_key_of_jobs(transaction: &Transaction, id: i64, scope: &Scope) -> rusqlite::Result<()> {
    let sql = format!("SELECT id, request->>'key' FROM replay_job WHERE {JOBS}");
    let mut select = transaction.prepare(&sql)?;
    let found = select.query_map(params![scope.tenant_id, scope.key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let jobs = found.collect::<Result<Vec<(i64, String)>, _>>()?;
    for (job, key) in &jobs {
        let digest = format!("erased:{}", key_digest(transaction, key)?);
        let sql = "UPDATE replay_job SET request = json_set(request, '$.key', ?2) WHERE id = ?1";
        transaction.execute(sql, (job, digest))?;
    }
    let forgotten = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
    transaction.execute("UPDATE erasure SET jobs = jobs + ?2 WHERE id = ?1", (id, forgotten)).map(drop)
}

fn erasure(connection: &Connection, id: i64) -> rusqlite::Result<Erasure> {
    let sql = "SELECT id, events, min_event_id, max_event_id, letters, jobs, done_at IS NOT NULL, \
               NOT EXISTS (SELECT 1 FROM journal_info WHERE name = 'unused_parts' AND value = 'zeroed') \
               FROM erasure WHERE id = ?1";
    connection.query_row(sql, [id], |row: &Row| {
        Ok(Erasure {
            certificate: row.get(0)?,
            events: row.get(1)?,
            first_event_id: row.get(2)?,
            last_event_id: row.get(3)?,
            dead_letters: row.get(4)?,
            jobs: row.get(5)?,
            is_done: row.get(6)?,
            needs_vacuum: row.get(7)?,
        })
    })
}

fn certificate(done: &Erasure) -> String {
    let between = match (done.first_event_id, done.last_event_id) {
        (Some(first), Some(last)) => format!(" between {first} and {last}"),
        _ => String::new(),
    };
    let vacuum = if done.needs_vacuum { "; unused parts of the file were not looked into" } else { "" };
    let Erasure { events, dead_letters, jobs, .. } = done;
    format!("{events} events{between}, {dead_letters} dead letters, {jobs} job filters{vacuum}")
}
