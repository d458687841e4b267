//! A range that is replayed, and a producer that does nothing else.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Bench;
use super::broker;
use super::figures::median;
use super::records::{Record, Records};
use super::sink::{Sink, newest};
use crate::harness::{eventually, within};

const FAMILY: &str = "replayed";
const BARE: &str = "produced";
/// As src/replay/run.rs has it.
const LINGER_MS: &str = "5";
/// What the API allows at most.
const RATE_PER_S: u32 = 100_000;

pub fn measure(bench: &mut Bench) {
    let count = bench.size.replayed;
    broker::fill(&bench.kafka, FAMILY, count);
    broker::create(&bench.kafka, BARE);
    let folder = bench.fresh("replay");
    let mut sink = Sink::start(&folder, &bench.kafka.bootstrap(), &broker::subscription(FAMILY));
    eventually("all records are there", || {
        sink.assert_running();
        newest(&sink.journal) == count as i64
    });
    // Of the replays that come back, none is in this range.
    let end = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let records: Vec<Record> = Records::new().take(count as usize).collect();
    let (mut replays, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=bench.size.rounds {
        replays.push(replay(&sink, count, &end));
        // The sink reads its replays back; the next round's producer should not have to share the machine with that.
        within(crate::harness::DEADLINE, "the replays are back", || {
            newest(&sink.journal) == (count * (round as u64 + 1)) as i64
        });
        bare.push(produce(&bench.kafka.bootstrap(), &records));
        println!("# round {round}: replay {:.0}, producer {:.0}", replays[round - 1], bare[round - 1]);
    }
    let ratios = replays.iter().zip(&bare).map(|(replay, bare)| replay / bare).collect();
    bench.report.put("replay_vs_producer", median(ratios));
    bench.report.put("replay_events_per_s", median(replays));
    bench.report.put("producer_records_per_s", median(bare));
}

/// Events a second from the request to the answer that all are acknowledged.
fn replay(sink: &Sink, count: u64, end: &str) -> f64 {
    let url = format!(
        "http://{}/replay/range?start=2020-01-01&end={end}&rate_per_s={RATE_PER_S}&confirm={count}&wait=60",
        sink.api
    );
    let began = Instant::now();
    let answer =
        ureq::post(&url).send_empty().unwrap_or_else(|error| panic!("{url}: {error}")).body_mut().read_to_string();
    let elapsed = began.elapsed();
    let job: Value = serde_json::from_str(&answer.expect("an answer")).expect("JSON");
    assert_eq!(job["acknowledged"], count, "{job}");
    count as f64 / elapsed.as_secs_f64()
}

/// Records a second until all are acknowledged by a producer that, as the sink's, neither loses nor doubles.
fn produce(bootstrap: &str, records: &[Record]) -> f64 {
    let sender =
        broker::sender(bootstrap, &[("enable.idempotence", "true"), ("acks", "all"), ("linger.ms", LINGER_MS)]);
    let topics = broker::topics(BARE);
    let began = Instant::now();
    for Record { topic, key, payload, .. } in records {
        broker::send(&sender, &topics[*topic], key, payload);
    }
    rdkafka::producer::Producer::flush(&sender, Duration::from_secs(60)).expect("the broker takes them");
    records.len() as f64 / began.elapsed().as_secs_f64()
}
