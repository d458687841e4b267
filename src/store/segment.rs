//! Segments of the journal: 1024 ids each. The indexes of tenants, topics and keys begin with the segment, so whoever
//! looks one of these up looks once in each segment, in the order of the ids.

use std::ops::Range;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::search::Order;

/// What an id's segment is, as schema.sql has it: `id >> 10`.
const BITS: u32 = 10;

/// The segment of an event.
pub(super) fn segment_of(id: i64) -> i64 {
    id >> BITS
}

/// The ids of a segment that are in `ids`.
pub(super) fn ids_of(segment: i64, ids: &Range<i64>) -> Range<i64> {
    let first = segment << BITS;
    ids.start.max(first)..ids.end.min(first.saturating_add(1 << BITS))
}

/// The segments that hold events, one after the other.
pub(super) struct Segments<'a> {
    next: CachedStatement<'a>,
    order: Order,
    /// Those that are left, both ends among them.
    left: (i64, i64),
}

impl<'a> Segments<'a> {
    /// The segments of `ids`.
    pub fn of(connection: &'a Connection, ids: &Range<i64>, order: Order) -> rusqlite::Result<Segments<'a>> {
        let next = connection.prepare_cached(next_segment(order))?;
        let left = (segment_of(ids.start), segment_of(ids.end.saturating_sub(1)));
        Ok(Segments { next, order, left })
    }

    pub fn next(&mut self) -> rusqlite::Result<Option<i64>> {
        let (first, last) = self.left;
        let found: Option<i64> = self.next.query_row(params![first, last], |row| row.get(0)).optional()?;
        if let Some(segment) = found {
            match self.order {
                Order::NewestFirst => self.left.1 = segment - 1,
                Order::OldestFirst => self.left.0 = segment + 1,
            }
        }
        Ok(found)
    }
}

/// The next segment between `?1` and `?2`: ids may have gaps of any size.
pub(super) fn next_segment(order: Order) -> &'static str {
    match order {
        Order::NewestFirst => {
            "SELECT id >> 10 FROM event_journal INDEXED BY event_journal_tenant WHERE id >> 10 BETWEEN ?1 AND ?2 \
             ORDER BY id >> 10 DESC LIMIT 1"
        }
        Order::OldestFirst => {
            "SELECT id >> 10 FROM event_journal INDEXED BY event_journal_tenant WHERE id >> 10 BETWEEN ?1 AND ?2 \
             ORDER BY id >> 10 LIMIT 1"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SCHEMA;

    #[test]
    fn segments_are_walked_in_either_order_and_gaps_are_jumped_over() {
        let journal = Connection::open_in_memory().unwrap();
        journal.execute_batch(SCHEMA).unwrap();
        let sql = "INSERT INTO event_journal (id, tenant_id, topic, payload, received_at, kafka_partition, kafka_offset) \
                   VALUES (?1, 'acme', 'leads', '{}', '2025-11-03 20:03:58.586440', 0, 0)";
        let ids = [1, 1023, 1024, 5000, 1 << 40, i64::MAX];
        for id in ids {
            journal.execute(sql, [id]).unwrap();
        }
        let walk = |range: Range<i64>, order| {
            let mut segments = Segments::of(&journal, &range, order).unwrap();
            std::iter::from_fn(|| segments.next().unwrap()).collect::<Vec<_>>()
        };
        let all = vec![0, 1, 4, 1 << 30, i64::MAX >> 10];
        assert_eq!(walk(i64::MIN..i64::MAX, Order::OldestFirst), all);
        assert_eq!(walk(i64::MIN..i64::MAX, Order::NewestFirst), all.iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(walk(1024..5000, Order::NewestFirst), [4, 1]);
        assert_eq!(walk(1024..1024, Order::NewestFirst), [] as [i64; 0]);
        assert_eq!(ids_of(1, &(0..1500)), 1024..1500);
        assert_eq!(ids_of(1, &(1100..i64::MAX)), 1100..2048);
    }
}
