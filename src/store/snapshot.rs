//! Copies of the journal for backups: made while a sink writes, looked through, and put in the journal's place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::quarantine::move_aside;
use super::{Lock, StoreError, beside, check, check_head, file_sizes, folder, journal_info};

/// Steps of SQLite between two calls of a tick.
const STEPS: i32 = 10_000;

/// What a journal, or a copy of one, holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalContents {
    pub journal_id: String,
    pub events: i64,
    pub dead_letters: i64,
    /// Of these, the ones that nothing was done about.
    pub open_letters: i64,
    /// Of the newest event, UTC.
    pub newest_received_at: Option<String>,
    /// Where reading goes on, in the order of topic and partition.
    pub offsets: Vec<NextOffset>,
    /// Erasures that were asked for, ever.
    pub erasures: i64,
    /// Bulk replays that would go on at a start.
    pub running_jobs: i64,
    /// The highest id that each table has given, ever.
    last_ids: BTreeMap<String, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextOffset {
    pub topic: String,
    pub partition: i32,
    /// Logs of this name before this one.
    pub epoch: i64,
    pub next_offset: i64,
}

impl JournalContents {
    /// The highest id that `table` has given, ever; 0 before the first.
    pub fn last_id(&self, table: &str) -> i64 {
        self.last_ids.get(table).copied().unwrap_or(0)
    }

    fn read(connection: &Connection) -> rusqlite::Result<JournalContents> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let number_of = |table: &str, sql: &str| if has_table(connection, table)? { number(sql) } else { Ok(0) };
        let newest = "SELECT received_at FROM event_journal ORDER BY id DESC LIMIT 1";
        Ok(JournalContents {
            journal_id: journal_info(connection, "journal_id")?,
            events: number("SELECT count(*) FROM event_journal")?,
            dead_letters: number("SELECT count(*) FROM event_dlq")?,
            open_letters: open_letters(connection)?,
            newest_received_at: connection.query_row(newest, [], |row| row.get(0)).optional()?,
            offsets: offsets(connection)?,
            erasures: number_of("erasure", "SELECT count(*) FROM erasure")?,
            running_jobs: number_of("replay_job", "SELECT count(*) FROM replay_job WHERE state = 'running'")?,
            last_ids: last_ids(connection)?,
        })
    }
}

fn open_letters(connection: &Connection) -> rusqlite::Result<i64> {
    let has_state = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('event_dlq') WHERE name = 'state')";
    // Before there was a state nothing could be done about one.
    let open = if connection.query_row(has_state, [], |row| row.get(0))? { "state = 'open'" } else { "true" };
    connection.query_row(&format!("SELECT count(*) FROM event_dlq WHERE {open}"), [], |row| row.get(0))
}

fn has_table(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    connection.query_row(sql, [table], |row| row.get(0))
}

fn offsets(connection: &Connection) -> rusqlite::Result<Vec<NextOffset>> {
    let has_epoch = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('kafka_position') WHERE name = 'epoch')";
    let has_epoch: bool = connection.query_row(has_epoch, [], |row| row.get(0))?;
    // The first version of the schema knew no epochs.
    let epoch = if has_epoch { "epoch" } else { "0" };
    let sql = format!("SELECT topic, kafka_partition, {epoch}, next_offset FROM kafka_position ORDER BY 1, 2");
    let mut select = connection.prepare(&sql)?;
    let read = |row: &rusqlite::Row| {
        Ok(NextOffset { topic: row.get(0)?, partition: row.get(1)?, epoch: row.get(2)?, next_offset: row.get(3)? })
    };
    select.query_map([], read)?.collect()
}

fn last_ids(connection: &Connection) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut select = connection.prepare("SELECT name, seq FROM sqlite_sequence")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Opens a file that is a journal of this or an older version, to read it.
fn open(journal: &Path) -> Result<Connection, StoreError> {
    check_head(journal)?;
    if file_sizes(journal).0 == 0 {
        return Err(StoreError::unusable(journal, "there is no journal"));
    }
    let connection = check::open_to_look(journal)?;
    check::contents(&connection, journal, false)?;
    Ok(connection)
}

/// Bytes that a copy of the journal takes.
///
/// # Errors
/// If it is not a journal, or cannot be read.
pub fn snapshot_bytes(journal: &Path) -> Result<u64, StoreError> {
    let connection = open(journal)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0).map(u64::from));
    let bytes = || Ok((number("PRAGMA page_count")? - number("PRAGMA freelist_count")?) * number("PRAGMA page_size")?);
    bytes().map_err(|error| StoreError::at(journal, error))
}

/// Copies the journal as it is at one moment into `to`, which is empty, and calls `tick` every now and then. The sink may
/// write meanwhile; only its write-ahead log is not begun again before the copy is made.
///
/// SQLite's backup interface would begin anew at every commit of the sink, and so never end.
///
/// # Errors
/// If it is not a journal, cannot be read, or the copy cannot be written.
pub fn snapshot_into(journal: &Path, to: &Path, mut tick: impl FnMut() + Send + 'static) -> Result<(), StoreError> {
    let connection = open(journal)?;
    let failed = |error| StoreError::at(journal, error);
    let ticking = move || {
        tick();
        false
    };
    connection.progress_handler(STEPS, Some(ticking)).map_err(failed)?;
    let name = to.to_str().ok_or_else(|| StoreError::unusable(to, "a backup's path must be UTF-8"))?;
    connection.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    Ok(())
}

/// What the file holds, at one moment.
///
/// # Errors
/// If it is not a journal, or cannot be read.
pub fn journal_contents(journal: &Path) -> Result<JournalContents, StoreError> {
    let mut connection = open(journal)?;
    let read = connection.transaction().and_then(|snapshot| JournalContents::read(&snapshot));
    read.map_err(|error| StoreError::at(journal, error))
}

/// Reads the pages, rows and indexes of a copy, and calls `tick` every now and then; the first thing that is wrong, if
/// any. What its events say, or an operator's own rules on them, is not looked at.
///
/// # Errors
/// If it is not a journal, or cannot be read.
pub fn check_copy(copy: &Path, mut tick: impl FnMut() + Send + 'static) -> Result<Option<String>, StoreError> {
    let ticking = move || {
        tick();
        false
    };
    let check = || {
        let connection = open(copy)?;
        let failed = |error| StoreError::at(copy, error);
        connection.progress_handler(STEPS, Some(ticking)).map_err(failed)?;
        check::integrity(&connection).map_err(failed)
    };
    match check() {
        Ok(found) => Ok(found.into_iter().find(|finding| check::is_damage(finding))),
        Err(StoreError::Damaged { what, .. }) => Ok(Some(what)),
        Err(error) => Err(error),
    }
}

/// Makes of a checked copy what may take the journal's place. Ids that the journal has given since are not given again.
/// Bulk replays wait until somebody resumes them: what they have sent since, the copy does not know.
///
/// # Errors
/// If the copy cannot be written.
pub fn prepare_copy(copy: &Path, now: Option<&JournalContents>) -> Result<(), StoreError> {
    let failed = |error| StoreError::at(copy, error);
    let mut connection = Connection::open(copy).map_err(failed)?;
    let prepare = |connection: &mut Connection| {
        let transaction = connection.transaction()?;
        for (table, id) in now.into_iter().flat_map(|now| &now.last_ids) {
            let known =
                transaction.execute("UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (table, id))?;
            if known == 0 && has_table(&transaction, table)? {
                transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", (table, id))?;
            }
        }
        if has_table(&transaction, "replay_job")? {
            transaction.execute("UPDATE replay_job SET state = 'paused' WHERE state = 'running'", [])?;
        }
        transaction.commit()
    };
    prepare(&mut connection).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))
}

/// Puts `copy`, a file in the journal's folder, in the journal's place, and moves what stood there aside; its new name.
/// Should this be cut short, the next start of a sink refuses to go on, and another restore ends it.
///
/// # Errors
/// If the system refuses.
pub fn put_in_place(_lock: &Lock, journal: &Path, copy: &Path, now: Timestamp) -> Result<Option<PathBuf>, StoreError> {
    let failed = |doing: &'static str| move |error: io::Error| StoreError::from_io(journal, doing, &error);
    give_away(journal, copy).map_err(failed("cannot give the restored journal its owner"))?;
    let restoring = restoring(journal);
    fs::rename(copy, &restoring).map_err(failed("cannot move the restored journal"))?;
    sync_folder(journal).map_err(failed("cannot sync the folder"))?;
    // To the microsecond: what two restores in a row replaced are two files.
    let aside = beside(journal, &format!(".replaced-{}", now.strftime("%Y%m%dT%H%M%S%.6fZ")));
    let moved = move_aside(journal, &aside)?;
    fs::rename(&restoring, journal).map_err(failed("cannot put the restored journal in its place"))?;
    sync_folder(journal).map_err(failed("cannot sync the folder"))?;
    Ok((moved > 0).then_some(aside))
}

/// The checked copy, while what it replaces is moved aside.
pub(super) fn restoring(journal: &Path) -> PathBuf {
    beside(journal, ".restoring")
}

/// The sink must be able to write what somebody else, as root, restores: as it was its own before, or its folder is.
fn give_away(journal: &Path, copy: &Path) -> io::Result<()> {
    let owner = fs::metadata(journal).or_else(|_| fs::metadata(folder(journal)))?;
    let lock = beside(journal, ".lock");
    for path in [copy, &lock] {
        let file = File::open(path)?;
        let is = file.metadata()?;
        if (is.uid(), is.gid()) != (owner.uid(), owner.gid()) {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    let file = File::open(copy)?;
    if owner.is_file() {
        file.set_permissions(fs::Permissions::from_mode(owner.mode() & 0o777))?;
    }
    file.sync_all()
}

fn sync_folder(journal: &Path) -> io::Result<()> {
    File::open(folder(journal))?.sync_all()
}
