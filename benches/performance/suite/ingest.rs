//! The backlog into a file: the sink, the ceiling, the loop without indexes, and again.

use std::fs;
use std::path::PathBuf;

use super::Bench;
use super::bare::{self, Indexes, Row};
use super::figures::{OtherFigures, median};
use super::process;
use super::records::PAYLOAD_BYTES;
use super::sink::{Sink, newest, watch};

/// What the sink did with the whole backlog.
pub struct Drained {
    pub per_second: f64,
    /// Rows of one transaction.
    batch: f64,
    written: f64,
    peak_mib: f64,
    journal: PathBuf,
}

impl Drained {
    pub fn figures(&self) -> OtherFigures {
        OtherFigures { per_second: self.per_second, written: self.written, peak_mib: self.peak_mib }
    }
}

pub fn drain(bench: &Bench) -> Drained {
    let folder = bench.fresh("ingest");
    let records = bench.size.records;
    let mut sink = Sink::start(&folder, &bench.kafka.bootstrap(), "");
    let journal = sink.journal.clone();
    let per_second = watch(&journal, 0, records, || sink.assert_running());
    let (rows, transactions) =
        (sink.metric("crm_events_transaction_rows_sum"), sink.metric("crm_events_transaction_rows_count"));
    let peak_mib = process::peak_mib(sink.pid());
    let written = sink.stop() as f64 / (records * PAYLOAD_BYTES as u64) as f64;
    assert_eq!(newest(&journal), records as i64, "each record is there once");
    Drained { per_second, batch: rows / transactions, written, peak_mib, journal }
}

pub fn measure(bench: &mut Bench) {
    let mut rows: Vec<Row> = Vec::new();
    let mut drained = Vec::new();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..bench.size.rounds {
        let sink = drain(bench);
        if rows.is_empty() {
            rows = bare::rows_of(&sink.journal);
        }
        fs::remove_dir_all(sink.journal.parent().expect("a folder")).expect("it was the sink's");
        let batch = sink.batch.round() as usize;
        with.push(plain(bench, &rows, batch, Indexes::AsTheSchemaHasThem));
        without.push(plain(bench, &rows, batch, Indexes::None));
        let (sink_rate, with, without) = (sink.per_second, with[round], without[round]);
        println!(
            "# round {}: sink {sink_rate:.0} (batches of {batch}), loop {with:.0}, no index {without:.0}",
            round + 1
        );
        drained.push(sink);
    }
    let of = |value: fn(&Drained) -> f64| median(drained.iter().map(value).collect());
    let over = |rates: &[f64]| median(drained.iter().zip(rates).map(|(sink, rate)| sink.per_second / rate).collect());
    let report = &mut bench.report;
    report.put("ingest_vs_ceiling", over(&with));
    report.put("ingest_vs_bare_table", over(&without));
    report.put("write_amplification", of(|sink| sink.written));
    report.put("rss_mib", of(|sink| sink.peak_mib));
    report.put("ingest_events_per_s", of(|sink| sink.per_second));
    report.put("ingest_rows_a_transaction", of(|sink| sink.batch));
    report.put("ceiling_rows_per_s", median(with));
    report.put("bare_table_rows_per_s", median(without));
    let typical = of(|sink| sink.per_second);
    bench.sink = drained.into_iter().find(|sink| (sink.per_second - typical).abs() < f64::EPSILON);
}

fn plain(bench: &Bench, rows: &[Row], batch: usize, indexes: Indexes) -> f64 {
    let folder = bench.fresh("bare");
    let rate = bare::insert(&folder.join("journal.db"), rows, batch, indexes);
    fs::remove_dir_all(folder).expect("it was just made");
    rate
}
