//! Copies of the journal.

use prometheus::{IntGauge, Registry};

use super::register::gauge;

pub struct Backup {
    last: IntGauge,
    bytes: IntGauge,
}

impl Backup {
    pub(super) fn new(r: &Registry) -> Backup {
        Backup {
            last: gauge(
                r,
                "crm_events_backup_last_timestamp_seconds",
                "When the newest backup in backup.folder was made; 0 while there is none.",
            ),
            bytes: gauge(r, "crm_events_backup_bytes", "Size of the newest backup in backup.folder."),
        }
    }

    /// The newest backup: when it was made, and its bytes.
    pub fn show(&self, newest: Option<(i64, u64)>) {
        let (made_at, bytes) = newest.unwrap_or_default();
        self.last.set(made_at);
        self.bytes.set(bytes as i64);
    }
}
