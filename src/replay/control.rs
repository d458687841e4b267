//! What a job's thread shares with the rest of the sink, and with those who ask it to do something.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::queue::Orders;
use crate::shutdown::Shutdown;
use crate::store::Readers;

/// The rate that a job reports is that of this time.
const RATE_OVER: Duration = Duration::from_secs(5);

/// What every job's thread uses.
pub struct Shared {
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub readers: Readers,
    pub orders: Orders,
    pub shutdown: Arc<Shutdown>,
}

/// What a job's thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Go,
    Pause,
    /// Nothing more is sent.
    Cancel,
    /// The sink stops; the job goes on with the next start.
    Stop,
}

/// Between a job's thread and those who ask it to do something. While `want` is locked nothing goes to the producer,
/// so after a change of it nothing goes that it forbids.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct State {
    pub want: Want,
    pub rate_per_s: u32,
    /// Why nothing is sent just now.
    pub waiting_for: Option<String>,
    /// The producer may have events that it has not sent yet.
    pub has_unsent: bool,
    /// Acknowledgements of late: when, and how many.
    acknowledged: VecDeque<(Instant, usize)>,
}

impl Control {
    pub fn new(want: Want, rate_per_s: u32) -> Control {
        let state = State { want, rate_per_s, waiting_for: None, has_unsent: false, acknowledged: VecDeque::new() };
        Control { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is wanted. A stop stays one.
    pub fn want(&self, want: Want) {
        let mut state = self.lock();
        if state.want != Want::Stop {
            state.want = want;
        }
        self.changed.notify_all();
    }

    /// Waits while `is_unwanted` and not longer than `patience`; what is wanted then.
    pub fn wait_while(&self, patience: Duration, is_unwanted: impl Fn(Want) -> bool) -> Want {
        let unwanted = |state: &mut State| is_unwanted(state.want);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, unwanted);
        waited.unwrap_or_else(PoisonError::into_inner).0.want
    }

    /// The thread: the producer has sent everything, or it was taken back.
    pub fn nothing_is_unsent(&self) {
        self.lock().has_unsent = false;
        self.changed.notify_all();
    }

    /// Waits until the producer has nothing that it could still send, and not longer than `patience`.
    pub fn wait_while_unsent(&self, patience: Duration) {
        drop(self.changed.wait_timeout_while(self.lock(), patience, |state| state.has_unsent));
    }

    pub fn say(&self, waiting_for: Option<String>) {
        self.lock().waiting_for = waiting_for;
    }
}

impl State {
    pub fn note_acknowledged(&mut self, events: usize, now: Instant) {
        self.acknowledged.push_back((now, events));
        while self.acknowledged.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.acknowledged.pop_front();
        }
    }

    /// Events a second of late.
    pub fn rate(&self, now: Instant) -> f64 {
        let recent = self.acknowledged.iter().filter(|(at, _)| now.duration_since(*at) <= RATE_OVER);
        let (mut events, mut since) = (0, now);
        for (at, count) in recent {
            // What came first began the span.
            since = since.min(*at);
            events += count;
        }
        events as f64 / (now - since).max(Duration::from_millis(250)).as_secs_f64()
    }
}
