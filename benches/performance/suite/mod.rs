//! The parts of the measurement, and their order. `tests/it` runs them with few records, to see that they work.

mod bare;
mod beside;
mod broker;
mod figures;
mod ingest;
mod large;
mod process;
mod quiet;
mod readers;
mod records;
mod replay;
mod sink;
mod size;
mod visible;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

pub use figures::Report;
pub use size::Size;

use self::ingest::Drained;
use crate::harness::ApacheKafka;

pub struct Bench<'a> {
    size: &'a Size,
    /// For the journals. It is gone at the end, whatever the end is.
    folder: TempDir,
    kafka: ApacheKafka,
    report: Report,
    /// What the sink did with the backlog, when that was measured already.
    sink: Option<Drained>,
}

/// What it is called, and what puts its figures into the report.
type Part = (&'static str, fn(&mut Bench));

const PARTS: [Part; 6] = [
    ("ingest", ingest::measure),
    ("beside", beside::measure),
    ("readers", readers::measure),
    ("quiet", quiet::measure),
    ("replay", replay::measure),
    ("large", large::measure),
];

/// Measures the parts that `only` names, all if it names none, and writes the tables of `page`.
pub fn run(size: &Size, only: &[String], page: &Path) -> Report {
    let unknown: Vec<&String> = only.iter().filter(|name| PARTS.iter().all(|(part, _)| part != name)).collect();
    assert!(unknown.is_empty(), "no such part: {unknown:?}; there are {:?}", PARTS.map(|(part, _)| part));
    let began = Instant::now();
    fs::create_dir_all(&size.folder).expect("a folder for the journals");
    let folder = tempfile::tempdir_in(&size.folder).expect("a folder for this run");
    let kafka = ApacheKafka::start();
    broker::fill(&kafka, broker::BACKLOG, size.records);
    println!("# {} records are in Apache Kafka after {:.0?}", size.records, began.elapsed());
    let mut bench = Bench { size, folder, kafka, report: Report::default(), sink: None };
    for (name, part) in PARTS {
        if only.is_empty() || only.iter().any(|only| only == name) {
            let since = Instant::now();
            part(&mut bench);
            println!("# {name} took {:.0?}", since.elapsed());
        }
    }
    println!("# all took {:.0?}", began.elapsed());
    bench.report.write(page, &machine(size));
    bench.report
}

/// What the figures hold for.
fn machine(size: &Size) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("of an unknown kind", |(_, model)| model);
    format!(
        "On {cores} cores ({model}), {}; a backlog of {} records, the largest journal {} rows.",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        size.records,
        size.growth[2]
    )
}

impl Bench<'_> {
    /// An empty folder.
    fn fresh(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("it is a part's of this run");
        }
        fs::create_dir(&folder).expect("there is room");
        folder
    }
}
