//! How far a long verb is, on standard error: a bar on a terminal, else a line a step.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use crate::backup::{Step, Watch};
use crate::client::say;

/// Shows the steps of a backup or a restore while it lives.
pub struct Progress {
    shown: Arc<Mutex<Shown>>,
}

struct Shown {
    step: Option<Step>,
    /// `None`: there is no terminal.
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn start() -> Progress {
        let bar = io::stderr().is_terminal().then(ProgressBar::no_length);
        Progress { shown: Arc::new(Mutex::new(Shown { step: None, bar })) }
    }

    pub fn watch(&self) -> Watch {
        let shown = Arc::clone(&self.shown);
        Arc::new(move |step, done, of| shown.lock().unwrap_or_else(PoisonError::into_inner).show(step, done, of))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown.lock().unwrap_or_else(PoisonError::into_inner).bar {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn show(&mut self, step: Step, done: u64, of: u64) {
        let is_new = self.step.replace(step) != Some(step);
        let Some(bar) = &self.bar else {
            if is_new {
                say(word(step));
            }
            return;
        };
        if is_new {
            let how = match of {
                0 => "{spinner} {msg} {elapsed}",
                _ => "{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left",
            };
            bar.reset();
            bar.set_style(ProgressStyle::with_template(how).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(word(step));
        }
        bar.set_length(of.max(done));
        bar.set_position(done);
        bar.tick();
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Copying => "copying the journal",
        Step::Checking => "checking the copy",
        Step::Compressing => "compressing",
        Step::Reading => "reading it back from the disk",
        Step::Unpacking => "unpacking",
    }
}
