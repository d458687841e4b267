//! What is read again without a restart, on SIGHUP.

use std::sync::{Mutex, PoisonError};

/// Says what is in force now, or why the old stays.
type ReadAgain = Box<dyn Fn() -> Result<String, String> + Send>;

/// The parts that read something again, by name.
#[derive(Default)]
pub struct Reload(Mutex<Vec<(&'static str, ReadAgain)>>);

impl Reload {
    /// `read_again` must leave the old in force if it fails, and neither of its texts may hold a secret.
    pub fn register(&self, part: &'static str, read_again: impl Fn() -> Result<String, String> + Send + 'static) {
        self.lock().push((part, Box::new(read_again)));
    }

    /// Reads all of it again, one after another, each whatever became of the others. The log says how it went.
    pub fn run(&self) {
        let parts = self.lock();
        if parts.is_empty() {
            tracing::info!("nothing is read again while the sink runs; restart it for changed settings");
        }
        for (part, read_again) in parts.iter() {
            match read_again() {
                Ok(now) => tracing::info!(part, now, "read again"),
                Err(error) => tracing::error!(part, error, "not read again; the old stays in force"),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, ReadAgain)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
