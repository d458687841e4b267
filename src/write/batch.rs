//! When a transaction is due. Pure: `now` is passed in.

use std::time::{Duration, Instant};

/// The limits on one transaction, whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows_max: usize,
    pub bytes_max: usize,
    pub age_max: Duration,
}

/// What has been collected for the next transaction.
#[derive(Debug, Clone, Copy)]
pub struct Collected {
    pub rows: usize,
    pub bytes: usize,
    /// When its first record was taken from Kafka.
    pub since: Instant,
}

impl Limits {
    pub fn is_full(&self, collected: &Collected) -> bool {
        collected.rows >= self.rows_max || collected.bytes >= self.bytes_max
    }

    pub fn is_stale(&self, collected: &Collected, now: Instant) -> bool {
        now >= self.deadline(collected)
    }

    /// Until when others may join.
    pub fn deadline(&self, collected: &Collected) -> Instant {
        collected.since + self.age_max
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_bytes_or_age_end_a_batch_whichever_comes_first() {
        let limits = Limits { rows_max: 3, bytes_max: 100, age_max: Duration::from_millis(20) };
        let since = Instant::now();
        let few = Collected { rows: 2, bytes: 99, since };
        assert!(!limits.is_full(&few) && !limits.is_stale(&few, since + Duration::from_millis(19)));
        assert!(limits.is_full(&Collected { rows: 3, ..few }));
        assert!(limits.is_full(&Collected { bytes: 100, ..few }));
        assert!(limits.is_stale(&few, since + Duration::from_millis(20)));
    }
    proptest! {
        /// Batches are taken while there is room and time: what comes before the last of them is within every limit,
        /// so only one batch, however large, can go beyond.
        #[test]
        fn only_the_last_batch_taken_can_go_beyond_a_limit(
            batches in vec((1_usize..50, 1_usize..5000, 0_u64..10), 1..200),
            rows_max in 1_usize..100,
            bytes_max in 1_usize..10_000,
            age_ms_max in 0_u64..50,
        ) {
            let limits = Limits { rows_max, bytes_max, age_max: Duration::from_millis(age_ms_max) };
            let since = Instant::now();
            let mut now = since;
            let mut collected = Collected { rows: 0, bytes: 0, since };
            for (rows, bytes, after_ms) in batches {
                now += Duration::from_millis(after_ms);
                if limits.is_full(&collected) || limits.is_stale(&collected, now) {
                    break;
                }
                prop_assert!(collected.rows < rows_max && collected.bytes < bytes_max);
                prop_assert!(now - since < limits.age_max);
                collected = Collected { rows: collected.rows + rows, bytes: collected.bytes + bytes, since };
            }
        }

        /// What is full or due stays so when more is collected or time goes on, and the deadline does not move.
        #[test]
        fn full_and_due_are_never_taken_back(
            rows in 0_usize..10_000, more_rows in 0_usize..10_000,
            bytes in 0_usize..1 << 26, more_bytes in 0_usize..1 << 26,
            age_us in 0_u64..20_000_000, later_us in 0_u64..20_000_000,
        ) {
            let limits = Limits { rows_max: 4000, bytes_max: 4 << 20, age_max: Duration::from_millis(20) };
            let since = Instant::now();
            let few = Collected { rows, bytes, since };
            let more = Collected { rows: rows + more_rows, bytes: bytes + more_bytes, since };
            let now = since + Duration::from_micros(age_us);
            prop_assert!(!limits.is_full(&few) || limits.is_full(&more));
            prop_assert!(!limits.is_stale(&few, now) || limits.is_stale(&more, now + Duration::from_micros(later_us)));
            prop_assert_eq!(limits.deadline(&few), limits.deadline(&more));
            prop_assert_eq!(limits.is_stale(&few, now), now >= since + limits.age_max);
        }
    }
}
