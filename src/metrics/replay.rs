//! What is sent again.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::register::{counters, gauge};

pub struct Replay {
    pub(super) replays: IntCounterVec,
    pub jobs: IntGauge,
}

impl Replay {
    pub(super) fn new(r: &Registry) -> Replay {
        Replay {
            replays: counters(
                r,
                "crm_events_replays_total",
                "Replays by outcome, those of jobs included: replayed, timed_out, refused, busy, uncertain.",
                &["outcome"],
            ),
            jobs: gauge(r, "crm_events_replay_jobs", "Replay jobs that are running or paused."),
        }
    }
}
