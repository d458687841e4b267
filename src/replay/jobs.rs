//! The jobs that are running, a thread each, and how an operator changes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::run::{Control, Run, Want};
use crate::audit::Act;
use crate::config::Config;
use crate::job::{Change, JobRefusal, Made, NewJob};
use crate::metrics::Metrics;
use crate::queue::{JobOrder, Order, OrderError, Orders};
use crate::shutdown::Shutdown;
use crate::store::{Job, Readers, StoreError};

/// Jobs that may be running or paused at once: each has a thread and a producer.
pub const ACTIVE_MAX: usize = 8;
/// How long the writer may take to begin with what an operator asks for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the jobs of an earlier start are looked for while the journal cannot be read.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a job was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("{0}")]
    Refused(#[from] JobRefusal),
    #[error(
        "{ACTIVE_MAX} jobs are running or paused, and no more may be; wait for one or cancel it (GET /replay/jobs)"
    )]
    TooMany,
    #[error("the job is in the journal and cannot be started now: {0}; it goes on with the sink's next start")]
    NotStarted(String),
    #[error("{0}")]
    Order(#[from] OrderError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What every job's thread uses.
pub struct Shared {
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub readers: Readers,
    pub orders: Orders,
    pub shutdown: Arc<Shutdown>,
}

struct Running {
    control: Arc<Control>,
    thread: JoinHandle<()>,
}

/// How a job is doing just now, beside what the journal says of it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Acknowledged events a second, of late.
    pub rate: f64,
    /// Why nothing is sent.
    pub waiting_for: Option<String>,
}

pub struct Jobs {
    shared: Arc<Shared>,
    running: Mutex<BTreeMap<i64, Running>>,
}

impl Jobs {
    pub fn new(shared: Shared) -> Jobs {
        Jobs { shared: Arc::new(shared), running: Mutex::default() }
    }

    /// Goes on with the jobs that were running when the sink ended, as soon as the journal can be read.
    pub fn go_on(&self) {
        loop {
            match self.shared.readers.unended_jobs() {
                Ok(jobs) => {
                    for job in jobs {
                        let id = job.job_id;
                        if let Err(error) = self.start(&mut self.lock(), job) {
                            tracing::error!(job = id, %error, "a replay job could not go on");
                        }
                    }
                    return;
                }
                Err(_) if self.shared.shutdown.wait(RETRY_AFTER) => return,
                Err(_) => {}
            }
        }
    }

    /// Makes a job and starts it; or finds the one that a request with the same key made.
    ///
    /// # Errors
    /// [`JobError`].
    pub fn make(&self, job: NewJob, act: Act) -> Result<Made, JobError> {
        let mut running = self.lock();
        let is_full = running.len() >= ACTIVE_MAX;
        if is_full && job.idempotency.is_none() {
            return Err(JobError::TooMany);
        }
        let order = |answer| Order::Job(Box::new(JobOrder::Make { job: Box::new(job), act, answer }));
        let made = self.shared.orders.give(PATIENCE, order)??;
        if made.is_new {
            let job = self.shared.readers.job(made.job_id)?.ok_or(JobRefusal::NoSuchJob { id: made.job_id })?;
            self.start(&mut running, job)?;
        }
        Ok(made)
    }

    /// Changes a job. When this returns after a pause or a cancel, nothing more goes to the producer.
    ///
    /// # Errors
    /// [`JobError`]: nothing was changed.
    pub fn change(&self, id: i64, change: Change, act: Act) -> Result<(), JobError> {
        let mut running = self.lock();
        let is_full = running.len() >= ACTIVE_MAX;
        if matches!(change, Change::RetryFailed { .. }) && is_full {
            return Err(JobError::TooMany);
        }
        let control = running.get(&id).map(|job| Arc::clone(&job.control));
        let held = match change {
            Change::Pause => Some(Want::Pause),
            Change::Cancel => Some(Want::Cancel),
            Change::Resume | Change::RetryFailed { .. } | Change::Rate(_) => None,
        };
        let before = control.as_ref().zip(held).map(|(control, want)| control.want(want));
        let order = |answer| Order::Job(Box::new(JobOrder::Change { id, change, act, answer }));
        let changed = self.shared.orders.give(PATIENCE, order).map_err(JobError::from).and_then(|done| Ok(done?));
        let Some(control) = control else {
            changed?;
            if let Change::RetryFailed { .. } = change {
                let job = self.shared.readers.job(id)?.ok_or(JobRefusal::NoSuchJob { id })?;
                self.start(&mut running, job)?;
            }
            return Ok(());
        };
        match (changed, change, before) {
            (Ok(()), Change::Resume, _) => drop(control.want(Want::Go)),
            (Ok(()), Change::Rate(rate_per_s), _) => control.lock().rate_per_s = rate_per_s,
            (Err(error), _, Some(before)) => {
                control.want(before);
                return Err(error);
            }
            (changed, _, _) => return changed,
        }
        Ok(())
    }

    pub fn progress(&self, id: i64) -> Progress {
        let running = self.lock();
        let Some(job) = running.get(&id) else { return Progress::default() };
        let state = job.control.lock();
        Progress { rate: state.rate(Instant::now()), waiting_for: state.waiting_for.clone() }
    }

    /// Asks every job's thread to come to an end, and hands them out to be joined.
    pub fn stop(&self) -> Vec<JoinHandle<()>> {
        let running = std::mem::take(&mut *self.lock());
        let stop = |job: Running| {
            job.control.want(Want::Stop);
            job.thread
        };
        running.into_values().map(stop).collect()
    }

    fn start(&self, running: &mut BTreeMap<i64, Running>, job: Job) -> Result<(), JobError> {
        let id = job.job_id;
        if running.contains_key(&id) {
            return Ok(());
        }
        let want = match job.status.as_str() {
            "running" => Want::Go,
            "paused" => Want::Pause,
            _ => Want::Cancel,
        };
        let control = Arc::new(Control::new(want, job.rate_per_s));
        let journal_id = self.shared.readers.journal_id()?;
        let run = Run::new(job, journal_id, Arc::clone(&self.shared), Arc::clone(&control));
        let run = run.map_err(|error| JobError::NotStarted(error.to_string()))?;
        let shutdown = Arc::clone(&self.shared.shutdown);
        let body = move || {
            let _guard = shutdown.on_panic();
            run.run();
        };
        let thread = thread::Builder::new().name(format!("replay-{id}")).spawn(body);
        let thread = thread.map_err(|error| JobError::NotStarted(error.to_string()))?;
        running.insert(id, Running { control, thread });
        Ok(())
    }

    /// The jobs whose threads have not ended.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, job| !job.thread.is_finished());
        self.shared.metrics.replay_jobs.set(running.len() as i64);
        running
    }
}
