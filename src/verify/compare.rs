//! The ranges of several files beside each other, and beside what the broker has. Pure.

use std::collections::BTreeMap;

use crate::consume::BrokerPartition;
use crate::store::{Audit, LogCoverage};

/// What was found of one partition.
#[derive(Debug)]
pub struct Partition {
    topic: String,
    partition: i32,
    records: i64,
    broker: Option<(i64, i64)>,
    /// One sentence each.
    pub findings: Vec<String>,
    complete: bool,
}

impl Partition {
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn line(&self) -> String {
        let word = if self.complete { "complete" } else { "NOT COMPLETE" };
        let broker = self.broker.map_or_else(String::new, |(low, high)| format!(", the broker has {low} up to {high}"));
        format!("{}/{}: {word}, {} records{broker}", self.topic, self.partition, self.records)
    }
}

/// Compares what `audits` hold of each partition with the others and with the broker.
pub fn compare(audits: &[Audit], broker: &[BrokerPartition]) -> Vec<Partition> {
    let mut found: BTreeMap<(String, i32), Vec<(&Audit, &LogCoverage)>> = BTreeMap::new();
    for partition in broker {
        found.entry((partition.topic.clone(), partition.partition)).or_default();
    }
    for audit in audits {
        for log in &audit.logs {
            found.entry((log.topic.clone(), log.partition)).or_default().push((audit, log));
        }
    }
    let on_broker = |topic: &str, number: i32| broker.iter().find(|p| p.topic == topic && p.partition == number);
    let partition = |((topic, number), logs): ((String, i32), Vec<_>)| {
        let on_broker = on_broker(&topic, number);
        compare_partition(topic, number, &logs, on_broker)
    };
    found.into_iter().map(partition).collect()
}

fn compare_partition(
    topic: String,
    partition: i32,
    logs: &[(&Audit, &LogCoverage)],
    broker: Option<&BrokerPartition>,
) -> Partition {
    let mut result = Partition {
        topic,
        partition,
        records: logs.iter().map(|(_, log)| log.stored + log.dead_lettered).sum(),
        broker: broker.map(|broker| (broker.low, broker.high)),
        findings: Vec::new(),
        complete: true,
    };
    result.find_recorded(logs);
    // Offsets of logs with different ids are not the same records.
    let mut by_id: BTreeMap<Option<&str>, Vec<(&Audit, &LogCoverage)>> = BTreeMap::new();
    for (audit, log) in logs.iter().filter(|(_, log)| log.current) {
        by_id.entry(log.topic_id.as_deref()).or_default().push((audit, log));
    }
    for logs in by_id.values() {
        result.find_doubled(logs);
    }
    if let Some(broker) = broker {
        let current = by_id.get(&broker.topic_id.as_deref()).or_else(|| by_id.get(&None));
        result.find_missing(current.map_or(&[], Vec::as_slice), broker);
    }
    result
}

impl Partition {
    fn fault(&mut self, finding: String) {
        self.findings.push(finding);
        self.complete = false;
    }

    /// The gaps that the files record, and what is known beside them.
    fn find_recorded(&mut self, logs: &[(&Audit, &LogCoverage)]) {
        let one_file = logs.iter().all(|(audit, _)| audit.member_id == logs[0].0.member_id);
        for (audit, log) in logs {
            for gap in &log.gaps {
                let who = gap.member.as_ref().map_or_else(String::new, |member| format!(" {member}"));
                let sentence = format!(
                    "{} to {} are not in the file of {}: {}{who}, recorded {}",
                    gap.first, gap.last, audit.member_id, gap.reason, gap.recorded_at
                );
                if crate::coverage::GapReason::from_word(&gap.reason).is_loss() {
                    self.fault(sentence);
                } else if one_file || gap.member.is_none() {
                    self.findings.push(sentence);
                }
            }
            if log.gaps_left_out > 0 {
                self.findings.push(format!("and {} more gaps; see the table kafka_range", log.gaps_left_out));
            }
            self.complete &= log.is_complete();
            if log.pruned > 0 {
                self.findings.push(format!("{} rows were deleted from the file of {}", log.pruned, audit.member_id));
            }
            if let Some(halted) = &log.halted {
                self.findings.push(format!("halted in the file of {}: {halted}", audit.member_id));
            }
        }
    }

    /// Offsets that more than one file holds.
    fn find_doubled(&mut self, logs: &[(&Audit, &LogCoverage)]) {
        for (number, (one, a)) in logs.iter().enumerate() {
            for (other, b) in &logs[number + 1..] {
                for (first, next) in overlap(&a.held, &b.held) {
                    let last = next - 1;
                    self.fault(format!(
                        "{first} to {last} stand in the files of {} and {}",
                        one.member_id, other.member_id
                    ));
                }
            }
        }
    }

    /// Offsets of the broker that no file holds, and no file explains.
    fn find_missing(&mut self, logs: &[(&Audit, &LogCoverage)], broker: &BrokerPartition) {
        let elsewhere = |member: &Option<String>| member.is_some() && logs.len() > 1;
        let explained = logs.iter().flat_map(|(_, log)| &log.gaps).filter(|gap| !elsewhere(&gap.member));
        let explained = explained.map(|gap| (gap.first, gap.last + 1));
        let held = logs.iter().flat_map(|(_, log)| log.held.iter().copied());
        for (first, next) in uncovered((broker.low, broker.high), held.chain(explained)) {
            self.fault(format!("{first} to {} are on the broker and in no file", next - 1));
        }
    }
}

/// What two lists of ranges have in common. Each list is in order.
fn overlap(a: &[(i64, i64)], b: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut common = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (first, next) = (a[i].0.max(b[j].0), a[i].1.min(b[j].1));
        if first < next {
            common.push((first, next));
        }
        if a[i].1 < b[j].1 { i += 1 } else { j += 1 }
    }
    common
}

/// What of `whole` none of `parts` covers.
fn uncovered(whole: (i64, i64), parts: impl Iterator<Item = (i64, i64)>) -> Vec<(i64, i64)> {
    let mut parts: Vec<(i64, i64)> = parts.collect();
    parts.sort_unstable();
    let (mut from, end) = whole;
    let mut left = Vec::new();
    for (first, next) in parts {
        if first > from && from < end {
            left.push((from, first.min(end)));
        }
        from = from.max(next);
    }
    if from < end {
        left.push((from, end));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_files_both_hold_is_found() {
        assert_eq!(overlap(&[(0, 10), (20, 30)], &[(10, 20)]), []);
        assert_eq!(overlap(&[(0, 10), (20, 30)], &[(5, 25), (29, 40)]), [(5, 10), (20, 25), (29, 30)]);
    }

    #[test]
    fn what_no_file_holds_is_found() {
        assert_eq!(uncovered((0, 10), [].into_iter()), [(0, 10)]);
        assert_eq!(uncovered((0, 10), [(5, 10), (0, 5)].into_iter()), []);
        assert_eq!(uncovered((2, 20), [(0, 4), (6, 8), (7, 12)].into_iter()), [(4, 6), (12, 20)]);
        assert_eq!(uncovered((5, 5), [].into_iter()), []);
    }
}
