//! Every metric, by name. Nothing here asks SQLite: the stages report what they did.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector, process_collector::ProcessCollector,
};

/// The label of what came after the limit was reached.
pub const OTHER: &str = "_other";
/// A longer tenant or topic name shares [`OTHER`]: a label is no place for somebody's document.
const LABEL_BYTES_MAX: usize = 249;
/// Topics that get a label of their own. Kafka's own limit on names is 249 bytes; a box reads dozens of topics.
const TOPICS_MAX: usize = 1000;

pub struct Metrics {
    registry: Registry,
    tenants: Labels,
    topics: Labels,
    ingested: IntCounterVec,
    persisted: IntCounterVec,
    dead_letters: IntCounterVec,
    duplicates: IntCounterVec,
    pub dlq_rows: IntGauge,
    pub dlq_open: IntGauge,
    pub lag: IntGaugeVec,
    pub last_persisted: prometheus::Gauge,
    pub transaction_seconds: Histogram,
    pub transaction_rows: Histogram,
    pub queue_batches: IntGauge,
    replays: IntCounterVec,
    pub replay_jobs: IntGauge,
    pub journal_bytes: IntGauge,
    pub wal_bytes: IntGauge,
    pub reserve_bytes: IntGauge,
    pub broker_up: IntGauge,
    pub partitions_assigned: IntGaugeVec,
    pub log_restarts: IntCounterVec,
    gaps: IntGaugeVec,
    pub halted: IntGaugeVec,
    pub http_connections: IntGaugeVec,
    pub http_requests: IntCounterVec,
    pub http_refused: IntCounterVec,
    pub http_probe_seconds: prometheus::Gauge,
    pub http_probe_failures: IntCounter,
}

impl Metrics {
    /// # Panics
    /// Never: the names below are valid and stand once.
    pub fn new(max_tenants: usize, sqlite_version: &str) -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Metrics {
            tenants: Labels::new(max_tenants),
            topics: Labels::new(TOPICS_MAX),
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
            lag: gauges(
                r,
                "crm_events_consumer_lag",
                "Records on the broker that are not yet in the file.",
                &["topic", "partition"],
            ),
            last_persisted: registered(
                r,
                prometheus::Gauge::new(
                    "crm_events_last_persisted_timestamp_seconds",
                    "When an event last became durable; 0 before the first.",
                ),
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
            replays: counters(
                r,
                "crm_events_replays_total",
                "Replays by outcome, those of jobs included: replayed, timed_out, refused, busy, uncertain.",
                &["outcome"],
            ),
            replay_jobs: gauge(r, "crm_events_replay_jobs", "Replay jobs that are running or paused."),
            journal_bytes: gauge(r, "crm_events_journal_bytes", "Size of the journal file."),
            wal_bytes: gauge(r, "crm_events_wal_bytes", "Size of the journal's write-ahead log."),
            reserve_bytes: gauge(
                r,
                "crm_events_reserve_bytes",
                "Room on the disk kept for a full disk; 0 while it is given up.",
            ),
            broker_up: gauge(r, "crm_events_broker_up", "1 while a broker is connected, else 0."),
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
            http_connections: gauges(r, "crm_events_http_connections", "Connections of clients, by port.", &["port"]),
            http_requests: counters(
                r,
                "crm_events_http_requests_total",
                "Answers, by class of status.",
                &["port", "class"],
            ),
            http_refused: counters(
                r,
                "crm_events_http_refused_total",
                "Requests and connections that came no further than the edge; docs/http.md has the reasons.",
                &["port", "reason"],
            ),
            http_probe_seconds: registered(
                r,
                prometheus::Gauge::new(
                    "crm_events_http_probe_seconds",
                    "How long the sink took to answer its own last question on both ports.",
                ),
            ),
            http_probe_failures: registered(
                r,
                IntCounter::new(
                    "crm_events_http_probe_failures_total",
                    "Own questions that were not answered within a second.",
                ),
            ),
            registry,
        };
        metrics.register_build_info(sqlite_version);
        metrics
    }

    fn register_build_info(&self, sqlite_version: &str) {
        let labels = ["version", "sqlite"];
        let info = gauges(&self.registry, "crm_events_build_info", "Always 1; the labels say what runs.", &labels);
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), sqlite_version]).set(1);
        let started = prometheus::Gauge::new("crm_events_start_timestamp_seconds", "When this process started.");
        registered(&self.registry, started).set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
        self.registry.register(Box::new(ProcessCollector::for_self())).expect("the process is registered once");
    }

    pub fn count_ingested(&self, topic: &str, tenant_id: &str, records: u64) {
        self.by_tenant(&self.ingested, topic, tenant_id).inc_by(records);
    }

    pub fn count_persisted(&self, topic: &str, tenant_id: &str, events: u64) {
        self.by_tenant(&self.persisted, topic, tenant_id).inc_by(events);
    }

    pub fn count_dead_letters(&self, topic: &str, reason: &str, records: u64) {
        self.dead_letters.with_label_values(&[self.topics.label(topic), reason]).inc_by(records);
        self.dlq_rows.add(records as i64);
        self.dlq_open.add(records as i64);
    }

    pub fn count_duplicates(&self, topic: &str, records: u64) {
        self.duplicates.with_label_values(&[self.topics.label(topic)]).inc_by(records);
    }

    pub fn count_log_restart(&self, topic: &str) {
        self.log_restarts.with_label_values(&[self.topics.label(topic)]).inc();
    }

    pub fn count_gaps(&self, topic: &str, reason: &str, ranges: i64) {
        self.gaps.with_label_values(&[self.topics.label(topic), reason]).add(ranges);
    }

    pub fn count_replay(&self, outcome: &str) {
        self.replays.with_label_values(&[outcome]).inc();
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        text
    }

    fn by_tenant(&self, counters: &IntCounterVec, topic: &str, tenant_id: &str) -> prometheus::IntCounter {
        counters.with_label_values(&[self.topics.label(topic), self.tenants.label(tenant_id)])
    }
}

/// The first `max` values seen get a label of their own, for as long as the process runs.
struct Labels {
    max: usize,
    known: Mutex<HashSet<String>>,
}

impl Labels {
    fn new(max: usize) -> Labels {
        Labels { max, known: Mutex::default() }
    }

    fn label<'a>(&self, value: &'a str) -> &'a str {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) {
            return value;
        }
        if known.len() >= self.max || value.len() > LABEL_BYTES_MAX {
            return OTHER;
        }
        known.insert(value.to_owned());
        value
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a metric's name and labels are valid");
    registry.register(Box::new(metric.clone())).expect("a metric's name stands once");
    metric
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_past_the_limit_share_a_label_and_nothing_is_lost() {
        let metrics = Metrics::new(2, "3");
        for tenant in ["acme", "globex", "initech", "acme", "umbrella"] {
            metrics.count_persisted("t", tenant, 1);
        }
        let text = String::from_utf8(metrics.text()).unwrap();
        for line in [
            r#"crm_events_persisted_total{tenant_id="acme",topic="t"} 2"#,
            r#"crm_events_persisted_total{tenant_id="globex",topic="t"} 1"#,
            r#"crm_events_persisted_total{tenant_id="_other",topic="t"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("initech"));
    }
}
