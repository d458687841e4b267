//! Whether a file is a journal that can be worked with. Nothing here changes the file or its write-ahead log: a
//! file that is refused keeps every byte.
//!
//! No look at the file here opens it other than by SQLite: when a process closes any descriptor of a file, POSIX
//! drops all locks that the process has on it, those of its open connections too.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, access};
use rustix::time::{ClockId, clock_gettime};

use super::snapshot::restoring;
use super::{APPLICATION_ID, StoreError, beside, check_head, file_sizes, folder, folder_hint, refuse_newer};

/// How long the look at the pages may take at a start: a small file is seen whole in it, of a big one a part.
/// `crm-events-sink check-journal` takes the time it needs.
const QUICK_CHECK_MAX: Duration = Duration::from_millis(100);
/// … and how long it may take where others use the processor or the disk is slow: a sink is ready in 300 ms.
const QUICK_CHECK_WAIT_MAX: Duration = Duration::from_millis(150);
/// Steps of SQLite between two looks at the clock: well under a millisecond.
const STEPS: i32 = 1000;
/// How long a look waits for another process that has the file for itself.
const PATIENCE: Duration = Duration::from_millis(500);
/// Problems that a whole check lists.
const FINDINGS_MAX: u32 = 100;

/// What every version of the schema has, by the rows that are read from it at a start: the oldest and the newest.
const ENDS: [&str; 6] = [
    "SELECT id, tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, kafka_headers, \
     kafka_timestamp, replay_of FROM event_journal ORDER BY id LIMIT 1",
    "SELECT id, tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key, kafka_headers, \
     kafka_timestamp, replay_of FROM event_journal ORDER BY id DESC LIMIT 1",
    "SELECT id, topic, payload, error, received_at, reason, kafka_partition, kafka_offset, kafka_key, \
     kafka_headers, kafka_timestamp FROM event_dlq ORDER BY id LIMIT 1",
    "SELECT id, topic, payload, error, received_at, reason, kafka_partition, kafka_offset, kafka_key, \
     kafka_headers, kafka_timestamp FROM event_dlq ORDER BY id DESC LIMIT 1",
    "SELECT topic, kafka_partition, next_offset FROM kafka_position ORDER BY topic, kafka_partition LIMIT 1",
    "SELECT topic, kafka_partition, next_offset FROM kafka_position ORDER BY topic DESC, kafka_partition DESC LIMIT 1",
];

/// Checks `journal` before it is opened for writing; whether it could be: a file whose creation was cut short must
/// be put right by SQLite first. `whole_look` reads its pages as well, for [`QUICK_CHECK_MAX`].
pub(super) fn check(journal: &Path, whole_look: bool) -> Result<bool, StoreError> {
    may_be_used(journal)?;
    refuse_log_without_file(journal)?;
    if file_sizes(journal).0 == 0 {
        return Ok(true);
    }
    let connection = open_to_look(journal)?;
    match contents(&connection, journal, whole_look) {
        Err(StoreError::Sqlite(error)) if needs_rollback(&error) => Ok(false),
        checked => checked.map(|()| true),
    }
}

/// Reading takes no part in checkpoints, not even as the last one to close.
pub(super) fn open_to_look(journal: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| StoreError::at(journal, error);
    let connection = Connection::open_with_flags(journal, flags).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    Ok(connection)
}

fn needs_rollback(error: &rusqlite::Error) -> bool {
    error.sqlite_error().map(|error| error.extended_code) == Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

/// Whether the system lets this process read and write there at all.
fn may_be_used(journal: &Path) -> Result<(), StoreError> {
    let refused = |error: rustix::io::Errno| StoreError::from_io(journal, "cannot use the journal", &error.into());
    match journal.metadata() {
        Ok(metadata) if metadata.is_file() => access(journal, Access::READ_OK | Access::WRITE_OK).map_err(refused),
        Ok(_) => Err(StoreError::unusable(journal, "this is no file; set journal.path to a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            access(folder(journal), Access::WRITE_OK | Access::EXEC_OK).map_err(refused)
        }
        Err(error) => Err(StoreError::from_io(journal, "cannot read the journal", &error)),
    }
}

/// What a restore that was cut short left is put right by another one.
/// A write-ahead log whose file is gone or empty may hold all there is; SQLite would throw it away.
pub(super) fn refuse_log_without_file(journal: &Path) -> Result<(), StoreError> {
    let restoring = restoring(journal);
    if file_sizes(journal).0 == 0 && restoring.exists() {
        let what = format!(
            "a restore was cut short before {} took the journal's place; run `crm-events-sink restore` again",
            restoring.display()
        );
        return Err(StoreError::unusable(journal, what));
    }
    match file_sizes(journal) {
        (0, wal) if wal > 0 => Err(StoreError::damaged(
            journal,
            format!(
                "the file is missing or empty, while its write-ahead log {} has {wal} bytes",
                beside(journal, "-wal").display()
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether an open file holds our tables, with rows that can be read.
pub(super) fn contents(connection: &Connection, journal: &Path, whole_look: bool) -> Result<(), StoreError> {
    let failed = |error| StoreError::at(journal, error);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    refuse_newer(journal, number("PRAGMA user_version")?)?;
    let is_ours = number("PRAGMA application_id")? == APPLICATION_ID;
    if !is_ours {
        // Without a table it is a journal whose first transaction did not come about.
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        return if tables == 0 { Ok(()) } else { Err(StoreError::foreign(journal)) };
    }
    if whole_look {
        refuse_cut_short(connection, journal)?;
    }
    for sql in ENDS {
        read_rows(connection, sql).map_err(|error| not_ours(journal, error))?;
    }
    let identity = "SELECT count(*) FROM journal_info WHERE name = 'journal_id'";
    let identities: i64 =
        connection.query_row(identity, [], |row| row.get(0)).map_err(|error| not_ours(journal, error))?;
    if identities == 0 {
        return Err(StoreError::damaged(journal, "it has no journal_id"));
    }
    if whole_look && let Some(what) = quick_check(connection).map_err(failed)? {
        return Err(StoreError::damaged(journal, what));
    }
    Ok(())
}

/// Marked as ours, but without our tables or columns.
fn not_ours(journal: &Path, error: rusqlite::Error) -> StoreError {
    let said = match &error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    match StoreError::at(journal, error) {
        StoreError::Unusable { .. } => StoreError::damaged(journal, format!("its tables are not the sink's: {said}")),
        error => error,
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Reads every column to its end: a long value lies on pages of its own.
fn read_rows(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut select = connection.prepare(sql)?;
    let columns = select.column_count();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            row.get_ref(column)?;
        }
    }
    Ok(())
}

/// Looks at the pages until the time is up; the first thing that is wrong.
fn quick_check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let (deadline, used_before) = (Instant::now() + QUICK_CHECK_WAIT_MAX, processor_time());
    let is_enough = move || processor_time() - used_before >= QUICK_CHECK_MAX || Instant::now() >= deadline;
    connection.progress_handler(STEPS, Some(is_enough))?;
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(what) if is_damage(&what) => Ok(Some(one_line(&what))),
        Ok(_) => Ok(None),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `Tree 6 page 85: …` without the line that names the database.
fn one_line(finding: &str) -> String {
    finding.trim_start_matches("*** in database main ***").trim().replace('\n', ", ")
}

/// A row that does not obey a rule which an operator added is none.
pub(super) fn is_damage(finding: &str) -> bool {
    finding != "ok" && !finding.starts_with("CHECK constraint failed") && !finding.starts_with("NULL value in ")
}

/// SQLite itself refuses a file that ends before its last page, but not while the write-ahead log has newer pages:
/// those must then be there.
fn refuse_cut_short(connection: &Connection, journal: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::at(journal, error);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0).map(u64::from)).map_err(failed);
    let (page_size, pages) = (number("PRAGMA page_size")?, number("PRAGMA page_count")?);
    let there = file_sizes(journal).0 / page_size;
    if there >= pages {
        return Ok(());
    }
    let in_log = pages_in_log(&beside(journal, "-wal"), page_size)
        .map_err(|error| StoreError::from_io(journal, "cannot read the write-ahead log", &error))?;
    match (there + 1..=pages).find(|page| !in_log.contains(page)) {
        None => Ok(()),
        Some(page) => Err(StoreError::damaged(
            journal,
            format!("the file was cut short: it has {there} of {pages} pages, and page {page} is nowhere else"),
        )),
    }
}

/// The pages of a write-ahead log (<https://sqlite.org/fileformat2.html#the_write_ahead_log>): a head of 32 bytes,
/// then frames of 24 bytes and a page. Those of an earlier round have other salts than the head.
fn pages_in_log(wal: &Path, page_size: u64) -> io::Result<HashSet<u64>> {
    let mut log = File::open(wal)?;
    let (mut head, mut frame) = ([0; 32], [0; 24]);
    let mut pages = HashSet::new();
    let frames = log.metadata()?.len().saturating_sub(32) / (24 + page_size);
    if frames > 0 {
        log.read_exact(&mut head)?;
    }
    for number in 0..frames {
        log.seek(SeekFrom::Start(32 + number * (24 + page_size)))?;
        log.read_exact(&mut frame)?;
        if frame[8..16] != head[16..24] {
            break;
        }
        pages.insert(u64::from(u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])));
    }
    Ok(pages)
}

/// Whether a journal can be worked with, as a start of the sink looks at it: it only reads, for a second at most.
///
/// # Errors
/// If it cannot.
pub fn look_quickly(journal: &Path) -> Result<(), StoreError> {
    check_head(journal)?;
    check(journal, true).map(|_| ())
}

/// `crm-events-sink check-journal`: reads every page, row and index, and calls `tick` every now and then; what is
/// wrong, nothing if all is well. It works while the sink runs, and only reads.
///
/// # Errors
/// If the file is not a journal, or cannot be read.
pub fn check_whole(journal: &Path, mut tick: impl FnMut() + Send + 'static) -> Result<Vec<String>, StoreError> {
    check_head(journal)?;
    if file_sizes(journal).0 == 0 {
        return Err(StoreError::unusable(journal, format!("there is no journal to check; {}", folder_hint(journal))));
    }
    let connection = open_to_look(journal)?;
    contents(&connection, journal, true)?;
    let failed = |error| StoreError::at(journal, error);
    let ticking = move || {
        tick();
        false
    };
    connection.progress_handler(STEPS, Some(ticking)).map_err(failed)?;
    let mut findings = integrity(&connection).map_err(failed)?;
    if findings.is_empty() {
        // A flipped bit inside a text is no fault of the file's structure.
        let sql = "SELECT count(*) FROM event_journal WHERE NOT json_valid(payload)";
        let invalid: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
        findings.extend((invalid > 0).then(|| format!("the payload of {invalid} events is not JSON any more")));
    }
    Ok(findings)
}

/// What SQLite finds wrong in pages, rows and indexes.
pub(super) fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = connection.prepare(&format!("PRAGMA integrity_check({FINDINGS_MAX})"))?;
    let found = check.query_map([], |row| row.get::<_, String>(0))?;
    let found = found.map(|finding| finding.map(|finding| one_line(&finding)));
    found.filter(|finding| !finding.as_ref().is_ok_and(|finding| finding == "ok")).collect()
}
