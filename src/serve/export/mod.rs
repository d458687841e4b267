//! Events as a file: page by page from the journal, masked, in one of three formats.

mod csv;
mod mask;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use self::mask::Mask;
use crate::store::{EventDetail, Page, Position, Readers, Search, StoreError};

/// Events that are read at once: after each page its reader is free for others.
const PAGE_EVENTS_MAX: u32 = 1000;
/// How often a page waits for a reader (2 s each) before the export is broken off.
const ATTEMPTS: u32 = 15;
/// Exports at once: each holds a thread of the API.
const EXPORTS_MAX: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    NdJson,
    Csv,
    Sqlite,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::NdJson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Sqlite => "application/vnd.sqlite3",
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Format::NdJson => "ndjson",
            Format::Csv => "csv",
            Format::Sqlite => "sqlite",
        }
    }
}

/// How many exports are on their way.
#[derive(Debug, Default)]
pub struct Exports(Arc<AtomicUsize>);

/// One of them; the next may begin when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Exports {
    /// `None`: there are as many as may be.
    pub fn take(&self) -> Option<Place> {
        let more = |taken| (taken < EXPORTS_MAX).then_some(taken + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Place(Arc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is to be written.
pub struct Export {
    pub readers: Readers,
    pub tenant: Option<String>,
    pub search: Search,
    pub mask: Mask,
    pub events_max: u64,
    pub is_stopping: Box<dyn Fn() -> bool + Send>,
}

impl Export {
    /// Writes all that the search finds of what was there when it began; `count` events so far.
    ///
    /// # Errors
    /// If the journal cannot be read to the end, `to` does not take it, or the sink stops: what was written is not whole.
    pub fn write(&self, format: Format, to: &mut dyn Write, count: &mut u64) -> io::Result<()> {
        match format {
            Format::NdJson => self.each_page(count, |events| events.iter().try_for_each(|event| write_line(event, to))),
            Format::Csv => {
                csv::write_head(to)?;
                self.each_page(count, |events| events.iter().try_for_each(|event| csv::write_row(event, to)))
            }
            Format::Sqlite => {
                let mut copy = self.readers.new_copy().map_err(io::Error::other)?;
                self.each_page(count, |events| copy.add(&events).map_err(io::Error::other))?;
                let mut file = copy.finish().map_err(io::Error::other)?;
                io::copy(&mut file, to).map(drop)
            }
        }
    }

    fn each_page(&self, count: &mut u64, mut write: impl FnMut(Vec<EventDetail>) -> io::Result<()>) -> io::Result<()> {
        // In order of age, the oldest first, an export could run after what comes in for ever.
        let newest = self.readers.latest_events(None, 1).map_err(io::Error::other)?.first().map_or(0, |event| event.id);
        let mut after = None;
        loop {
            if (self.is_stopping)() {
                return Err(io::Error::other("the sink stops"));
            }
            let left = self.events_max - *count;
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_EVENTS_MAX);
            let page = self.page(after.as_ref(), limit).map_err(io::Error::other)?;
            let is_last = page.next.as_ref().is_none_or(|next| next.is_behind(newest, self.search.order));
            let mut events: Vec<EventDetail> = page.events.into_iter().filter(|event| event.id <= newest).collect();
            events.iter_mut().for_each(|event| self.mask.apply(event));
            *count += events.len() as u64;
            write(events)?;
            if is_last || *count >= self.events_max {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Others may have all readers for a while; that must not break an export of an hour off.
    fn page(&self, after: Option<&Position>, limit: u32) -> Result<Page<EventDetail>, StoreError> {
        let read = || self.readers.search_whole(self.tenant.as_deref(), &self.search, after, limit);
        let mut read_page = read();
        for _ in 1..ATTEMPTS {
            if !matches!(read_page, Err(StoreError::Busy)) {
                break;
            }
            read_page = read();
        }
        read_page
    }
}

/// As `GET /events/{id}` has it, on one line. A payload is as it was received but for its line breaks: JSON has them
/// between its values alone, where a space means the same.
fn write_line(event: &EventDetail, to: &mut dyn Write) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    line.push(b'\n');
    to.write_all(&line)
}
