//! Faults on purpose, under load, and the comparison afterwards: what the broker holds against what the file holds.
//!
//! The ordinary run is short. `make faults` runs it at full size and prints what [`Proof`] wrote down.

mod apache_kafka;
mod comparison;
mod disk;
mod embedded;
mod load;
pub mod replayed;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use self::comparison::Comparison;
use crate::harness::{PROGRAM, Sink, eventually};

pub const TOPICS: [&str; 3] = ["apexflow.leads.created", "apexflow.leads.assigned", "apexflow.jobs.created"];

/// The size of a run: what the environment says, else `short`.
pub fn times(variable: &str, short: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")),
        Err(_) => short,
    }
}

/// Chance that can be had again: FAULT_SEED=… gives the run that printed it.
pub fn chance(test: &str) -> fastrand::Rng {
    let seed = times("FAULT_SEED", fastrand::u64(..));
    eprintln!("{test}: FAULT_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// What a test found out about one fault: a line of the table in docs/reliability.md.
pub struct Proof {
    fault: &'static str,
    times: u64,
    recovered: Vec<Duration>,
}

impl Proof {
    pub fn of(fault: &'static str) -> Proof {
        Proof { fault, times: 0, recovered: Vec::new() }
    }

    /// The fault came and went; what follows it need not be measured.
    pub fn tried(&mut self) {
        self.times += 1;
    }

    /// How long it took from the end of the fault's cause until a record sent after it was in the file.
    pub fn recovered_in(&mut self, time: Duration) {
        self.recovered.push(time);
    }

    /// Appends the line to `faults.tsv` in cargo's target folder: fault, times tried, records, lost, doubled, and the
    /// seconds to recover, median and longest.
    pub fn write_down(mut self, comparison: &Comparison) {
        self.recovered.sort();
        let seconds = |at: Option<&Duration>| at.map_or("-".to_owned(), |d| format!("{:.1}", d.as_secs_f64()));
        let (median, longest) = (self.recovered.get(self.recovered.len() / 2), self.recovered.last());
        let line = format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            self.fault,
            self.times,
            comparison.broker,
            comparison.lost,
            comparison.doubled,
            seconds(median),
            seconds(longest),
        );
        eprint!("{line}");
        let mut table = File::options().create(true).append(true).open(target().join("faults.tsv")).unwrap();
        table.write_all(line.as_bytes()).unwrap();
    }
}

fn target() -> PathBuf {
    Path::new(PROGRAM).ancestors().nth(2).unwrap().to_owned()
}

/// Rows of both tables.
pub fn rows(sink: &Sink) -> i64 {
    sink.value("SELECT (SELECT count(*) FROM event_journal) + (SELECT count(*) FROM event_dlq)")
}

/// Waits until more than `before` rows are there.
#[track_caller]
pub fn await_more_than(sink: &Sink, before: i64) {
    eventually(&format!("more than {before} rows"), || rows(sink) > before);
}

/// Waits until a record that was sent after now is in the file, of those that `condition` names, and says how long
/// that took. Older records may have been on their way before the fault.
#[track_caller]
pub fn await_later_record(sink: &Sink, condition: &str) -> Duration {
    let began = Instant::now();
    let sent_ms = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let newest = format!("SELECT kafka_timestamp FROM event_journal WHERE {condition} ORDER BY id DESC LIMIT 1");
    let sql = format!("SELECT coalesce(({newest}), 0) > {sent_ms}");
    eventually("a record sent after the fault is stored", || sink.value(&sql));
    began.elapsed()
}

#[track_caller]
pub fn await_health(sink: &Sink) {
    eventually("it is healthy again", || sink.get("/health").status == 200);
}
