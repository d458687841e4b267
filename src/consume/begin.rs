//! Where reading a partition begins: what the file has, what the group's other members have and what the broker
//! still holds decide. Pure.

use super::ledger::Ledger;
use crate::coverage::{Begin, Gap, GapReason, NewLog};
use crate::event::Position;
use crate::store::StoredPosition;

/// What the broker says of a partition just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The log holds `low..high`.
    pub low: i64,
    pub high: i64,
    pub topic_id: Option<String>,
    /// What the group committed last, if a sink did.
    pub ledger: Option<Ledger>,
}

/// What is to be done with a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Read {
        begin: Begin,
        /// Where another member's offsets begin: there the next decision is due.
        until: Option<i64>,
    },
    /// The file is ahead of the broker's log. After a change of leader that may pass; when it does not, the broker
    /// has lost the end of its log.
    Doubt,
}

/// Decides where `own` reads on. `stored` is what the file has of the partition; `doubted` says that the broker's log
/// has been too short for long enough.
///
/// A file goes on where it ends, so one that was restored from a backup refills itself. What the ledger gives to
/// another member is left to that member. A log with another id, or one that stays too short, is a new log.
pub fn decide(own: &str, at: &Position, stored: Option<&StoredPosition>, facts: &Facts, doubted: bool) -> Decision {
    let is_recreated =
        |stored: &StoredPosition| matches!((&stored.topic_id, &facts.topic_id), (Some(old), Some(new)) if old != new);
    let (next_offset, epoch, new_log) = match stored {
        None => (None, 0, None),
        Some(stored) if is_recreated(stored) => {
            let new_log = NewLog {
                reason: GapReason::Recreated,
                old_end: stored.end_seen.max(stored.next_offset),
                compare_from: stored.verified_offset,
            };
            (None, stored.epoch + 1, Some(new_log))
        }
        Some(stored) if stored.next_offset > facts.high && !doubted => return Decision::Doubt,
        Some(stored) if stored.next_offset > facts.high => {
            let new_log = NewLog { reason: GapReason::Truncated, old_end: stored.next_offset, compare_from: facts.low };
            (None, stored.epoch + 1, Some(new_log))
        }
        Some(stored) => (Some(stored.next_offset), stored.epoch, None),
    };
    // What an old log's members had says nothing of this one; nor does an offset that the log does not reach.
    let current = |ledger: &&Ledger| {
        ledger.end <= facts.high
            && facts.topic_id.as_ref().is_none_or(|id| ledger.topic_id == *id || ledger.topic_id.is_empty())
    };
    let ledger = facts.ledger.as_ref().filter(current);
    let reason = if next_offset.is_none() && epoch == 0 { GapReason::BeforeFirstRead } else { GapReason::Expired };
    let (offset, gaps, until) = walk(own, next_offset.unwrap_or(0), ledger, facts.low, reason);
    let at = Position { offset, ..at.clone() };
    Decision::Read { begin: Begin { at, epoch, topic_id: facts.topic_id.clone(), new_log, gaps }, until }
}

/// The first offset from `offset` on that is for us to read, the gaps before it, and where another member's begin.
fn walk(
    own: &str,
    mut offset: i64,
    ledger: Option<&Ledger>,
    low: i64,
    gone: GapReason,
) -> (i64, Vec<Gap>, Option<i64>) {
    let mut gaps = Vec::new();
    for range in ledger.map_or_else(Vec::new, |ledger| ledger.elsewhere(own, offset)) {
        if offset < low.min(range.first) {
            let next_offset = low.min(range.first);
            gaps.push(Gap { first_offset: offset, next_offset, reason: gone, detail: None });
            offset = next_offset;
        }
        if offset < range.first {
            return (offset, gaps, Some(range.first));
        }
        let (reason, detail) = (GapReason::OtherMember, Some(range.member));
        gaps.push(Gap { first_offset: offset, next_offset: range.next, reason, detail });
        offset = range.next;
    }
    if offset < low {
        gaps.push(Gap { first_offset: offset, next_offset: low, reason: gone, detail: None });
        offset = low;
    }
    (offset, gaps, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consume::ledger::Run;

    fn stored(next_offset: i64) -> StoredPosition {
        StoredPosition {
            next_offset,
            topic_id: Some("t1".to_owned()),
            verified_offset: 40,
            ..StoredPosition::default()
        }
    }

    fn facts(low: i64, high: i64) -> Facts {
        Facts { low, high, topic_id: Some("t1".to_owned()), ledger: None }
    }

    fn with_ledger(facts: Facts, runs: &[(&str, i64)], end: i64) -> Facts {
        let runs = runs.iter().map(|(member, from)| Run { member: (*member).to_owned(), from: *from }).collect();
        Facts { ledger: Some(Ledger { topic_id: "t1".to_owned(), runs, end }), ..facts }
    }

    fn read(stored: Option<&StoredPosition>, facts: &Facts) -> (Begin, Option<i64>) {
        let at = Position { topic: "leads".into(), partition: 0, offset: 0 };
        match decide("me", &at, stored, facts, true) {
            Decision::Read { begin, until } => (begin, until),
            Decision::Doubt => panic!("doubted for long enough"),
        }
    }

    fn gap(first_offset: i64, next_offset: i64, reason: GapReason) -> Gap {
        let detail = (reason == GapReason::OtherMember).then(|| "other".to_owned());
        Gap { first_offset, next_offset, reason, detail }
    }

    #[test]
    fn a_file_goes_on_where_it_ends_and_a_new_one_at_the_beginning() {
        let (begin, until) = read(Some(&stored(50)), &facts(0, 90));
        assert_eq!((begin.at.offset, begin.gaps, until), (50, vec![], None));
        let (begin, _) = read(None, &facts(0, 90));
        assert_eq!((begin.at.offset, begin.gaps), (0, vec![]));
        let (begin, _) = read(None, &facts(7, 90));
        assert_eq!((begin.at.offset, begin.gaps), (7, vec![gap(0, 7, GapReason::BeforeFirstRead)]));
    }

    #[test]
    fn what_retention_took_is_a_loss_that_is_named() {
        let (begin, _) = read(Some(&stored(50)), &facts(60, 90));
        assert_eq!((begin.at.offset, begin.gaps), (60, vec![gap(50, 60, GapReason::Expired)]));
    }

    #[test]
    fn a_single_box_that_was_restored_refills_and_a_member_goes_on_where_the_group_is() {
        let own = with_ledger(facts(0, 300), &[("me", 0)], 200);
        assert_eq!(read(Some(&stored(50)), &own).0.at.offset, 50, "the commit is this box's own");
        let member = with_ledger(facts(0, 300), &[("me", 0), ("other", 100)], 200);
        let (begin, until) = read(Some(&stored(100)), &member);
        assert_eq!((begin.at.offset, until), (200, None));
        assert_eq!(begin.gaps, [gap(100, 200, GapReason::OtherMember)]);
        // Both at once: restored to 50, then another member took over at 100.
        let (begin, until) = read(Some(&stored(50)), &member);
        assert_eq!((begin.at.offset, begin.gaps, until), (50, vec![], Some(100)));
        let (begin, _) = read(None, &with_ledger(facts(0, 300), &[("other", 0)], 200));
        assert_eq!((begin.at.offset, begin.gaps), (200, vec![gap(0, 200, GapReason::OtherMember)]), "a new member");
    }

    #[test]
    fn a_commit_that_is_no_sinks_or_of_an_old_log_decides_nothing() {
        let mut old = with_ledger(facts(0, 300), &[("other", 0)], 200);
        old.ledger.as_mut().unwrap().topic_id = "t0".to_owned();
        assert_eq!(read(Some(&stored(50)), &old).0.at.offset, 50);
        let beyond = with_ledger(facts(0, 100), &[("other", 0)], 200);
        assert_eq!(read(Some(&stored(50)), &beyond).0.at.offset, 50);
    }

    #[test]
    fn another_id_or_a_log_that_stays_too_short_is_a_new_log() {
        let recreated = Facts { topic_id: Some("t2".to_owned()), ..facts(0, 300) };
        let before = StoredPosition { end_seen: 70, ..stored(50) };
        let (begin, _) = read(Some(&before), &recreated);
        let new_log = NewLog { reason: GapReason::Recreated, old_end: 70, compare_from: 40 };
        assert_eq!((begin.at.offset, begin.epoch, begin.new_log), (0, 1, Some(new_log)));
        let at = Position { topic: "leads".into(), partition: 0, offset: 0 };
        assert_eq!(decide("me", &at, Some(&stored(50)), &facts(0, 30), false), Decision::Doubt);
        let (begin, _) = read(Some(&stored(50)), &facts(0, 30));
        let new_log = NewLog { reason: GapReason::Truncated, old_end: 50, compare_from: 0 };
        assert_eq!((begin.at.offset, begin.epoch, begin.new_log), (0, 1, Some(new_log)));
    }

    /// One step in the life of a partition that three boxes share.
    #[derive(Debug, Clone)]
    enum Step {
        /// A member gets the partition, reads so many records, and gives it up in order.
        Read { member: usize, records: i64 },
        /// … or dies after its file's commit and before Kafka's.
        Die { member: usize, records: i64 },
        /// A member's file is put back to what it was so many steps ago.
        Restore { member: usize, steps: usize },
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            4 => (0..3_usize, 0..40_i64).prop_map(|(member, records)| Step::Read { member, records }),
            1 => (0..3_usize, 1..40_i64).prop_map(|(member, records)| Step::Die { member, records }),
            1 => (0..3_usize, 1..6_usize).prop_map(|(member, steps)| Step::Restore { member, steps }),
        ]
    }

    /// A member's file: where it reads on, and the offsets it holds.
    #[derive(Debug, Clone, Default)]
    struct File {
        next_offset: Option<i64>,
        held: Vec<i64>,
        explained: Vec<i64>,
    }

    const END: i64 = 300;

    /// `member` reads up to `records` records; the ledger after it, if that was committed.
    fn read_on(file: &mut File, member: usize, records: i64, group: Option<&Ledger>) -> Option<Ledger> {
        let own = format!("member-{member}");
        let facts = Facts { ledger: group.cloned(), ..facts(0, END) };
        let mut left = records;
        let mut ledger = None;
        loop {
            let before = file.next_offset.map(stored);
            let at = Position { topic: "leads".into(), partition: 0, offset: 0 };
            let Decision::Read { begin, until } = decide(&own, &at, before.as_ref(), &facts, false) else {
                panic!("the log never shrinks")
            };
            let from = before.map_or(0, |stored| stored.next_offset);
            let explained: Vec<i64> = begin.gaps.iter().flat_map(|gap| gap.first_offset..gap.next_offset).collect();
            assert_eq!(explained, (from..begin.at.offset).collect::<Vec<_>>(), "every offset passed over is explained");
            file.explained.extend(explained);
            let end = until.unwrap_or(END).min(begin.at.offset + left);
            file.held.extend(begin.at.offset..end);
            left -= end - begin.at.offset;
            file.next_offset = Some(end);
            let known = facts.ledger.as_ref();
            let began = known.map_or(begin.at.offset, |ledger| ledger.end.max(begin.at.offset));
            let continued = Ledger::continued(known, "t1", &own, began);
            if end >= continued.end {
                ledger = Some(Ledger { end, ..continued });
            }
            if until != Some(end) || left == 0 {
                return ledger.or_else(|| group.cloned());
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_happens_to_a_group_no_record_is_missing_and_only_a_death_doubles(steps in proptest::collection::vec(step(), 1..25)) {
            let mut files = vec![File::default(); 3];
            let mut history: Vec<Vec<File>> = vec![files.clone()];
            let mut group: Option<Ledger> = None;
            for step in &steps {
                match step {
                    Step::Read { member, records } => {
                        group = read_on(&mut files[*member], *member, *records, group.as_ref());
                    }
                    Step::Die { member, records } => {
                        read_on(&mut files[*member], *member, *records, group.as_ref());
                    }
                    Step::Restore { member, steps } => {
                        let then = history.len().saturating_sub(*steps).min(history.len() - 1);
                        files[*member] = history[then][*member].clone();
                    }
                }
                history.push(files.clone());
            }
            // Everybody gets the partition once more: a restored file is refilled by its own box only.
            for (member, file) in files.iter_mut().enumerate() {
                group = read_on(file, member, END, group.as_ref());
            }
            for file in &files {
                let mut once = file.held.clone();
                once.dedup();
                proptest::prop_assert!(once.is_sorted() && once.len() == file.held.len(), "within a file a record stands once");
                proptest::prop_assert_eq!(file.held.len() + file.explained.len(), file.next_offset.unwrap_or(0) as usize);
            }
            let count = |offset: i64| files.iter().filter(|file| file.held.contains(&offset)).count();
            let died = steps.iter().any(|step| matches!(step, Step::Die { .. }));
            for offset in 0..END {
                proptest::prop_assert!(count(offset) >= 1, "{} is missing", offset);
                proptest::prop_assert!(died || count(offset) == 1, "{} is doubled", offset);
            }
        }
    }
}
