//! When a transaction is due. Pure: `now` is passed in.

use std::time::{Duration, Instant};

/// The limits on one transaction, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows_max: usize,
    pub bytes_max: usize,
    pub age_max: Duration,
    /// How long a transaction with fewer rows than `rows_min` keeps its distance to the one before.
    pub interval: Duration,
    pub rows_min: usize,
}

/// What has been collected for the next transaction.
#[derive(Debug, Clone, Copy)]
pub struct Collected {
    pub rows: usize,
    pub bytes: usize,
    /// When its first record was taken from Kafka.
    pub since: Instant,
    /// It came alone, or somebody waits until it is durable.
    pub is_urgent: bool,
}

impl Limits {
    pub fn is_full(&self, collected: &Collected) -> bool {
        collected.rows >= self.rows_max || collected.bytes >= self.bytes_max
    }

    /// Whether a record comes alone: nothing came for a quarter of the interval.
    pub fn is_alone(&self, since: Instant, last_arrival: Option<Instant>) -> bool {
        last_arrival.is_none_or(|last| since.saturating_duration_since(last) >= self.interval / 4)
    }

    /// Until when others may join.
    pub fn deadline(&self, collected: &Collected, last_transaction: Option<Instant>) -> Instant {
        let deadline = collected.since + self.age_max;
        match last_transaction {
            Some(last) if collected.rows < self.rows_min && !collected.is_urgent => deadline.max(last + self.interval),
            _ => deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        rows_max: 100,
        bytes_max: 1000,
        age_max: Duration::from_millis(20),
        interval: Duration::from_secs(2),
        rows_min: 10,
    };

    #[test]
    fn rows_or_bytes_fill_a_batch() {
        let few = Collected { rows: 99, bytes: 999, since: Instant::now(), is_urgent: false };
        assert!(!LIMITS.is_full(&few));
        assert!(LIMITS.is_full(&Collected { rows: 100, ..few }));
        assert!(LIMITS.is_full(&Collected { bytes: 1000, ..few }));
    }

    #[test]
    fn a_lone_record_goes_at_once_and_those_that_follow_it_go_together() {
        let since = Instant::now();
        let after = |ms| LIMITS.is_alone(since + Duration::from_millis(ms), Some(since));
        assert!(after(500) && !after(499) && LIMITS.is_alone(since, None));
        let lone = Collected { rows: 1, bytes: 300, since, is_urgent: false };
        let at_once = since + LIMITS.age_max;
        let before = |ms| Some(since - Duration::from_millis(ms));
        assert_eq!(LIMITS.deadline(&lone, None), at_once);
        assert_eq!(LIMITS.deadline(&lone, before(2500)), at_once);
        assert_eq!(LIMITS.deadline(&lone, before(500)), since + Duration::from_millis(1500));
        assert_eq!(LIMITS.deadline(&Collected { rows: 9, ..lone }, before(0)), since + LIMITS.interval);
        assert_eq!(LIMITS.deadline(&Collected { rows: 10, ..lone }, before(0)), at_once);
        assert_eq!(LIMITS.deadline(&Collected { is_urgent: true, ..lone }, before(0)), at_once);
    }

    proptest! {
        /// What is full stays so when more is collected, and what is due does: the deadline only comes nearer, to the age
        /// that a record may have, and is never farther than the interval.
        #[test]
        fn full_and_due_are_never_taken_back(
            rows in 0_usize..200, more_rows in 0_usize..200,
            bytes in 0_usize..2000, more_bytes in 0_usize..2000,
            before in vec(0_u64..4_000_000, 0..2), is_urgent: bool, is_urgent_later: bool,
        ) {
            let since = Instant::now();
            let few = Collected { rows, bytes, since, is_urgent };
            let more = Collected {
                rows: rows + more_rows,
                bytes: bytes + more_bytes,
                since,
                is_urgent: is_urgent || is_urgent_later,
            };
            let last = before.first().map(|us| since - Duration::from_micros(*us));
            prop_assert!(!LIMITS.is_full(&few) || LIMITS.is_full(&more));
            prop_assert!(LIMITS.deadline(&more, last) <= LIMITS.deadline(&few, last));
            prop_assert!(LIMITS.deadline(&more, last) >= since + LIMITS.age_max);
            prop_assert!(LIMITS.deadline(&few, last) <= since + LIMITS.interval);
        }
    }
}
