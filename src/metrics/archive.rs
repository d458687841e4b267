//! What was archived.

use prometheus::{IntCounter, IntGauge, Registry};

use super::register::{counter, gauge};

pub struct Archive {
    pub archived: IntCounter,
    pub failures: IntCounter,
    pub files: IntGauge,
    pub bytes: IntGauge,
}

impl Archive {
    pub(super) fn new(r: &Registry) -> Archive {
        Archive {
            archived: counter(r, "crm_events_archived_total", "Events that were archived before they are deleted."),
            failures: counter(r, "crm_events_archive_failures_total", "Attempts to archive that failed."),
            files: gauge(r, "crm_events_archive_files", "Files of the archive that the journal lists."),
            bytes: gauge(r, "crm_events_archive_bytes", "Size of these files."),
        }
    }
}
