//! `GET /storage`: the journal's room, and how long it lasts.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::OperatorApi;
use super::call::Call;
use crate::retention::{Known, disk_free};
use crate::serve::reply::{ApiError, Reply};
use crate::store::{file_sizes, holders, iso};

#[derive(Serialize, JsonSchema)]
pub struct Storage {
    /// Of the file, and the write-ahead log beside it.
    journal_bytes: u64,
    wal_bytes: u64,
    /// Of the file: in use, and free for new rows.
    used_bytes: u64,
    free_pages_bytes: u64,
    /// Whether free pages can go back to the disk.
    can_shrink: bool,
    disk_free_bytes: Option<u64>,
    /// When the oldest event was received.
    oldest_received_at: Option<String>,
    #[serde(flatten)]
    known: Known,
    /// The settings that are in force.
    retention: Value,
    /// Other processes that have the journal open, as far as the sink's user sees them.
    opened_by: Vec<String>,
}

pub fn get(api: &OperatorApi, _: &Call) -> Result<Reply, ApiError> {
    let path = &api.config.journal.path;
    let (journal_bytes, wal_bytes) = file_sizes(path);
    let room = api.readers.file_room()?;
    let oldest = api.readers.oldest_received(0)?;
    let storage = Storage {
        journal_bytes,
        wal_bytes,
        used_bytes: room.used,
        free_pages_bytes: room.free,
        can_shrink: room.can_shrink,
        disk_free_bytes: disk_free(path).ok(),
        oldest_received_at: oldest.map(|at| iso(&at)),
        known: api.storage.known(),
        retention: serde_json::to_value(&api.config.retention).unwrap_or_default(),
        opened_by: holders(path),
    };
    Ok(Reply::json(200, &storage))
}
