//! What systemd is told: ready, stopping, how it goes, and that it lives (`Type=notify`, sd_notify(3)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::pulse::Pulses;
use crate::shutdown::Shutdown;

/// How often the status line and the watchdog are thought of.
const TICK: Duration = Duration::from_secs(1);
/// Over so long the rate in the status line is taken.
const RATE_OVER: Duration = Duration::from_secs(10);
/// What a stop takes after `shutdown_timeout`: the log is copied into the file.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// `systemctl status` shows one line.
const STATUS_CHARS_MAX: usize = 300;

/// Tells systemd that every port answers and the journal is open. Without systemd nothing is told, here and below.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The line of `systemctl status`, and the watchdog's food, until the sink stops.
pub struct Service {
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub pulses: Arc<Pulses>,
    pub shutdown: Arc<Shutdown>,
    /// How long the stop may take, beside what systemd allows by itself.
    pub stop_within: Duration,
}

impl Service {
    /// A broker that is away, or a full disk, is no reason to be killed: only what does not move any more is.
    pub fn run(self) {
        let watchdog = sd_notify::watchdog_enabled();
        let mut told = String::new();
        let mut rate = Rate::new(self.metrics.persisted(), Instant::now());
        let mut warned = false;
        while !self.shutdown.wait(TICK) {
            let now = Instant::now();
            let status = self.status(rate.per_second(self.metrics.persisted(), now));
            if status != told {
                tell(&[NotifyState::Status(&status)]);
                told = status;
            }
            let Some(patience) = watchdog else { continue };
            let stuck = self.pulses.stuck(patience / 2, now);
            if stuck.is_empty() {
                tell(&[NotifyState::Watchdog]);
            } else if !warned {
                tracing::error!(
                    threads = stuck.join(", "),
                    "not moving any more; the watchdog is not told that all is well"
                );
            }
            warned = !stuck.is_empty();
        }
        let more = u32::try_from((self.stop_within + STOP_MARGIN).as_micros()).unwrap_or(u32::MAX);
        let states =
            [NotifyState::Stopping, NotifyState::Status("draining the queue"), NotifyState::ExtendTimeoutUsec(more)];
        tell(&states);
    }

    fn status(&self, events_per_second: f64) -> String {
        let faults = self.health.faults();
        let state = if faults.is_empty() { "healthy".to_owned() } else { faults.join("; ") };
        let (lag, open) = (self.metrics.lag(), self.metrics.flow.dlq_open.get());
        let figures = format!("{events_per_second:.1} events/s, {lag} behind, {open} open dead letters");
        let state: String = state.chars().filter(|c| !c.is_control()).take(STATUS_CHARS_MAX).collect();
        format!("{figures}; {state}")
    }
}

/// Events a second, over the last [`RATE_OVER`] or a little less.
struct Rate {
    from: (u64, Instant),
    shown: f64,
}

impl Rate {
    fn new(events: u64, now: Instant) -> Rate {
        Rate { from: (events, now), shown: 0.0 }
    }

    fn per_second(&mut self, events: u64, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.from.1);
        if elapsed >= RATE_OVER {
            self.shown = events.saturating_sub(self.from.0) as f64 / elapsed.as_secs_f64();
            self.from = (events, now);
        }
        self.shown
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
