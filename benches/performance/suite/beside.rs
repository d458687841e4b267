//! What somebody would take instead of the sink, with the same backlog.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::broker;
use super::figures::{Other, OtherFigures};
use super::ingest;
use super::process;
use super::records::PAYLOAD_BYTES;
use super::sink::watch;
use crate::harness::{DEADLINE, PROGRAM};

pub fn measure(bench: &mut Bench) {
    if bench.sink.is_none() {
        bench.sink = Some(ingest::drain(bench));
    }
    let sink = bench.sink.as_ref().expect("it was just measured").figures();
    bench.report.put_other(Other { name: "the sink", measured: Ok(sink), lacks: "-" });
    let all = bench.size.records;
    let others = [
        Other {
            name: "Python, confluent-kafka and sqlite3, a commit for 1,000 records",
            measured: python(bench, all, 1000),
            lacks: "Kafka's offset is committed apart from the rows, so that a crash doubles records; a record that is no JSON ends it; \
                    no dead letters, no API, no metrics, no replay",
        },
        Other {
            name: "the same, a commit for each record",
            measured: python(bench, bench.size.unbatched.min(all), 1),
            lacks: "the same",
        },
        Other {
            name: "`kcat` into the `sqlite3` shell's `.import`",
            measured: kcat(bench, all),
            lacks: "one transaction for all: no row is there before the last one is, and a crash loses them; a tab or a line feed \
                    in a record breaks it; no tenant, no time, no restart, and all of the above",
        },
    ];
    for other in others {
        bench.report.put_other(other);
    }
}

/// Where `tests/tools.sh bench` has put confluent-kafka.
fn python_of_tools() -> Result<PathBuf, String> {
    let python = Path::new(PROGRAM).ancestors().nth(2).expect("the target folder").join("tools/bench/bin/python");
    if python.exists() { Ok(python) } else { Err("confluent-kafka is not installed (tests/tools.sh bench)".into()) }
}

fn python(bench: &Bench, count: u64, batch: u64) -> Result<OtherFigures, String> {
    let folder = bench.fresh("python");
    let journal = folder.join("journal.db");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/performance/consumer.py");
    let mut run = Command::new(python_of_tools()?);
    run.arg(script).args([bench.kafka.bootstrap(), format!("python-{batch}")]).arg(&journal);
    run.args([count.to_string(), batch.to_string()]).stdin(Stdio::piped());
    let mut consumer = run.spawn().map_err(|error| format!("Python does not start: {error}"))?;
    let mut check = || assert!(consumer.try_wait().expect("it is our own").is_none(), "the Python consumer ended");
    let per_second = watch(&journal, 0, count, &mut check);
    let peak_mib = process::peak_mib(consumer.id());
    // It waits for that, so that its memory could be looked at.
    drop(consumer.stdin.take());
    let written = process::end(&mut consumer) as f64 / (count * PAYLOAD_BYTES as u64) as f64;
    fs::remove_dir_all(folder).expect("it is ours");
    Ok(OtherFigures { per_second, written, peak_mib })
}

/// From the start of both to the end of both: before, there is nothing to be seen.
fn kcat(bench: &Bench, count: u64) -> Result<OtherFigures, String> {
    let folder = bench.fresh("kcat");
    let journal = folder.join("journal.db");
    let began = Instant::now();
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &bench.kafka.bootstrap(), "-X", "auto.offset.reset=earliest", "-q", "-e"]);
    kcat.args(["-f", "%t\\t%p\\t%o\\t%k\\t%s\\n", "-G", "kcat"]).args(broker::topics(broker::BACKLOG));
    let mut kcat = kcat.stdout(Stdio::piped()).spawn().map_err(|error| format!("kcat does not start: {error}"))?;
    let table = "CREATE TABLE event_journal (topic TEXT, kafka_partition INTEGER, kafka_offset INTEGER, kafka_key TEXT, payload TEXT)";
    let mut sqlite = Command::new("sqlite3");
    sqlite.arg(&journal).args(["-cmd", table, "-cmd", ".mode tabs", ".import /dev/stdin event_journal"]);
    let sqlite = sqlite.stdin(kcat.stdout.take().expect("it is piped")).spawn();
    let sqlite = sqlite.map_err(|error| format!("sqlite3 does not start: {error}"));
    let mut both = [kcat, sqlite?];
    let peak_mib = peak_of(&mut both, began);
    let per_second = count as f64 / began.elapsed().as_secs_f64();
    let written: u64 = both.iter_mut().map(process::end).sum();
    let reader = super::sink::reader(&journal).expect("it is there");
    let rows: i64 = reader.query_row("SELECT count(*) FROM event_journal", [], |row| row.get(0)).expect("a number");
    assert_eq!(rows, count as i64, "kcat and sqlite3 bring each record once");
    fs::remove_dir_all(folder).expect("it is ours");
    Ok(OtherFigures { per_second, written: written as f64 / (count * PAYLOAD_BYTES as u64) as f64, peak_mib })
}

/// The most memory that both had, looked at until they end.
fn peak_of(both: &mut [Child; 2], began: Instant) -> f64 {
    let mut peaks = [0.0_f64; 2];
    loop {
        let mut running = false;
        for (child, peak) in both.iter().zip(&mut peaks) {
            if let Some(now) = process::peak_while_running(child.id()) {
                (*peak, running) = (now, true);
            }
        }
        if !running {
            return peaks.iter().sum();
        }
        assert!(began.elapsed() < 10 * DEADLINE, "kcat and sqlite3 do not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}
