//! How long an event takes from the producer's call to the operator's screen.

use std::thread;
use std::time::{Duration, Instant};

use super::broker;
use super::figures::{median, p99};
use super::readers::ask;
use super::records::{Record, Records};
use super::sink::{Sink, newest};
use super::{Bench, process};

/// One partition, so that events get their numbers in the order in which they were sent.
const TOPIC: &str = "visible.leads.created";
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub fn measure(bench: &mut Bench) {
    bench.kafka.create_topics(&[TOPIC], 1, "1");
    let folder = bench.fresh("visible");
    let bootstrap = bench.kafka.bootstrap();
    let mut sink = Sink::start(&folder, &bootstrap, &broker::subscription("visible"));
    let sender = broker::sender(&bootstrap, &[("linger.ms", "0")]);
    let mut send = {
        let mut records = Records::new();
        move || {
            let Record { key, payload, .. } = records.next().expect("they have no end");
            let now = Instant::now();
            broker::send(&sender, TOPIC, &key, &payload);
            now
        }
    };
    send();
    crate::harness::eventually("the first event is there", || {
        sink.assert_running();
        newest(&sink.journal) == 1
    });
    let size = bench.size;
    let step = Duration::from_secs(1) / size.visible_per_second;
    let count = (size.visible_for.as_secs_f64() / step.as_secs_f64()) as usize;
    let begun = Instant::now();
    let evenly =
        |number: usize| thread::sleep((begun + step * number as u32).saturating_duration_since(Instant::now()));
    let crowd = times(&sink, count, evenly, &mut send);
    bench.report.put("visible_p99_ms", p99(crowd.clone()));
    bench.report.put("visible_p50_ms", median(crowd));
    let mut random = fastrand::Rng::with_seed(40);
    // Each second one comes after a quiet that is long, the others soon after another one.
    let alone = |number: usize| {
        let soon = Duration::from_millis(random.u64(150..700));
        thread::sleep(if number.is_multiple_of(2) { size.lone_quiet + soon } else { soon });
    };
    let lone = times(&sink, 2 * size.lone, alone, &mut send);
    let (lone, soon): (Vec<f64>, Vec<f64>) = lone.chunks(2).map(|two| (two[0], two[1])).unzip();
    bench.report.put("visible_idle_p99_ms", p99(lone.clone()));
    bench.report.put("visible_idle_p50_ms", median(lone));
    bench.report.put("visible_soon_after_another_p99_ms", p99(soon));
    bench.report.put("idle_cpu", idle(&sink, size.idle_for));
}

/// Milliseconds until each of `count` events was read; `wait` is called before each is sent.
fn times(sink: &Sink, count: usize, mut wait: impl FnMut(usize), send: &mut impl FnMut() -> Instant) -> Vec<f64> {
    let before = newest(&sink.journal);
    thread::scope(|scope| {
        let looking = scope.spawn(|| look(&sink.api, before, count));
        let sent: Vec<Instant> = (0..count)
            .map(|number| {
                wait(number);
                send()
            })
            .collect();
        let seen = looking.join().expect("the looker ends");
        sent.iter().zip(seen).map(|(sent, seen)| (seen - *sent).as_secs_f64() * 1000.0).collect()
    })
}

/// When each of the `count` events after `before` was first read.
fn look(api: &str, before: i64, count: usize) -> Vec<Instant> {
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{api}/events/latest");
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        let latest: serde_json::Value = serde_json::from_str(&ask(&agent, &url)).expect("JSON");
        let now = Instant::now();
        let newest = latest[0]["id"].as_i64().expect("there is one") - before;
        seen.resize(seen.len().max(newest as usize), now);
        let quiet_for = seen.last().map_or(Duration::ZERO, |last| now - *last);
        assert!(quiet_for < crate::harness::DEADLINE, "only {} of {count} events are to be seen", seen.len());
        thread::sleep(LOOK_EVERY);
    }
    seen
}

/// The share of a core that it needs while nothing comes and nobody asks.
fn idle(sink: &Sink, time: Duration) -> f64 {
    let (began, before) = (Instant::now(), process::cpu_seconds(sink.pid()));
    thread::sleep(time);
    (process::cpu_seconds(sink.pid()) - before) / began.elapsed().as_secs_f64()
}
