//! The ceiling: a plain loop that puts the same rows into the same file with the same durability, and does nothing else.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use crm_events_sink::dead_letter::breaker::Limits;
use crm_events_sink::store::{Rules, Writer};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::records::{TENANTS, TOPICS};
use super::sink::reader;

/// Pages of the log after which the sink copies it into the file: `CHECKPOINT_PAGES` of src/store/writer.rs.
const CHECKPOINT_PAGES: i32 = 1000;
const INSERT: &str = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, \
                      kafka_timestamp) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)";
const ADVANCE: &str = "INSERT INTO kafka_position (topic, kafka_partition, next_offset, journaled) VALUES (?1,?2,?3,?4) \
                       ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset, journaled = journaled + excluded.journaled";

thread_local! {
    /// Pages in the log after the last commit: SQLite's hook takes no state of ours.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

pub struct Row {
    tenant: &'static str,
    topic: String,
    payload: String,
    partition: i64,
    offset: i64,
    key: String,
    timestamp: i64,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Indexes {
    AsTheSchemaHasThem,
    None,
}

/// The rows of a journal, in their order, in memory.
pub fn rows_of(journal: &Path) -> Vec<Row> {
    let reader = reader(journal).expect("the sink left it whole");
    let sql = "SELECT tenant_id, topic, payload, kafka_partition, kafka_offset, kafka_key, kafka_timestamp FROM event_journal \
               ORDER BY id";
    let mut select = reader.prepare(sql).expect("the table is there");
    let row = |row: &rusqlite::Row| {
        let tenant: String = row.get(0)?;
        let tenant = TENANTS.into_iter().find(|own| *own == tenant).expect("one of ours");
        let (topic, payload, partition) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Row { tenant, topic, payload, partition, offset: row.get(4)?, key: row.get(5)?, timestamp: row.get(6)? })
    };
    let rows = select.query_map([], row).expect("it can be read");
    rows.collect::<Result<_, _>>().expect("the records have keys and times")
}

pub fn writer(journal: &Path) -> Writer {
    let dead_letters = Limits { consecutive_max: 100, ratio_max: 0.5 };
    Writer::open(journal, Rules { dead_letters, halt_on_gap: false, chain: false }).expect("a journal")
}

/// Rows a second.
pub fn insert(journal: &Path, rows: &[Row], batch: usize, indexes: Indexes) -> f64 {
    let connection = open(journal, indexes);
    let began = Instant::now();
    for batch in rows.chunks(batch) {
        connection.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
        append(&connection, batch).expect("there is room");
        connection.execute_batch("COMMIT").expect("there is room");
        if LOG_PAGES.get() >= CHECKPOINT_PAGES {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("there is room");
        }
    }
    rows.len() as f64 / began.elapsed().as_secs_f64()
}

/// The sink makes the file, so that it is the same; what holds for a connection only is set as in src/store/mod.rs.
fn open(journal: &Path, indexes: Indexes) -> Connection {
    drop(writer(journal));
    let connection = Connection::open(journal).expect("it was just made");
    if indexes == Indexes::None {
        drop_indexes(&connection);
    }
    let settings = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 16777216; \
                    PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192; PRAGMA secure_delete = ON";
    connection.execute_batch(settings).expect("SQLite knows them");
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("nobody else has it");
    LOG_PAGES.set(0);
    connection.wal_hook(Some(|_, pages| {
        LOG_PAGES.set(pages);
        Ok(())
    }));
    connection
}

fn drop_indexes(connection: &Connection) {
    let sql = "SELECT format('DROP INDEX %s', name) FROM sqlite_schema \
               WHERE type = 'index' AND tbl_name = 'event_journal' AND sql IS NOT NULL";
    let mut select = connection.prepare(sql).expect("a statement");
    let drops = select.query_map([], |row| row.get(0)).expect("rows");
    let drops: Vec<String> = drops.collect::<Result<_, _>>().expect("texts");
    for drop in drops {
        connection.execute_batch(&drop).expect("it is there");
    }
}

fn append(connection: &Connection, batch: &[Row]) -> rusqlite::Result<()> {
    let received_at = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    let mut insert = connection.prepare_cached(INSERT)?;
    let mut taken: HashMap<(&str, i64), (i64, i64)> = HashMap::with_capacity(3 * TOPICS.len());
    for row in batch {
        let Row { tenant, topic, payload, partition, offset, key, timestamp } = row;
        insert.execute(params![tenant, topic, payload, received_at, partition, offset, key, timestamp])?;
        let (next_offset, journaled) = taken.entry((topic, *partition)).or_default();
        (*next_offset, *journaled) = (offset + 1, *journaled + 1);
    }
    let mut advance = connection.prepare_cached(ADVANCE)?;
    for ((topic, partition), (next_offset, journaled)) in taken {
        advance.execute(params![topic, partition, next_offset, journaled])?;
    }
    Ok(())
}
