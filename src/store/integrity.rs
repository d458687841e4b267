//! What the file says it holds, and whether it does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use schemars::JsonSchema;
use serde::Serialize;

use super::row::time;
use super::{BUSY_TIMEOUT, StoreError, check_head, journal_info};
use crate::coverage::GapReason;

/// Gaps of a log that are listed; there may be more.
pub const GAPS_LISTED_MAX: usize = 1000;

/// A log: a partition of a topic, as long as the topic was not deleted and created again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogCoverage {
    pub topic: String,
    pub partition: i32,
    /// Logs of this name before this one.
    pub epoch: i64,
    pub current: bool,
    pub topic_id: Option<String>,
    /// The first and the last offset that the file holds a record of, gaps between them aside.
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub next_offset: i64,
    /// Records in the journal, in the DLQ, offsets that no reader gets, and rows deleted from this file again.
    pub stored: i64,
    pub dead_lettered: i64,
    pub not_delivered: i64,
    pub pruned: i64,
    pub gaps: Vec<RecordedGap>,
    /// Gaps beyond those listed.
    pub gaps_left_out: usize,
    /// Why nothing is taken from it for now.
    pub halted: Option<String>,
    /// Ranges without a gap, as `first..next`.
    #[serde(skip)]
    pub held: Vec<(i64, i64)>,
    #[serde(skip)]
    losses: usize,
}

/// Offsets that the file does not hold.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RecordedGap {
    pub first: i64,
    pub last: i64,
    pub offsets: i64,
    pub reason: String,
    pub recorded_at: String,
    /// Who has them, where another member of the group does.
    pub member: Option<String>,
}

impl LogCoverage {
    fn new(topic: String, partition: i32, epoch: i64) -> LogCoverage {
        LogCoverage {
            topic,
            partition,
            epoch,
            current: false,
            topic_id: None,
            first: None,
            last: None,
            next_offset: 0,
            stored: 0,
            dead_lettered: 0,
            not_delivered: 0,
            pruned: 0,
            gaps: Vec::new(),
            gaps_left_out: 0,
            halted: None,
            held: Vec::new(),
            losses: 0,
        }
    }

    /// Nothing was missed: every record that a reader could get is here, or was, or is in another member's file.
    pub fn is_complete(&self) -> bool {
        self.losses == 0
    }

    fn add(&mut self, range: Range) {
        self.next_offset = self.next_offset.max(range.next);
        if range.kind == "held" {
            if range.next > range.first {
                self.first = self.first.or(Some(range.first));
                self.last = Some(range.next - 1);
                self.held.push((range.first, range.next));
            }
            self.stored += range.journaled;
            self.dead_lettered += range.dead_lettered;
            self.not_delivered += range.not_delivered;
            self.pruned += range.pruned;
            return;
        }
        if range.next == range.first {
            return;
        }
        self.losses += usize::from(GapReason::from_word(&range.kind).is_loss());
        if self.gaps.len() == GAPS_LISTED_MAX {
            self.gaps_left_out += 1;
            return;
        }
        self.gaps.push(RecordedGap {
            first: range.first,
            last: range.next - 1,
            offsets: range.next - range.first,
            reason: range.kind,
            recorded_at: range.recorded_at,
            member: range.detail,
        });
    }
}

struct Range {
    first: i64,
    next: i64,
    kind: String,
    journaled: i64,
    dead_lettered: i64,
    not_delivered: i64,
    pruned: i64,
    recorded_at: String,
    detail: Option<String>,
}

/// The coverage that the file records, in the order of topic, partition and epoch.
pub fn coverage_of(connection: &Connection, topic: Option<&str>) -> Result<Vec<LogCoverage>, StoreError> {
    let ranges = "SELECT topic, kafka_partition, epoch, first_offset, next_offset, kind, journaled, dead_lettered, \
         not_delivered, pruned, recorded_at, detail FROM kafka_range WHERE ?1 IS NULL OR topic = ?1 \
         UNION ALL SELECT topic, kafka_partition, epoch, first_offset, next_offset, 'held', journaled, dead_lettered, \
         not_delivered, pruned, '', NULL FROM kafka_position WHERE ?1 IS NULL OR topic = ?1 \
         ORDER BY topic, kafka_partition, epoch, first_offset, next_offset";
    let mut logs: BTreeMap<(String, i32, i64), LogCoverage> = BTreeMap::new();
    let mut select = connection.prepare(ranges)?;
    let mut rows = select.query([topic])?;
    while let Some(row) = rows.next()? {
        let key: (String, i32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let range = Range {
            first: row.get(3)?,
            next: row.get(4)?,
            kind: row.get(5)?,
            journaled: row.get(6)?,
            dead_lettered: row.get(7)?,
            not_delivered: row.get(8)?,
            pruned: row.get(9)?,
            recorded_at: time(row, 10)?,
            detail: row.get(11)?,
        };
        logs.entry(key).or_insert_with_key(|(t, p, e)| LogCoverage::new(t.clone(), *p, *e)).add(range);
    }
    let mut select =
        connection.prepare("SELECT topic, kafka_partition, epoch, topic_id, halted FROM kafka_position")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(log) = logs.get_mut(&(row.get(0)?, row.get(1)?, row.get(2)?)) {
            (log.current, log.topic_id, log.halted) = (true, row.get(3)?, row.get(4)?);
        }
    }
    Ok(logs.into_values().collect())
}

/// What a look at every row of a journal found.
#[derive(Debug)]
pub struct Audit {
    pub member_id: String,
    pub logs: Vec<LogCoverage>,
    /// Where the rows are not what the ranges say.
    pub findings: Vec<String>,
}

/// Rows of one log.
#[derive(Default)]
struct Rows {
    journaled: i64,
    dead_lettered: i64,
    last: Option<i64>,
}

/// Compares every row of the journal with the ranges that it records. Reads only; memory grows with the dead letters,
/// not with the events.
///
/// # Errors
/// If the file cannot be read or is not a journal.
pub fn audit(path: &Path) -> Result<Audit, StoreError> {
    check_head(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let snapshot = connection.transaction()?;
    let member_id = journal_info(&snapshot, "member_id").map_err(|error| {
        StoreError::unusable(path, format!("{error}; start this version of the sink with it once, then verify"))
    })?;
    let logs = coverage_of(&snapshot, None)?;
    let mut findings = Vec::new();
    let rows = read_rows(&snapshot, &mut findings)?;
    for log in &logs {
        let none = Rows::default();
        let found = rows.get(&(log.topic.clone(), log.partition, log.epoch)).unwrap_or(&none);
        let (there, recorded) = (found.journaled + found.dead_lettered, log.stored + log.dead_lettered - log.pruned);
        if there != recorded {
            let (topic, partition) = (&log.topic, log.partition);
            findings.push(format!("{topic}/{partition}: {there} rows where the ranges say {recorded}"));
        }
    }
    Ok(Audit { member_id, logs, findings })
}

/// Rows are stored in the order of their offsets, but for some where a log was recreated; so one that does not follow
/// the one before is looked for in a second pass, which is rarely needed.
fn read_rows(connection: &Connection, findings: &mut Vec<String>) -> Result<HashMap<LogKey, Rows>, StoreError> {
    let mut logs: HashMap<LogKey, Rows> = HashMap::new();
    let mut dead: HashSet<(LogKey, i64)> = HashSet::new();
    each_row(connection, "event_dlq", |key, offset| {
        if !dead.insert((key.clone(), offset)) {
            findings.push(format!("{}/{} offset {offset}: stands twice among the dead letters", key.0, key.1));
        }
        logs.entry(key).or_default().dead_lettered += 1;
    })?;
    let mut doubtful: HashMap<(LogKey, i64), u32> = HashMap::new();
    each_row(connection, "event_journal", |key, offset| {
        if !dead.is_empty() && dead.contains(&(key.clone(), offset)) {
            findings.push(format!("{}/{} offset {offset}: an event and a dead letter", key.0, key.1));
        }
        let log = logs.entry(key.clone()).or_default();
        log.journaled += 1;
        if log.last.is_some_and(|last| last >= offset) {
            doubtful.insert((key, offset), 0);
        } else {
            log.last = Some(offset);
        }
    })?;
    if doubtful.is_empty() {
        return Ok(logs);
    }
    each_row(connection, "event_journal", |key, offset| {
        if let Some(rows) = doubtful.get_mut(&(key, offset)) {
            *rows += 1;
        }
    })?;
    for (((topic, partition, _), offset), rows) in doubtful.into_iter().filter(|(_, rows)| *rows > 1) {
        findings.push(format!("{topic}/{partition} offset {offset}: stands {rows} times"));
    }
    Ok(logs)
}

/// Topic, partition, epoch.
type LogKey = (String, i32, i64);

/// An event that a retry made of a dead letter is not counted: its record is the dead letter.
fn each_row(connection: &Connection, table: &str, mut visit: impl FnMut(LogKey, i64)) -> Result<(), StoreError> {
    let own = if table == "event_journal" { "WHERE dlq_id IS NULL" } else { "" };
    let sql = format!("SELECT topic, kafka_partition, kafka_epoch, kafka_offset FROM {table} {own} ORDER BY id");
    let mut select = connection.prepare(&sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        visit((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?);
    }
    Ok(())
}
