//! The file.

use prometheus::{IntGauge, Registry};

use super::register::gauge;

pub struct Journal {
    pub bytes: IntGauge,
    pub wal_bytes: IntGauge,
    pub reserve_bytes: IntGauge,
}

impl Journal {
    pub(super) fn new(r: &Registry) -> Journal {
        Journal {
            bytes: gauge(r, "crm_events_journal_bytes", "Size of the journal file."),
            wal_bytes: gauge(r, "crm_events_wal_bytes", "Size of the journal's write-ahead log."),
            reserve_bytes: gauge(
                r,
                "crm_events_reserve_bytes",
                "Room on the disk kept for a full disk; 0 while it is given up.",
            ),
        }
    }
}
