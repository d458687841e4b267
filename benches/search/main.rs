//! How fast a search answers at 10 million events while events come in at full speed, and what that costs ingestion.
//! `cargo bench --bench search`; the journal is made once, in `SEARCH_FOLDER` (default `target/search`, about 8 GB for
//! the default `SEARCH_EVENTS=10000000`), and stays there.

mod load;
mod make;
mod measure;

use std::path::PathBuf;

fn main() {
    let default = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| PathBuf::from("target"), PathBuf::from);
    let folder = std::env::var("SEARCH_FOLDER").map_or_else(|_| default.join("search"), PathBuf::from);
    let events = std::env::var("SEARCH_EVENTS").map_or(10_000_000, |text| text.parse().unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let journal = folder.join(format!("journal-{events}.db"));
    make::make(&journal, events);
    measure::measure(&journal, events);
}
