//! Several sinks in one group, each with a file of its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::coverage::{integrity, verify};
use crate::faults::apache_kafka::logs::{backup, restore};
use crate::faults::comparison::{Comparison, Place, read_by_kcat};
use crate::faults::load::Load;
use crate::faults::{Proof, TOPICS, await_later_record, chance, rows, times};
use crate::harness::{ApacheKafka, Sender, Setup, Sink, eventually};

const SESSION_MS: u32 = 2000;

/// How often each record stands, over all files.
fn stored(journals: &[PathBuf]) -> HashMap<Place, usize> {
    let mut stored = HashMap::new();
    for journal in journals {
        let file = Connection::open_with_flags(journal, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let sql = "SELECT topic, kafka_partition, kafka_offset FROM event_journal \
                   UNION ALL SELECT topic, kafka_partition, kafka_offset FROM event_dlq";
        let mut select = file.prepare(sql).unwrap();
        let places = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        for place in places {
            *stored.entry(place.unwrap()).or_default() += 1;
        }
    }
    stored
}

fn verify_all(sinks: &[Sink]) -> (i32, String) {
    let mut arguments = vec!["--wait".to_owned(), "0s".to_owned()];
    for sink in sinks {
        arguments.extend(["--journal".to_owned(), sink.journal().to_str().unwrap().to_owned()]);
    }
    verify(&sinks[0], &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Whether `verify` names this record as one that stands in two files.
fn names(report: &str, (topic, partition, offset): &Place) -> bool {
    let mut of_partition = false;
    for line in report.lines() {
        if !line.starts_with("  ") {
            of_partition = line.starts_with(&format!("{topic}/{partition}: "));
            continue;
        }
        let numbers: Vec<i64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if of_partition && line.contains("stand in the files of") && (numbers[0]..=numbers[1]).contains(offset) {
            return true;
        }
    }
    false
}

/// Members come and go while records keep coming; `leave` is how one goes.
fn storm(
    fault: &'static str,
    toml: &str,
    session_ms: u32,
    leave: impl Fn(&mut Sink),
) -> (Comparison, Proof, Vec<Sink>, String) {
    let mut chance = chance(fault);
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&TOPICS, 4, "1");
    let load = Load::start(&bootstrap, &TOPICS, 500, 0, chance.fork());
    let start = || Setup::with(&bootstrap).session_ms(session_ms).toml(toml).start();
    let mut sinks: Vec<Sink> = (0..3).map(|_| start()).collect();
    let mut proof = Proof::of(fault);
    await_later_record(&sinks[0], "true");
    for _ in 0..times("FAULT_REPEATS", 1) {
        let number = chance.usize(..sinks.len());
        leave(&mut sinks[number]);
        proof.tried();
        thread::sleep(Duration::from_millis(chance.u64(..1500)));
        let sink = sinks.remove(number).restart();
        sinks.push(sink);
        thread::sleep(Duration::from_millis(chance.u64(..1500)));
    }
    load.stop();
    let broker = read_by_kcat(&bootstrap, &TOPICS);
    let journals: Vec<PathBuf> = sinks.iter().map(Sink::journal).collect();
    eventually("every record stands in a file", || {
        let stored = stored(&journals);
        broker.keys().all(|place| stored.contains_key(place))
    });
    // Orderly, so that nothing is in flight while the files are compared.
    for sink in &mut sinks {
        assert_eq!(sink.stop(), Some(0));
    }
    let stored = stored(&journals);
    let doubled: Vec<&Place> = stored.iter().filter(|(_, times)| **times > 1).map(|(place, _)| place).collect();
    assert!(stored.keys().all(|place| broker.contains_key(place)));
    for journal in &journals {
        let one = self::stored(std::slice::from_ref(journal));
        assert!(one.values().all(|times| *times == 1), "within one file a record stands once");
    }
    let (_, report) = verify_all(&sinks);
    for place in &doubled {
        assert!(names(&report, place), "{place:?} stands in two files and verify does not say so:\n{report}");
    }
    assert!(!report.contains("in no file"), "{report}");
    let comparison = Comparison { broker: broker.len(), doubled: doubled.len(), ..Comparison::default() };
    drop(kafka);
    (comparison, proof, sinks, report)
}

#[test]
fn members_that_join_and_leave_hold_every_record_once_across_their_files() {
    let leave = |sink: &mut Sink| assert_eq!(sink.stop(), Some(0));
    // Long enough that no member's session ends because the machine is busy: that is a death.
    let fault = "group: three members joining and leaving";
    let (comparison, proof, sinks, report) = storm(fault, "", 20_000, leave);
    // A member that vanishes in the middle of joining holds the group up until its session ends, and Kafka answers no
    // commit meanwhile. A sink that is stopped then says so, and what it doubles is named like a killed one's.
    let was_held_up = sinks.iter().any(|sink| sink.log().contains("group was not told the last offsets"));
    assert!(comparison.doubled == 0 || was_held_up, "{} doubled\n{report}", comparison.doubled);
    proof.write_down(&comparison);
}

#[test]
fn the_new_group_protocol_does_the_same() {
    let leave = |sink: &mut Sink| assert_eq!(sink.stop(), Some(0));
    // The broker sets the session with this protocol.
    let (comparison, proof, _sinks, report) =
        storm("group: the same by KIP-848", "kafka.group_protocol = 'consumer'", 0, leave);
    assert_eq!(comparison.doubled, 0, "{report}");
    proof.write_down(&comparison);
}

#[test]
fn of_members_that_are_killed_no_record_is_missing_and_every_doubled_one_is_named() {
    let fault = "group: members killed -9; each doubled record named";
    let (comparison, proof, _sinks, _) = storm(fault, "", SESSION_MS, Sink::kill);
    proof.write_down(&comparison);
}

#[test]
fn a_member_restored_from_a_backup_refills_its_own_and_leaves_the_others() {
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    let topic = TOPICS[0];
    kafka.create_topics(&[topic], 1, "1");
    let sender = Sender::to(&bootstrap);
    let send = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            sender.queue_event(topic, "acme", number);
        }
        sender.flush();
    };
    send(0..20);
    let mut one = Setup::with(&bootstrap).session_ms(SESSION_MS).start();
    one.await_events(20);
    assert_eq!(one.stop(), Some(0));
    let copy = backup(&one);
    send(20..50);
    let mut one = one.restart();
    one.await_events(50);
    assert_eq!(one.stop(), Some(0));
    // The second member is new and goes on where the group is.
    send(50..80);
    let mut other = Setup::with(&bootstrap).session_ms(SESSION_MS).start();
    other.await_events(30);
    let gaps = &integrity(&other, topic, 0)["gaps"];
    assert_eq!(
        (&gaps[0]["first"], &gaps[0]["last"], &gaps[0]["reason"]),
        (&0.into(), &49.into(), &"other_member".into())
    );
    assert_eq!(other.stop(), Some(0));

    restore(&one, &copy);
    send(80..90);
    let one = one.restart();
    one.await_events(60);
    assert_eq!(rows(&one), 60);
    let log = integrity(&one, topic, 0);
    assert_eq!((&log["gaps"][0]["first"], &log["gaps"][0]["last"]), (&50.into(), &79.into()));
    assert_eq!(log["gaps"][0]["member"], integrity_member(&other));
    let (code, report) = verify_all(&[one, other]);
    assert_eq!(code, 0, "{report}");
}

fn integrity_member(sink: &Sink) -> String {
    sink.value("SELECT value FROM journal_info WHERE name = 'member_id'")
}

#[test]
fn a_static_member_gets_its_partitions_back_at_once() {
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&[TOPICS[0]], 1, "1");
    // A session far longer than the test waits: without static membership the partition stays with the dead member.
    let mut sink = Setup::with(&bootstrap).session_ms(300_000).toml("kafka.group_instance_id = 'box-1'").start();
    Sender::to(&bootstrap).event(TOPICS[0], "acme", 1);
    sink.await_events(1);
    sink.kill();
    let sink = sink.restart();
    Sender::to(&bootstrap).event(TOPICS[0], "acme", 2);
    sink.await_events(2);
}
