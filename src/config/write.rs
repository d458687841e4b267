//! The way into the file: queue, transactions, the file itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::value::{duration, within};

/// Bytes of one batch, in the queue or in a transaction.
const BATCH_BYTES: std::ops::RangeInclusive<usize> = 4096..=64 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Batches that may wait for the writer, 1 to 1024. With `batch_bytes_max` this bounds the queue's memory.
    pub batches_max: usize,
    /// Bytes of one batch in the queue, at least one record. 4 KiB to 64 MiB.
    pub batch_bytes_max: usize,
}

impl Default for Queue {
    fn default() -> Queue {
        // 8 × 1 MiB: two full transactions, so that the writer never waits for the consumer.
        Queue { batches_max: 8, batch_bytes_max: 1 << 20 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Write {
    /// Rows of one transaction, 1 to 100,000.
    pub batch_rows_max: usize,
    /// Bytes of one transaction, at least one batch of the queue. 4 KiB to 64 MiB.
    pub batch_bytes_max: usize,
    /// How long a record may wait for others to share its transaction. 0 to 10 s.
    #[serde(with = "duration")]
    pub batch_age_max: Duration,
    /// A transaction is followed by the next one after this time, or when `batch_rows_min` rows wait, or when a record comes
    /// after a quarter of it without any. 0 to 60 s.
    #[serde(with = "duration")]
    pub batch_interval: Duration,
    /// Rows that do not wait for `batch_interval` to be over, 1 to 100,000.
    pub batch_rows_min: usize,
}

impl Default for Write {
    fn default() -> Write {
        // 20 ms keeps a lone event under 50 ms until it is visible. 4,000 rows or 4 MiB are past the point where a
        // commit's fixed cost shows. A commit rewrites some eight pages of 4 KiB however few rows it has: at 10
        // events/s an event costs a quarter of it when twenty share one, and 50 rows bring 1,000 events/s to 20
        // commits a second, each of which is seen in a tenth of a second (docs/performance.md has the figures).
        Write {
            batch_rows_max: 4000,
            batch_bytes_max: 4 << 20,
            batch_age_max: Duration::from_millis(20),
            batch_interval: Duration::from_secs(2),
            batch_rows_min: 50,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    pub path: PathBuf,
    /// Room on the disk that is given up when the disk is full, 0 (none) to 1 GiB.
    pub reserve_bytes: u64,
    /// Bytes of the write-ahead log, and one transaction: past these nothing is written until whoever reads for so long is
    /// gone. 16 MiB to 1 TiB.
    pub wal_bytes_max: u64,
    /// Whether each row of the journal and of the audit is chained to the one before it, so that `verify --chain` finds
    /// what was changed or removed by hand.
    pub chain: bool,
}

impl Default for Journal {
    fn default() -> Journal {
        // Room for some deletions: the log holds each page that they touch until it is copied into the file.
        Journal {
            path: "/var/lib/crm-events-sink/journal.db".into(),
            reserve_bytes: 16 << 20,
            wal_bytes_max: 1 << 30,
            chain: false,
        }
    }
}

impl Queue {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("queue.batches_max", self.batches_max, 1..=1024)?;
        within("queue.batch_bytes_max", self.batch_bytes_max, BATCH_BYTES)
    }
}

impl Write {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("write.batch_rows_max", self.batch_rows_max, 1..=100_000)?;
        within("write.batch_bytes_max", self.batch_bytes_max, BATCH_BYTES)?;
        within("write.batch_age_max", self.batch_age_max, Duration::ZERO..=Duration::from_secs(10))?;
        within("write.batch_interval", self.batch_interval, Duration::ZERO..=Duration::from_secs(60))?;
        within("write.batch_rows_min", self.batch_rows_min, 1..=100_000)
    }
}

impl Journal {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        within("journal.reserve_bytes", self.reserve_bytes, 0..=1 << 30)?;
        within("journal.wal_bytes_max", self.wal_bytes_max, 16 << 20..=1 << 40)
    }
}
