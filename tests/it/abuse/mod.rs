//! What a client can do to a server, done to the running sink: through all of it both ports answer within a second,
//! memory stays bounded, and afterwards everything is as before.

mod client;
mod exhaustion;
mod requests;
mod tls;

use std::fs;
use std::time::{Duration, Instant};

use self::client::Client;
use crate::harness::{Embedded, Record, Sender, Setup, Sink, eventually};

const LEADS: &str = "apexflow.leads.created";
/// What Prometheus and a watchdog are promised.
const PROMPT: Duration = Duration::from_secs(1);
/// What all limits together may take in memory, beside what the sink itself needs.
const RSS_MORE_MAX: u64 = 80 << 20;
/// Short, so that a test sees them pass.
const SHORT: &str =
    "http.head_timeout = '1s'\nhttp.body_timeout = '1s'\nhttp.write_timeout = '1s'\nhttp.idle_timeout = '2s'\n";

/// A sink before and after what is done to it.
struct Target {
    sink: Sink,
    broker: Embedded,
    rss_before: u64,
    threads_before: u64,
}

impl Target {
    /// With `events` events of 1 KB.
    fn start(toml: &str, events: u64) -> Target {
        let broker = Embedded::start(&[(LEADS, 1)]);
        let sink = Setup::with(&broker.bootstrap()).toml(toml).start();
        Target::of(sink, broker, events)
    }

    fn of(sink: Sink, broker: Embedded, events: u64) -> Target {
        let sender = Sender::to(&broker.bootstrap());
        for number in 0..events {
            let value = format!(
                r#"{{"tenant_id":"acme","event_type":"lead.created","id":{number},"name":"{}"}}"#,
                "n".repeat(1000)
            );
            sender.queue(&Record {
                topic: LEADS,
                key: Some(b"acme:lead:1"),
                value: Some(value.as_bytes()),
                ..Record::default()
            });
        }
        sender.flush();
        eventually("the sink is healthy", || sink.get("/health").status == 200);
        sink.await_events(events as i64);
        let (rss_before, threads_before) = (status(&sink, "VmRSS:") << 10, status(&sink, "Threads:"));
        Target { sink, broker, rss_before, threads_before }
    }

    /// Both ports answer a new client, in time.
    #[track_caller]
    fn answers(&self) {
        for (address, path, holds) in
            [(&self.sink.api, "/health", "crm-events-sink"), (&self.sink.metrics, "/metrics", "crm_events_build_info")]
        {
            let begun = Instant::now();
            let answer = Client::to(address).get(path);
            let took = begun.elapsed();
            // The edge's own answers hold neither.
            assert!(answer.contains(holds), "{path}: {answer:.300}");
            assert!(took < PROMPT, "{path} took {took:?}");
        }
    }

    /// Memory stays within what the limits allow.
    #[track_caller]
    fn is_bounded(&self) {
        let rss = status(&self.sink, "VmRSS:") << 10;
        assert!(rss < self.rss_before + RSS_MORE_MAX, "{} MB after {} MB", rss >> 20, self.rss_before >> 20);
    }

    /// Nothing is left of it: no connection, no thread more or less, no panic; and the sink works and ends well.
    #[track_caller]
    fn ends_as_before(mut self) {
        self.answers();
        self.is_bounded();
        eventually("all connections have ended", || {
            // The one that asks for the metrics is there.
            let open = |port: &str| self.sink.metric(&format!("crm_events_http_connections{{port=\"{port}\"}}"));
            open("api") == 0.0 && open("metrics") <= 1.0
        });
        // tiny_http lets a thread go after five seconds without work.
        eventually("the threads have come back", || status(&self.sink, "Threads:") <= self.threads_before);
        assert_eq!(self.sink.get("/events/latest").status, 200);
        for name in ["edge", "api-0", "api-13", "metrics-0", "metrics-3", "probe"] {
            assert!(threads(&self.sink).iter().any(|thread| thread == name), "{name} is gone");
        }
        assert!(!self.sink.log().contains("panicked"), "{}", self.sink.log());
        assert_eq!(self.sink.stop(), Some(0));
    }
}

/// A number of `/proc/PID/status`.
fn status(sink: &Sink, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", sink.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn threads(sink: &Sink) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", sink.pid())).unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
}
