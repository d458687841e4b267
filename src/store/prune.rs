//! Taking the oldest events off, in the order of their ids, so that what is left has no hole.

use rusqlite::{Connection, OptionalExtension, Params, TransactionBehavior, params};

use super::row::iso;
use super::{Readers, StoreError, Writer, chain};
use crate::removal::{PRUNE_MAX, PrunePlan, Pruned, RemovalRefusal};

/// The first event that a job which is not at its end has still to send, of those that `is_meant` says of
/// `own.event_id`.
pub(super) fn removal_block(
    connection: &Connection,
    is_meant: &str,
    values: impl Params,
) -> rusqlite::Result<Option<RemovalRefusal>> {
    let sql = format!(
        "SELECT id, event_id, state FROM (SELECT id, state, \
             (SELECT own.event_id FROM replay_item AS own WHERE own.job_id = job.id AND own.state IN ('pending', 'in_flight') \
              AND {is_meant} ORDER BY own.event_id LIMIT 1) AS event_id \
         FROM replay_job AS job WHERE state IN ('running', 'paused')) WHERE event_id IS NOT NULL ORDER BY event_id LIMIT 1"
    );
    let blocked = connection.prepare_cached(&sql)?.query_row(values, |row| {
        Ok(RemovalRefusal::Job { job_id: row.get(0)?, event_id: row.get(1)?, state: row.get(2)? })
    });
    blocked.optional()
}

/// Events before this one may go; and why those after it may not, where it is not their age.
fn stop(connection: &Connection, until: &str) -> rusqlite::Result<(i64, Option<RemovalRefusal>)> {
    // Ids are in the order of the times.
    let sql = "SELECT id FROM event_journal WHERE received_at >= ?1 ORDER BY received_at, id LIMIT 1";
    let young: Option<i64> = connection.prepare_cached(sql)?.query_row([until], |row| row.get(0)).optional()?;
    let young = young.unwrap_or(i64::MAX);
    let blocked = removal_block(connection, "own.event_id < ?1", [young])?;
    match blocked {
        Some(RemovalRefusal::Job { event_id, .. }) => Ok((event_id, blocked)),
        _ => Ok((young, None)),
    }
}

impl Readers {
    /// What there is to prune of the events that were received before `until`, as `received_at` is written.
    pub fn prune_plan(&self, until: &str) -> Result<PrunePlan, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let (stop, blocked) = stop(&snapshot, until)?;
        let sql = "SELECT count(*), coalesce(sum(octet_length(payload)), 0), min(id), max(id), min(received_at), \
                   max(received_at) FROM event_journal WHERE id < ?1";
        Ok(snapshot.query_row(sql, [stop], |row| {
            Ok(PrunePlan {
                events: row.get(0)?,
                bytes: row.get(1)?,
                first_event_id: row.get(2)?,
                last_event_id: row.get(3)?,
                first_received_at: row.get::<_, Option<String>>(4)?.map(|time| iso(&time)),
                last_received_at: row.get::<_, Option<String>>(5)?.map(|time| iso(&time)),
                stops_before: blocked.map(|blocked| blocked.to_string()),
            })
        })?)
    }
}

impl Writer {
    /// Prunes the next events up to `last_id`, at most [`PRUNE_MAX`]; where it gives 0, none are left, or a job has still
    /// to send the next. `act` is the row of the audit that says who prunes: the chain is anchored with it.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn prune(&mut self, last_id: i64, act: i64) -> Result<Pruned, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT max(id) FROM (SELECT id FROM event_journal WHERE id <= ?1 ORDER BY id LIMIT ?2)";
        let last: Option<i64> =
            transaction.prepare_cached(sql)?.query_row(params![last_id, PRUNE_MAX], |row| row.get(0))?;
        let last_id = match removal_block(&transaction, "own.event_id <= ?1", [last])? {
            Some(RemovalRefusal::Job { event_id, .. }) => event_id - 1,
            _ => last.unwrap_or_default(),
        };
        let events = transaction.prepare_cached("DELETE FROM event_journal WHERE id <= ?1")?.execute([last_id])?;
        if events == 0 {
            return Ok(Pruned::default());
        }
        chain::pruned(&transaction, last_id, act)?;
        transaction.commit()?;
        Ok(Pruned { events: events as u64, last_id })
    }
}
