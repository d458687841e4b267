//! What becomes of a record.

use prometheus::{Gauge, Histogram, IntCounterVec, IntGauge, Registry};

use super::register::{counters, gauge, histogram, number};

pub struct Flow {
    pub(super) ingested: IntCounterVec,
    pub(super) persisted: IntCounterVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) duplicates: IntCounterVec,
    pub dlq_rows: IntGauge,
    pub dlq_open: IntGauge,
    pub last_persisted: Gauge,
    pub transaction_seconds: Histogram,
    pub transaction_rows: Histogram,
    pub queue_batches: IntGauge,
}

impl Flow {
    pub(super) fn new(r: &Registry) -> Flow {
        Flow {
            ingested: counters(r, "crm_events_ingested_total", "Records taken from Kafka.", &["topic", "tenant_id"]),
            persisted: counters(
                r,
                "crm_events_persisted_total",
                "Events durable in the journal.",
                &["topic", "tenant_id"],
            ),
            dead_letters: counters(
                r,
                "crm_events_dead_letters_total",
                "Records durable in the DLQ.",
                &["topic", "reason"],
            ),
            duplicates: counters(
                r,
                "crm_events_duplicates_skipped_total",
                "Records read again that the file held already.",
                &["topic"],
            ),
            dlq_rows: gauge(r, "crm_events_dlq_rows", "Rows in event_dlq."),
            dlq_open: gauge(r, "crm_events_dlq_open", "Dead letters that nothing was done about yet."),
            last_persisted: number(
                r,
                "crm_events_last_persisted_timestamp_seconds",
                "When an event last became durable; 0 before the first.",
            ),
            transaction_seconds: histogram(
                r,
                "crm_events_transaction_seconds",
                "Time of one write transaction, commit included.",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            ),
            transaction_rows: histogram(
                r,
                "crm_events_transaction_rows",
                "Rows of one write transaction.",
                &[1.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 4000.0, 10_000.0, 100_000.0],
            ),
            queue_batches: gauge(r, "crm_events_queue_batches", "Batches that wait for the writer."),
        }
    }
}
