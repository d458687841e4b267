//! What is known of Kafka.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::register::{counters, gauge, gauges};

pub struct Broker {
    pub lag: IntGaugeVec,
    pub up: IntGauge,
    pub partitions_assigned: IntGaugeVec,
    pub(super) log_restarts: IntCounterVec,
    pub(super) gaps: IntGaugeVec,
    pub halted: IntGaugeVec,
}

impl Broker {
    pub(super) fn new(r: &Registry) -> Broker {
        Broker {
            lag: gauges(
                r,
                "crm_events_consumer_lag",
                "Records on the broker that are not yet in the file.",
                &["topic", "partition"],
            ),
            up: gauge(r, "crm_events_broker_up", "1 while a broker is connected, else 0."),
            partitions_assigned: gauges(
                r,
                "crm_events_partitions_assigned",
                "Partitions that a consumer reads.",
                &["consumer"],
            ),
            log_restarts: counters(
                r,
                "crm_events_log_restarts_total",
                "Partitions whose offsets began again: topic recreated or truncated.",
                &["topic"],
            ),
            gaps: gauges(
                r,
                "crm_events_gaps",
                "Ranges of offsets that the file does not hold, by reason.",
                &["topic", "reason"],
            ),
            halted: gauges(
                r,
                "crm_events_partition_halted",
                "1 while nothing is taken from the partition until POST /consumer/resume.",
                &["topic", "partition"],
            ),
        }
    }
}
