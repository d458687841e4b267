//! The audit's rows.

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};
use schemars::JsonSchema;
use serde::Serialize;

use super::row::{time, time_text};
use super::{Readers, StoreError, Writer, chain};
use crate::audit::Act;

/// A row of `GET /audit`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuditRow {
    pub id: i64,
    pub at: String,
    pub operator: String,
    pub origin: String,
    pub action: String,
    pub target: String,
    pub reason: Option<String>,
    pub count: Option<i64>,
    pub outcome: String,
    pub detail: Option<String>,
    pub started_id: Option<i64>,
}

/// Adds `act` to the audit, in whatever transaction the connection is in; the row's id.
pub(super) fn note(connection: &Connection, act: &Act, now: Timestamp) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO audit (at, operator, origin, action, target, reason, count, outcome, detail, started_id, \
               tenant_id) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
    connection.prepare_cached(sql)?.execute(params![
        time_text(now),
        act.operator,
        act.origin,
        act.action,
        act.target,
        act.reason,
        act.count,
        act.outcome.as_str(),
        act.detail,
        act.started_id,
        act.tenant_id,
    ])?;
    let id = connection.last_insert_rowid();
    chain::add_audit_row(connection, id)?;
    Ok(id)
}

impl Writer {
    /// Adds `act` to the audit; the row's id.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn note(&mut self, act: &Act, now: Timestamp) -> Result<i64, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = note(&transaction, act, now)?;
        transaction.commit()?;
        Ok(id)
    }
}

/// Which rows of the audit.
#[derive(Debug, Default)]
pub struct AuditFilter {
    /// What is about this tenant only.
    pub tenant: Option<String>,
    pub action: Option<String>,
    /// At or after this time, as `audit.at` is written.
    pub since: Option<String>,
    /// Rows before this one.
    pub before_id: Option<i64>,
}

impl Readers {
    /// The newest rows of the audit, newest first.
    pub fn audit(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let sql = "SELECT id, at, operator, origin, action, target, reason, count, outcome, detail, started_id FROM audit \
                   WHERE (?1 IS NULL OR action = ?1) AND (?2 IS NULL OR at >= ?2) AND id < ?3 AND (?5 IS NULL OR tenant_id = ?5) \
               ORDER BY id DESC LIMIT ?4";
        let reader = self.get()?;
        let mut select = reader.prepare_cached(sql)?;
        let before = filter.before_id.unwrap_or(i64::MAX);
        let rows = select.query_map(params![filter.action, filter.since, before, limit, filter.tenant], |row| {
            Ok(AuditRow {
                id: row.get(0)?,
                at: time(row, 1)?,
                operator: row.get(2)?,
                origin: row.get(3)?,
                action: row.get(4)?,
                target: row.get(5)?,
                reason: row.get(6)?,
                count: row.get(7)?,
                outcome: row.get(8)?,
                detail: row.get(9)?,
                started_id: row.get(10)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
