//! The journal file: one [`Writer`], many [`Readers`]. Only this module knows SQL.

mod append;
mod coverage;
mod integrity;
mod overlap;
mod query;
mod sql;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

pub use append::{Appended, Fate, Rules, Writer};
pub use coverage::StoredPosition;
pub use integrity::{Audit, LogCoverage, audit};
pub use query::{DeadLetterDetail, DeadLetterSummary, EventDetail, EventSummary};
pub use sql::{SqlError, run_sql};

const SCHEMA: &str = include_str!("../../schema.sql");
/// `PRAGMA user_version` of [`SCHEMA`].
const VERSION: i64 = 2;
/// From version 1 to 2: the ranges are made from the rows.
const MIGRATION_2: &str = include_str!("migration_2.sql");
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
    /// No reader became free in time.
    #[error("the journal is busy: no reader became free; try again")]
    Busy,
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    fn unusable(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Unusable { path: path.to_owned(), what: what.into() }
    }
}

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
    pub fn acquire(journal: &Path) -> Result<Lock, StoreError> {
        let path = beside(journal, ".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| {
            StoreError::unusable(
                journal,
                format!("cannot create {}: {error}; {}", path.display(), folder_hint(journal)),
            )
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: journal.to_owned() }),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(StoreError::unusable(journal, format!("cannot lock {}: {error}", path.display())))
            }
        }
    }
}

fn folder_hint(journal: &Path) -> String {
    let folder = journal.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    format!("the folder {} must exist and the service's user must be able to write in it", folder.display())
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

/// Opens the journal for writing, and makes it where there is none.
///
/// A file that is not a journal, or one of a newer version, is left as it is: its head is read before SQLite may
/// touch it.
fn open_for_writing(path: &Path) -> Result<Connection, StoreError> {
    check_head(path)?;
    let failed = |error: rusqlite::Error| StoreError::unusable(path, format!("{error}; {}", folder_hint(path)));
    let connection = Connection::open(path).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    refuse_newer(path, version)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    prepare(&connection, version).map_err(failed)?;
    Ok(connection)
}

fn prepare(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if version == 0 {
        // Before the first table, or it has no effect; pages that retention frees can then go back to the disk.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 16777216; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192",
    )?;
    if version == 0 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA}; COMMIT"))?;
    }
    if version == 1 {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {MIGRATION_2}; COMMIT"))?;
    }
    Ok(())
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
fn check_head(path: &Path) -> Result<(), StoreError> {
    let mut head = Vec::with_capacity(100);
    match File::open(path).and_then(|file| file.take(100).read_to_end(&mut head)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::unusable(path, format!("cannot read the journal: {error}"))),
    }
    // Zeros with a rollback journal beside them: the power went while the file was made, before its first page was
    // on the disk. SQLite takes back what there is.
    if head.is_empty() || (head.iter().all(|byte| *byte == 0) && beside(path, "-journal").exists()) {
        return Ok(());
    }
    let number = |at: usize| i64::from(u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    if head.len() < 100 || !head.starts_with(b"SQLite format 3\0") || !matches!(number(68), 0 | APPLICATION_ID) {
        return Err(StoreError::unusable(
            path,
            "this is not a journal of the sink; move it away or set journal.path to another file. The file was left untouched",
        ));
    }
    refuse_newer(path, number(60))
}

/// Read-only connections to the journal, shared by the API's threads.
#[derive(Debug, Clone)]
pub struct Readers {
    pool: r2d2::Pool<SqliteConnectionManager>,
}

impl Readers {
    /// Readers that may be open at once.
    const MAX: u32 = 4;
    /// How long a request waits for one.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// # Errors
    /// If the journal cannot be opened. The writer must have opened it before.
    pub fn open(path: &Path) -> Result<Readers, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let manager = SqliteConnectionManager::file(path).with_flags(flags).with_init(|connection| {
            connection.busy_timeout(Readers::PATIENCE)?;
            connection.execute_batch(
                "PRAGMA query_only = 1; PRAGMA trusted_schema = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048",
            )
        });
        let pool = r2d2::Pool::builder()
            .max_size(Readers::MAX)
            .min_idle(Some(1))
            .connection_timeout(Readers::PATIENCE)
            .build(manager)
            .map_err(|error| StoreError::unusable(path, format!("cannot open the journal for reading: {error}")))?;
        Ok(Readers { pool })
    }

    fn get(&self) -> Result<r2d2::PooledConnection<SqliteConnectionManager>, StoreError> {
        self.pool.get().map_err(|_| StoreError::Busy)
    }
}
