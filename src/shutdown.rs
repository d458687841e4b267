//! One request to stop, seen by every thread.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the sink stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal, or a demo's time is up.
    Requested,
    /// A thread panicked: a fault of the program, so the process ends with an error.
    Panicked,
}

#[derive(Debug, Default)]
pub struct Shutdown {
    cause: Mutex<Option<Cause>>,
    begun: Condvar,
}

impl Shutdown {
    /// Asks every thread to finish. The first cause stands.
    pub fn begin(&self, cause: Cause) {
        self.lock().get_or_insert(cause);
        self.begun.notify_all();
    }

    pub fn cause(&self) -> Option<Cause> {
        *self.lock()
    }

    pub fn has_begun(&self) -> bool {
        self.cause().is_some()
    }

    /// Sleeps until a stop is asked for, or `timeout` is over; whether it was asked for.
    pub fn wait(&self, timeout: Duration) -> bool {
        let waited = self.begun.wait_timeout_while(self.lock(), timeout, |cause| cause.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Stops the sink if the thread that holds the guard panics: a sink without one of its threads would look alive.
    pub fn on_panic(&self) -> PanicGuard<'_> {
        PanicGuard(self)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Cause>> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Shutdown::on_panic`].
pub struct PanicGuard<'a>(&'a Shutdown);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.begin(Cause::Panicked);
        }
    }
}
