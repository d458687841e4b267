//! That `make bench` works: every figure comes out, and the page's tables are written. How good the figures are is not looked
//! at: they are those of a debug build and of a few records.

#[path = "../../benches/performance/suite/mod.rs"]
mod suite;

use std::fs;
use std::path::Path;

/// By its name it is left out where Apache Kafka cannot be had.
#[test]
fn each_figure_is_measured_on_apache_kafka_and_written_into_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("performance.md");
    let before = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md")).unwrap();
    fs::write(&page, &before).unwrap();
    let size = suite::Size::short(folder.path().join("journals"));
    suite::run(&size, &[], &page);

    let after = fs::read_to_string(&page).unwrap();
    let rows = |name: &str| {
        let table = after.split(&format!("<!-- {name}: ")).nth(1).unwrap().split("<!-- end").next().unwrap();
        table.lines().filter(|line| line.starts_with("| ")).skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let figures = rows("figures");
    assert_eq!(figures.len(), 13);
    for row in figures.iter().chain(&rows("details")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let value = cells[if cells.len() == 7 { 4 } else { 2 }];
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{row}");
    }
    assert_eq!(rows("beside").len(), 4);
    // What is not in the tables stays.
    assert_eq!(outside(&before), outside(&after));
}

fn outside(page: &str) -> String {
    let parts =
        page.split("<!-- ").map(|part| part.split_once("make bench writes this -->").map_or(part, |(name, _)| name));
    parts.collect()
}
