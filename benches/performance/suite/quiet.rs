//! A branch's ordinary day: few events, and what they make the sink write. Because that counts bytes, not time, what a quiet
//! sink does otherwise is measured beside it.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::broker;
use super::large::Journal;
use super::records::{PAYLOAD_BYTES, Record, Records};
use super::sink::{Sink, newest};
use super::{Bench, process, visible};
use crate::harness::eventually;

const FAMILY: &str = "slow";
const EVENTS_PER_SECOND: u32 = 10;

pub fn measure(bench: &mut Bench) {
    broker::create(&bench.kafka, FAMILY);
    let folder = bench.fresh("slow");
    let mut journal = Journal::make(&folder.join("journal.db"));
    journal.fill(bench.size.slow_before);
    forget(&folder.join("journal.db"));
    let (bootstrap, time) = (bench.kafka.bootstrap(), bench.size.slow_for);
    let slow = thread::spawn(move || drip(&folder, &bootstrap, time, journal.records));
    visible::measure(bench);
    bench.report.put("write_amplification_slow", slow.join().expect("it was measured"));
}

/// Bytes written for each of payload: from before the first event until the sink has stopped and all of its log is in the
/// file. So each event has its part of a checkpoint, and none is counted that others caused.
fn drip(folder: &Path, bootstrap: &str, time: Duration, records: Records) -> f64 {
    let mut sink = Sink::start(folder, bootstrap, &broker::subscription(FAMILY));
    sink.await_health();
    let (written, before) = (process::written(sink.pid()), newest(&sink.journal));
    let sender = broker::sender(bootstrap, &[("linger.ms", "0")]);
    let topics = broker::topics(FAMILY);
    let begun = Instant::now();
    let mut sent = 0;
    for Record { topic, key, payload, .. } in records {
        let due = begun + Duration::from_secs(1) / EVENTS_PER_SECOND * sent;
        if due > begun + time {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        broker::send(&sender, &topics[topic], &key, &payload);
        sent += 1;
    }
    eventually("all events are there", || {
        sink.assert_running();
        newest(&sink.journal) - before == i64::from(sent)
    });
    (sink.stop() - written) as f64 / (f64::from(sent) * PAYLOAD_BYTES as f64)
}

/// Takes a file out of the page cache: what was written in bulk stands there in large pieces, and the kernel would count a
/// whole piece for each page that changes.
pub fn forget(path: &Path) {
    let file = File::open(path).expect("it was just made");
    file.sync_all().expect("it can be written");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux takes the advice");
}
