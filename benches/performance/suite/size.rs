//! How much of everything.

use std::path::PathBuf;
use std::time::Duration;

pub struct Size {
    /// Where the journals stand.
    pub folder: PathBuf,
    /// Records of the backlog.
    pub records: u64,
    /// Each thing that a ratio is made of is measured so often, in turns.
    pub rounds: usize,
    /// Of the backlog, what a round with or without readers drains.
    pub cost_records: u64,
    /// Rows of the large journal: where its growth is measured first, where starts and reads are, and where last.
    pub growth: [u64; 3],
    /// Rows of one measured piece of that growth.
    pub growth_piece: usize,
    pub read_for: Duration,
    /// Rows that the quiet box's journal holds before, and for how long its events come.
    pub slow_before: u64,
    pub slow_for: Duration,
    pub visible_per_second: u32,
    pub visible_for: Duration,
    /// Events that come alone, and how long a quiet is before each.
    pub lone: usize,
    pub lone_quiet: Duration,
    pub idle_for: Duration,
    pub replayed: u64,
    /// What the consumer that commits each record is given of the backlog.
    pub unbatched: u64,
}

#[allow(dead_code)] // One of the two is the benchmark's, the other the test's.
impl Size {
    pub fn full() -> Size {
        let largest = std::env::var("BENCH_GROWTH_ROWS").map_or(50_000_000, |rows| rows.parse().expect("a number"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        Size {
            folder: std::env::var_os("BENCH_FOLDER").map_or_else(|| target.join("performance"), PathBuf::from),
            records: 2_000_000,
            rounds: 5,
            cost_records: 500_000,
            growth: [1_000_000.min(largest), 10_000_000.min(largest), largest],
            growth_piece: 100_000,
            read_for: Duration::from_secs(15),
            slow_before: 500_000,
            slow_for: Duration::from_secs(120),
            visible_per_second: 1000,
            visible_for: Duration::from_secs(20),
            lone: 20,
            lone_quiet: Duration::from_secs(3),
            idle_for: Duration::from_secs(30),
            replayed: 100_000,
            unbatched: 20_000,
        }
    }

    /// Just enough to see that everything is measured.
    pub fn short(folder: PathBuf) -> Size {
        Size {
            folder,
            records: 6_000,
            rounds: 1,
            cost_records: 4_000,
            growth: [1_000, 3_000, 5_000],
            growth_piece: 1_000,
            read_for: Duration::from_millis(500),
            slow_before: 2_000,
            slow_for: Duration::from_secs(3),
            visible_per_second: 100,
            visible_for: Duration::from_secs(1),
            lone: 2,
            lone_quiet: Duration::from_millis(300),
            idle_for: Duration::from_secs(1),
            replayed: 1_000,
            unbatched: 100,
        }
    }
}
