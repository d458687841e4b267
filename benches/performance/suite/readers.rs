//! What eight operators who never stop asking cost ingestion.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fastrand::Rng;

use super::Bench;
use super::figures::median;
use super::sink::{Sink, watch};

const READERS: usize = 8;

pub fn measure(bench: &mut Bench) {
    let mut ratios = Vec::new();
    let asked = AtomicU64::new(0);
    let mut seconds = 0.0;
    for round in 0..bench.size.rounds {
        let alone = drain(bench, 0, &asked);
        let beside = drain(bench, READERS, &asked);
        println!("# round {}: {alone:.0} alone, {beside:.0} with {READERS} readers", round + 1);
        ratios.push(beside / alone);
        seconds += bench.size.cost_records as f64 / beside;
    }
    bench.report.put("read_cost", median(ratios));
    bench.report.put("read_cost_answers_per_s", asked.into_inner() as f64 / seconds);
}

/// Events a second of the backlog's beginning. Each reader waits for its answer, and asks again at once.
fn drain(bench: &Bench, readers: usize, asked: &AtomicU64) -> f64 {
    let folder = bench.fresh("readers");
    let mut sink = Sink::start(&folder, &bench.kafka.bootstrap(), "");
    sink.await_health();
    let done = AtomicBool::new(false);
    let api = format!("http://{}", sink.api);
    let journal = sink.journal.clone();
    thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| read(&api, &done, asked));
        }
        let rate = watch(&journal, 0, bench.size.cost_records, || sink.assert_running());
        done.store(true, Ordering::Relaxed);
        rate
    })
}

fn read(api: &str, done: &AtomicBool, asked: &AtomicU64) {
    let agent = ureq::Agent::new_with_defaults();
    let mut random = Rng::new();
    let mut newest = 1;
    while !done.load(Ordering::Relaxed) {
        let latest: serde_json::Value =
            serde_json::from_str(&ask(&agent, &format!("{api}/events/latest"))).expect("JSON");
        newest = latest[0]["id"].as_u64().unwrap_or(newest).max(newest);
        if latest[0].is_object() {
            ask(&agent, &format!("{api}/events/{}", random.u64(1..=newest)));
            asked.fetch_add(1, Ordering::Relaxed);
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn ask(agent: &ureq::Agent, url: &str) -> String {
    let mut answer = agent.get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    answer.body_mut().read_to_string().unwrap_or_else(|error| panic!("{url}: {error}"))
}
