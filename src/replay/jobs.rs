//! The jobs that are running, a thread each, and how an operator changes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::control::{Control, Shared, Want};
use super::run::Run;
use crate::audit::Act;
use crate::job::{Change, JobRefusal, Made, NewJob};
use crate::queue::{JobOrder, Order, OrderError};
use crate::store::{Job, StoreError};

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
    /// Held while a job is made or changed, which waits for the writer: one after the other. Who only looks does not
    /// wait for it.
    changing: Mutex<()>,
    running: Mutex<BTreeMap<i64, Running>>,
}

impl Jobs {
    pub fn new(shared: Shared) -> Jobs {
        Jobs { shared: Arc::new(shared), changing: Mutex::default(), running: Mutex::default() }
    }

    /// Goes on with the jobs that were running when the sink ended, as soon as the journal can be read.
    pub fn go_on(&self) {
        loop {
            match self.shared.readers.unended_jobs() {
                Ok(jobs) => {
                    for job in jobs {
                        let id = job.job_id;
                        if let Err(error) = self.start(job) {
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
        let _turn = self.turn();
        if job.idempotency.is_none() {
            self.expect_room()?;
        }
        let order = |answer| Order::Job(Box::new(JobOrder::Make { job: Box::new(job), act, answer }));
        let made = self.shared.orders.give(PATIENCE, order)??;
        if made.is_new {
            self.start(self.job(made.job_id)?)?;
        }
        Ok(made)
    }

    /// Changes a job. When this returns after a pause, nothing more goes to the producer; after a cancel, what went there
    /// and was not sent is taken back as well.
    ///
    /// # Errors
    /// [`JobError`]: nothing was changed, unless it says so.
    pub fn change(&self, id: i64, change: Change, act: Act) -> Result<(), JobError> {
        let _turn = self.turn();
        if let Change::RetryFailed { .. } = change {
            self.expect_room()?;
        }
        let control = self.lock().get(&id).map(|job| Arc::clone(&job.control));
        if let (Change::Pause | Change::Cancel, Some(control)) = (change, &control) {
            // While it is being noted the job is only held: if it is not, it goes on.
            control.want(Want::Pause);
        }
        let order = |answer| Order::Job(Box::new(JobOrder::Change { id, change, act, answer }));
        let changed = self.shared.orders.give(PATIENCE, order);
        if let (Change::RetryFailed { .. }, Ok(Ok(()))) = (change, &changed) {
            self.await_end(id);
            return self.start(self.job(id)?);
        }
        if let Some(control) = control {
            // What the journal says of the job holds, whether the change came to pass or not.
            self.obey_journal(id, &control);
            if change == Change::Cancel {
                control.wait_while_unsent(PATIENCE);
            }
        }
        Ok(changed??)
    }

    /// The thread of a job that ended just now may have some steps to go. It must not take up what another one will.
    fn await_end(&self, id: i64) {
        let Some(job) = self.lock().remove(&id) else { return };
        let deadline = Instant::now() + PATIENCE;
        while !job.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn obey_journal(&self, id: i64, control: &Control) {
        match self.job(id) {
            Ok(job) => {
                control.lock().rate_per_s = job.rate_per_s;
                control.want(want(&job));
            }
            Err(error) => tracing::warn!(job = id, %error, "the state of a replay job is not known; it waits"),
        }
    }

    fn job(&self, id: i64) -> Result<Job, JobError> {
        Ok(self.shared.readers.job(id)?.ok_or(JobRefusal::NoSuchJob { id })?)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_room(&self) -> Result<(), JobError> {
        if self.lock().len() < ACTIVE_MAX { Ok(()) } else { Err(JobError::TooMany) }
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

    /// Whether the sink stops.
    pub fn is_stopping(&self) -> bool {
        self.shared.shutdown.has_begun()
    }

    fn start(&self, job: Job) -> Result<(), JobError> {
        let mut running = self.lock();
        let id = job.job_id;
        if running.contains_key(&id) || self.is_stopping() {
            return Ok(());
        }
        let not_started = |error: &dyn std::fmt::Display| JobError::NotStarted(error.to_string());
        let control = Arc::new(Control::new(want(&job), job.rate_per_s));
        let journal_id = self.shared.readers.journal_id()?;
        let run = Run::new(job, journal_id, Arc::clone(&self.shared), Arc::clone(&control));
        let run = run.map_err(|error| not_started(&error))?;
        let shared = Arc::clone(&self.shared);
        let body = move || {
            let _guard = shared.shutdown.on_panic();
            shared.metrics.replay.jobs.inc();
            run.run();
            shared.metrics.replay.jobs.dec();
        };
        let thread = thread::Builder::new().name(format!("replay-{id}")).spawn(body);
        let thread = thread.map_err(|error| not_started(&error))?;
        running.insert(id, Running { control, thread });
        Ok(())
    }

    /// The jobs whose threads have not ended.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, job| !job.thread.is_finished());
        running
    }
}

fn want(job: &Job) -> Want {
    match job.status.as_str() {
        "running" | "finished" => Want::Go,
        "paused" => Want::Pause,
        _ => Want::Cancel,
    }
}
