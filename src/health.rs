//! What is wrong right now, part by part: `/health` shows it, the log says once when it begins and once when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The part that stands for the journal file itself, whoever meets its fault.
pub const JOURNAL: &str = "journal";

#[derive(Debug)]
struct Fault {
    reason: String,
    since: Instant,
    /// Whether the log has it.
    logged: bool,
}

impl Fault {
    fn begin(reason: String) -> Fault {
        Fault { reason, since: Instant::now(), logged: false }
    }
}

#[derive(Debug, Default)]
pub struct Health {
    faults: Mutex<BTreeMap<String, Fault>>,
}

impl Health {
    /// `part` does not work yet, which is no news: nothing is logged.
    pub fn starting(&self, part: &str, reason: &str) {
        self.lock().insert(part.to_owned(), Fault::begin(reason.to_owned()));
    }

    /// `part` does not work. Logged when it begins, not while it lasts; `reason` may become more precise meanwhile.
    pub fn fault(&self, part: &str, reason: String) {
        let mut faults = self.lock();
        let fault = faults.entry(part.to_owned()).or_insert_with(|| Fault::begin(String::new()));
        fault.reason = reason;
        if !std::mem::replace(&mut fault.logged, true) {
            tracing::error!(part, reason = fault.reason, "not working");
        }
    }

    /// `part` works.
    pub fn well(&self, part: &str) {
        if let Some(fault) = self.lock().remove(part) {
            tracing::info!(part, after_seconds = fault.since.elapsed().as_secs_f32(), "working");
        }
    }

    /// What does not work, without how long: the same for as long as nothing changes.
    pub fn faults(&self) -> Vec<String> {
        self.lock().iter().map(|(part, fault)| format!("{part}: {}", fault.reason)).collect()
    }

    /// One sentence a fault, oldest part name first; empty when all is well.
    pub fn reasons(&self) -> Vec<String> {
        let sentence = |(part, fault): (&String, &Fault)| {
            format!("{part}: {} (for {} s)", fault.reason, fault.since.elapsed().as_secs())
        };
        self.lock().iter().map(sentence).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
