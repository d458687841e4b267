//! The two ports.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::register::{counter, counters, gauge, gauges, number};

pub struct Http {
    pub connections: IntGaugeVec,
    pub requests: IntCounterVec,
    pub refused: IntCounterVec,
    pub probe_seconds: Gauge,
    pub probe_failures: IntCounter,
    pub certificate_expires: IntGauge,
}

impl Http {
    pub(super) fn new(r: &Registry) -> Http {
        Http {
            connections: gauges(r, "crm_events_http_connections", "Connections of clients, by port.", &["port"]),
            requests: counters(r, "crm_events_http_requests_total", "Answers, by class of status.", &["port", "class"]),
            refused: counters(
                r,
                "crm_events_http_refused_total",
                "Requests and connections that came no further than the edge; docs/http.md has the reasons.",
                &["port", "reason"],
            ),
            probe_seconds: number(
                r,
                "crm_events_http_probe_seconds",
                "How long the sink took to answer its own last question on both ports.",
            ),
            probe_failures: counter(
                r,
                "crm_events_http_probe_failures_total",
                "Own questions that were not answered within a second.",
            ),
            certificate_expires: gauge(
                r,
                "crm_events_certificate_expires_timestamp_seconds",
                "When the API's certificate ends; 0 without one.",
            ),
        }
    }
}
