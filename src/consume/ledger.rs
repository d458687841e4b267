//! Who of a group has which offsets of a partition: kept as the metadata of the group's committed offset, so it is
//! handed on with the partition. Pure.
//!
//! `ces1;TOPIC_ID;MEMBER:FROM;MEMBER:FROM…`: each member holds from its offset up to the next one's, the last up to
//! the committed offset. Kafka's limit on the metadata is 4096 bytes (`offset.metadata.max.bytes`).

use std::fmt::Write as _;

const FORMAT: &str = "ces1";
/// Runs that are kept: the older ones are forgotten. 32 of at most 53 bytes fit Kafka's limit twice.
const RUNS_MAX: usize = 32;

/// From `from` on, `member` took the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub member: String,
    pub from: i64,
}

/// The runs of one partition, in the order of their offsets, up to the committed offset `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub topic_id: String,
    pub runs: Vec<Run>,
    pub end: i64,
}

/// Offsets `first..next` that another member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    pub first: i64,
    pub next: i64,
    pub member: String,
}

impl Ledger {
    /// What a commit of `end` with this metadata says; `None` if no sink wrote it.
    pub fn read(metadata: &str, end: i64) -> Option<Ledger> {
        let mut parts = metadata.split(';');
        if parts.next() != Some(FORMAT) {
            return None;
        }
        let topic_id = parts.next()?.to_owned();
        let run = |text: &str| {
            let (member, from) = text.rsplit_once(':')?;
            Some(Run { member: member.to_owned(), from: from.parse().ok()? })
        };
        let runs: Vec<Run> = parts.map(run).collect::<Option<_>>()?;
        let ordered = runs.is_sorted_by_key(|run| run.from) && runs.last().is_none_or(|last| last.from <= end);
        (ordered && !runs.is_empty()).then_some(Ledger { topic_id, runs, end })
    }

    pub fn text(&self) -> String {
        let mut text = format!("{FORMAT};{}", self.topic_id);
        for run in &self.runs {
            write!(text, ";{}:{}", run.member, run.from).expect("writing to memory does not fail");
        }
        text
    }

    /// The ledger after `member` reads on from `from`, which is not before the group's committed offset.
    pub fn continued(before: Option<&Ledger>, topic_id: &str, member: &str, from: i64) -> Ledger {
        let mut runs = before.map_or_else(Vec::new, |ledger| ledger.runs.clone());
        if runs.last().is_none_or(|last| last.member != member) {
            runs.push(Run { member: member.to_owned(), from });
        }
        let forgotten = runs.len().saturating_sub(RUNS_MAX);
        runs.drain(..forgotten);
        Ledger { topic_id: topic_id.to_owned(), runs, end: from }
    }

    /// What others hold at or after `offset`, in order. What came before the first run nobody claims.
    pub fn elsewhere(&self, own: &str, offset: i64) -> Vec<Elsewhere> {
        let ends = self.runs.iter().skip(1).map(|run| run.from).chain([self.end]);
        let foreign = self.runs.iter().zip(ends).filter(|(run, next)| run.member != own && *next > offset);
        let range =
            |(run, next): (&Run, i64)| Elsewhere { first: run.from.max(offset), next, member: run.member.clone() };
        foreign.map(range).filter(|range| range.first < range.next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(runs: &[(&str, i64)], end: i64) -> Ledger {
        let runs = runs.iter().map(|(member, from)| Run { member: (*member).to_owned(), from: *from }).collect();
        Ledger { topic_id: "id".to_owned(), runs, end }
    }

    #[test]
    fn what_a_commit_says_is_read_back() {
        let ledger = ledger(&[("aa", 0), ("bb", 100), ("aa", 200)], 250);
        assert_eq!(ledger.text(), "ces1;id;aa:0;bb:100;aa:200");
        assert_eq!(Ledger::read(&ledger.text(), 250), Some(ledger));
        for foreign in ["", "anything", "ces1;id", "ces1;id;aa", "ces1;id;aa:x", "ces1;id;aa:9;bb:3", "ces1;id;aa:999"]
        {
            assert_eq!(Ledger::read(foreign, 250), None, "{foreign:?}");
        }
    }

    #[test]
    fn each_member_sees_what_the_others_hold() {
        let ledger = ledger(&[("aa", 0), ("bb", 100), ("aa", 200)], 250);
        let range = |first, next, member: &str| Elsewhere { first, next, member: member.to_owned() };
        assert_eq!(ledger.elsewhere("aa", 0), [range(100, 200, "bb")]);
        assert_eq!(ledger.elsewhere("aa", 120), [range(120, 200, "bb")]);
        assert_eq!(ledger.elsewhere("aa", 200), []);
        assert_eq!(ledger.elsewhere("bb", 0), [range(0, 100, "aa"), range(200, 250, "aa")]);
        let continued = Ledger::continued(Some(&ledger), "id", "bb", 250);
        assert_eq!(continued.text(), "ces1;id;aa:0;bb:100;aa:200;bb:250");
        assert_eq!(Ledger::continued(Some(&ledger), "id", "aa", 250).runs, ledger.runs);
    }

    #[test]
    fn the_metadata_stays_within_kafkas_limit() {
        let member = |n: usize| format!("{n:016x}");
        let mut ledger = Ledger::continued(None, &"i".repeat(22), &member(0), i64::MAX - 1000);
        for n in 1..1000 {
            ledger = Ledger::continued(Some(&ledger), &"i".repeat(22), &member(n % 7), i64::MAX - 1000 + n as i64);
        }
        assert!(ledger.text().len() < 4096 / 2, "{}", ledger.text().len());
    }
}
