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
}
