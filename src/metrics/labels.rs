//! How many values a label may take.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The label of what came after the limit was reached.
pub const OTHER: &str = "_other";
/// A longer tenant or topic name shares [`OTHER`]: a label is no place for somebody's document.
const LABEL_BYTES_MAX: usize = 249;
/// Topics that get a label of their own. Kafka's own limit on names is 249 bytes; a box reads dozens of topics.
pub(super) const TOPICS_MAX: usize = 1000;

/// The first `max` values seen get a label of their own, for as long as the process runs.
pub(super) struct Labels {
    max: usize,
    known: Mutex<HashSet<String>>,
}

impl Labels {
    pub(super) fn new(max: usize) -> Labels {
        Labels { max, known: Mutex::default() }
    }

    pub(super) fn label<'a>(&self, value: &'a str) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value;
        }
        if known.len() >= self.max || value.len() > LABEL_BYTES_MAX {
            return OTHER;
        }
        known.insert(value.to_owned());
        value
    }
}
