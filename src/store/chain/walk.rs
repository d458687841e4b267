//! `crm-events-sink verify --chain`: every link computed again, in constant memory.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::hash::{Hash, hex, stored};
use super::row::{AUDIT_COLUMNS, EventRow, audit_link};
use super::segment::{CHAINS, Segment, beginning};
use crate::store::{StoreError, VERSION, check, check_head, journal_info};

/// A head that somebody wrote down, to see later whether the chain still contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedHead {
    /// `journal` or `audit`.
    pub chain: String,
    pub id: i64,
    /// 64 hexadecimal digits, in small letters.
    pub link: String,
}

/// What was found of a chain.
#[derive(Debug)]
pub struct ChainReport {
    pub chain: &'static str,
    /// Rows whose links were computed, and of these how many are erased.
    pub rows: i64,
    pub erased: i64,
    /// What is to be known of a chain that is whole, a sentence each.
    pub remarks: Vec<String>,
    /// Where it is broken first, and why.
    pub broken: Option<String>,
    /// Breaks after that one.
    pub more_breaks: i64,
    /// To be written down, as `journal:17:9f2c…`.
    pub head: Option<String>,
}

impl ChainReport {
    pub fn is_whole(&self) -> bool {
        self.broken.is_none()
    }
}

/// Computes both chains of `journal` and compares. Reads only, also while the sink runs.
///
/// # Errors
/// If the file cannot be read or is not a journal.
pub fn check_chains(journal: &Path, noted: &[NotedHead]) -> Result<Vec<ChainReport>, StoreError> {
    check_head(journal)?;
    let mut connection = check::open_to_look(journal)?;
    let failed = |error| StoreError::at(journal, error);
    let snapshot = connection.transaction().map_err(failed)?;
    check::contents(&snapshot, journal, false)?;
    let version = snapshot.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    if version < VERSION {
        let what =
            format!("the journal has version {version}; start this version of the sink with it once, then verify");
        return Err(StoreError::unusable(journal, what));
    }
    let check = |(chain, table)| {
        let noted = noted.iter().filter(|noted| noted.chain == chain);
        check_chain(&snapshot, chain, table, noted)
    };
    CHAINS.into_iter().map(check).collect::<Result<_, _>>().map_err(failed)
}

fn check_chain<'a>(
    connection: &Connection,
    chain: &'static str,
    table: &str,
    noted: impl Iterator<Item = &'a NotedHead>,
) -> rusqlite::Result<ChainReport> {
    let segments = Segment::all(connection, chain)?;
    let mut walk = Walk {
        connection,
        chain,
        segments: &segments,
        at: 0,
        before: segments.first().map_or([0; 32], |segment| segment.anchor),
        last_id: None,
        rows: 0,
        erased: 0,
        breaks: Breaks::default(),
        noted: noted.map(|noted| (noted, None)).collect(),
    };
    if segments.is_empty() {
        walk.breaks.note(0, "there is no chain: the setting journal.chain was never on in this file".to_owned());
    }
    walk.check_beginnings()?;
    match chain {
        "journal" => walk.events()?,
        _ => walk.audit()?,
    }
    walk.end_segments(i64::MAX);
    let remarks = walk.others(table)?;
    walk.compare_noted();
    Ok(walk.report(remarks))
}

/// Where a chain is broken: the first place, and how many there are.
#[derive(Default)]
struct Breaks {
    first: Option<(i64, String)>,
    count: i64,
}

impl Breaks {
    fn note(&mut self, id: i64, what: String) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|(first, _)| id < *first) {
            self.first = Some((id, what));
        }
    }
}

struct Walk<'a> {
    connection: &'a Connection,
    chain: &'static str,
    segments: &'a [Segment],
    /// The segment that the walk is in.
    at: usize,
    /// The link before the next row's, and the row that has it, if one was met in this segment.
    before: Hash,
    last_id: Option<i64>,
    rows: i64,
    erased: i64,
    breaks: Breaks,
    /// With the link that the row has, if it is there.
    noted: Vec<(&'a NotedHead, Option<Hash>)>,
}

impl Walk<'_> {
    /// Each segment begins with the end of the one before, or where an act of pruning that is in the audit ended.
    fn check_beginnings(&mut self) -> rusqlite::Result<()> {
        let journal_id = journal_info(self.connection, "journal_id")?;
        let mut before = None;
        for segment in self.segments {
            let is_right = match segment.pruned_by {
                None => {
                    let start = beginning(&journal_id, self.chain, segment.first_id, before);
                    segment.anchor == start && segment.anchor_id == segment.first_id - 1
                }
                Some(row) => self.has_act(row, "prune")?,
            };
            if !is_right {
                let what = "the chain does not begin there as it was begun, and no pruning explains it";
                self.breaks.note(segment.anchor_id + 1, what.to_owned());
            }
            before = Some(&segment.last_link);
        }
        Ok(())
    }

    fn has_act(&self, row: i64, action: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM audit WHERE id = ?1 AND action = ?2)";
        self.connection.prepare_cached(sql)?.query_row((row, action), |row| row.get(0))
    }

    fn events(&mut self) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT entry.id, entry.link, event.id, entry.salt, entry.content, event.erased, {} \
             FROM event_chain AS entry LEFT JOIN event_journal AS event ON event.id = entry.id ORDER BY entry.id",
            EventRow::COLUMNS
        );
        let connection = self.connection;
        let mut select = connection.prepare(&sql)?;
        let mut rows = select.query([])?;
        let mut certificate = None;
        while let Some(row) = rows.next()? {
            let erased: Option<i64> = row.get(5)?;
            self.erased += i64::from(erased.is_some());
            self.entry(row, |before, id| {
                let event = EventRow::from_row(row, 6)?;
                let content = match row.get_ref(3)?.as_blob_or_null()? {
                    Some(salt) => event.content(salt),
                    None => stored(row, 4)?,
                };
                Ok(event.link(before, id, &content))
            })?;
            if let Some(what) = fault_of_erasure(row)? {
                self.breaks.note(row.get(0)?, what.to_owned());
            }
            if erased.is_some() && erased != certificate {
                certificate = erased;
                if !self.has_act(erased.unwrap_or_default(), "tenant.erase")? {
                    self.breaks.note(row.get(0)?, "it was erased, and the audit has no certificate of that".to_owned());
                }
            }
        }
        Ok(())
    }

    fn audit(&mut self) -> rusqlite::Result<()> {
        let columns = AUDIT_COLUMNS.replace(", ", ", act.");
        let sql = format!(
            "SELECT entry.id, entry.link, act.id, act.{columns} \
             FROM audit_chain AS entry LEFT JOIN audit AS act ON act.id = entry.id ORDER BY entry.id"
        );
        let connection = self.connection;
        let mut select = connection.prepare(&sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            self.entry(row, |before, id| audit_link(before, id, row, 3))?;
        }
        Ok(())
    }

    /// The next link that stands in the file; `compute` says what it should be. The columns are its row's id, the link,
    /// and the id again, of the row that is there.
    fn entry(&mut self, row: &Row, compute: impl FnOnce(&Hash, i64) -> rusqlite::Result<Hash>) -> rusqlite::Result<()> {
        let (id, link) = (row.get(0)?, stored(row, 1)?);
        self.end_segments(id);
        let is_inside = self.segments.get(self.at).is_some_and(|segment| id > segment.anchor_id);
        if !is_inside {
            self.breaks.note(
                id,
                "a link stands where the chain has none: the head was set back, or it was made by hand".to_owned(),
            );
            return Ok(());
        }
        if row.get::<_, Option<i64>>(2)?.is_none() {
            self.breaks.note(id, "it was removed".to_owned());
        } else if compute(&self.before, id)? != link {
            let last_id = self.last_id.unwrap_or(self.segments[self.at].anchor_id);
            let what = match id - last_id {
                1 => "it was changed".to_owned(),
                _ => format!("rows between {last_id} and it were removed, or it was changed"),
            };
            self.breaks.note(id, what);
        }
        for (noted, found) in self.noted.iter_mut().filter(|(noted, _)| noted.id == id) {
            *found = (noted.link == hex(&link)).then_some(link).or(*found);
        }
        self.rows += 1;
        (self.before, self.last_id) = (link, Some(id));
        Ok(())
    }

    /// Leaves the segments that end before `id`.
    fn end_segments(&mut self, id: i64) {
        while let Some(segment) = self.segments.get(self.at).filter(|segment| id > segment.last_id) {
            let last_id = self.last_id.unwrap_or(segment.anchor_id);
            if last_id < segment.last_id {
                let what = format!("the newest rows were cut off: the last is {last_id}, the head {}", segment.last_id);
                self.breaks.note(last_id + 1, what);
            } else if self.before != segment.last_link {
                self.breaks.note(last_id, "it is not the head that was noted in the file".to_owned());
            }
            self.at += 1;
            self.last_id = None;
            self.before = self.segments.get(self.at).map_or([0; 32], |next| next.anchor);
        }
    }

    /// The rows that have no link: right before the chain's first segment, between two, and after the last if it ended.
    fn others(&mut self, table: &str) -> rusqlite::Result<Vec<String>> {
        let sql = format!(
            "SELECT id FROM {table} WHERE NOT EXISTS (SELECT 1 FROM {} AS entry WHERE entry.id = {table}.id) ORDER BY id",
            if self.chain == "journal" { "event_chain" } else { "audit_chain" }
        );
        let connection = self.connection;
        let mut select = connection.prepare(&sql)?;
        let mut rows = select.query([])?;
        let mut outside = vec![(0_i64, 0_i64, 0_i64); self.segments.len() + 1];
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let at = self.segments.partition_point(|segment| segment.first_id <= id);
            let is_inside = at.checked_sub(1).is_some_and(|at| {
                let segment = &self.segments[at];
                segment.is_open || id <= segment.last_id
            });
            if is_inside {
                self.breaks.note(id, "it was put in by hand: it has no link".to_owned());
                continue;
            }
            let (count, first, last) = &mut outside[at];
            (*first, *last) = (if *count == 0 { id } else { *first }, id);
            *count += 1;
        }
        Ok(self.remarks(&outside))
    }

    fn remarks(&self, outside: &[(i64, i64, i64)]) -> Vec<String> {
        let mut remarks = Vec::new();
        for (at, (count, first, last)) in outside.iter().enumerate() {
            if *count > 0 {
                let when = if at == 0 { "before it began" } else { "while it was off" };
                remarks.push(format!("rows {first} to {last} ({count}) are not in the chain: they are from {when}"));
            }
            let Some(segment) = self.segments.get(at) else { continue };
            let ended = if segment.is_open { String::new() } else { format!(", ended after row {}", segment.last_id) };
            remarks.push(format!("begun with row {}{ended}", segment.first_id));
            if let Some(row) = segment.pruned_by {
                remarks.push(format!("rows up to {} were pruned, see audit row {row}", segment.anchor_id));
            }
        }
        remarks
    }

    fn compare_noted(&mut self) {
        for (noted, found) in &self.noted {
            let anchors = self.segments.iter().filter(|segment| segment.anchor_id == noted.id);
            let is_anchor = anchors.into_iter().any(|segment| hex(&segment.anchor) == noted.link);
            if found.is_some() || is_anchor {
                continue;
            }
            let is_pruned =
                self.segments.iter().any(|s| s.pruned_by.is_some() && s.first_id <= noted.id && noted.id < s.anchor_id);
            let why = if is_pruned {
                "its row was pruned, which leaves nothing to compare"
            } else {
                "row and link are not there"
            };
            let NotedHead { chain, id, link } = noted;
            self.breaks.note(*id, format!("the head {chain}:{id}:{link} that was written down is not in it: {why}"));
        }
    }

    fn report(self, remarks: Vec<String>) -> ChainReport {
        let head = self.segments.last();
        ChainReport {
            chain: self.chain,
            rows: self.rows,
            erased: self.erased,
            remarks,
            broken: self.breaks.first.map(|(id, what)| format!("row {id}: {what}")),
            more_breaks: (self.breaks.count - 1).max(0),
            head: head.map(|segment| format!("{}:{}:{}", self.chain, segment.last_id, hex(&segment.last_link))),
        }
    }
}

/// A row without a salt is erased, and empty; one with a salt is not.
fn fault_of_erasure(row: &Row) -> rusqlite::Result<Option<&'static str>> {
    if row.get::<_, Option<i64>>(2)?.is_none() {
        return Ok(None);
    }
    let event = EventRow::from_row(row, 6)?;
    let is_empty = event.content == super::row::ERASED;
    let (has_salt, is_erased) = (row.get_ref(3)?.as_blob_or_null()?.is_some(), row.get::<_, Option<i64>>(5)?.is_some());
    Ok(match (has_salt, is_erased) {
        (true, false) => None,
        (false, true) if is_empty => None,
        (false, true) => Some("it was filled after it was erased"),
        _ => Some("its mark of erasure was set or taken away by hand"),
    })
}
