//! The sink dies at any moment, again and again, while records keep coming.

use std::thread;
use std::time::Duration;

use crate::faults::comparison::assert_exactly_once;
use crate::faults::load::Load;
use crate::faults::{Proof, TOPICS, await_later_record, chance, times};
use crate::harness::{ApacheKafka, Setup};

/// Short, because a member that was killed keeps its partitions until its session ends.
const SESSION_MS: u32 = 1500;
const PER_SECOND: u64 = 1500;

fn kill_again_and_again(fault: &'static str, rounds: u64, toml: &str) {
    let mut chance = chance(fault);
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&TOPICS, 3, "1");
    let load = Load::start(&bootstrap, &TOPICS, PER_SECOND, 0, chance.fork());
    let mut proof = Proof::of(fault);
    let mut sink = Setup::with(&bootstrap).session_ms(SESSION_MS).toml(toml).start();
    for _ in 0..rounds {
        // One in four dies while it starts, joins its group or reads its first records, the others at work.
        if chance.u8(..4) > 0 {
            proof.recovered_in(await_later_record(&sink, "true"));
        }
        thread::sleep(Duration::from_millis(chance.u64(..400)));
        sink.kill();
        proof.tried();
        sink = sink.restart();
    }
    let comparison = assert_exactly_once(&bootstrap, &TOPICS, &sink, &load.stop());
    assert!(comparison.dead_letters > 0, "malformed records took part");
    proof.write_down(&comparison);
}

#[test]
fn a_static_member_killed_at_random_moments_loses_and_doubles_nothing() {
    let rounds = times("FAULT_ROUNDS", 8);
    kill_again_and_again("sink: kill -9, static member", rounds, "kafka.group_instance_id = 'box-1'");
}

#[test]
fn a_member_killed_at_random_moments_loses_and_doubles_nothing() {
    kill_again_and_again("sink: kill -9", times("FAULT_ROUNDS", 8).div_ceil(4), "write.batch_rows_max = 200");
}
