//! Errors that the embedded broker answers on demand: those that a real broker answers once in a while.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Error};

use super::comparison::{Comparison, assert_exactly_once};
use super::load::Load;
use super::{Proof, TOPICS, await_health, await_more_than, chance, rows, times};
use crate::harness::{Embedded, Record, Sender, Setup, Sink, eventually};

/// The embedded broker keeps 100,000 records a partition at most: no run may come near.
const PER_SECOND: u64 = 300;

/// The request, what is answered to it, and how often in a row: enough that one retry does not hide it.
const ERRORS: [(&str, Api, Error, usize); 14] = [
    ("Fetch: not the leader", Api::Fetch, Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 5),
    ("Fetch: unknown topic or partition", Api::Fetch, Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, 5),
    ("Fetch: storage error", Api::Fetch, Error::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, 5),
    ("OffsetCommit: request timed out", Api::OffsetCommit, Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, 3),
    ("OffsetCommit: not the coordinator", Api::OffsetCommit, Error::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, 3),
    ("OffsetCommit: illegal generation", Api::OffsetCommit, Error::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, 2),
    ("Heartbeat: unknown member", Api::Heartbeat, Error::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, 1),
    ("Heartbeat: illegal generation", Api::Heartbeat, Error::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, 1),
    ("Heartbeat: rebalance", Api::Heartbeat, Error::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, 1),
    ("Heartbeat: not the coordinator", Api::Heartbeat, Error::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, 2),
    ("FindCoordinator: not available", Api::FindCoordinator, Error::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, 5),
    ("JoinGroup: coordinator loading", Api::JoinGroup, Error::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, 3),
    ("SyncGroup: rebalance", Api::SyncGroup, Error::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS, 2),
    ("Metadata: leader not available", Api::Metadata, Error::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, 3),
];

/// Makes sure that the request is sent at all: without a reason nobody looks for a coordinator or joins again.
fn provoke(cluster: &MockCluster<DefaultProducerContext>, request: Api) {
    if matches!(request, Api::FindCoordinator) {
        cluster.request_errors(Api::Heartbeat, &[Error::RD_KAFKA_RESP_ERR_NOT_COORDINATOR]);
    }
    if matches!(request, Api::JoinGroup | Api::SyncGroup) {
        cluster.request_errors(Api::Heartbeat, &[Error::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    }
}

#[test]
fn errors_that_the_broker_answers_lose_and_double_nothing() {
    let topics = TOPICS.map(|topic| (topic, 2));
    let broker = Embedded::start(&topics);
    let bootstrap = broker.bootstrap();
    let mut chance = chance("broker errors");
    let load = Load::start(&bootstrap, &TOPICS, PER_SECOND, 0, chance.fork());
    // Each kind once before any comes again.
    let mut left = Vec::new();
    let sink = Setup::with(&bootstrap).session_ms(4000).start();
    let mut proof = Proof::of("broker: errors in its answers (14 kinds)");
    await_more_than(&sink, 0);
    for _ in 0..times("FAULT_ERRORS", 5) {
        if left.is_empty() {
            left = ERRORS.to_vec();
        }
        let (name, request, error, answers) = left.swap_remove(chance.usize(..left.len()));
        eprintln!("{name}");
        broker.cluster().request_errors(request, &vec![error; answers]);
        provoke(broker.cluster(), request);
        proof.recovered_in(await_steady_rows(&sink));
        proof.tried();
        broker.cluster().clear_request_errors(request);
        await_health(&sink);
    }
    proof.write_down(&assert_exactly_once(&bootstrap, &TOPICS, &sink, &load.stop()));
}

/// Waits until the errors have been answered and whatever they set off is over: for 2.5 s, new rows came every
/// quarter of a second. After how long that began.
fn await_steady_rows(sink: &Sink) -> Duration {
    let began = Instant::now();
    let (mut seen, mut changed, mut since) = (rows(sink), began, began);
    eventually("rows keep coming", || {
        let now = rows(sink);
        if now > seen {
            (seen, changed) = (now, Instant::now());
        } else if changed.elapsed() > Duration::from_millis(250) {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(2500)
    });
    since - began
}

/// What a produce request is answered, and what the replay is answered then.
const PRODUCE_ERRORS: [(Error, u16); 3] = [
    (Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, 200),
    (Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, 200),
    (Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 502),
];

#[test]
fn a_replay_that_the_broker_refuses_is_not_called_replayed_and_one_it_retries_arrives_once() {
    let broker = Embedded::start(&[(TOPICS[0], 1)]);
    let bootstrap = broker.bootstrap();
    let sink = Setup::with(&bootstrap).start();
    let value = br#"{"tenant_id":"acme"}"#;
    Sender::to(&bootstrap).send(&Record { topic: TOPICS[0], value: Some(value), ..Record::default() });
    sink.await_events(1);
    let mut proof = Proof::of("broker: errors answered to a replay");
    let mut replayed = 0;
    for _ in 0..times("FAULT_REPEATS", 1) {
        for (error, status) in PRODUCE_ERRORS {
            broker.cluster().request_errors(Api::Produce, &[error; 2]);
            let answer = sink.post("/replay/1");
            // One that was refused for good leaves an answer that was not used up.
            broker.cluster().clear_request_errors(Api::Produce);
            assert_eq!(answer.status, status, "{error:?}: {}", answer.body);
            replayed += i64::from(status == 200);
            proof.tried();
            sink.await_events(1 + replayed);
        }
        // The producer remembers a refusal until it looks at the topic again.
        eventually("a replay works again", || sink.post("/replay/1").status == 200);
        replayed += 1;
        sink.await_events(1 + replayed);
    }
    let comparison: Comparison = assert_exactly_once(&bootstrap, &TOPICS[..1], &sink, &[]);
    assert_eq!(comparison.broker as i64, 1 + replayed, "each replay is on the topic once");
    eventually("it is healthy", || sink.get("/health").status == 200);
    proof.write_down(&comparison);
}
