//! What is known of the journal's room without reading the journal for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::store::{Readers, RowCounts};

/// Counting reads an index from end to end.
const COUNT_EVERY: Duration = Duration::from_secs(3600);

/// As of a time, or not known yet.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Known {
    /// They are counted when the sink starts and every hour.
    pub rows: Option<Counted>,
    /// By which the journal grew over the last day, or since the start; negative where it shrank.
    pub bytes_per_day: Option<i64>,
    /// Until the disk is full at that rate; null while the journal does not grow.
    pub days_left: Option<f64>,
    /// When retention last came to its end.
    pub retention_ended_at: Option<String>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Counted {
    #[serde(flatten)]
    pub rows: RowCounts,
    pub at: String,
    #[serde(skip)]
    counted: Instant,
}

/// [`Known`], kept up to date by retention's thread.
#[derive(Debug, Default)]
pub struct Status(Mutex<Known>);

impl Status {
    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    pub(super) fn grows(&self, bytes_per_second: Option<f64>, seconds_left: f64) {
        let mut known = self.lock();
        known.bytes_per_day = bytes_per_second.map(|rate| (rate * 86_400.0) as i64);
        known.days_left = seconds_left.is_finite().then_some(seconds_left / 86_400.0);
    }

    pub(super) fn ended(&self, at: Timestamp) {
        self.lock().retention_ended_at = Some(iso(at));
    }

    /// Counts the rows if that is long ago. What cannot be read now is counted the next time.
    pub(super) fn count(&self, readers: &Readers) {
        let is_due = self.lock().rows.as_ref().is_none_or(|rows| rows.counted.elapsed() >= COUNT_EVERY);
        if is_due && let Ok(rows) = readers.row_counts() {
            let counted = Counted { rows, at: iso(Timestamp::now()), counted: Instant::now() };
            self.lock().rows = Some(counted);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn iso(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}
