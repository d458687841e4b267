//! How fast the journal grows. Pure: the time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Growth is that of the last day, or since the start.
const SPAN: Duration = Duration::from_secs(86_400);
/// Between what is remembered.
const STEP: Duration = Duration::from_secs(600);
/// Shorter than that says nothing.
const SHORTEST: Duration = Duration::from_secs(5);

/// How many bytes of the journal were used, and when.
#[derive(Debug, Default)]
pub(super) struct Growth {
    remembered: VecDeque<(Instant, u64)>,
    newest: Option<(Instant, u64)>,
}

impl Growth {
    pub fn observe(&mut self, now: Instant, used: u64) {
        self.newest = Some((now, used));
        if self.remembered.back().is_none_or(|(at, _)| now - *at >= STEP) {
            self.remembered.push_back((now, used));
        }
        while self.remembered.len() > 1 && self.remembered.front().is_some_and(|(at, _)| now - *at > SPAN) {
            self.remembered.pop_front();
        }
    }

    /// `None` while it is not known.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let ((newest, now), (oldest, then)) = (self.newest?, *self.remembered.front()?);
        let span = newest - oldest;
        (span >= SHORTEST).then(|| (now as f64 - then as f64) / span.as_secs_f64())
    }

    /// Until so much room is used up: for ever, while nothing grows.
    pub fn seconds_left(&self, room: u64) -> f64 {
        match self.bytes_per_second() {
            Some(rate) if rate > 0.0 => room as f64 / rate,
            _ => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_day_and_what_does_not_grow_lasts_for_ever() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut growth = Growth::default();
        growth.observe(at(0), 1000);
        assert_eq!((growth.bytes_per_second(), growth.seconds_left(5)), (None, f64::INFINITY));
        growth.observe(at(100), 3000);
        assert_eq!((growth.bytes_per_second(), growth.seconds_left(200)), (Some(20.0), 10.0));
        for second in (200..=3 * 86_400).step_by(100) {
            growth.observe(at(second), 3000 + second);
        }
        let rate = growth.bytes_per_second().unwrap();
        assert!((rate - 1.0).abs() < 1e-9, "{rate}: what was before the last day counts no more");
        assert!(growth.remembered.len() < 150);
        growth.observe(at(3 * 86_400 + 10), 0);
        assert_eq!(growth.seconds_left(1), f64::INFINITY);
    }
}
