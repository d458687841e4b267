//! Steps through a source, within a budget.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params_from_iter};

use super::source::Source;
use super::{Position, Search};

/// How long a page may look for events: there are few readers, and every request needs one.
const TIME_MAX: Duration = Duration::from_millis(500);
/// After how many events the clock is looked at.
const ROWS_PER_LOOK: u64 = 64;

/// What a page's look at the journal gave.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Events that are meant, in the search's order.
    pub ids: Vec<i64>,
    /// The last event that was looked at; `None`: the search has come to its end.
    pub last: Option<i64>,
}

/// Looks at events after `after` until `limit` are found, or the time since `began` is over. `None`: nothing is meant.
pub(super) fn scan(
    snapshot: &Connection,
    search: &Search,
    after: Option<&Position>,
    limit: u32,
    began: Instant,
) -> rusqlite::Result<Option<Scanned>> {
    let Some(source) = Source::new(snapshot, search, after)? else { return Ok(None) };
    let mut select = snapshot.prepare_cached(&source.sql)?;
    let mut rows = select.query(params_from_iter(source.values))?;
    let mut scanned = Scanned { ids: Vec::new(), last: None };
    let mut looked_at: u64 = 0;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        if row.get(1)? {
            scanned.ids.push(id);
        }
        looked_at += 1;
        let is_late = looked_at.is_multiple_of(ROWS_PER_LOOK) && began.elapsed() > TIME_MAX;
        if is_late || scanned.ids.len() >= limit as usize {
            scanned.last = Some(id);
            break;
        }
    }
    Ok(Some(scanned))
}
