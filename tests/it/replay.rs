//! `POST /replay/{id}`: the record goes out as it came, and nothing is claimed that did not happen.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::harness::{Answer, Embedded, Record, Sender, Setup, Sink, curl, eventually, kcat_read};

const LEADS: &str = "apexflow.leads.created";

fn sink_with_one_event(toml: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 3)]);
    let sink = Setup::with(&broker.bootstrap()).toml(toml).start();
    Sender::to(&broker.bootstrap()).send(&Record {
        topic: LEADS,
        // Not where its key would go: the partition is kept, not computed.
        partition: Some(2),
        key: Some(b"acme:lead:17"),
        value: Some(b" {\"tenant_id\": \"acme\", \"n\": 1.10 }\r\n"),
        headers: &[("trace", Some(b"a")), ("trace", Some(b"b")), ("none", None)],
    });
    sink.await_events(1);
    (broker, sink)
}

#[test]
fn a_replay_is_the_same_record_again_with_its_origin_in_headers() {
    let (broker, sink) = sink_with_one_event("");
    let replayed = sink.post("/replay/1");
    assert_eq!(replayed.status, 200);
    let expected = r#"{"status":"replayed","event_id":1,"topic":"apexflow.leads.created","tenant_id":"acme"}"#;
    assert_eq!(replayed.body, expected);
    sink.await_events(2);

    let records = kcat_read(&broker.bootstrap(), LEADS);
    assert_eq!(records.len(), 2);
    for part in ["partition", "key", "payload"] {
        assert_eq!(records[0][part], records[1][part], "{part}");
    }
    let headers = records[1]["headers"].as_array().unwrap();
    assert_eq!(headers[..4], records[0]["headers"].as_array().unwrap()[..4], "repeated names are kept");
    let added: Vec<_> = headers.iter().filter_map(|h| h.as_str()).filter(|h| h.starts_with("crm-replay-")).collect();
    assert_eq!(added, ["crm-replay-of", "crm-replay-journal", "crm-replay-position", "crm-replay-at"]);

    let copy = sink.get("/events/2").json();
    assert_eq!(copy["replay_of"], 1);
    assert_eq!(sink.get("/events/1").json()["replays"], serde_json::json!([2]));
    eventually("both counters rose", || {
        sink.metric_sum("crm_events_ingested_total") == 2.0 && sink.metric_sum("crm_events_persisted_total") == 2.0
    });
    assert_eq!(sink.metric(r#"crm_events_replays_total{outcome="replayed"}"#), 1.0);
}

#[test]
fn a_replay_of_a_replay_names_the_row_it_came_from() {
    let (broker, sink) = sink_with_one_event("");
    assert_eq!(sink.post("/replay/1").status, 200);
    sink.await_events(2);
    assert_eq!(sink.post("/replay/2").status, 200);
    sink.await_events(3);
    assert_eq!(sink.get("/events/3").json()["replay_of"], 2);
    let records = kcat_read(&broker.bootstrap(), LEADS);
    let origins = records[2]["headers"].as_array().unwrap().iter().filter(|h| *h == "crm-replay-of").count();
    assert_eq!(origins, 1, "the first replay's headers are replaced");
}

#[test]
fn another_boxs_replay_is_an_event_like_any_other() {
    let (broker, sink) = sink_with_one_event("");
    Sender::to(&broker.bootstrap()).send(&Record {
        topic: LEADS,
        value: Some(b"{}"),
        headers: &[("crm-replay-of", Some(b"1")), ("crm-replay-journal", Some(b"another"))],
        ..Record::default()
    });
    sink.await_events(2);
    assert_eq!(sink.get("/events/2").json()["replay_of"], serde_json::Value::Null);
}

#[test]
fn a_broker_that_does_not_answer_gives_504_and_says_what_is_known() {
    let (broker, mut sink) = sink_with_one_event("replay.timeout = '1s'");
    broker.cluster().broker_down(-1).unwrap();
    let unanswered = sink.post("/replay/1");
    assert_eq!(unanswered.status, 504);
    let detail = unanswered.detail();
    assert!(detail.contains("not acknowledged within 1 s") && detail.contains("it may still arrive"), "{detail}");
    assert_eq!(sink.metric(r#"crm_events_replays_total{outcome="timed_out"}"#), 1.0);
    broker.cluster().broker_up(-1).unwrap();
    eventually("replay works again", || sink.post("/replay/1").status == 200);
    assert!(sink.is_running());
}

#[test]
fn a_broker_that_refuses_gives_502() {
    let (broker, sink) = sink_with_one_event("");
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
    broker.cluster().request_errors(RDKafkaApiKey::Produce, &refusal);
    let refused = sink.post("/replay/1");
    assert_eq!(refused.status, 502, "{}", refused.body);
    let detail = refused.detail();
    assert!(detail.contains("authorization") && detail.contains("not replayed"), "{detail}");
    assert_eq!(sink.events(), 1);
    eventually("the next one is replayed", || sink.post("/replay/1").status == 200);
}

#[test]
fn waiting_replays_do_not_hold_up_the_rest_of_the_api() {
    let (broker, sink) = sink_with_one_event("replay.timeout = '10s'");
    broker.cluster().broker_down(-1).unwrap();
    let url = format!("http://{}/replay/1", sink.api);
    let waited: Vec<Answer> = std::thread::scope(|scope| {
        let replays: Vec<_> = (0..4).map(|_| scope.spawn(|| curl(&["-X", "POST", &url]))).collect();
        let started = "SELECT count(*) FROM audit WHERE outcome = 'started'";
        eventually("four wait", || sink.value::<i64>(started) == 4);
        for _ in 0..8 {
            let turned_away = curl(&["-X", "POST", &url]);
            assert_eq!((turned_away.status, turned_away.head.contains("Retry-After: 1")), (429, true));
        }
        assert_eq!(sink.metric(r#"crm_events_replays_total{outcome="busy"}"#), 8.0);
        assert_eq!(sink.get("/events/latest").status, 200);
        assert_eq!(sink.metric(r#"crm_events_replays_total{outcome="timed_out"}"#), 0.0, "the others still wait");
        replays.into_iter().map(|replay| replay.join().unwrap()).collect()
    });
    assert!(waited.iter().all(|answer| answer.status == 504), "{waited:?}");
}
