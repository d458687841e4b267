//! The brokers die, freeze and change places while records keep coming.

use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::faults::comparison::assert_exactly_once;
use crate::faults::load::Load;
use crate::faults::{Proof, TOPICS, await_health, await_later_record, await_more_than, chance, times};
use crate::harness::{ApacheKafka, DEADLINE, Setup, Sink, eventually};

const SESSION_MS: u32 = 2000;
/// Longer than a session, by enough that the group has given the member up.
const FREEZE: Duration = Duration::from_millis(SESSION_MS as u64 + 1500);
const PER_SECOND: u64 = 1000;

/// A cluster, a sink and records that keep coming; `fault` does something, and says how long recovering took.
fn under_load(name: &'static str, nodes: usize, rounds: u64, mut fault: impl FnMut(&ApacheKafka, &Sink) -> Duration) {
    let kafka = ApacheKafka::start_nodes(nodes);
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&TOPICS, 3, if nodes > 1 { "2" } else { "1" });
    let load = Load::start(&bootstrap, &TOPICS, PER_SECOND, 0, chance(name));
    let sink = Setup::with(&bootstrap).session_ms(SESSION_MS).start();
    let mut proof = Proof::of(name);
    await_more_than(&sink, 0);
    for _ in 0..rounds {
        proof.recovered_in(fault(&kafka, &sink));
        proof.tried();
        await_health(&sink);
    }
    proof.write_down(&assert_exactly_once(&bootstrap, &TOPICS, &sink, &load.stop()));
}

/// The node that leads the first partition of the first topic, by the cluster's metadata.
fn leader(bootstrap: &str) -> i32 {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let metadata = client.fetch_metadata(Some(TOPICS[0]), DEADLINE).unwrap();
    metadata.topics()[0].partitions().iter().find(|partition| partition.id() == 0).unwrap().leader()
}

#[test]
fn the_only_broker_is_killed_and_comes_back() {
    under_load("broker: the only one killed -9 and restarted", 1, times("FAULT_REPEATS", 1), |kafka, sink| {
        kafka.kill_node(1);
        eventually("health says so", || sink.get("/health").status == 503);
        kafka.restart_node(1);
        await_later_record(sink, "true")
    });
}

#[test]
fn the_leader_of_three_is_killed_and_leadership_goes_back() {
    under_load("broker: leader of three killed -9, and back", 3, times("FAULT_REPEATS", 1), |kafka, sink| {
        let first = leader(&kafka.bootstrap());
        kafka.kill_node(first);
        let of_partition = format!("topic = '{}' AND kafka_partition = 0", TOPICS[0]);
        let moved = await_later_record(sink, &of_partition);
        assert_ne!(leader(&kafka.bootstrap()), first);
        kafka.restart_node(first);
        eventually("the first leads again", || leader(&kafka.bootstrap()) == first);
        moved.max(await_later_record(sink, &of_partition))
    });
}

#[test]
fn the_broker_freezes_for_longer_than_a_session() {
    under_load("broker: frozen for longer than the session", 1, times("FAULT_REPEATS", 1), |kafka, sink| {
        kafka.signal_node(1, "STOP");
        thread::sleep(FREEZE);
        kafka.signal_node(1, "CONT");
        await_later_record(sink, "true")
    });
}

#[test]
fn the_sink_freezes_for_longer_than_its_session() {
    under_load("sink: frozen for longer than its session", 1, times("FAULT_REPEATS", 1), |_, sink| {
        sink.signal("STOP");
        thread::sleep(FREEZE);
        sink.signal("CONT");
        await_later_record(sink, "true")
    });
}
