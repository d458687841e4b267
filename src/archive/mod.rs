//! The archive: events go to Parquet files in a folder before they are deleted from the journal.
//!
//! In slices, in the order of the ids. A slice's files are written under temporary names, put on the disk, and read back
//! and held against the journal, row by row; then the journal lists them, in one transaction; then they get their names;
//! then the slice may be deleted. A crash in between costs the work since the listing, and nothing is archived twice:
//! what is listed is not written again, and what is not listed has no name yet.

mod check;
mod columns;
mod folder;
mod format;
mod place;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parquet::errors::ParquetError;

pub use check::{Finding, check};
use folder::{Folder, digest_of};
use format::{Reading, Writing};

use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::queue::{Order, OrderError, Orders, RemovalOrder};
use crate::removal::{ArchivedFile, Slice};
use crate::store::{JournalRow, Readers, StoreError};

/// The archive's name in `/health`.
pub const PART: &str = "archive";
/// Events of a slice: it takes some seconds.
const SLICE_ROWS_MAX: u32 = 250_000;
/// Events of a row group, and about how many bytes of them: both are in memory twice at the most.
const GROUP_ROWS_MAX: usize = 20_000;
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How long the writer may take to begin with an order.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files that are read from the listing at once.
const PAGE: u32 = 500;

/// Why events are not archived; they stay in the journal.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{path}: {error}; events are not deleted before they are archived, so make room or mend the folder", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: {error}; events are not deleted before they are archived, so make room or mend the folder", path = path.display())]
    Format { path: PathBuf, error: ParquetError },
    #[error(
        "{path} was read back and holds something else than the journal; its disk is at fault, or somebody changed the journal meanwhile",
        path = path.display()
    )]
    Differs { path: PathBuf },
    #[error(
        "events {first_id} to {last_id}: {found} of {rows} were found by tenant; run crm-events-sink check-journal"
    )]
    Incomplete { first_id: i64, last_id: i64, rows: i64, found: i64 },
    #[error(
        "{folder} is not the folder that the archive of this journal is in ({mark} is not there). Is its disk mounted? To go on in a new folder, make {mark} in it",
        folder = folder.display()
    )]
    Foreign { folder: PathBuf, mark: String },
    #[error("archive.folder is not set, and the archive has files of this tenant: set it, so that they can be removed")]
    Off,
    #[error("the sink is stopping")]
    Stopping,
    #[error("{0}")]
    Journal(#[from] StoreError),
    #[error("{0}")]
    Order(#[from] OrderError),
}

impl ArchiveError {
    fn format(path: &Path, error: ParquetError) -> ArchiveError {
        ArchiveError::Format { path: path.to_owned(), error }
    }
}

pub struct Archive {
    /// `None`: it is off.
    folder: Option<PathBuf>,
    readers: Readers,
    orders: Orders,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    turn: Mutex<()>,
}

impl Archive {
    pub fn new(
        config: &Config,
        readers: Readers,
        orders: Orders,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Archive {
        let folder = config.archive.folder.clone();
        let folder = (!folder.as_os_str().is_empty()).then_some(folder);
        Archive { folder, readers, orders, metrics, health, turn: Mutex::default() }
    }

    /// Archives the next slice of the events up to `last_id` that the archive has not; up to which id events may be
    /// deleted now: `last_id`, unless there are more slices. Where the archive is off, that is all of them.
    ///
    /// # Errors
    /// [`ArchiveError`], which `/health` shows until it has passed: nothing must be deleted.
    pub fn step(&self, last_id: i64, is_stopping: impl Fn() -> bool) -> Result<i64, ArchiveError> {
        let Some(folder) = &self.folder else { return Ok(last_id) };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.archive_next(folder, last_id, &is_stopping);
        match &done {
            Ok(_) => self.health.well(PART),
            Err(ArchiveError::Stopping) => {}
            Err(error) => {
                self.metrics.archive.failures.inc();
                self.health.fault(PART, error.to_string());
            }
        }
        done
    }

    fn archive_next(&self, folder: &Path, last_id: i64, is_stopping: &impl Fn() -> bool) -> Result<i64, ArchiveError> {
        let folder = Folder::open(folder, &self.readers)?;
        folder.settle(&self.readers)?;
        let Some(slice) = self.readers.next_slice(last_id, SLICE_ROWS_MAX)? else { return Ok(last_id) };
        let mut files = Vec::new();
        for (number, tenant) in self.readers.tenants_of(&slice)?.into_iter().enumerate() {
            let temporary = folder.temporary(number);
            files.push(self.write(&folder, &slice, tenant, &temporary, is_stopping)?);
        }
        let found = files.iter().map(|file| file.rows).sum();
        let Slice { first_id, last_id, rows, .. } = slice;
        if found != rows {
            return Err(ArchiveError::Incomplete { first_id, last_id, rows, found });
        }
        self.list(files.clone())?;
        for (number, file) in files.iter().enumerate() {
            folder.name(&folder.temporary(number), &file.path)?;
        }
        self.count(&slice);
        Ok(last_id)
    }

    /// Writes a tenant's events of a slice to a temporary file, and reads it back.
    fn write(
        &self,
        folder: &Folder,
        slice: &Slice,
        tenant: String,
        temporary: &Path,
        is_stopping: &impl Fn() -> bool,
    ) -> Result<ArchivedFile, ArchiveError> {
        let failed = |error| ArchiveError::format(temporary, error);
        let mut writing = Writing::begin(temporary).map_err(failed)?;
        let (mut rows, mut ids) = (0, (0, 0));
        self.each_group(slice, &tenant, is_stopping, |group| {
            ids = (if rows == 0 { group[0].id } else { ids.0 }, group[group.len() - 1].id);
            rows += group.len();
            writing.add(group).map_err(failed)
        })?;
        writing.end().map_err(failed)?;
        let mut reading = Reading::begin(temporary).map_err(failed)?;
        self.each_group(slice, &tenant, is_stopping, |group| match reading.is_next(group).map_err(failed)? {
            true => Ok(()),
            false => Err(ArchiveError::Differs { path: temporary.to_owned() }),
        })?;
        let (sha256, bytes) = digest_of(temporary)?;
        let path = folder.free_name(&sha256, |copy| place::path(slice, &tenant, ids, copy))?;
        Ok(ArchivedFile {
            id: 0,
            path,
            tenant_id: tenant,
            day: slice.day.clone(),
            rows: i64::try_from(rows).unwrap_or(i64::MAX),
            bytes,
            sha256,
            first_event_id: ids.0,
            last_event_id: ids.1,
            written_at: String::new(),
            erased: None,
        })
    }

    fn each_group(
        &self,
        slice: &Slice,
        tenant: &str,
        is_stopping: &impl Fn() -> bool,
        mut body: impl FnMut(&[JournalRow]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut after_id = 0;
        loop {
            if is_stopping() {
                return Err(ArchiveError::Stopping);
            }
            let rows = self.readers.rows_of(slice, tenant, after_id, (GROUP_ROWS_MAX, GROUP_BYTES_MAX))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after_id = last.id;
            body(&rows)?;
        }
    }

    fn list(&self, files: Vec<ArchivedFile>) -> Result<(), ArchiveError> {
        let order = |answer| Order::Removal(Box::new(RemovalOrder::ListArchived { files, answer }));
        Ok(self.orders.give(PATIENCE, order)?)
    }

    fn count(&self, slice: &Slice) {
        self.metrics.archive.archived.inc_by(u64::try_from(slice.rows).unwrap_or_default());
        self.measure();
    }

    /// Counts the files that are listed.
    pub fn measure(&self) {
        if let Ok((files, bytes)) = self.readers.archive_size() {
            self.metrics.archive.files.set(files);
            self.metrics.archive.bytes.set(bytes);
        }
    }

    /// Removes the files with a tenant's events up to `last_event_id`, for the erasure with this certificate.
    ///
    /// # Errors
    /// [`ArchiveError`]: some are there still.
    pub fn erase(&self, tenant: &str, last_event_id: i64, erasure: i64) -> Result<(), ArchiveError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = 0;
        loop {
            let page = self.readers.archived_files(Some(tenant), after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            let meant: Vec<ArchivedFile> =
                page.into_iter().filter(|file| file.erased.is_none() && file.last_event_id <= last_event_id).collect();
            if meant.is_empty() {
                continue;
            }
            let folder = Folder::open(self.folder.as_ref().ok_or(ArchiveError::Off)?, &self.readers)?;
            folder.settle(&self.readers)?;
            for file in &meant {
                folder.remove(&file.path)?;
            }
            let ids = meant.iter().map(|file| file.id).collect();
            let order = |answer| Order::Removal(Box::new(RemovalOrder::EraseArchived { erasure, ids, answer }));
            self.orders.give(PATIENCE, order)?;
        }
        self.measure();
        Ok(())
    }
}
