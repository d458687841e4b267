//! What goes for good: events that are pruned because they are old, after the archive has them where there is one, and
//! what is erased of a tenant or of one of its keys.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows that one transaction erases, or prunes, and pages whose unused parts it zeroes, at most: ingestion waits for it.
pub const ERASE_MAX: usize = 500;
pub const PRUNE_MAX: u32 = 500;

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub tenant_id: String,
    /// Of that tenant; `None`: everything of it.
    pub key: Option<String>,
    /// Rows after these are not meant: they came later.
    pub last_event_id: i64,
    pub last_letter_id: i64,
}

/// What an erasure would do, or has left to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErasurePlan {
    pub events: i64,
    /// Of their values.
    pub bytes: i64,
    pub first_event_id: Option<i64>,
    pub last_event_id: Option<i64>,
    pub dead_letters: i64,
    /// Of these, letters that are nobody's but have the tenant's name in their bytes.
    pub dead_letters_by_name: i64,
    /// Replay jobs whose filters name the key, or a key of the tenant.
    pub jobs: i64,
    /// Files of the archive with the tenant's events.
    pub archive_files: i64,
}

impl ErasurePlan {
    pub fn is_empty(&self) -> bool {
        self.events == 0 && self.dead_letters == 0 && self.jobs == 0 && self.archive_files == 0
    }
}

/// How far an erasure has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Erasure {
    /// The row of the audit that says that it was begun.
    pub certificate: i64,
    pub events: i64,
    pub first_event_id: Option<i64>,
    pub last_event_id: Option<i64>,
    pub dead_letters: i64,
    pub jobs: i64,
    /// The file is from a version that left copies in unused parts of its pages.
    pub needs_vacuum: bool,
    #[serde(skip)]
    pub is_done: bool,
}

/// The rows of one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub events: Vec<i64>,
    pub letters: Vec<i64>,
}

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.letters.is_empty()
    }
}

/// Why rows cannot go now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemovalRefusal {
    #[error("event {event_id} is still to be sent by job {job_id}, which is {state}; wait for it or cancel it")]
    Job { job_id: i64, event_id: i64, state: String },
    #[error("dead letter {id} is being sent to its topic just now; try again")]
    Republishing { id: i64 },
    #[error("somebody reads the journal for long, so that its write-ahead log still holds what was erased; try again")]
    Log,
    #[error("there are rows left; send the same again")]
    Unfinished,
}

/// What pruning would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PrunePlan {
    pub events: i64,
    /// Of their values.
    pub bytes: i64,
    pub first_event_id: Option<i64>,
    pub last_event_id: Option<i64>,
    pub first_received_at: Option<String>,
    pub last_received_at: Option<String>,
    /// Why events stay that are old enough.
    pub stops_before: Option<String>,
}

/// Rows that retention takes off in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outdated {
    pub events: Vec<i64>,
    pub letters: Vec<i64>,
    /// The row of the audit that says so.
    pub act: i64,
}

/// What became of [`Outdated`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Of each topic.
    pub events: BTreeMap<String, u64>,
    pub letters: u64,
    /// An event that must stay is before those that are left, which a chain does not allow.
    pub is_blocked: bool,
}

/// What one transaction pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub events: u64,
    pub last_id: i64,
}

/// Events that are archived at once: every one from the first to the last id, all received on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Of `received_at`, UTC: `2025-11-03`.
    pub day: String,
    pub first_id: i64,
    pub last_id: i64,
    pub rows: i64,
}

/// A file of the archive, as the journal lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedFile {
    pub id: i64,
    /// In `archive.folder`.
    pub path: String,
    pub tenant_id: String,
    /// On which its events were received, UTC.
    pub day: String,
    pub rows: i64,
    pub bytes: i64,
    /// Of the file, in hexadecimal digits.
    pub sha256: String,
    pub first_event_id: i64,
    pub last_event_id: i64,
    pub written_at: String,
    /// The certificate in the audit of the erasure that removed the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<i64>,
}
