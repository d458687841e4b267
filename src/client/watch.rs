//! A job's progress, until it ends or nobody wants to see it any more.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::http::Request;
use super::table::escape;
use super::{ClientError, Outcome, Shell, say};

/// Between two looks at the job: quick for a short one, easy on the sink for a long one.
const LOOK_FIRST: Duration = Duration::from_millis(200);
const LOOK_LAST: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A sink that restarts is back within this time, and its jobs go on.
const AWAY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
pub struct Job {
    job_id: i64,
    status: String,
    total: u64,
    pending: u64,
    in_flight: u64,
    acknowledged: u64,
    failed: u64,
    uncertain: u64,
    cancelled: u64,
    rate: Option<f64>,
    seconds_left: Option<f64>,
    waiting_for: Option<String>,
}

impl Job {
    /// How far it is, as a line.
    pub fn text(&self) -> String {
        let mut line =
            format!("Job {} is {}: {} of {} acknowledged", self.job_id, self.status, self.acknowledged, self.total);
        let others = [("failed", self.failed), ("uncertain", self.uncertain), ("cancelled", self.cancelled)];
        for (name, count) in others.into_iter().filter(|(_, count)| *count > 0) {
            line += &format!(", {count} {name}");
        }
        if let Some(reason) = &self.waiting_for {
            line += &format!(", waiting: {reason}");
        }
        escape(&line)
    }

    fn has_ended(&self) -> bool {
        // Of a cancelled job some may still be on their way.
        ["finished", "cancelled"].contains(&self.status.as_str()) && self.in_flight == 0
    }

    fn outcome(&self) -> Outcome {
        if self.acknowledged == self.total { Outcome::Done } else { Outcome::NotAll }
    }

    /// What stands beside the bar.
    fn pace(&self) -> String {
        if let Some(reason) = &self.waiting_for {
            return escape(&format!("waiting: {reason}"));
        }
        if self.status != "running" {
            return escape(&self.status);
        }
        let rate = self.rate.map(|rate| format!("{rate:.0}/s")).unwrap_or_default();
        let left = self.seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        left.map_or(rate.clone(), |left| format!("{rate}, {:#} left", HumanDuration(left)))
    }
}

/// Shows a job's progress until it ends, then how it ended.
///
/// # Errors
/// See [`ClientError`]. A sink that is away for a moment is waited for.
pub fn watch(shell: &Shell, id: i64) -> Result<Outcome, ClientError> {
    follow(shell, id, None)
}

/// As [`watch`], of a job that the API has spoken of just now.
pub fn watch_started(shell: &Shell, id: i64) -> Result<Outcome, ClientError> {
    follow(shell, id, Some(Instant::now()))
}

fn follow(shell: &Shell, id: i64, mut heard: Option<Instant>) -> Result<Outcome, ClientError> {
    let request = Request::get(format!("/replay/jobs/{id}"));
    let interrupted = on_interrupt()?;
    let mut progress = Progress::new(id);
    let mut look = LOOK_FIRST;
    loop {
        match shell.client.ask(&request) {
            Ok(answer) => {
                heard = Some(Instant::now());
                let job: Job = answer.read()?;
                if job.has_ended() {
                    progress.bar.finish_and_clear();
                    shell.print(&answer, |job: Job| job.text() + "\n")?;
                    return Ok(job.outcome());
                }
                progress.show(&job);
            }
            Err(error) if error.is_passing() && heard.is_some_and(|heard| heard.elapsed() < AWAY_MAX) => {
                progress.away(&error);
            }
            Err(error) => {
                progress.bar.finish_and_clear();
                if heard.is_some() {
                    say(&format!("Job {id} may go on. Watch it again: crm-events-sink replay watch {id}"));
                }
                return Err(error);
            }
        }
        if interrupted.recv_timeout(look) != Err(RecvTimeoutError::Timeout) {
            progress.bar.finish_and_clear();
            say(&format!(
                "Job {id} goes on.\n  crm-events-sink replay watch {id}\n  crm-events-sink replay cancel {id}"
            ));
            return Ok(Outcome::Left);
        }
        look = (look + LOOK_FIRST / 4).min(LOOK_LAST);
    }
}

/// A bar on a terminal; elsewhere a line now and then.
struct Progress {
    bar: ProgressBar,
    said: Instant,
}

impl Progress {
    fn new(id: i64) -> Progress {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}").expect("it is a template");
        let bar = ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(format!("job {id}"));
        Progress { bar, said: Instant::now() }
    }

    fn show(&mut self, job: &Job) {
        self.bar.set_length(job.total);
        self.bar.set_position(job.total.saturating_sub(job.pending).saturating_sub(job.in_flight));
        self.bar.set_message(job.pace());
        self.line(|| job.text());
    }

    fn away(&mut self, error: &ClientError) {
        let text = escape(&error.to_string());
        self.bar.set_message(text.clone());
        self.line(|| text);
    }

    fn line(&mut self, text: impl FnOnce() -> String) {
        if self.bar.is_hidden() && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            say(&text());
        }
    }
}

/// Ctrl-C leaves the job and its watcher in order; a second one ends the process at once.
fn on_interrupt() -> io::Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interrupt = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let (tell, told) = mpsc::channel();
    let watch = async move {
        interrupt.recv().await;
        tell.send(()).ok();
        interrupt.recv().await;
        std::process::exit(128 + SignalKind::interrupt().as_raw_value());
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(told)
}
