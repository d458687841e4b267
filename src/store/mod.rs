//! The journal file: one [`Writer`], many [`Readers`]. Only this module knows SQL.

mod append;
mod archive;
mod audit;
mod chain;
mod check;
mod copy;
mod coverage;
mod erasure;
mod fault;
mod holders;
mod integrity;
mod jobs;
mod letters;
mod member;
mod newer;
mod outline;
mod overlap;
mod plan;
mod prune;
mod quarantine;
mod query;
mod reserve;
mod retention;
mod row;
mod rows;
mod scrub;
mod search;
mod segment;
mod settle;
mod snapshot;
mod sql;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prune::removal_block;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

pub use append::{Appended, Fate};
pub use archive::JournalRow;
pub use audit::{AuditFilter, AuditRow};
pub use chain::{ChainReport, NotedHead, check_chains, hex};
pub use check::{check_whole, look_quickly};
pub use copy::JournalCopy;
pub use coverage::StoredPosition;
pub use holders::holders;
pub use integrity::{Audit, LogCoverage, audit};
pub use jobs::{Job, JobItem, is_active};
pub use letters::{LetterDetail, LetterGroup, LetterSummary};
pub use outline::outline;
pub use plan::{Choice, Found, Skip};
pub use quarantine::quarantine;
pub use query::{EventDetail, EventSummary, Payload};
pub use reserve::{Need, Reserve, Room, free_bytes};
pub use retention::{Aged, FileRoom, RowCounts};
pub use row::{iso, time_text};
pub use search::{Condition, FoundEvent, Order as SearchOrder, Page, Position, Replays, Search, next_cursor, position};
pub use snapshot::{
    JournalContents, NextOffset, check_copy, journal_contents, prepare_copy, put_in_place, snapshot_bytes,
    snapshot_into,
};
pub use sql::{SqlError, run_sql};
pub use writer::{Rules, Writer};

const SCHEMA: &str = include_str!("../../schema.sql");
/// `PRAGMA user_version` of [`SCHEMA`].
const VERSION: i64 = 6;
/// From version 1 to 2: the ranges are made from the rows.
const MIGRATION_2: &str = include_str!("migration_2.sql");
/// From version 2 to 3.
const MIGRATION_3: &str = include_str!("migration_3.sql");
/// From version 3 to 4.
const MIGRATION_4: &str = include_str!("migration_4.sql");
/// From version 4 to 5.
const MIGRATION_5: &str = include_str!("migration_5.sql");
/// From version 5 to 6: its indexes are made anew, a second or two for each million events.
const MIGRATION_6: &str = include_str!("migration_6.sql");
/// `PRAGMA application_id` of [`SCHEMA`]: "CES1".
const APPLICATION_ID: i64 = 0x4345_5331;

/// How long a writer waits for another process that writes (`crm-events-sink sql`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{path}: another instance of the sink uses this journal; stop it, or give this one a journal.path of its own"
    )]
    Locked { path: PathBuf },
    #[error("{path}: {what}")]
    Unusable { path: PathBuf, what: String },
    #[error(
        "{path}: this is not a journal of the sink, or its head is damaged. The file was left untouched. If it is somebody else's, set journal.path to another file. {WAYS_ON}"
    )]
    Foreign { path: PathBuf },
    #[error("{path}: the journal is damaged: {what}. Nothing of it was changed. {WAYS_ON}")]
    Damaged { path: PathBuf, what: String },
    /// The box is at fault, and may recover.
    #[error("{path}: {what}")]
    Passing { path: PathBuf, what: String, is_full: bool },
    /// No reader became free in time.
    #[error("the journal is busy: no reader became free; try again")]
    Busy,
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// From sysexits.h: 75 in use by another process, 74 it cannot be used.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, StoreError::Locked { .. }) { 75 } else { 74 }
    }

    fn unusable(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Unusable { path: path.to_owned(), what: what.into() }
    }

    /// What was found in the file at `path`.
    pub fn damaged(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), what: what.into() }
    }

    fn foreign(path: &Path) -> StoreError {
        StoreError::Foreign { path: path.to_owned() }
    }
}

/// What to do about a file that is not the journal it should be.
const WAYS_ON: &str = "With the sink stopped, either restore a backup (`crm-events-sink restore FILE`), or run `crm-events-sink quarantine`, which keeps every byte and lets the next start refill a new journal from Kafka";

/// The version of the SQLite inside this program.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Held while a sink uses a journal, so that a second one cannot. The file beside the journal stays; the lock on
/// it ends with the process, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// [`StoreError::Locked`] if another process has it; [`StoreError::Unusable`] if the folder is not writable.
    /// [`StoreError::is_passing`] tells a fault of the box from that.
    pub fn acquire(journal: &Path) -> Result<Lock, StoreError> {
        let path = beside(journal, ".lock");
        let file = match File::options().create(true).truncate(false).write(true).open(&path) {
            // A lock needs no right to write: on a file system that became read-only it is had all the same.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path).map_err(|_| error),
            opened => opened,
        };
        let doing = |verb: &str| format!("cannot {verb} {}", path.display());
        let file = file.map_err(|error| StoreError::from_io(journal, &doing("create"), &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: journal.to_owned() }),
            Err(std::fs::TryLockError::Error(error)) => Err(StoreError::from_io(journal, &doing("lock"), &error)),
        }
    }
}

/// The folder that the journal is in, from where the process stands if its path names none.
pub fn folder(journal: &Path) -> &Path {
    journal.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn folder_hint(journal: &Path) -> String {
    format!("the folder {} must exist and the service's user must be able to write in it", folder(journal).display())
}

fn beside(journal: &Path, suffix: &str) -> PathBuf {
    let mut path = journal.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Sizes in bytes of the journal file and its write-ahead log; 0 where there is none.
pub fn file_sizes(journal: &Path) -> (u64, u64) {
    let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
    (size(journal), size(&beside(journal, "-wal")))
}

/// Why the journal is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// Nothing in this process has opened it yet.
    Start,
    /// The start met a fault of the box that has passed, perhaps.
    Restart,
    /// A fault of the box while it was open. `unsettled`: what the file shows may not be on the disk.
    Fault { unsettled: bool },
}

/// Opens the journal for writing, and makes it where there is none.
///
/// A file that is not a journal, one of a newer version and one that is damaged are left as they are: they are
/// looked at before SQLite may touch them.
fn open_for_writing(path: &Path, occasion: Occasion) -> Result<Connection, StoreError> {
    if occasion == Occasion::Start {
        check_head(path)?;
    }
    let whole_look = matches!(occasion, Occasion::Start | Occasion::Restart);
    let is_checked = check::check(path, whole_look)?;
    let must_settle = match occasion {
        Occasion::Start | Occasion::Restart => file_sizes(path).1 > 0,
        Occasion::Fault { unsettled } => unsettled,
    };
    let failed = |error: rusqlite::Error| StoreError::at(path, error);
    let connection = Connection::open(path).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    if !is_checked {
        check::contents(&connection, path, whole_look)?;
    }
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    refuse_newer(path, version)?;
    if must_settle {
        settle::settle(&connection, path)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    prepare(&connection, path, version).map_err(failed)?;
    if whole_look {
        letters::forsake(&connection).map_err(failed)?;
    }
    Ok(connection)
}

fn prepare(connection: &Connection, path: &Path, version: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    erasure::add_functions(connection)?;
    if version == 0 {
        // Before the first table, or it has no effect; pages that retention frees can then go back to the disk.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192",
    )?;
    // What is deleted or overwritten becomes zeros, always: a page that is split leaves copies behind, of which nobody
    // knows later.
    connection.pragma_update(None, "secure_delete", true)?;
    if version == 0 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA}; COMMIT"))?;
        member::inherit(connection, path)?;
    }
    for (from, migration) in [(1, MIGRATION_2), (2, MIGRATION_3), (3, MIGRATION_4), (4, MIGRATION_5), (5, MIGRATION_6)]
    {
        if version > 0 && version <= from {
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {migration}; COMMIT"))?;
        }
    }
    member::keep(connection, path)
}

fn refuse_newer(path: &Path, version: i64) -> Result<(), StoreError> {
    if version <= VERSION {
        return Ok(());
    }
    Err(StoreError::unusable(
        path,
        format!(
            "the journal has version {version}, this program knows versions up to {VERSION}; install the newer program again. The file was left untouched"
        ),
    ))
}

/// Looks at the 100 bytes that begin every SQLite file (<https://sqlite.org/fileformat2.html#the_database_header>).
/// Only where this process has no connection to the file: see `check.rs`.
fn check_head(path: &Path) -> Result<(), StoreError> {
    check::refuse_log_without_file(path)?;
    let mut head = Vec::with_capacity(100);
    match File::open(path).and_then(|file| file.take(100).read_to_end(&mut head)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::from_io(path, "cannot read the journal", &error)),
    }
    // Zeros with a rollback journal beside them: the power went while the file was made, before its first page was
    // on the disk. SQLite takes back what there is.
    if head.is_empty() || (head.iter().all(|byte| *byte == 0) && beside(path, "-journal").exists()) {
        return Ok(());
    }
    let number = |at: usize| i64::from(u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    if head.len() < 100 || !head.starts_with(b"SQLite format 3\0") || !is_sane(&head) {
        return Err(StoreError::foreign(path));
    }
    if !matches!(number(68), 0 | APPLICATION_ID) {
        return Err(StoreError::foreign(path));
    }
    refuse_newer(path, number(60))
}

/// Whether the page size, the format numbers and the fixed fractions are ones that SQLite writes.
fn is_sane(head: &[u8]) -> bool {
    let page_size = u16::from_be_bytes([head[16], head[17]]);
    let is_page_size = page_size == 1 || (page_size >= 512 && page_size.is_power_of_two());
    is_page_size && head[18..20].iter().all(|format| matches!(format, 1 | 2)) && head[21..24] == [64, 32, 32]
}

/// What the table `journal_info` says of the file: `journal_id`, `member_id`.
fn journal_info(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    let sql = "SELECT value FROM journal_info WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name], |row| row.get(0))
}

/// Read-only connections to the journal, shared by the API's threads.
#[derive(Debug, Clone)]
pub struct Readers {
    pool: r2d2::Pool<SqliteConnectionManager>,
    path: PathBuf,
    /// Whether the pool is in use.
    pooled: Arc<AtomicBool>,
}

impl Readers {
    /// Readers that may be open at once.
    const MAX: u32 = 4;
    /// How long a request waits for one.
    const PATIENCE: Duration = Duration::from_secs(2);
    const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

    /// The journal need not exist yet, and whatever keeps it from being read is the reading's to say.
    pub fn open(path: &Path) -> Readers {
        let manager = SqliteConnectionManager::file(path).with_flags(Readers::FLAGS).with_init(Readers::set_up);
        let pool = r2d2::Pool::builder()
            .max_size(Readers::MAX)
            .min_idle(Some(0))
            .connection_timeout(Readers::PATIENCE)
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager);
        Readers { pool, path: path.to_owned(), pooled: Arc::default() }
    }

    /// The writer has opened the journal: from now on readers stay open. Before, one that stayed could keep the
    /// writer out: on a file system that was read-only when it came, it holds the log's index read-only for the
    /// whole process.
    pub fn keep_open(&self) {
        self.pooled.store(true, Ordering::Release);
    }

    /// What tells this journal from any other.
    ///
    /// # Errors
    /// If the journal cannot be read now.
    pub fn journal_id(&self) -> Result<String, StoreError> {
        Ok(journal_info(&*self.get()?, "journal_id")?)
    }

    /// Says more of an error that reading met: which file is damaged, or that there is none yet.
    pub fn explain(&self, error: StoreError) -> StoreError {
        let version = |reader: Reader| reader.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let is_made = || self.get().is_ok_and(|reader| version(reader).is_ok_and(|version| version > 0));
        match &error {
            StoreError::Sqlite(_) if error.is_damage() => error.located(&self.path),
            StoreError::Sqlite(_) if !error.is_passing() && !is_made() => self.unreadable("there is no journal yet"),
            _ => error,
        }
    }

    fn get(&self) -> Result<Reader, StoreError> {
        if !self.path.exists() {
            return Err(self.unreadable("there is no journal yet"));
        }
        if self.pooled.load(Ordering::Acquire) {
            match self.pool.get() {
                Ok(reader) => return Ok(Reader::Pooled(reader)),
                Err(_) if self.pool.state().connections > 0 => return Err(StoreError::Busy),
                // None can be opened: the next line says why.
                Err(_) => {}
            }
        }
        let opened = Connection::open_with_flags(&self.path, Readers::FLAGS)
            .and_then(|mut reader| Readers::set_up(&mut reader).map(|()| reader));
        opened.map(Reader::Single).map_err(|error| match StoreError::at(&self.path, error) {
            error if error.is_passing() => self.unreadable(&format!("the journal cannot be read: {error}")),
            error => error,
        })
    }

    fn set_up(reader: &mut Connection) -> rusqlite::Result<()> {
        reader.busy_timeout(Readers::PATIENCE)?;
        letters::add_functions(reader)?;
        erasure::add_functions(reader)?;
        reader.execute_batch(
            "PRAGMA query_only = 1; PRAGMA trusted_schema = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048",
        )
    }

    fn unreadable(&self, what: &str) -> StoreError {
        let what = format!("{what}; GET /health says why, try again");
        StoreError::Passing { path: self.path.clone(), what, is_full: false }
    }
}

/// A connection for one reading.
enum Reader {
    Pooled(r2d2::PooledConnection<SqliteConnectionManager>),
    Single(Connection),
}

impl std::ops::Deref for Reader {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Reader::Pooled(connection) => connection,
            Reader::Single(connection) => connection,
        }
    }
}
