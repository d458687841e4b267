//! Steps through a source, within a budget.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::source::{Looked, Source};
use super::{Order, Position, Search};

/// How long a page may look for events: there are few readers, and every request needs one.
const TIME_MAX: Duration = Duration::from_millis(500);
/// After how many events the clock is looked at.
const ROWS_PER_LOOK: u64 = 64;

/// What a page's look at the journal gave.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Events that are meant, in the search's order.
    pub ids: Vec<i64>,
    /// How far it came; `None`: the search has come to its end.
    pub last: Option<Position>,
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
    let mut scanned = Scanned { ids: Vec::new(), last: None };
    let mut looked_at: u64 = 0;
    source.each(snapshot, |looked| {
        let (id, is_late) = match looked {
            Looked::At { id, is_meant } => {
                if is_meant {
                    scanned.ids.push(id);
                }
                looked_at += 1;
                (id, looked_at.is_multiple_of(ROWS_PER_LOOK) && began.elapsed() > TIME_MAX)
            }
            Looked::Through(ids) if ids == source.ids => return ControlFlow::Break(()),
            Looked::Through(ids) => {
                let last = if search.order == Order::NewestFirst { ids.start } else { ids.end - 1 };
                (last, began.elapsed() > TIME_MAX)
            }
        };
        if is_late || scanned.ids.len() >= limit as usize {
            scanned.last = Some(Position { id });
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(Some(scanned))
}
