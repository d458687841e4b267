//! Bulk replays: what the job says it sent is what stands on the topics, whatever dies meanwhile.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults::comparison::{Comparison, assert_exactly_once};
use crate::faults::load::Load;
use crate::faults::replayed::{
    JOB_DEADLINE, Log, Replays, TOPICS, assert_items_are_true, await_finished, await_job, count, doubled, fill, items,
    job, make_job, post,
};
use crate::faults::{Proof, await_health, await_later_record, await_more_than, chance, times};
use crate::harness::{ApacheKafka, Record, Sender, Setup, Sink, curl, eventually, within};

const PARTITIONS: i32 = 3;
/// Short, because a member that was killed keeps its partitions until its session ends.
const SESSION_MS: u32 = 1500;
/// A topic that the sink may send to and does not read.
const ELSEWHERE: &str = "restored.leads";

/// The broker with the topics, a sink whose journal has `events` events of `keys` keys, and what kcat saw then.
fn journal_of(events: u64, keys: u64, toml: &str) -> (ApacheKafka, Sink, Log) {
    let kafka = ApacheKafka::start();
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&TOPICS, PARTITIONS, "1");
    let sink = Setup::with(&bootstrap).session_ms(SESSION_MS).toml(toml).start();
    fill(&bootstrap, &sink, events, keys);
    let originals = Log::read(&bootstrap, &TOPICS);
    assert_eq!(originals.len() as u64, events);
    originals.assert_originals_are_in_order();
    (kafka, sink, originals)
}

/// The first event's time, as a range of a replay begins with it.
fn first_received(sink: &Sink) -> String {
    sink.value::<String>("SELECT min(received_at) FROM event_journal").replace(' ', "T")
}

/// Makes a job of every event in the journal.
#[track_caller]
fn replay_everything(sink: &Sink, options: &str) -> i64 {
    let (start, events) = (first_received(sink), sink.events());
    make_job(sink, &format!("/replay/range?start={start}&confirm={events}&{options}"), None)
}

/// Waits until the sink has read back all that the job sent, and holds the job's words, kcat's sight and the journal
/// against each other: of every event of the job one replay more, in the order of its key.
#[track_caller]
fn assert_once_more(bootstrap: &str, sink: &Sink, id: i64, originals: &Log) -> Comparison {
    let finished = await_finished(sink, id);
    let total = count(&finished, "total");
    assert_eq!((count(&finished, "acknowledged"), count(&finished, "uncertain")), (total, 0), "{finished}");
    await_job(sink, id, "every replay was read back", |job| count(job, "observed") >= total);
    let comparison = assert_exactly_once(bootstrap, &TOPICS, sink, &[]);
    let log = Log::read(bootstrap, &TOPICS);
    let replays = log.replays(originals);
    let items = items(sink, id);
    assert_items_are_true(&items, &replays);
    assert_doubled_ones_are_named(sink, id, &items, &replays);
    assert_eq!(doubled(&replays), BTreeSet::new());
    log.assert_replays_are_in_order();
    assert_eq!((replays.len() as i64, items.len() as i64), (total, total));
    assert_eq!(log.len() as i64, originals.len() as i64 + total);
    let again = "SELECT count(*) FROM event_journal WHERE replay_of IS NOT NULL";
    assert_eq!(sink.value::<i64>(again), total);
    let events = "SELECT count(DISTINCT replay_of) FROM event_journal";
    assert_eq!(sink.value::<i64>(events), total);
    comparison
}

/// What stands twice, the job knows to.
#[track_caller]
fn assert_doubled_ones_are_named(sink: &Sink, id: i64, items: &[Value], replays: &Replays) {
    let named = items.iter().filter(|item| count(item, "observed") > 1 || item["state"] == "uncertain");
    let named: BTreeSet<i64> = named.map(|item| count(item, "event_id")).collect();
    let doubled = doubled(replays);
    assert!(doubled.is_subset(&named), "these stand twice and the job does not say so: {:?}", &doubled - &named);
    let twice = items.iter().filter(|item| count(item, "observed") > 1).count() as i64;
    assert_eq!(count(&job(sink, id), "observed_twice"), twice);
}

#[test]
fn the_four_doors_put_on_the_topics_what_an_operator_asks_for() {
    // Five events of each key.
    let (kafka, sink, originals) = journal_of(30, 6, "");
    let bootstrap = kafka.bootstrap();
    let mut expected = BTreeSet::new();
    let mut expect_replays_of = |ids: &[i64]| {
        expected.extend(ids);
        let log = Log::read(&bootstrap, &TOPICS);
        let replays = log.replays(&originals);
        assert_eq!((replays.keys().copied().collect(), doubled(&replays)), (expected.clone(), BTreeSet::new()));
    };
    let ids = |condition: &str| -> Vec<i64> {
        let sql = format!("SELECT json_group_array(id) FROM event_journal WHERE replay_of IS NULL AND {condition}");
        serde_json::from_str(&sink.value::<String>(&sql)).unwrap()
    };

    let some = &ids("kafka_key = 'acme:lead:0'")[1..4];
    let batch = make_job(&sink, "/replay/batch?reason=search+index+lost", Some(&json!(some)));
    await_finished(&sink, batch);
    expect_replays_of(some);

    let start = first_received(&sink);
    let path = format!("/replay/range?start={start}&end=2100-01-01&key=acme:lead:3&skip_superseded=true&wait=30");
    let range = post(&sink, &path, None);
    assert_eq!((range.status, &range.json()["status"], &range.json()["skipped"]), (200, &json!("finished"), &json!(4)));
    expect_replays_of(&ids("kafka_key = 'acme:lead:3'")[4..]);

    let filter = json!({"tenant_id": "initech", "topic": TOPICS[1], "rate_per_s": 50, "wait": 30, "reason": "initech"});
    let filtered = post(&sink, "/replay/jobs", Some(&filter));
    assert_eq!((filtered.status, &filtered.json()["status"]), (200, &json!("finished")), "{}", filtered.body);
    let wanted = ids(&format!("tenant_id = 'initech' AND topic = '{}'", TOPICS[1]));
    assert_eq!(wanted.len(), 5);
    expect_replays_of(&wanted);

    repair_with_a_patch(&sink, &bootstrap);
    let audit = sink.get("/audit?limit=100").json();
    for (action, outcome, acts) in [("replay.job", "done", 3), ("dlq.retry", "done", 2), ("dlq.retry", "refused", 3)] {
        let of = |act: &&Value| act["action"] == action && act["outcome"] == outcome && act["operator"] != "";
        assert_eq!(audit.as_array().unwrap().iter().filter(of).count(), acts, "{action} {outcome}: {audit}");
    }
}

/// The door of the dead letters: refused as it is, repaired into the journal, repaired onto its topic.
fn repair_with_a_patch(sink: &Sink, bootstrap: &str) {
    let before = Log::read(bootstrap, &TOPICS).len();
    let sender = Sender::to(bootstrap);
    for key in [b"acme:lead:first-broken".as_slice(), b"acme:lead:second-broken"] {
        sender.send(&Record {
            topic: TOPICS[0],
            partition: Some(1),
            key: Some(key),
            value: Some(b"{\"lead\":"),
            ..Record::default()
        });
    }
    eventually("both are dead letters", || sink.dead_letters() == 2);
    let refused = post(sink, "/dlq/1/retry", None);
    assert_eq!((refused.status, &refused.json()["dead_letter_id"]), (409, &json!(1)), "{}", refused.body);

    let patched = |path: &str, sequence: u64| {
        let value = json!({"tenant_id": "acme", "event_type": "lead.moved", "sequence": sequence});
        let patch = json!([{"op": "replace", "path": "", "value": value}]).to_string();
        let retry = |query: &str| {
            let url = format!("http://{}{path}{query}", sink.api);
            curl(&["-X", "POST", "-H", "Content-Type: application/json-patch+json", "-d", &patch, &url])
        };
        let shown = retry("");
        assert_eq!((shown.status, &shown.json()["after"]), (409, &value), "{}", shown.body);
        let done = retry(&format!("&confirm={}", shown.json()["confirm"].as_str().unwrap()));
        assert_eq!(done.status, 200, "{}", done.body);
        (value, done.json())
    };
    let (value, journaled) = patched("/dlq/1/retry?mode=ingest", 101);
    let event = sink.get(&format!("/events/{}", journaled["event_id"])).json();
    assert_eq!(event["payload"], value);
    assert_eq!(Log::read(bootstrap, &TOPICS).len(), before + 2, "nothing went to Kafka");

    let (value, republished) = patched("/dlq/2/retry?mode=republish", 202);
    let log = Log::read(bootstrap, &TOPICS);
    assert_eq!(log.len(), before + 3);
    let of_letter: Vec<_> = log.records().filter(|seen| seen.origin("dlq") == Some("2")).collect();
    let place = (TOPICS[0].to_owned(), 1, republished["offset"].as_i64().unwrap());
    assert_eq!((of_letter.len(), &of_letter[0].place), (1, &place));
    assert_eq!(of_letter[0].key, "acme:lead:second-broken");
    assert_eq!(serde_json::from_slice::<Value>(&of_letter[0].value).unwrap(), value);
    eventually("it became an event", || sink.get("/dlq/2").json()["event_id"].is_i64());
}

#[test]
fn a_large_range_replayed_fast_stands_on_its_topics_once_more_in_the_order_of_its_keys() {
    let events = times("FAULT_REPLAYS", 20_000);
    let (kafka, sink, originals) = journal_of(events, 3001, "");
    let start = first_received(&sink);
    let path = format!("/replay/range?start={start}&end=2100-01-01&rate_per_s=100000");
    let unconfirmed = post(&sink, &path, None);
    assert_eq!(
        (unconfirmed.status, &unconfirmed.json()["plan"]["total"]),
        (409, &json!(events)),
        "{}",
        unconfirmed.body
    );
    let began = Instant::now();
    let id = make_job(&sink, &format!("{path}&confirm={events}"), None);
    // The file says it for less than the job's own view, which counts each of its events.
    let state = format!("SELECT state FROM replay_job WHERE id = {id}");
    within(JOB_DEADLINE, "the job has finished", || sink.value::<String>(&state) == "finished");
    let took = began.elapsed();
    eprintln!("{events} events in {took:.1?}: {:.0} events/s", events as f64 / took.as_secs_f64());
    let comparison = assert_once_more(&kafka.bootstrap(), &sink, id, &originals);
    let mut proof = Proof::of("replay: a range by a job (the time is the job's)");
    proof.tried();
    proof.recovered_in(took);
    proof.write_down(&comparison);
}

#[test]
fn a_job_whose_sink_is_killed_again_and_again_sends_every_event_once() {
    let rounds = times("FAULT_REPEATS", 3);
    let mut chance = chance("replay: kill -9");
    let (kafka, mut sink, originals) = journal_of(1000 + rounds * 1000, 701, "kafka.group_instance_id = 'box-1'");
    let mut proof = Proof::of("replay: sink killed -9 in mid-job");
    let id = replay_everything(&sink, "rate_per_s=1000");
    let (mut restarted_at, mut unknown) = (None, 0);
    for _ in 0..rounds {
        // One in four dies while it finds out about what was in flight, the others once events go out that were not.
        let pending = count(&job(&sink, id), "pending");
        let is_early = restarted_at.is_some() && chance.u8(..4) == 0;
        let sends = |job: &Value| count(job, "pending") < pending;
        await_job(&sink, id, "it sends", |job| sends(job) || (is_early && job["waiting_for"].is_string()));
        if let Some(restarted_at) = restarted_at.filter(|_| !is_early) {
            proof.recovered_in(Instant::elapsed(&restarted_at));
        }
        thread::sleep(Duration::from_millis(chance.u64(..400)));
        sink.kill();
        assert_eq!(sink.value::<String>(&format!("SELECT state FROM replay_job WHERE id = {id}")), "running");
        unknown += sink.value::<i64>("SELECT count(*) FROM replay_item WHERE state = 'in_flight'");
        proof.tried();
        restarted_at = Some(Instant::now());
        sink = sink.restart();
    }
    assert!(unknown > 0, "no kill left anything in flight");
    eprintln!("{unknown} were in flight when the sink was killed");
    proof.write_down(&assert_once_more(&kafka.bootstrap(), &sink, id, &originals));
    assert_a_doubled_one_would_be_named(&kafka.bootstrap(), &sink, id, &originals);
}

/// That the proof can fail: a replay that somebody sends again is one that stands twice, and the job says which.
fn assert_a_doubled_one_would_be_named(bootstrap: &str, sink: &Sink, id: i64, originals: &Log) {
    let log = Log::read(bootstrap, &TOPICS);
    let (event_id, replay) = log.replays(originals).into_iter().nth(100).map(|(id, places)| (id, places[0])).unwrap();
    let headers: Vec<_> = replay.headers().map(|(name, value)| (name, Some(value.as_bytes()))).collect();
    let (topic, partition, _) = &replay.place;
    let (key, value) = (Some(replay.key.as_bytes()), Some(&replay.value[..]));
    Sender::to(bootstrap).send(&Record { topic, partition: Some(*partition), key, value, headers: &headers });
    await_job(sink, id, "it came back twice", |job| count(job, "observed_twice") == 1);
    let log = Log::read(bootstrap, &TOPICS);
    let replays = log.replays(originals);
    assert_eq!(doubled(&replays), BTreeSet::from([event_id]));
    assert_doubled_ones_are_named(sink, id, &items(sink, id), &replays);
}

#[test]
fn what_was_in_flight_to_a_topic_that_the_sink_does_not_read_stays_uncertain_until_the_operator_says() {
    let toml = format!("kafka.group_instance_id = 'box-2'\nreplay.to_topics = ['{ELSEWHERE}']");
    let (kafka, mut sink, originals) = journal_of(2000, 401, &toml);
    let bootstrap = kafka.bootstrap();
    kafka.create_topics(&[ELSEWHERE], PARTITIONS, "1");
    let id = replay_everything(&sink, &format!("rate_per_s=1000&to_topic={ELSEWHERE}"));
    let mut in_flight = 0;
    while in_flight == 0 {
        let before = count(&job(&sink, id), "acknowledged");
        await_job(&sink, id, "it sends", |job| count(job, "acknowledged") > before);
        sink.kill();
        in_flight = sink.value("SELECT count(*) FROM replay_item WHERE state = 'in_flight'");
        sink = sink.restart();
    }
    let finished = await_finished(&sink, id);
    assert_eq!((count(&finished, "uncertain"), count(&finished, "acknowledged")), (in_flight, 2000 - in_flight));
    let log = Log::read(&bootstrap, &[ELSEWHERE]);
    let replays = log.replays(&originals);
    let uncertain: BTreeSet<i64> = items(&sink, id)
        .iter()
        .filter(|item| item["state"] == "uncertain")
        .map(|item| count(item, "event_id"))
        .collect();
    assert_items_are_true(&items(&sink, id), &replays);
    assert_eq!(doubled(&replays), BTreeSet::new(), "nothing was sent twice on its own");
    log.assert_replays_are_in_order();
    let arrived: BTreeSet<i64> = replays.keys().copied().filter(|id| uncertain.contains(id)).collect();
    assert_eq!(replays.len(), 2000 - uncertain.len() + arrived.len());
    eprintln!("{in_flight} uncertain, of which {} had arrived", arrived.len());

    let retried = post(&sink, &format!("/replay/jobs/{id}/retry-failed"), None);
    assert_eq!(retried.status, 409, "none failed: {}", retried.body);
    let retried = post(&sink, &format!("/replay/jobs/{id}/retry-failed?uncertain=true"), None);
    assert_eq!((retried.status, &retried.json()["status"]), (200, &json!("running")), "{}", retried.body);
    let finished = await_finished(&sink, id);
    assert_eq!((count(&finished, "acknowledged"), count(&finished, "uncertain")), (2000, 0), "{finished}");
    let log = Log::read(&bootstrap, &[ELSEWHERE]);
    let replays = log.replays(&originals);
    assert_eq!((replays.len(), doubled(&replays)), (2000, arrived.clone()));
    assert_eq!(sink.events(), 2000, "nothing of it comes to this journal");
    let mut proof = Proof::of("replay to another topic: sink killed -9; each doubled record asked for");
    proof.tried();
    proof.write_down(&Comparison { broker: log.len(), doubled: arrived.len(), ..Comparison::default() });
}

#[test]
fn a_job_waits_for_a_broker_that_was_killed_and_goes_on_by_itself() {
    let rounds = times("FAULT_REPEATS", 1);
    let (kafka, sink, originals) = journal_of(1000 + rounds * 1000, 503, "");
    let mut proof = Proof::of("replay: broker killed -9 in mid-job and restarted");
    let id = replay_everything(&sink, "rate_per_s=500");
    for _ in 0..rounds {
        let sent = count(&job(&sink, id), "acknowledged");
        await_job(&sink, id, "it sends", |job| count(job, "acknowledged") > sent);
        kafka.kill_node(1);
        let waiting = await_job(&sink, id, "it waits for Kafka", |job| {
            assert_eq!(job["status"], "running", "{job}");
            job["waiting_for"].as_str().is_some_and(|what| what.starts_with("Kafka"))
        });
        kafka.restart_node(1);
        let began = Instant::now();
        let sent = count(&waiting, "acknowledged");
        await_job(&sink, id, "it goes on by itself", |job| count(job, "acknowledged") > sent);
        proof.recovered_in(began.elapsed());
        proof.tried();
    }
    proof.write_down(&assert_once_more(&kafka.bootstrap(), &sink, id, &originals));
}

#[test]
fn what_a_frozen_broker_had_from_a_sink_that_died_is_not_sent_again() {
    let rounds = times("FAULT_REPEATS", 1);
    let toml = "kafka.group_instance_id = 'box-3'";
    let (kafka, mut sink, originals) = journal_of(1000 + rounds * 500, 509, toml);
    let mut proof = Proof::of("replay: broker frozen, sink killed -9 meanwhile");
    let id = replay_everything(&sink, "rate_per_s=400");
    let waits_for = |job: &Value, what: &str| job["waiting_for"].as_str().is_some_and(|text| text.contains(what));
    for _ in 0..rounds {
        let pending = count(&job(&sink, id), "pending");
        await_job(&sink, id, "it sends", |job| count(job, "pending") < pending);
        assert!(kafka.signal_node(1, "STOP"));
        await_job(&sink, id, "it waits for Kafka", |job| waits_for(job, "acknowledged"));
        sink.kill();
        sink = sink.restart();
        await_job(&sink, id, "it asks Kafka in vain", |job| waits_for(job, "fetch"));
        assert!(kafka.signal_node(1, "CONT"));
        let began = Instant::now();
        let pending = count(&job(&sink, id), "pending");
        await_job(&sink, id, "it goes on", |job| count(job, "pending") < pending);
        proof.recovered_in(began.elapsed());
        proof.tried();
    }
    proof.write_down(&assert_once_more(&kafka.bootstrap(), &sink, id, &originals));
}

/// How the broker is while a job is cancelled.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Broker {
    Up,
    Frozen,
    Killed,
}

#[test]
fn after_a_cancel_nothing_more_is_sent_and_nothing_is_taken_away() {
    const EVENTS: i64 = 1500;
    let rounds = times("FAULT_REPEATS", 1);
    let mut chance = chance("replay: cancel");
    let (kafka, mut sink, originals) = journal_of(3 * EVENTS as u64, 307, "");
    let bootstrap = kafka.bootstrap();
    let mut proof = Proof::of("replay: cancelled with the broker up, frozen, killed");
    let mut stood = Vec::new();
    for _ in 0..rounds {
        for (part, broker) in (0..).zip([Broker::Up, Broker::Frozen, Broker::Killed]) {
            let ids: Vec<i64> = (part * EVENTS + 1..=(part + 1) * EVENTS).collect();
            let path = format!("/replay/batch?rate_per_s={}&confirm={EVENTS}", chance.u32(300..2000));
            let id = make_job(&sink, &path, Some(&json!(ids)));
            let some = chance.i64(1..EVENTS / 2);
            await_job(&sink, id, "some were sent", |job| count(job, "acknowledged") >= some);
            let cancelled_at = cancel(&kafka, &sink, id, broker);

            // The file has everything that arrived: by now an event that is uncertain is one that did not arrive.
            assert_exactly_once(&bootstrap, &TOPICS, &sink, &[]);
            let ended = job(&sink, id);
            assert_eq!((count(&ended, "pending"), count(&ended, "in_flight"), count(&ended, "failed")), (0, 0, 0));
            assert!(count(&ended, "cancelled") > 0, "{broker:?}: it was over before it was cancelled: {ended}");
            let log = Log::read(&bootstrap, &TOPICS).of_job(id);
            let replays = log.replays(&originals);
            assert_items_are_true(&items(&sink, id), &replays);
            assert_eq!((log.len() as i64, doubled(&replays)), (count(&ended, "acknowledged"), BTreeSet::new()));
            log.assert_replays_are_in_order();
            for seen in log.records() {
                let sent_at = seen.origin("at").unwrap();
                assert!(*sent_at < *cancelled_at, "{broker:?}: sent at {sent_at}, cancelled at {cancelled_at}");
            }
            let parts = ["acknowledged", "uncertain", "cancelled"].map(|part| count(&ended, part));
            eprintln!("{broker:?}: acknowledged, uncertain, cancelled: {parts:?}");
            stood.push((id, log));
            proof.tried();
        }
    }
    // Also not with the next start, which stores what comes and sends nothing.
    assert_eq!(sink.stop(), Some(0));
    let sink = sink.restart();
    let before = sink.events();
    Sender::to(&bootstrap).event(TOPICS[0], "acme", 4_000_000);
    sink.await_events(before + 1);
    for (id, log) in &stood {
        assert_eq!(Log::read(&bootstrap, &TOPICS).of_job(*id), *log);
    }
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE replay_of IS NULL"), 3 * EVENTS + 1);
    proof.write_down(&assert_exactly_once(&bootstrap, &TOPICS, &sink, &[]));
}

/// Cancels a job while the broker is as `broker` says, and brings the broker back; when the cancel was answered.
/// Nothing is in flight any more then.
fn cancel(kafka: &ApacheKafka, sink: &Sink, id: i64, broker: Broker) -> String {
    let change = |how: &str| {
        let changed = post(sink, &format!("/replay/jobs/{id}/{how}?reason=the+wrong+day"), None);
        assert_eq!(changed.status, 200, "{}", changed.body);
        changed.json()
    };
    let nothing_in_flight = |job: &Value| count(job, "in_flight") == 0;
    match broker {
        Broker::Up => {}
        Broker::Frozen => {
            // All that goes out next, the network or the producer has when the job is cancelled.
            change("pause");
            await_job(sink, id, "nothing is in flight", nothing_in_flight);
            assert!(kafka.signal_node(1, "STOP"));
            change("resume");
        }
        Broker::Killed => kafka.kill_node(1),
    }
    if broker != Broker::Up {
        await_job(sink, id, "it waits for Kafka", |job| job["waiting_for"].is_string());
    }
    let cancelled = change("cancel");
    let answered_at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    assert_eq!(cancelled["status"], "cancelled");
    match broker {
        Broker::Up => {}
        Broker::Frozen => assert!(kafka.signal_node(1, "CONT")),
        Broker::Killed => {
            // What the producer had is given up now, not when the broker is back.
            await_job(sink, id, "nothing is in flight", nothing_in_flight);
            kafka.restart_node(1);
        }
    }
    let ended = await_job(sink, id, "nothing is in flight", nothing_in_flight);
    if broker == Broker::Frozen {
        let (given, arrived) = (count(&cancelled, "in_flight"), count(&ended, "acknowledged"));
        let arrived = arrived - count(&cancelled, "acknowledged");
        eprintln!("{broker:?}: of {given} that the producer had, {arrived} were in the network");
        assert!(arrived < given / 2, "of {given} that were with the producer, {arrived} were sent");
    }
    await_health(sink);
    answered_at
}

#[test]
fn ingestion_goes_first_and_a_job_ends_all_the_same() {
    const BACKLOG: u64 = 10_000;
    const JOB: u64 = 3000;
    // Small transactions, so that the writer is the slowest part and batches wait for it.
    let toml = "write.batch_rows_max = 10\nqueue.batches_max = 4\nqueue.batch_bytes_max = 4096";
    let (kafka, mut sink, originals) = journal_of(JOB, 211, toml);
    let bootstrap = kafka.bootstrap();
    let start = first_received(&sink);
    let end = sink.value::<String>("SELECT max(received_at) FROM event_journal").replace(' ', "T");
    assert_eq!(sink.stop(), Some(0));
    let sender = Sender::to(&bootstrap);
    for number in 0..BACKLOG {
        sender.queue_event(TOPICS[number as usize % TOPICS.len()], "umbrella", number);
    }
    sender.flush();
    let sink = sink.restart();
    await_more_than(&sink, JOB as i64);
    let path = format!("/replay/range?start={start}&end={end}&rate_per_s=100000");
    let total = post(&sink, &format!("{path}&dry_run=true"), None).json()["total"].as_i64().unwrap();
    let id = make_job(&sink, &format!("{path}&confirm={total}"), None);
    await_job(&sink, id, "the job stands back", |job| {
        assert_eq!(job["status"], "running", "it did not stand back: {job}");
        job["waiting_for"].as_str().is_some_and(|what| what.starts_with("ingestion"))
    });
    eventually("the backlog is stored", || {
        sink.value::<i64>("SELECT count(*) FROM event_journal WHERE tenant_id = 'umbrella'") == BACKLOG as i64
    });
    let meanwhile = count(&job(&sink, id), "acknowledged");
    eprintln!("{meanwhile} of {total} were sent before the backlog was stored");
    assert!(meanwhile < total / 2, "the job did not stand back: {meanwhile} of {total}");
    await_finished(&sink, id);

    // And with records that keep coming.
    let load = Load::start(&bootstrap, &TOPICS, 1000, 0, chance("replay: ingestion busy"));
    let mut proof = Proof::of("replay: ingestion busy meanwhile (the time is a live record's)");
    let second = make_job(&sink, &format!("{path}&confirm={total}"), None);
    while job(&sink, second)["status"] == "running" {
        proof.recovered_in(await_later_record(&sink, "replay_of IS NULL"));
    }
    proof.tried();
    let acknowledged = load.stop();
    let comparison = assert_exactly_once(&bootstrap, &TOPICS, &sink, &acknowledged);
    for id in [id, second] {
        let finished = await_finished(&sink, id);
        assert_eq!((count(&finished, "acknowledged"), count(&finished, "observed")), (total, total), "{finished}");
        let log = Log::read(&bootstrap, &TOPICS).of_job(id);
        let replays = log.replays(&originals);
        assert_items_are_true(&items(&sink, id), &replays);
        assert_eq!((replays.len() as i64, doubled(&replays)), (total, BTreeSet::new()));
        log.assert_replays_are_in_order();
    }
    proof.write_down(&comparison);
}

#[test]
fn a_job_that_was_cancelled_can_be_retried_as_soon_as_it_is_known_what_was_in_flight() {
    let (kafka, sink, _) = journal_of(60, 7, "");
    // At ten events a second two are in flight at once.
    let ids: Vec<i64> = (11..=50).collect();
    let id = make_job(&sink, "/replay/batch?rate_per_s=10", Some(&json!(ids)));
    assert!(sink.sql("DELETE FROM event_journal WHERE id BETWEEN 17 AND 19").status.success());
    await_job(&sink, id, "it came to those that are gone", |job| count(job, "failed") > 0);
    assert!(kafka.signal_node(1, "STOP"));
    let waits = |job: &Value| job["waiting_for"].as_str().is_some_and(|what| what.starts_with("Kafka"));
    await_job(&sink, id, "it waits for Kafka", waits);
    assert_eq!(post(&sink, &format!("/replay/jobs/{id}/cancel"), None).status, 200);
    let retry = || post(&sink, &format!("/replay/jobs/{id}/retry-failed"), None);
    let early = retry();
    assert_eq!(early.status, 409, "{}", early.body);
    assert!(early.detail().contains("in flight"), "{}", early.body);
    assert!(kafka.signal_node(1, "CONT"));
    eventually("it is retried", || retry().status == 200);
    let finished = await_finished(&sink, id);
    assert_eq!(count(&finished, "failed"), 3, "{finished}");
    assert!(count(&finished, "cancelled") > 0, "what was cancelled stays so: {finished}");
}
