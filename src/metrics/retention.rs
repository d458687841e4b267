//! What retention took off, and the room that is left.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};

use super::register::{counter, counters, gauge, number};

pub struct Retention {
    pub(super) pruned: IntCounterVec,
    pub letters: IntCounter,
    pub last_run: Gauge,
    pub faults: IntCounter,
    pub disk_free_bytes: IntGauge,
    pub disk_left_seconds: Gauge,
    pub oldest: Gauge,
    pub free_pages_bytes: IntGauge,
    pub written_bytes: IntCounter,
}

impl Retention {
    pub(super) fn new(r: &Registry) -> Retention {
        let metrics = Retention {
            pruned: counters(r, "crm_events_pruned_total", "Events that retention deleted.", &["topic"]),
            letters: counter(r, "crm_events_pruned_dead_letters_total", "Dead letters that retention deleted."),
            last_run: number(
                r,
                "crm_events_retention_last_run_timestamp_seconds",
                "When retention last came to its end; 0 before.",
            ),
            faults: counter(
                r,
                "crm_events_retention_faults_total",
                "Runs of retention that did not come to their end.",
            ),
            disk_free_bytes: gauge(r, "crm_events_disk_free_bytes", "Free room on the journal's disk."),
            disk_left_seconds: number(
                r,
                "crm_events_disk_left_seconds",
                "Until the journal's disk is full at the present rate; +Inf while it does not fill.",
            ),
            oldest: number(
                r,
                "crm_events_oldest_timestamp_seconds",
                "When the oldest event was received; 0 without one.",
            ),
            free_pages_bytes: gauge(r, "crm_events_free_pages_bytes", "Room that is free inside the journal file."),
            written_bytes: counter(
                r,
                "crm_events_written_bytes_total",
                "Bytes that this process had the system write to its disks.",
            ),
        };
        metrics.disk_left_seconds.set(f64::INFINITY);
        metrics
    }
}
