//! Which events have a newer one of their key: an event's history does not end with it, and who replays it takes the
//! receivers back to an old state.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use super::segment::ids_of;
use crate::job::Filter;

/// Keys that are looked up one by one; of more, a segment's keys are all read.
const SOUGHT_MAX: usize = 16;

const KEYS: &str = "SELECT id, kafka_key FROM event_journal INDEXED BY event_journal_key \
     WHERE id >> 10 = ?1 AND kafka_key IS NOT NULL";
const KEY: &str = "SELECT id, kafka_key FROM event_journal INDEXED BY event_journal_key \
     WHERE id >> 10 = ?1 AND kafka_key = ?2";
const REPLAYS: &str = "SELECT id FROM event_journal INDEXED BY event_journal_replays \
     WHERE replay_of IS NOT NULL AND id >= ?1 AND id < ?2";

/// The keys of the events so far, from the newest one back; replays aside.
pub(super) struct NewerEvents<'a> {
    connection: &'a Connection,
    /// The only keys that matter.
    sought: Option<Vec<Value>>,
    /// Digests of 128 bits, salted: millions of keys take 16 bytes each, and no two of them are taken for one.
    seen: HashSet<u128>,
    salts: [RandomState; 2],
}

impl<'a> NewerEvents<'a> {
    /// For the events that `filter` means.
    pub fn new(connection: &'a Connection, filter: &Filter) -> rusqlite::Result<NewerEvents<'a>> {
        let sought = match (&filter.key, &filter.event_ids) {
            (Some(key), _) => Some(vec![Value::Text(key.clone())]),
            (None, Some(ids)) if ids.len() <= SOUGHT_MAX => Some(keys_of(connection, ids)?),
            _ => None,
        };
        Ok(NewerEvents { connection, sought, seen: HashSet::new(), salts: [RandomState::new(), RandomState::new()] })
    }

    /// Those of a segment's events `ids` that have a newer one of their key. Segments are given from the newest back, all
    /// of them.
    pub fn superseded(&mut self, segment: i64, ids: &[i64]) -> rusqlite::Result<HashSet<i64>> {
        let range = ids_of(segment, &(i64::MIN..i64::MAX));
        let mut select = self.connection.prepare_cached(REPLAYS)?;
        let replays = select.query_map([range.start, range.end], |row| row.get(0))?;
        let replays: HashSet<i64> = replays.collect::<Result<_, _>>()?;
        let mut keys = self.keys(segment)?;
        keys.sort_unstable_by(|one, other| other.cmp(one));
        let ids: HashSet<i64> = ids.iter().copied().collect();
        let mut superseded = HashSet::new();
        for (id, digest) in keys {
            if ids.contains(&id) && self.seen.contains(&digest) {
                superseded.insert(id);
            }
            if !replays.contains(&id) {
                self.seen.insert(digest);
            }
        }
        Ok(superseded)
    }

    /// The events of a segment that have a key that matters.
    fn keys(&self, segment: i64) -> rusqlite::Result<Vec<(i64, u128)>> {
        let mut keys = Vec::new();
        match &self.sought {
            None => {
                let mut rows = self.connection.prepare_cached(KEYS)?;
                let mut rows = rows.query([segment])?;
                while let Some(row) = rows.next()? {
                    keys.push((row.get(0)?, self.digest(row.get_ref(1)?)));
                }
            }
            Some(sought) => {
                let mut select = self.connection.prepare_cached(KEY)?;
                for key in sought {
                    let mut rows = select.query((segment, key))?;
                    while let Some(row) = rows.next()? {
                        keys.push((row.get(0)?, self.digest(row.get_ref(1)?)));
                    }
                }
            }
        }
        Ok(keys)
    }

    /// Keys that are text are so because they are UTF-8: their bytes tell them from all others.
    fn digest(&self, key: ValueRef) -> u128 {
        let bytes = key.as_bytes().unwrap_or_default();
        let [one, other] = self.salts.each_ref().map(|salt| u128::from(salt.hash_one(bytes)));
        one << 64 | other
    }
}

fn keys_of(connection: &Connection, ids: &[i64]) -> rusqlite::Result<Vec<Value>> {
    let sql = "SELECT DISTINCT kafka_key FROM event_journal \
               WHERE id IN (SELECT value FROM json_each(?1)) AND kafka_key IS NOT NULL";
    let mut select = connection.prepare_cached(sql)?;
    let keys = select.query_map([serde_json::json!(ids).to_string()], |row| row.get(0))?;
    keys.collect()
}
