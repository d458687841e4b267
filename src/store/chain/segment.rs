//! Where the chains begin and end. A setting says whether there is one; each time that it is turned on a segment begins,
//! in the journal and in the audit, and the audit says so.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::hash::{Hash, Values, hex, stored};
use crate::audit::Act;
use crate::store::row::time_text;
use crate::store::{audit, journal_info};

/// The chains, as `chain_segment.chain` names them, and the tables whose rows they are about.
pub const CHAINS: [(&str, &str); 2] = [("journal", "event_journal"), ("audit", "audit")];

/// The rows after `anchor_id` up to `last_id`.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Where it began.
    pub first_id: i64,
    /// The last row that was pruned; before the first pruning the one before `first_id`.
    pub anchor_id: i64,
    /// The link that the next row's is made with.
    pub anchor: Hash,
    /// The audit's row that says who pruned.
    pub pruned_by: Option<i64>,
    pub last_id: i64,
    pub last_link: Hash,
    pub is_open: bool,
}

impl Segment {
    pub const SELECT: &str = "SELECT first_id, anchor_id, anchor, pruned_by, last_id, last_link, ended_at IS NULL \
                              FROM chain_segment WHERE chain = ?1";

    pub fn from_row(row: &Row) -> rusqlite::Result<Segment> {
        Ok(Segment {
            first_id: row.get(0)?,
            anchor_id: row.get(1)?,
            anchor: stored(row, 2)?,
            pruned_by: row.get(3)?,
            last_id: row.get(4)?,
            last_link: stored(row, 5)?,
            is_open: row.get(6)?,
        })
    }

    /// Those of a chain, in their order.
    pub fn all(connection: &Connection, chain: &str) -> rusqlite::Result<Vec<Segment>> {
        let mut select = connection.prepare(&format!("{} ORDER BY first_id", Segment::SELECT))?;
        select.query_map([chain], Segment::from_row)?.collect()
    }

    /// The one that rows are added to; none while the chain is off.
    pub fn open(connection: &Connection, chain: &str) -> rusqlite::Result<Option<Segment>> {
        let sql = format!("{} AND ended_at IS NULL", Segment::SELECT);
        connection.prepare_cached(&sql)?.query_row([chain], Segment::from_row).optional()
    }
}

/// What a segment begins with: it names this file, its place in it, and the end of the segment before.
pub fn beginning(journal_id: &str, chain: &str, first_id: i64, before: Option<&Hash>) -> Hash {
    let values = Values::of("segment").text(journal_id).text(chain).integer(first_id);
    match before {
        Some(link) => values.blob(link),
        None => values.value(rusqlite::types::ValueRef::Null),
    }
    .hash()
}

/// Turns the chains on or off, as the setting says, and puts it down in the audit.
pub fn obey(connection: &mut Connection, is_on: bool, now: Timestamp) -> rusqlite::Result<()> {
    if Segment::open(connection, "journal")?.is_some() == is_on {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if is_on {
        let places = [begin(&transaction, CHAINS[0])?, begin(&transaction, CHAINS[1])?];
        let [journal, audit] = places.map(|first_id| first_id.to_string());
        let target = format!("from event {journal} and audit row {audit} on");
        audit::note(&transaction, &act("chain.begin", target), now)?;
    } else {
        let head = Segment::open(&transaction, "journal")?;
        let head = head.map(|head| format!("{}:{}", head.last_id, hex(&head.last_link)));
        let target = format!("after event {}", head.unwrap_or_default());
        audit::note(&transaction, &act("chain.end", target), now)?;
        transaction.execute("UPDATE chain_segment SET ended_at = ?1 WHERE ended_at IS NULL", [time_text(now)])?;
    }
    transaction.commit()
}

fn begin(connection: &Connection, (chain, table): (&str, &str)) -> rusqlite::Result<i64> {
    let sql = format!(
        "SELECT 1 + max((SELECT coalesce(max(id), 0) FROM {table}), \
         coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0))"
    );
    let first_id: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
    let before = Segment::all(connection, chain)?.into_iter().rfind(|segment| segment.first_id < first_id);
    let journal_id = journal_info(connection, "journal_id")?;
    let start = beginning(&journal_id, chain, first_id, before.as_ref().map(|segment| &segment.last_link));
    // One that ended before its first row leaves nothing behind.
    let sql = "INSERT OR REPLACE INTO chain_segment (chain, first_id, anchor_id, anchor, last_id, last_link) \
               VALUES (?1, ?2, ?2 - 1, ?3, ?2 - 1, ?3)";
    connection.execute(sql, params![chain, first_id, start])?;
    Ok(first_id)
}

/// The rows of the journal up to `last_id` were pruned by the act whose row in the audit is `pruned_by`: the chain is
/// anchored where they ended. What is broken among them is broken no more: it is gone.
pub fn pruned(connection: &Connection, last_id: i64, pruned_by: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE chain_segment SET pruned_by = ?2, anchor_id = min(?1, last_id), \
               anchor = coalesce((SELECT link FROM event_chain WHERE id <= min(?1, last_id) ORDER BY id DESC LIMIT 1), \
                                 zeroblob(32)) \
               WHERE chain = 'journal' AND anchor_id < min(?1, last_id)";
    connection.prepare_cached(sql)?.execute((last_id, pruned_by))?;
    connection.prepare_cached("DELETE FROM event_chain WHERE id <= ?1")?.execute([last_id])?;
    Ok(())
}

fn act(action: &'static str, target: String) -> Act {
    Act { reason: Some("journal.chain".to_owned()), ..Act::new("the sink", "the sink", action, target) }
}
