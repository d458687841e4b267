//! What erasing and pruning have in common: one at a time, some seconds a request, and ingestion comes first.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::Duration;

use super::OperatorApi;
use crate::serve::reply::ApiError;

/// How long one request works. What is left then, the next one does: no client waits longer, and no thread of the API.
pub const WORK_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether ingestion has caught up.
const TICK: Duration = Duration::from_millis(20);

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Removals(Mutex<()>);

impl Removals {
    /// # Errors
    /// While another request erases or prunes.
    pub fn turn(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        match self.0.try_lock() {
            Ok(turn) => Ok(turn),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(ApiError::Removing),
        }
    }
}

/// Waits while batches wait for the writer; false when the sink stops.
pub fn let_ingestion_pass(api: &OperatorApi) -> bool {
    while api.orders.batches_waiting() > api.config.queue.batches_max / 2 && !api.jobs.is_stopping() {
        thread::sleep(TICK);
    }
    !api.jobs.is_stopping()
}
