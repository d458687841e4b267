//! What the broker last said of each partition that is read: where its log begins and ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// A partition's log on the broker: the records it has are `low..high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    pub low: i64,
    pub high: i64,
    /// When the broker said so.
    pub at: Timestamp,
}

/// Set by the consumers, read by the API. One entry an assigned partition.
#[derive(Debug, Default)]
pub struct Watermarks {
    known: Mutex<HashMap<(Arc<str>, i32), Watermark>>,
}

impl Watermarks {
    pub fn set(&self, topic: &Arc<str>, partition: i32, low: i64, high: i64) {
        let mark = Watermark { low, high, at: Timestamp::now() };
        self.lock().insert((Arc::clone(topic), partition), mark);
    }

    pub fn get(&self, topic: &Arc<str>, partition: i32) -> Option<Watermark> {
        self.lock().get(&(Arc::clone(topic), partition)).copied()
    }

    pub fn remove(&self, topic: &Arc<str>, partition: i32) {
        self.lock().remove(&(Arc::clone(topic), partition));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Arc<str>, i32), Watermark>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
