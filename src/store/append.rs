//! The one write transaction: events, dead letters, the ranges of offsets they fill and the next offsets, all or nothing.

use std::collections::HashSet;

use jiff::Timestamp;

use super::coverage::{Log, Logs, Ranges};
use super::row::{is_constraint, time_text};
use super::rows::{Failure, Isolation, Rows, refused};
use super::{StoreError, Writer, chain, overlap};
use crate::coverage::{Gap, NewLog};
use crate::dead_letter::Reason;
use crate::queue::{Item, Partition, Sighting};

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Journaled,
    DeadLettered(Reason),
    /// The file held it already, or it was no record.
    Skipped,
    /// Its partition is halted, or was given up: it is not in the file, and is read again later.
    Withheld,
}

/// What a transaction did.
#[derive(Debug, Default)]
pub struct Appended {
    /// One for each item.
    pub fates: Vec<Fate>,
    pub gaps: Vec<(Partition, Gap)>,
    pub new_logs: Vec<(Partition, NewLog)>,
    /// Partitions that were halted, and why.
    pub halted: Vec<(Partition, String)>,
}

impl Writer {
    /// Makes `items` durable in one transaction, and gives each one's fate. An item that the file holds already is
    /// skipped, so the call may be repeated. A row that is refused becomes a dead letter; its neighbours are stored.
    ///
    /// # Errors
    /// A fault of the box: nothing of `items` is stored, or (if the commit's outcome is unknown) all of it;
    /// [`Writer::reopen`] finds out.
    pub fn append(
        &mut self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let ended = self.of_ended_logs(items);
        if !ended.is_empty() {
            let live: Vec<Item> =
                (0..).zip(items).filter(|(n, _)| !ended.contains(n)).map(|(_, i)| i.clone()).collect();
            let mut appended = self.append(&live, sightings, now)?;
            let mut fates = appended.fates.into_iter();
            let fate = |n| if ended.contains(&n) { Some(Fate::Skipped) } else { fates.next() };
            appended.fates = (0..items.len()).filter_map(fate).collect();
            return Ok(appended);
        }
        for isolation in [Isolation::None, Isolation::Savepoint] {
            match self.transaction(items, sightings, now, isolation) {
                Ok(appended) => return Ok(appended),
                Err(Failure::Refused(_)) => {}
                Err(Failure::Sqlite(error)) => return Err(error.into()),
            }
        }
        let mut all = Appended::default();
        for item in items {
            let alone = self.append_alone(item, sightings, now)?;
            all.fates.extend(alone.fates);
            all.gaps.extend(alone.gaps);
            all.new_logs.extend(alone.new_logs);
            all.halted.extend(alone.halted);
        }
        Ok(all)
    }

    /// The items of a log that has ended, by a later item that was carried out already: the call is repeated. By the
    /// new log's offsets they would look new.
    fn of_ended_logs(&self, items: &[Item]) -> HashSet<usize> {
        let mut ended = HashSet::new();
        for (number, item) in items.iter().enumerate() {
            let Item::Begin(begin) = item else { continue };
            let partition = item.partition();
            let is_done = self.logs.get(&partition).is_some_and(|log| log.at.epoch >= begin.epoch);
            if begin.new_log.is_some() && is_done {
                ended.extend((0..number).filter(|before| items[*before].partition() == partition));
            }
        }
        ended
    }

    fn append_alone(
        &mut self,
        item: &Item,
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
    ) -> Result<Appended, StoreError> {
        let alone = self.transaction(std::slice::from_ref(item), sightings, now, Isolation::Transaction);
        let again = match (alone, item) {
            (Err(Failure::Refused(error)), Item::Event(event)) => {
                let letter = Item::DeadLetter(refused(event, &error));
                self.transaction(&[letter], sightings, now, Isolation::None)
            }
            (alone, _) => alone,
        };
        again.map_err(|(Failure::Refused(error) | Failure::Sqlite(error))| error.into())
    }

    fn transaction(
        &mut self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        now: Timestamp,
        isolation: Isolation,
    ) -> Result<Appended, Failure> {
        let received = now.max(self.received_floor);
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let filled = self.fill(items, sightings, &time_text(received), isolation);
        let committed = filled.and_then(|filled| {
            match self.connection.execute_batch("COMMIT") {
                Ok(()) => Ok(filled),
                // A constraint that an operator deferred to the commit.
                Err(error) if is_constraint(&error) => Err(Failure::Refused(error)),
                Err(error) => Err(Failure::Sqlite(error)),
            }
        });
        match committed {
            Ok((appended, logs)) => {
                self.logs = logs;
                self.received_floor = received;
                Ok(appended)
            }
            Err(failure) => {
                if !self.connection.is_autocommit() {
                    // Whatever this answers, the batch was not committed; a fault shows at the next BEGIN.
                    self.connection.execute_batch("ROLLBACK").ok();
                }
                Err(failure)
            }
        }
    }

    /// Inserts what is new of `items`; what it did, and the logs after them.
    fn fill(
        &self,
        items: &[Item],
        sightings: &[(Partition, Sighting)],
        received_at: &str,
        isolation: Isolation,
    ) -> Result<(Appended, Logs), Failure> {
        let chain = chain::Head::open(&self.connection)?;
        let (connection, journal_id) = (&self.connection, &*self.journal_id);
        let mut rows = Rows::new(connection, journal_id, received_at, isolation, chain);
        let ranges = Ranges { connection: &self.connection, recorded_at: received_at };
        let compared = self.logs.compares();
        let mut logs = self.logs.clone();
        let mut touched: HashSet<Partition> = HashSet::new();
        let mut appended = Appended::default();
        // Records come in runs of one partition.
        for run in items.chunk_by(|one, next| one.is_beside(next)) {
            let partition = run[0].partition();
            for item in run {
                let fate = self.fill_one(item, &partition, &mut logs, (&mut rows, &ranges), &mut appended)?;
                appended.fates.push(fate);
            }
            touched.insert(partition);
        }
        rows.insert_waiting()?;
        for (partition, sighting) in sightings {
            if let Some(log) = logs.get_mut(partition).filter(|_| touched.contains(partition)) {
                log.see(sighting);
            }
        }
        for partition in &touched {
            let after = logs.get(partition);
            if let Some(after) = after.filter(|after| self.logs.get(partition).map(|log| &log.at) != Some(&after.at)) {
                ranges.save(partition, &after.at)?;
            }
        }
        if (compared || !appended.new_logs.is_empty()) && !logs.compares() {
            self.connection.execute_batch(overlap::DROP_INDEX)?;
        }
        if let Some(chain) = rows.chain.filter(|_| appended.fates.contains(&Fate::Journaled)) {
            chain.save(&self.connection)?;
        }
        Ok((appended, logs))
    }

    fn fill_one<'a>(
        &self,
        item: &'a Item,
        partition: &Partition,
        logs: &mut Logs,
        (rows, ranges): (&mut Rows<'a>, &Ranges),
        appended: &mut Appended,
    ) -> Result<Fate, Failure> {
        if let Item::Begin(begin) = item {
            let known = logs.get(partition).is_some();
            let log = logs.entry(partition);
            let epoch = log.at.epoch;
            let gaps = ranges.begin(partition, log, known, begin)?;
            if let Some(new_log) = begin.new_log.as_ref().filter(|_| known && log.at.epoch != epoch) {
                appended.new_logs.push((partition.clone(), new_log.clone()));
            }
            self.note_gaps(partition, log, gaps, appended);
            return Ok(Fate::Skipped);
        }
        let Some(log) = logs.get_mut(partition).filter(|log| log.takes_records()) else { return Ok(Fate::Withheld) };
        let offset = item.position().offset;
        if let Item::NotDelivered { next_offset, .. } = item {
            let unexplained = ranges.unexplained(partition, log, offset)?;
            log.at.not_delivered += (next_offset - log.at.next_offset).max(0);
            log.at.next_offset = log.at.next_offset.max(*next_offset);
            self.note_gaps(partition, log, unexplained, appended);
            return Ok(Fate::Skipped);
        }
        if offset < log.at.next_offset {
            return Ok(Fate::Skipped);
        }
        let unexplained = ranges.unexplained(partition, log, offset)?;
        self.note_gaps(partition, log, unexplained, appended);
        if log.at.halted.is_some() {
            return Ok(Fate::Withheld);
        }
        let fate = rows.store(item, partition, log)?;
        self.count(fate, log, partition, appended);
        Ok(fate)
    }

    /// Moves the position past a record that is stored.
    fn count(&self, fate: Fate, log: &mut Log, partition: &Partition, appended: &mut Appended) {
        log.at.next_offset += 1;
        if let Fate::DeadLettered(reason) = fate {
            log.at.dead_lettered += 1;
            if let Some(why) = log.breaker.dead_lettered(&self.rules.dead_letters) {
                let why = format!("poisoned: {why}, the last one as {}", reason.as_str());
                appended.halted.push((partition.clone(), why.clone()));
                log.halt(why);
            }
        } else {
            log.at.journaled += 1;
            log.breaker.stored();
        }
    }

    fn note_gaps(
        &self,
        partition: &Partition,
        log: &mut Log,
        gaps: impl IntoIterator<Item = Gap>,
        appended: &mut Appended,
    ) {
        for gap in gaps {
            if self.rules.halt_on_gap && gap.is_loss() {
                let (reason, first) = (gap.reason.as_str(), gap.first_offset);
                let why = format!("gap: offsets {first} to {} are missing ({reason})", gap.next_offset - 1);
                appended.halted.push((partition.clone(), why.clone()));
                log.halt(why);
            }
            appended.gaps.push((partition.clone(), gap));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Act;
    use crate::coverage::{Begin, GapReason};
    use crate::dead_letter::DeadLetter;
    use crate::dead_letter::breaker::Limits;
    use crate::event::{Bytes, Event, Headers, Position, Record};
    use crate::store::Rules;

    fn event(offset: i64) -> Item {
        let position = Position { topic: "leads".into(), partition: 0, offset };
        let value = Some(b"{}".to_vec());
        let record = Record { position, key: None, value, headers: Headers::default(), timestamp_ms: None };
        Item::Event(Event { record, tenant_id: "acme".into() })
    }

    /// With all that a row has; every seventh has a header, so that it is inserted by itself.
    fn whole_event(offset: i64) -> Item {
        let text = |text: String| Bytes(text.into_bytes());
        let record = Record {
            position: Position { topic: format!("topic{}", offset / 50).into(), partition: 0, offset: offset % 50 },
            key: (offset % 3 > 0)
                .then(|| if offset % 5 == 0 { Bytes(vec![0xff]) } else { text(format!("key{offset}")) }),
            value: Some(format!(r#"{{"n":{offset}}}"#).into_bytes()),
            headers: Headers((offset % 7 == 0).then(|| (text("h".to_owned()), None)).into_iter().collect()),
            timestamp_ms: (offset % 2 > 0).then_some(1_762_200_000_000 + offset),
        };
        Item::Event(Event { record, tenant_id: format!("tenant{}", offset % 4) })
    }

    #[test]
    fn rows_that_are_inserted_at_once_are_those_that_are_inserted_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let rows = |name: &str, chain: bool| {
            let mut writer = Writer::open(&folder.path().join(name), Rules { chain, ..RULES }).unwrap();
            let begins = (0..3).map(|number| {
                let at = Position { topic: format!("topic{number}").into(), partition: 0, offset: 0 };
                Item::Begin(Begin { at, epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() })
            });
            let items: Vec<Item> = begins.chain((0..150).map(whole_event)).collect();
            let now = "2025-11-03T20:03:58Z".parse().unwrap();
            writer.append(&items, &[], now).unwrap();
            let sql = "SELECT format('%s %s %s %s %s %s %s %s %s %s %s %s', id, tenant_id, topic, payload, received_at, \
                       kafka_partition, kafka_offset, quote(kafka_key), quote(kafka_headers), quote(kafka_timestamp), \
                       quote(replay_of), kafka_epoch) FROM event_journal ORDER BY id";
            let mut select = writer.connection.prepare(sql).unwrap();
            select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect::<Vec<String>>()
        };
        // The chain takes the rows one by one.
        let (at_once, one_by_one) = (rows("at_once.db", false), rows("one_by_one.db", true));
        assert_eq!(at_once.len(), 150);
        assert_eq!(at_once, one_by_one);
    }

    const RULES: Rules =
        Rules { dead_letters: Limits { consecutive_max: 3, ratio_max: 1.0 }, halt_on_gap: false, chain: true };

    fn begin(offset: i64, epoch: i64, new_log: Option<NewLog>) -> Item {
        let at = Position { topic: "leads".into(), partition: 0, offset };
        Item::Begin(Begin { at, epoch, topic_id: None, new_log, gaps: Vec::new() })
    }

    fn bad(offset: i64) -> Item {
        let Item::Event(event) = event(offset) else { unreachable!("it is made as an event") };
        Item::DeadLetter(DeadLetter { record: event.record, reason: Reason::NotJson, message: String::new() })
    }

    fn writer(folder: &tempfile::TempDir) -> Writer {
        Writer::open(&folder.path().join("journal.db"), RULES).unwrap()
    }

    fn fates(writer: &mut Writer, items: &[Item]) -> Vec<Fate> {
        writer.append(items, &[], Timestamp::now()).unwrap().fates
    }

    fn rows(writer: &Writer) -> i64 {
        writer.connection.query_row("SELECT count(*) FROM event_journal", [], |row| row.get(0)).unwrap()
    }

    /// `first-next kind journaled`, oldest first, the one at the position last.
    fn ranges(writer: &Writer) -> Vec<String> {
        let sql = "SELECT epoch || ': ' || first_offset || '-' || next_offset || ' ' || kind || ' ' || journaled FROM \
                   (SELECT epoch, first_offset, next_offset, kind, journaled FROM kafka_range UNION ALL \
                    SELECT epoch, first_offset, next_offset, 'now', journaled FROM kafka_position) ORDER BY epoch, first_offset, kind";
        let mut select = writer.connection.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_is_appended_again_is_skipped_also_after_the_log_began_again() {
        use Fate::{Journaled, Skipped};
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let first = [begin(7, 0, None), event(7), event(8)];
        assert_eq!(fates(&mut writer, &first), [Skipped, Journaled, Journaled]);
        assert_eq!(fates(&mut writer, &first), [Skipped; 3]);
        let new_log = NewLog { reason: GapReason::Recreated, old_end: 12, compare_from: 9 };
        let again = [begin(0, 1, Some(new_log)), event(0), event(1)];
        assert_eq!(fates(&mut writer, &again), [Skipped, Journaled, Journaled]);
        // The commit's outcome was unknown, and the batch is tried again after a look at the file.
        writer.reopen(true).unwrap();
        assert_eq!(fates(&mut writer, &again), [Skipped; 3]);
        assert_eq!(rows(&writer), 4);
        assert_eq!(ranges(&writer), ["0: 7-9 held 2", "0: 9-12 recreated 0", "1: 0-2 now 2"]);
    }

    #[test]
    fn what_was_read_from_a_new_log_before_that_was_noticed_is_not_stored_twice() {
        use Fate::Journaled;
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1), event(2), event(3)]);
        // Offsets 2 and 3 were the new log's already: the same records come again.
        let new_log = NewLog { reason: GapReason::Recreated, old_end: 4, compare_from: 2 };
        let again = [begin(0, 1, Some(new_log)), event(0), event(1), event(2), event(3), event(4)];
        assert_eq!(fates(&mut writer, &again)[1..], [Journaled; 5]);
        assert_eq!(rows(&writer), 7);
        assert_eq!(ranges(&writer), ["0: 0-2 held 2", "0: 4-4 recreated 0", "1: 0-5 now 5"]);
        let indexes = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%overlap'";
        assert_eq!(writer.connection.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }

    #[test]
    fn a_replay_names_its_row_only_if_that_is_still_the_same_event() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let text = |text: &str| crate::event::Bytes(text.as_bytes().to_vec());
        let replay = |offset: i64, of: &str, place: &str| {
            let Item::Event(mut event) = event(offset) else { unreachable!("it is made as an event") };
            let headers =
                [("crm-replay-of", of), ("crm-replay-journal", &writer.journal_id), ("crm-replay-position", place)];
            event.record.headers = Headers(headers.map(|(name, value)| (text(name), Some(text(value)))).to_vec());
            Item::Event(event)
        };
        // Row 1 is what it was; row 2 got its number after the file was restored; row 9 was deleted since.
        let replays = [replay(2, "1", "leads/0/0"), replay(3, "2", "leads/0/700"), replay(4, "9", "leads/0/9")];
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1)]);
        fates(&mut writer, &replays);
        let sql = "SELECT group_concat(coalesce(replay_of, '-'), ' ') FROM (SELECT * FROM event_journal ORDER BY id)";
        assert_eq!(writer.connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "- - 1 - 9");
    }

    #[test]
    fn a_jump_that_nobody_explains_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let at = Position { topic: "leads".into(), partition: 0, offset: 1 };
        let marker = Item::NotDelivered { at, next_offset: 3 };
        fates(&mut writer, &[begin(0, 0, None), event(0), marker, event(3), event(9)]);
        assert_eq!(ranges(&writer), ["0: 0-4 held 2", "0: 4-9 unexplained 0", "0: 9-10 now 1"]);
    }

    #[test]
    fn too_many_dead_letters_halt_the_partition_until_it_is_resumed_and_begun_again() {
        use Fate::{DeadLettered, Journaled, Skipped, Withheld};
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        let dead = DeadLettered(Reason::NotJson);
        let poisoned = [begin(0, 0, None), bad(0), bad(1), bad(2), event(3)];
        assert_eq!(fates(&mut writer, &poisoned), [Skipped, dead, dead, dead, Withheld]);
        assert_eq!(fates(&mut writer, &[event(4)]), [Withheld]);
        let act = Act::new("anna", "127.0.0.1", "consumer.resume", "every topic");
        assert_eq!(writer.resume(|_| true, &act, Timestamp::now()).unwrap().len(), 1);
        assert_eq!(fates(&mut writer, &[event(5)]), [Withheld], "it was read before the halt was known");
        assert_eq!(fates(&mut writer, &[begin(3, 0, None), event(3)]), [Skipped, Journaled]);
        assert_eq!(ranges(&writer), ["0: 0-4 now 1"]);
        fates(&mut writer, &[bad(4), bad(5), bad(6)]);
        writer.reopen(true).unwrap();
        assert_eq!(writer.halted().len(), 1, "it outlives the process");
        assert_eq!(fates(&mut writer, &[begin(7, 0, None), event(7)]), [Skipped, Withheld]);
    }

    #[test]
    fn whoever_deletes_a_row_the_ranges_know() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder);
        fates(&mut writer, &[begin(0, 0, None), event(0), event(1), event(9), event(10)]);
        writer.connection.execute_batch("DELETE FROM event_journal WHERE kafka_offset IN (0, 10)").unwrap();
        let pruned = "SELECT (SELECT group_concat(pruned) FROM kafka_range WHERE kind = 'held') || ' ' || pruned FROM kafka_position";
        assert_eq!(writer.connection.query_row(pruned, [], |row| row.get::<_, String>(0)).unwrap(), "1 1");
        fates(&mut writer, &[event(11)]);
        assert_eq!(writer.connection.query_row(pruned, [], |row| row.get::<_, String>(0)).unwrap(), "1 1");
    }

    /// What a consumer may hand over next.
    #[derive(Debug, Clone)]
    enum Step {
        Events(u8),
        Bad,
        NotDelivered(u8),
        /// Records go missing between two others.
        Jump(u8),
        /// Retention passed by.
        Expired(u8),
        Recreated,
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            6 => (1..20_u8).prop_map(Step::Events),
            2 => Just(Step::Bad),
            2 => (1..4_u8).prop_map(Step::NotDelivered),
            1 => (1..9_u8).prop_map(Step::Jump),
            1 => (1..9_u8).prop_map(Step::Expired),
            1 => Just(Step::Recreated),
        ]
    }

    fn items(steps: &[Step]) -> Vec<Item> {
        let mut items = vec![begin(0, 0, None)];
        let (mut next, mut epoch) = (0, 0);
        for step in steps {
            match *step {
                Step::Events(count) => items.extend((next..next + i64::from(count)).map(event)),
                Step::Bad => items.push(bad(next)),
                Step::NotDelivered(count) => {
                    let at = Position { topic: "leads".into(), partition: 0, offset: next };
                    items.push(Item::NotDelivered { at, next_offset: next + i64::from(count) });
                }
                Step::Jump(_) => {}
                Step::Expired(count) => {
                    let (first_offset, next_offset) = (next, next + i64::from(count));
                    let gap = Gap { first_offset, next_offset, reason: GapReason::Expired, detail: None };
                    let at = Position { topic: "leads".into(), partition: 0, offset: next_offset };
                    items.push(Item::Begin(Begin { at, epoch, topic_id: None, new_log: None, gaps: vec![gap] }));
                }
                Step::Recreated => {
                    epoch += 1;
                    let new_log = NewLog { reason: GapReason::Recreated, old_end: next, compare_from: next };
                    items.push(begin(0, epoch, Some(new_log)));
                }
            }
            next = match *step {
                Step::Recreated => 0,
                Step::Bad => next + 1,
                Step::Events(n) | Step::NotDelivered(n) | Step::Jump(n) | Step::Expired(n) => next + i64::from(n),
            };
        }
        items
    }

    proptest::proptest! {
        #[test]
        fn the_ranges_have_no_holes_and_say_what_the_rows_are(
            steps in proptest::collection::vec(step(), 1..20),
            cuts in proptest::collection::vec(1..9_usize, 1..60),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = writer(&folder);
            let items = items(&steps);
            let (mut rest, mut cuts) = (&items[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (batch, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                writer.append(batch, &[], Timestamp::now()).unwrap();
                // The outcome was not known, so it is tried once more.
                writer.append(batch, &[], Timestamp::now()).unwrap();
                rest = after;
            }
            let holes = "SELECT count(*) FROM (SELECT first_offset, lag(next_offset, 1, 0) OVER (PARTITION BY epoch ORDER BY first_offset, next_offset) AS before \
                FROM (SELECT epoch, first_offset, next_offset FROM kafka_range UNION ALL SELECT epoch, first_offset, next_offset FROM kafka_position)) \
                WHERE first_offset <> before";
            proptest::prop_assert_eq!(writer.connection.query_row(holes, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
            let audit = super::super::audit(&folder.path().join("journal.db")).unwrap();
            proptest::prop_assert!(audit.findings.is_empty(), "{:?}", audit.findings);
            let records = items.iter().filter(|item| item.record().is_some()).count() as i64;
            let held: i64 = audit.logs.iter().map(|log| log.stored + log.dead_lettered).sum();
            let halted = audit.logs.iter().any(|log| log.halted.is_some());
            proptest::prop_assert!(held == records || halted, "{held} of {records}");
        }
    }
}
