//! What is measured, how good it must be, and the page that says so.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy)]
enum Floor {
    AtLeast(f64),
    AtMost(f64),
}
use Floor::{AtLeast, AtMost};

const FIGURES: &[(&str, &str, Floor)] = &[
    (
        "ingest_vs_ceiling",
        "events/s from Kafka to durable rows, over a bare loop that inserts the same rows from memory",
        AtLeast(0.90),
    ),
    ("ingest_vs_bare_table", "the same over that loop on a table without any index", AtLeast(0.50)),
    ("growth", "rows/s of the store in the largest journal over those at a million rows", AtLeast(0.80)),
    ("write_amplification", "bytes written to the disk over payload bytes, draining the backlog", AtMost(3.0)),
    ("write_amplification_slow", "the same at 10 events/s over 20 tenants", AtMost(30.0)),
    (
        "visible_p99_ms",
        "from the producer's call to being read by `GET /events/latest`, at 1,000 events/s",
        AtMost(100.0),
    ),
    ("visible_idle_p99_ms", "the same for an event that comes alone", AtMost(50.0)),
    ("read_p99_ms", "the slowest GET of the guide at 10 million rows while events come in at full speed", AtMost(10.0)),
    ("read_cost", "events/s with 8 busy readers over those without", AtLeast(0.85)),
    (
        "replay_vs_producer",
        "events/s of a range replay, acknowledged, over a bare idempotent producer of the same records",
        AtLeast(0.70),
    ),
    ("rss_mib", "peak resident memory draining the backlog, MiB", AtMost(128.0)),
    ("idle_cpu", "share of a core while nothing comes", AtMost(0.005)),
    ("start_ms", "from the start of the process until it says READY=1, with 10 million rows", AtMost(300.0)),
];

/// One row of what stands beside the sink.
pub struct Other {
    pub name: &'static str,
    /// Or why there is none.
    pub measured: Result<OtherFigures, String>,
    pub lacks: &'static str,
}

pub struct OtherFigures {
    pub per_second: f64,
    /// Bytes for each byte of payload.
    pub written: f64,
    pub peak_mib: f64,
}

/// What was measured so far.
#[derive(Default)]
pub struct Report {
    figures: Vec<(String, f64)>,
    others: Vec<Other>,
}

impl Report {
    /// Notes a figure and prints it. One that is not among [`FIGURES`] is a detail of one that is.
    pub fn put(&mut self, name: &str, value: f64) {
        assert!(value.is_finite(), "{name} is {value}");
        println!("{name} {}", digits(value));
        self.figures.push((name.to_owned(), value));
    }

    pub fn put_other(&mut self, other: Other) {
        println!("beside: {}", other_row(&other, None));
        self.others.push(other);
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// Writes the tables between the page's marks, if nothing is missing in them.
    pub fn write(&self, page: &Path, machine: &str) {
        let missing: Vec<&str> =
            FIGURES.iter().map(|(name, ..)| *name).filter(|name| self.get(name).is_none()).collect();
        if !missing.is_empty() || self.others.is_empty() {
            println!("{} is left as it is: not all was measured ({})", page.display(), missing.join(", "));
            return;
        }
        let text = fs::read_to_string(page).expect("the page is there");
        let text = between(&text, "figures", &format!("{machine}\n\n{}", self.figures_table()));
        let text = between(&text, "details", &self.details_table());
        let text = between(&text, "beside", &self.others_table());
        fs::write(page, text).expect("the page can be written");
        println!("{} has the figures now", page.display());
    }

    fn figures_table(&self) -> String {
        let mut table = "| figure | what | floor | measured | met? |\n|---|---|---|---|---|\n".to_owned();
        for (name, what, floor) in FIGURES {
            let value = self.get(name).expect("nothing is missing");
            let (floor, met) = match *floor {
                AtLeast(floor) => (format!("at least {floor}"), value >= floor),
                AtMost(floor) => (format!("at most {floor}"), value <= floor),
            };
            let met = if met { "yes" } else { "**no**" };
            table += &format!("| `{name}` | {what} | {floor} | {} | {met} |\n", digits(value));
        }
        table
    }

    fn details_table(&self) -> String {
        let mut table = "| detail | measured |\n|---|---|\n".to_owned();
        let is_detail = |name: &str| FIGURES.iter().all(|(own, ..)| *own != name);
        for (name, value) in self.figures.iter().filter(|(name, _)| is_detail(name)) {
            table += &format!("| `{name}` | {} |\n", digits(*value));
        }
        table
    }

    fn others_table(&self) -> String {
        let mut table =
            "| | events/s | of the sink's | bytes written for each of payload | peak memory, MiB | what it lacks |\n\
                         |---|---|---|---|---|---|\n"
                .to_owned();
        let sink = self.others.iter().find_map(|other| other.measured.as_ref().ok()).map(|sink| sink.per_second);
        for other in &self.others {
            table += &other_row(other, sink);
            table.push('\n');
        }
        table
    }
}

/// The first of them is the sink.
fn other_row(other: &Other, sink: Option<f64>) -> String {
    match &other.measured {
        Ok(OtherFigures { per_second, written, peak_mib }) => {
            let ratio = sink.map_or_else(|| "-".to_owned(), |sink| digits(per_second / sink));
            let figures = [digits(*per_second), ratio, digits(*written), digits(*peak_mib)].join(" | ");
            format!("| {} | {figures} | {} |", other.name, other.lacks)
        }
        Err(why) => format!("| {} | not measured: {why} | | | | {} |", other.name, other.lacks),
    }
}

/// Three digits that count, or all before the point.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 5,
    };
    format!("{value:.places$}")
}

/// `text` with `inner` between the marks of this name.
fn between(text: &str, name: &str, inner: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: make bench writes this -->"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{before}{begin}\n{}\n{end}{after}", inner.trim_end())
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that 99 of 100 are not above.
pub fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * 99).div_ceil(100) - 1]
}
