//! The ranges of offsets that the file holds, partition by partition, as the writer keeps them within its transaction.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::overlap;
use crate::coverage::{Begin, Gap, GapReason};
use crate::dead_letter::breaker::Breaker;
use crate::queue::{Partition, Sighting};

const SELECT: &str = "SELECT topic, kafka_partition, next_offset, epoch, topic_id, first_offset, journaled, dead_lettered, \
     not_delivered, verified_offset, end_seen, compare_until, halted FROM kafka_position";
const UPSERT: &str = "INSERT INTO kafka_position (topic, kafka_partition, next_offset, epoch, topic_id, first_offset, \
     journaled, dead_lettered, not_delivered, verified_offset, end_seen, compare_until, halted) \
     VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13) ON CONFLICT (topic, kafka_partition) DO UPDATE SET \
     next_offset = ?3, epoch = ?4, topic_id = ?5, first_offset = ?6, journaled = ?7, dead_lettered = ?8, \
     not_delivered = ?9, verified_offset = ?10, end_seen = ?11, compare_until = ?12, halted = ?13";
/// The range that ends at the position becomes one of those before it. `pruned` is the triggers' to count.
const CLOSE_RANGE: &str = "INSERT INTO kafka_range (topic, kafka_partition, epoch, first_offset, kind, next_offset, journaled, \
     dead_lettered, not_delivered, pruned, recorded_at) \
     SELECT topic, kafka_partition, ?3, ?4, 'held', ?5, ?6, ?7, ?8, pruned, ?9 FROM kafka_position \
     WHERE topic = ?1 AND kafka_partition = ?2 \
     UNION ALL SELECT ?1, ?2, ?3, ?4, 'held', ?5, ?6, ?7, ?8, 0, ?9 \
     WHERE NOT EXISTS (SELECT 1 FROM kafka_position WHERE topic = ?1 AND kafka_partition = ?2)";
const RESET_PRUNED: &str = "UPDATE kafka_position SET pruned = 0 WHERE topic = ?1 AND kafka_partition = ?2";
const INSERT_GAP: &str = "INSERT INTO kafka_range (topic, kafka_partition, epoch, first_offset, kind, next_offset, \
     recorded_at, detail) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)";

/// What the file has of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredPosition {
    pub next_offset: i64,
    pub epoch: i64,
    pub topic_id: Option<String>,
    /// The range without a gap that ends at `next_offset`.
    pub first_offset: i64,
    pub journaled: i64,
    pub dead_lettered: i64,
    pub not_delivered: i64,
    pub verified_offset: i64,
    pub end_seen: i64,
    pub compare_until: i64,
    pub halted: Option<String>,
}

impl StoredPosition {
    pub fn from_row(row: &Row) -> rusqlite::Result<(Partition, StoredPosition)> {
        let partition = (Arc::from(row.get::<_, String>(0)?), row.get(1)?);
        let stored = StoredPosition {
            next_offset: row.get(2)?,
            epoch: row.get(3)?,
            topic_id: row.get(4)?,
            first_offset: row.get(5)?,
            journaled: row.get(6)?,
            dead_lettered: row.get(7)?,
            not_delivered: row.get(8)?,
            verified_offset: row.get(9)?,
            end_seen: row.get(10)?,
            compare_until: row.get(11)?,
            halted: row.get(12)?,
        };
        Ok((partition, stored))
    }

    /// Every partition's, or one's.
    pub fn select(one: bool) -> String {
        format!("{SELECT}{}", if one { " WHERE topic = ?1 AND kafka_partition = ?2" } else { "" })
    }
}

/// A partition as the writer has it.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub at: StoredPosition,
    pub breaker: Breaker,
    /// Records are taken: reading has begun, and neither a halt nor a withdrawal came after.
    pub is_begun: bool,
}

impl Log {
    pub fn takes_records(&self) -> bool {
        self.is_begun && self.at.halted.is_none()
    }

    fn compares(&self) -> bool {
        self.at.next_offset < self.at.compare_until && self.at.verified_offset < self.at.compare_until
    }

    pub fn halt(&mut self, why: String) {
        self.at.halted = Some(why);
        self.is_begun = false;
    }
}

/// Every partition that the file knows.
#[derive(Debug, Clone, Default)]
pub struct Logs(HashMap<Partition, Log>);

impl Logs {
    pub fn stored(connection: &Connection) -> rusqlite::Result<Logs> {
        let mut select = connection.prepare(&StoredPosition::select(false))?;
        let rows = select.query_map([], StoredPosition::from_row)?;
        let log = |row: rusqlite::Result<(Partition, StoredPosition)>| {
            row.map(|(partition, at)| (partition, Log { at, ..Log::default() }))
        };
        Ok(Logs(rows.map(log).collect::<Result<_, _>>()?))
    }

    pub fn get(&self, partition: &Partition) -> Option<&Log> {
        self.0.get(partition)
    }

    pub fn get_mut(&mut self, partition: &Partition) -> Option<&mut Log> {
        self.0.get_mut(partition)
    }

    /// The partition's log; a new one where there is none.
    pub fn entry(&mut self, partition: &Partition) -> &mut Log {
        self.0.entry(partition.clone()).or_default()
    }

    pub fn halted(&self) -> impl Iterator<Item = (&Partition, &str)> {
        self.0.iter().filter_map(|(partition, log)| Some((partition, log.at.halted.as_deref()?)))
    }

    /// Whether rows of an old log are still compared with what comes.
    pub fn compares(&self) -> bool {
        self.0.values().any(Log::compares)
    }

    /// What was begun or withdrawn stays so when the positions are read anew.
    pub fn keep_begun(&mut self, before: &Logs) {
        for (partition, log) in &mut self.0 {
            if let Some(before) = before.get(partition) {
                log.is_begun = before.is_begun && log.at.halted.is_none();
                log.breaker = before.breaker;
            }
        }
    }
}

/// Ranges within one transaction.
pub struct Ranges<'a> {
    pub connection: &'a Connection,
    pub recorded_at: &'a str,
}

impl Ranges<'_> {
    /// Takes over what reading `begin`s with: a new log, and the gaps up to it. May be repeated. The gaps that count.
    pub fn begin(
        &self,
        partition: &Partition,
        log: &mut Log,
        known: bool,
        begin: &Begin,
    ) -> rusqlite::Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        let is_new = begin.new_log.as_ref().filter(|_| known && begin.epoch == log.at.epoch + 1);
        if let Some(new_log) = is_new {
            self.close(partition, &log.at)?;
            let end = new_log.old_end.max(log.at.next_offset);
            let rest = Gap { first_offset: log.at.next_offset, next_offset: end, reason: new_log.reason, detail: None };
            self.insert_gap(partition, log.at.epoch, &rest)?;
            gaps.push(rest);
            log.at = StoredPosition {
                epoch: begin.epoch,
                verified_offset: new_log.compare_from,
                compare_until: log.at.next_offset,
                halted: log.at.halted.clone(),
                ..StoredPosition::default()
            };
            if log.compares() {
                self.connection.execute_batch(overlap::CREATE_INDEX)?;
            }
        } else if known && begin.epoch != log.at.epoch {
            // A decision about a log that is not this one any more: the consumer decides again.
            log.is_begun = false;
            return Ok(gaps);
        }
        if !known && begin.gaps.is_empty() {
            (log.at.first_offset, log.at.next_offset) = (begin.at.offset, begin.at.offset);
        }
        for gap in &begin.gaps {
            if self.skip(partition, log, gap)? {
                gaps.push(gap.clone());
            }
        }
        if begin.topic_id.is_some() {
            log.at.topic_id.clone_from(&begin.topic_id);
        }
        log.is_begun = log.at.halted.is_none();
        log.breaker = Breaker::default();
        Ok(gaps)
    }

    /// Goes over a gap, from where the position is; whether there was anything to go over.
    pub fn skip(&self, partition: &Partition, log: &mut Log, gap: &Gap) -> rusqlite::Result<bool> {
        if gap.next_offset <= log.at.next_offset {
            return Ok(false);
        }
        self.close(partition, &log.at)?;
        let gap = Gap { first_offset: log.at.next_offset, ..gap.clone() };
        self.insert_gap(partition, log.at.epoch, &gap)?;
        log.at = StoredPosition {
            first_offset: gap.next_offset,
            next_offset: gap.next_offset,
            journaled: 0,
            dead_lettered: 0,
            not_delivered: 0,
            ..log.at.clone()
        };
        Ok(true)
    }

    /// A record at `offset` comes although one before it should: nobody knows why.
    pub fn unexplained(&self, partition: &Partition, log: &mut Log, offset: i64) -> rusqlite::Result<Option<Gap>> {
        if offset <= log.at.next_offset {
            return Ok(None);
        }
        let first_offset = log.at.next_offset;
        let gap = Gap { first_offset, next_offset: offset, reason: GapReason::Unexplained, detail: None };
        self.skip(partition, log, &gap)?;
        Ok(Some(gap))
    }

    fn close(&self, (topic, partition): &Partition, at: &StoredPosition) -> rusqlite::Result<()> {
        if at.first_offset == at.next_offset {
            return Ok(());
        }
        self.connection.prepare_cached(CLOSE_RANGE)?.execute(params![
            &**topic,
            partition,
            at.epoch,
            at.first_offset,
            at.next_offset,
            at.journaled,
            at.dead_lettered,
            at.not_delivered,
            self.recorded_at
        ])?;
        self.connection.prepare_cached(RESET_PRUNED)?.execute(params![&**topic, partition])?;
        Ok(())
    }

    fn insert_gap(&self, (topic, partition): &Partition, epoch: i64, gap: &Gap) -> rusqlite::Result<()> {
        self.connection.prepare_cached(INSERT_GAP)?.execute(params![
            &**topic,
            partition,
            epoch,
            gap.first_offset,
            gap.reason.as_str(),
            gap.next_offset,
            self.recorded_at,
            gap.detail
        ])?;
        Ok(())
    }

    pub fn save(&self, (topic, partition): &Partition, at: &StoredPosition) -> rusqlite::Result<()> {
        self.connection.prepare_cached(UPSERT)?.execute(params![
            &**topic,
            partition,
            at.next_offset,
            at.epoch,
            at.topic_id,
            at.first_offset,
            at.journaled,
            at.dead_lettered,
            at.not_delivered,
            at.verified_offset,
            at.end_seen,
            at.compare_until,
            at.halted
        ])?;
        Ok(())
    }
}

impl Log {
    pub fn see(&mut self, sighting: &Sighting) {
        // While rows of the log before are compared, `verified_offset` is where comparing begins.
        if !self.compares() {
            self.at.verified_offset = self.at.verified_offset.max(sighting.verified_offset.min(self.at.next_offset));
        }
        self.at.end_seen = sighting.end_seen;
    }
}
