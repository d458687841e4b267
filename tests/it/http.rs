//! The two ports, as the replaced system's users know them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{Embedded, Record, Sender, Setup, Sink, curl, eventually, promtool};

const LEADS: &str = "apexflow.leads.created";

fn sink_with_events(events: u64) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    for number in 0..events {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.queue(&Record { topic: LEADS, value: Some(b"oops"), ..Record::default() });
    sender.flush();
    sink.await_events(events as i64);
    eventually("the dead letter is there", || sink.dead_letters() == 1);
    (broker, sink)
}

#[test]
fn lists_have_the_guides_shapes_and_limits() {
    let (_broker, sink) = sink_with_events(30);
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let latest = sink.get("/events/latest").json();
    assert_eq!(latest.as_array().unwrap().len(), 20);
    assert_eq!(names(&latest[0]), "id tenant_id topic received_at");
    assert_eq!((&latest[0]["id"], &latest[19]["id"]), (&30.into(), &11.into()));
    let received = latest[0]["received_at"].as_str().unwrap();
    assert_eq!((received.len(), &received[10..11], &received[26..]), (32, "T", "+00:00"), "{received}");
    assert_eq!(sink.get("/events/latest?limit=1000").json().as_array().unwrap().len(), 30);
    assert_eq!(sink.get("/events/latest?limit=1").json().as_array().unwrap().len(), 1);

    let dead = sink.get("/dlq").json();
    assert_eq!(names(&dead[0]), "id topic error received_at");
    assert_eq!(dead[0]["error"], "not_json: expected value at line 1 column 1");

    for path in
        ["/events/latest?limit=0", "/events/latest?limit=1001", "/dlq?limit=-1", "/dlq?limit=ten", "/dlq?limit="]
    {
        let refused = sink.get(path);
        assert_eq!(refused.status, 422, "{path}");
        assert!(refused.detail().starts_with("limit: "), "{path}: {}", refused.body);
    }
}

#[test]
fn what_is_not_there_is_404_and_a_wrong_method_405_with_allow() {
    let (_broker, sink) = sink_with_events(1);
    for (path, says) in [
        ("/", "nothing is at /"),
        ("/event", "nothing is at /event"),
        ("/events/7", "event 7 not found"),
        ("/dlq/7", "dead letter 7 not found"),
        ("/docs/x", "there are /health"),
    ] {
        let missing = sink.get(path);
        assert_eq!(missing.status, 404, "{path}");
        assert!(missing.detail().contains(says), "{path}: {}", missing.body);
    }
    assert_eq!(sink.post("/replay/7").status, 404);
    for path in ["/events/seven", "/dlq/1.5", "/events/99999999999999999999"] {
        assert_eq!(sink.get(path).status, 422, "{path}");
    }
    let wrong = sink.get("/replay/1");
    assert_eq!((wrong.status, wrong.head.contains("Allow: POST\r\n")), (405, true), "{}", wrong.head);
    let wrong = sink.post("/dlq");
    assert_eq!((wrong.status, wrong.head.contains("Allow: GET, HEAD\r\n")), (405, true), "{}", wrong.head);
    wrong.detail();
    let wrong = curl(&["-X", "PUT", &format!("http://{}/replay/jobs", sink.api)]);
    assert_eq!((wrong.status, wrong.head.contains("Allow: GET, HEAD, POST\r\n")), (405, true), "{}", wrong.head);
}

#[test]
fn head_gives_the_head_of_get() {
    let (_broker, sink) = sink_with_events(1);
    for path in ["/health", "/events/latest", "/events/1", "/dlq", "/dlq/1"] {
        let url = format!("http://{}{path}", sink.api);
        let (head, get) = (curl(&["--head", &url]), sink.get(path));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        let length = format!("Content-Length: {}", get.body.len());
        // Seconds may pass in /health's text only when something is wrong.
        assert!(head.head.contains(&length), "{path}: {} lacks {length}", head.head);
    }
}

#[test]
fn health_names_the_service() {
    let (_broker, sink) = sink_with_events(1);
    let health = sink.get("/health");
    assert_eq!(health.status, 200);
    assert!(health.body.starts_with(r#"{"status":"healthy","service":"crm-events-sink""#), "{}", health.body);
}

#[test]
fn metrics_are_what_promtool_calls_clean() {
    let (_broker, sink) = sink_with_events(3);
    assert_eq!(sink.post("/replay/1").status, 200);
    // Lag is known from the first statistics on, a second after the consumer has its partitions.
    eventually("the lag is shown", || sink.metrics_text().contains("crm_events_consumer_lag{"));
    let text = sink.metrics_text();
    let mut promtool = Command::new(promtool());
    let mut check = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    for name in [
        "crm_events_ingested_total",
        "crm_events_persisted_total",
        "crm_events_dead_letters_total",
        "crm_events_dlq_rows",
        "crm_events_consumer_lag",
        "crm_events_last_persisted_timestamp_seconds",
        "crm_events_transaction_seconds_bucket",
        "crm_events_transaction_rows_bucket",
        "crm_events_queue_batches",
        "crm_events_replays_total",
        "crm_events_journal_bytes",
        "crm_events_wal_bytes",
        "crm_events_broker_up",
        "crm_events_build_info",
        "crm_events_http_connections",
        "crm_events_http_requests_total",
        "crm_events_http_probe_seconds",
        "crm_events_http_probe_failures_total",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
    }
    assert_eq!(curl(&[&format!("http://{}/", sink.metrics)]).status, 404);
}
