//! Every metric, by name; a file holds those of one concern. Nothing here asks SQLite: the stages report what they did.

mod archive;
mod backup;
mod broker;
mod flow;
mod http;
mod journal;
mod labels;
mod register;
mod replay;
mod retention;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::Metric;
use prometheus::{Encoder, IntCounterVec, Registry, TextEncoder};

use archive::Archive;
use backup::Backup;
use broker::Broker;
use flow::Flow;
use http::Http;
use journal::Journal;
pub use labels::OTHER;
use labels::{Labels, TOPICS_MAX};
use register::{gauges, number};
use replay::Replay;
use retention::Retention;

pub struct Metrics {
    registry: Registry,
    tenants: Labels,
    topics: Labels,
    pub flow: Flow,
    pub broker: Broker,
    pub journal: Journal,
    pub archive: Archive,
    pub backup: Backup,
    pub replay: Replay,
    pub retention: Retention,
    pub http: Http,
}

impl Metrics {
    /// # Panics
    /// Never: the names are valid and stand once.
    pub fn new(max_tenants: usize, sqlite_version: &str) -> Metrics {
        let registry = Registry::new();
        let metrics = Metrics {
            tenants: Labels::new(max_tenants),
            topics: Labels::new(TOPICS_MAX),
            flow: Flow::new(&registry),
            broker: Broker::new(&registry),
            journal: Journal::new(&registry),
            archive: Archive::new(&registry),
            backup: Backup::new(&registry),
            replay: Replay::new(&registry),
            retention: Retention::new(&registry),
            http: Http::new(&registry),
            registry,
        };
        metrics.register_build_info(sqlite_version);
        metrics
    }

    fn register_build_info(&self, sqlite_version: &str) {
        let labels = ["version", "sqlite"];
        let info = gauges(&self.registry, "crm_events_build_info", "Always 1; the labels say what runs.", &labels);
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), sqlite_version]).set(1);
        let started = "crm_events_start_timestamp_seconds";
        let started = number(&self.registry, started, "When this process started.");
        started.set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
        self.registry.register(Box::new(ProcessCollector::for_self())).expect("the process is registered once");
    }

    pub fn count_ingested(&self, topic: &str, tenant_id: &str, records: u64) {
        self.by_tenant(&self.flow.ingested, topic, tenant_id).inc_by(records);
    }

    pub fn count_persisted(&self, topic: &str, tenant_id: &str, events: u64) {
        self.by_tenant(&self.flow.persisted, topic, tenant_id).inc_by(events);
    }

    pub fn count_dead_letters(&self, topic: &str, reason: &str, records: u64) {
        self.flow.dead_letters.with_label_values(&[self.topics.label(topic), reason]).inc_by(records);
        self.flow.dlq_rows.add(records as i64);
        self.flow.dlq_open.add(records as i64);
    }

    pub fn count_duplicates(&self, topic: &str, records: u64) {
        self.flow.duplicates.with_label_values(&[self.topics.label(topic)]).inc_by(records);
    }

    pub fn count_log_restart(&self, topic: &str) {
        self.broker.log_restarts.with_label_values(&[self.topics.label(topic)]).inc();
    }

    pub fn count_gaps(&self, topic: &str, reason: &str, ranges: i64) {
        self.broker.gaps.with_label_values(&[self.topics.label(topic), reason]).add(ranges);
    }

    pub fn count_pruned(&self, topic: &str, events: u64) {
        self.retention.pruned.with_label_values(&[self.topics.label(topic)]).inc_by(events);
    }

    pub fn count_replay(&self, outcome: &str) {
        self.replay.replays.with_label_values(&[outcome]).inc();
    }

    /// Events that became durable since the start.
    pub fn persisted(&self) -> u64 {
        sum(&self.flow.persisted, |metric| metric.get_counter().get_value()) as u64
    }

    /// Records on the broker that are not yet in the file, of all partitions.
    pub fn lag(&self) -> i64 {
        sum(&self.broker.lag, |metric| metric.get_gauge().get_value()) as i64
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

fn sum(collector: &impl Collector, value: impl Fn(&Metric) -> f64) -> f64 {
    collector.collect().iter().flat_map(|family| family.get_metric()).map(value).sum()
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
