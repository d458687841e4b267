//! Copies in the unused parts of pages. SQLite zeroes what is deleted (`secure_delete`), but not what it moves to another
//! page when it splits or joins some: of 1,000 keys that were erased from an index of random keys about two were left
//! between a page's pointers and its cells. The bytes there mean nothing to SQLite, so zeros may take their place.

use std::ops::Range;

use rusqlite::{Connection, TransactionBehavior};

use super::{Readers, StoreError, Writer};

/// The b-trees with what is erased: tables and their indexes.
const TREES: &str =
    "SELECT name FROM sqlite_schema WHERE rootpage > 0 AND tbl_name IN ('event_journal', 'event_dlq', 'replay_job')";
/// A page that begins with one of these holds cells: interior and leaf of an index, interior and leaf of a table
/// (<https://sqlite.org/fileformat2.html#b_tree_pages>).
const INTERIOR: [u8; 2] = [2, 5];
const LEAF: [u8; 2] = [10, 13];
/// In a file with more pages than this, a page of another kind may begin so too: with the number of the next one.
const PAGES_MAX: i64 = 0x0200_0000;

/// What of a page lies between its pointers and its cells; none where it is not a page with cells.
fn unused(page: &[u8]) -> Option<Range<usize>> {
    let head = match page.first()? {
        kind if INTERIOR.contains(kind) => 12,
        kind if LEAF.contains(kind) => 8,
        _ => return None,
    };
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*page.get(at)?, *page.get(at + 1)?])));
    let (from, to) = (head + 2 * number(3)?, number(5)?);
    (from < to && to <= page.len()).then_some(from..to)
}

fn is_clean(page: &[u8]) -> bool {
    unused(page).is_none_or(|range| page[range].iter().all(|byte| *byte == 0))
}

fn page_count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA page_count", [], |row| row.get(0))
}

impl Readers {
    /// The pages that have something in their unused part. Reads all of the journal's tables and indexes.
    pub fn pages_to_scrub(&self) -> Result<Vec<u32>, StoreError> {
        let reader = self.get()?;
        let snapshot = reader.unchecked_transaction()?;
        let trees = snapshot.prepare(TREES)?.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        let mut walk =
            snapshot.prepare("SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype <> 'overflow' AND pageno > 1")?;
        let mut read = snapshot.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        let mut pages = Vec::new();
        for tree in trees {
            let mut found = walk.query([tree])?;
            while let Some(row) = found.next()? {
                let number: u32 = row.get(0)?;
                if !read.query_row([number], |row| Ok(is_clean(row.get_ref(0)?.as_blob()?)))? {
                    pages.push(number);
                }
            }
        }
        Ok(pages)
    }
}

impl Writer {
    /// Zeroes the unused parts of `pages`, those that still hold cells.
    ///
    /// # Errors
    /// A fault of the box.
    pub fn scrub(&mut self, pages: &[u32]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_small = page_count(&transaction)? < PAGES_MAX;
        for number in pages.iter().filter(|_| is_small) {
            let mut read = transaction.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
            let mut page: Vec<u8> = read.query_row([number], |row| row.get(0))?;
            let Some(range) = unused(&page) else { continue };
            page[range].fill(0);
            let mut write = transaction.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
            write.execute((number, page))?;
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::audit::Act;
    use crate::coverage::Begin;
    use crate::dead_letter::breaker::Limits;
    use crate::event::{Bytes, Event, Headers, Position, Record};
    use crate::queue::Item;
    use crate::removal::Scope;
    use crate::store::Rules;

    fn position(offset: i64) -> Position {
        Position { topic: "leads".into(), partition: 0, offset }
    }

    fn event(offset: i64, random: &mut fastrand::Rng) -> Item {
        // Keys of ten tenants among each other, all over the index, so that its pages split everywhere.
        let (number, padding) = (random.u32(0..60_000), "z".repeat(random.usize(0..60)));
        let key = Bytes(format!("lead:{number:06}:t{}:{padding}", offset % 10).into_bytes());
        let (tenant_id, value) = (format!("t{}", offset % 10), Some(b"{}".to_vec()));
        let record = Record {
            position: position(offset),
            key: Some(key),
            value,
            headers: Headers::default(),
            timestamp_ms: None,
        };
        Item::Event(Event { record, tenant_id })
    }

    #[test]
    fn of_keys_that_are_erased_no_copy_is_left_in_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let dead_letters = Limits { consecutive_max: 0, ratio_max: 1.0 };
        let mut writer = Writer::open(&path, Rules { dead_letters, halt_on_gap: false, chain: true }).unwrap();
        let begin = Begin { at: position(0), epoch: 0, topic_id: None, new_log: None, gaps: Vec::new() };
        writer.append(&[Item::Begin(begin)], &[], Timestamp::now()).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        for batch in 0..60 {
            let items: Vec<Item> = (batch * 1000..(batch + 1) * 1000).map(|n| event(n, &mut random)).collect();
            writer.append(&items, &[], Timestamp::now()).unwrap();
        }
        let readers = Readers::open(&path);
        let scope = Scope { tenant_id: "t3".to_owned(), key: None, last_event_id: 60_000, last_letter_id: 0 };
        let act = Act::new("anna", "127.0.0.1", "tenant.erase", "tenant t3");
        let id = writer.begin_erasure(&scope, &act, Timestamp::now()).unwrap().certificate;
        loop {
            let (rows, _) = readers.next_to_erase(id, &scope, 0).unwrap();
            if rows.is_empty() {
                break;
            }
            writer.erase(id, &scope, &rows).unwrap().unwrap();
        }
        let copies = || {
            let file = std::fs::read(&path).unwrap();
            // With its digit: in the chain's random bytes the tenant alone would be found now and then.
            file.windows(5).filter(|bytes| bytes[0].is_ascii_digit() && bytes[1..] == *b":t3:").count()
        };
        writer.empty_log().unwrap();
        assert!(copies() > 0, "this shows nothing if SQLite leaves nothing behind");
        writer.scrub(&readers.pages_to_scrub().unwrap()).unwrap();
        let done = writer.finish_erasure(id, &scope, &act, Timestamp::now()).unwrap().unwrap();
        assert_eq!((done.events, copies()), (6000, 0));
        assert_eq!(super::super::check_whole(&path, || {}).unwrap(), [""; 0]);
        assert!(super::super::check_chains(&path, &[]).unwrap().iter().all(super::super::ChainReport::is_whole));
    }

    #[test]
    fn the_unused_part_lies_between_the_pointers_and_the_cells() {
        let mut page = vec![7; 512];
        for (kind, cells, content, range) in [
            (13, 3_u16, 400_u16, Some(14..400)),
            (10, 0, 512, Some(8..512)),
            (2, 5, 100, Some(22..100)),
            (5, 5, 22, None),
            (0, 3, 400, None),
            (13, 3, 513, None),
            (13, 3, 0, None),
        ] {
            page[0] = kind;
            page[3..5].copy_from_slice(&cells.to_be_bytes());
            page[5..7].copy_from_slice(&content.to_be_bytes());
            assert_eq!(unused(&page), range, "kind {kind}, {cells} cells from {content} on");
        }
    }
}
