//! Opening the journal: at once if the box is well, else by the writer's thread, as soon as it is.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{PART, RETRY_AFTER, RETRY_DAMAGED_AFTER};
use crate::config::Config;
use crate::health::{Health, JOURNAL};
use crate::shutdown::Shutdown;
use crate::store::{Lock, Need, Readers, Reserve, Rules, StoreError, Writer};

/// A journal that is being opened. A fault of the box that may pass does not end the start: the sink runs without
/// its file until it can be had, keeps its place in Kafka's group, and answers what it can.
pub struct Opening {
    path: PathBuf,
    /// Held as long as anybody holds this.
    lock: Arc<OnceLock<Lock>>,
    rules: Rules,
    reserve: Reserve,
    readers: Readers,
    health: Arc<Health>,
    shutdown: Arc<Shutdown>,
}

impl Opening {
    pub fn new(config: &Config, readers: &Readers, health: &Arc<Health>, shutdown: &Arc<Shutdown>) -> Opening {
        let need = Need {
            reserve_bytes: config.journal.reserve_bytes,
            transaction_bytes_max: config.write.batch_bytes_max as u64,
        };
        Opening {
            path: config.journal.path.clone(),
            lock: Arc::default(),
            rules: super::rules(config),
            reserve: Reserve::new(&config.journal.path, need),
            readers: readers.clone(),
            health: Arc::clone(health),
            shutdown: Arc::clone(shutdown),
        }
    }

    /// Keeps another instance away from the journal for as long as what this returns is kept.
    ///
    /// # Errors
    /// What will not pass by itself. What may pass is health's to say.
    pub fn lock(&mut self) -> Result<Arc<OnceLock<Lock>>, StoreError> {
        let locked = self.try_lock();
        self.pass_over(locked)?;
        Ok(Arc::clone(&self.lock))
    }

    /// The writer, if the box is well.
    ///
    /// # Errors
    /// As [`Opening::lock`].
    pub fn open(&mut self) -> Result<Option<Writer>, StoreError> {
        if self.lock.get().is_none() {
            return Ok(None);
        }
        let opened = Writer::open(&self.path, self.rules);
        self.pass_over(opened)
    }

    /// For the writer's thread: tries until the journal is open, unless it is already. `None` if the sink stops
    /// before that.
    pub fn finish(mut self, opened: Option<Writer>) -> Option<(Writer, Reserve)> {
        let mut writer = opened;
        let mut retry_after = RETRY_AFTER;
        while writer.is_none() {
            if self.shutdown.wait(retry_after) {
                return None;
            }
            match self.try_lock().and_then(|()| Writer::open_after_fault(&self.path, self.rules)) {
                Ok(open) => writer = Some(open),
                Err(error) => {
                    retry_after = if error.is_damage() { RETRY_DAMAGED_AFTER } else { RETRY_AFTER };
                    self.fault(&error);
                }
            }
        }
        self.readers.keep_open();
        self.health.well(PART);
        self.health.well(JOURNAL);
        Some((writer?, self.reserve))
    }

    fn try_lock(&mut self) -> Result<(), StoreError> {
        if self.lock.get().is_none() {
            // Only this thread sets it.
            self.lock.set(Lock::acquire(&self.path)?).ok();
        }
        Ok(())
    }

    fn pass_over<T>(&mut self, done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.is_passing() => {
                self.fault(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn fault(&mut self, error: &StoreError) {
        if error.is_full() {
            self.reserve.give_up();
        }
        if error.is_damage() {
            self.health.fault(JOURNAL, error.to_string());
        }
        let waits = "the journal is not open yet: consumption waits, nothing is lost, and it goes on by itself";
        self.health.fault(PART, format!("{error}; {waits}"));
    }
}
