//! `crm-events-sink verify`: did we miss anything? The files' rows against the ranges they record, the ranges against the
//! broker, and the files of a group against each other. `--chain`: was anything changed since?

mod chain;
mod compare;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use self::chain::{parse_head, verify_chains};
use self::compare::{Partition, compare};
use crate::config::Config;
use crate::consume::{BrokerPartition, BrokerView, ViewError, broker_view};
use crate::store::{Audit, StoreError, audit};

/// How often a sink that lags behind is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is to be verified.
pub struct Verify {
    /// One journal, or those of all members of a group.
    pub journals: Vec<PathBuf>,
    /// Without asking the broker.
    pub offline: bool,
    /// How long a sink that runs may take to store what the broker has now.
    pub wait: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0}")]
    Journal(#[from] StoreError),
    #[error("{0}")]
    Broker(#[from] ViewError),
    #[error("cannot write the report: {0}")]
    Output(#[from] io::Error),
}

/// Writes the report, a line a partition and a line a finding; whether every record that a reader could get stands in
/// the files once.
///
/// # Errors
/// If a file cannot be read, or the broker does not answer.
pub fn verify(config: &Config, verify: &Verify, out: &mut impl Write) -> Result<bool, VerifyError> {
    let mut audits = read(&verify.journals)?;
    let mut partitions = Vec::new();
    if !verify.offline {
        let broker = broker_view(config)?;
        // What the broker has at this moment is what the files are to have.
        partitions = broker.partitions(&topics(&audits))?;
        let deadline = Instant::now() + verify.wait;
        while Instant::now() < deadline && !behind(&broker, &partitions, &audits)?.is_empty() {
            thread::sleep(LOOK_AGAIN);
            audits = read(&verify.journals)?;
        }
        let left = behind(&broker, &partitions, &audits)?;
        for partition in &mut partitions {
            // A tail of transaction markers is nothing to wait for.
            if !left.contains(&(partition.topic.clone(), partition.partition)) {
                partition.high = partition.high.min(next_offset(&audits, partition).max(partition.low));
            }
        }
    }
    let compared = compare(&audits, &partitions);
    report(verify, &audits, &compared, out)?;
    Ok(compared.iter().all(Partition::is_complete) && audits.iter().all(|audit| audit.findings.is_empty()))
}

fn read(journals: &[PathBuf]) -> Result<Vec<Audit>, StoreError> {
    journals.iter().map(|journal| audit(journal)).collect()
}

fn topics(audits: &[Audit]) -> BTreeSet<String> {
    audits.iter().flat_map(|audit| &audit.logs).map(|log| log.topic.clone()).collect()
}

/// How far the file that is furthest has read the log.
fn next_offset(audits: &[Audit], partition: &BrokerPartition) -> i64 {
    let logs = audits.iter().flat_map(|audit| &audit.logs).filter(|log| {
        log.current
            && log.topic == partition.topic
            && log.partition == partition.partition
            && (log.topic_id == partition.topic_id || log.topic_id.is_none())
    });
    logs.map(|log| log.next_offset).max().unwrap_or(0)
}

/// The partitions of which the broker has records that no file has read yet.
fn behind(
    broker: &BrokerView,
    partitions: &[BrokerPartition],
    audits: &[Audit],
) -> Result<BTreeSet<(String, i32)>, ViewError> {
    let mut found = BTreeSet::new();
    for partition in partitions {
        let from = next_offset(audits, partition).max(partition.low);
        if from < partition.high && broker.has_record(&partition.topic, partition.partition, from)? {
            found.insert((partition.topic.clone(), partition.partition));
        }
    }
    Ok(found)
}

fn report(verify: &Verify, audits: &[Audit], compared: &[Partition], out: &mut impl Write) -> io::Result<()> {
    for partition in compared {
        writeln!(out, "{}", partition.line())?;
        for finding in &partition.findings {
            writeln!(out, "  {finding}")?;
        }
    }
    for (journal, audit) in verify.journals.iter().zip(audits) {
        for finding in &audit.findings {
            writeln!(out, "{}: {finding}", journal.display())?;
        }
    }
    let records: i64 = audits.iter().flat_map(|audit| &audit.logs).map(|log| log.stored + log.dead_lettered).sum();
    let broker = if verify.offline { "the broker was not asked" } else { "compared with the broker" };
    writeln!(out, "{records} records in {} file(s), {} partitions, {broker}", audits.len(), compared.len())
}
