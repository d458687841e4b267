//! Every figure of docs/performance.md, against Apache Kafka on this machine: `make bench`, or some parts of it:
//! `cargo bench --bench performance -- ingest replay`. All of them together write that page's tables.
//!
//! `BENCH_FOLDER` is where the journals stand (default `target/performance`; not a file system in memory, where a sync costs
//! nothing), `BENCH_GROWTH_ROWS` how large the largest grows (50 million rows, which take about 35 GB).

#[allow(dead_code)]
#[path = "../../tests/it/harness.rs"]
mod harness;
mod suite;

use std::path::Path;

fn main() {
    // What cargo adds for itself begins with a dash.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    suite::run(&suite::Size::full(), &only, &page);
}
