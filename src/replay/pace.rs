//! When a job's next event is due. Pure: `now` is passed in.

use std::time::{Duration, Instant};

/// A late one may be caught up with for so long: a thread does not wake to the microsecond.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Evenly spaced events.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    next_at: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace { next_at: now }
    }

    /// How long until the next event may be sent; `None`: now, and the one after it follows at the rate.
    pub fn take(&mut self, rate_per_s: u32, now: Instant) -> Option<Duration> {
        if self.next_at > now {
            return Some(self.next_at - now);
        }
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.next_at = self.next_at.max(earliest) + Duration::from_secs(1) / rate_per_s.max(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However irregularly it is asked: in no span more events than the rate allows, what is caught up aside, and
        /// no fewer either while it is asked often enough.
        #[test]
        fn no_more_events_go_out_than_the_rate_allows(rate in 1_u32..5000, gaps_us in proptest::collection::vec(0_u64..30_000, 1..2000)) {
            let start = Instant::now();
            let (mut pace, mut now, mut sent) = (Pace::new(start), start, 0_u64);
            for gap in gaps_us {
                now += Duration::from_micros(gap);
                while pace.take(rate, now).is_none() {
                    sent += 1;
                }
            }
            let allowed = ((now - start) + CATCH_UP).as_secs_f64() * f64::from(rate) + 1.0;
            prop_assert!(sent as f64 <= allowed + 1.0, "{sent} sent, {allowed} allowed");
        }

        #[test]
        fn asked_often_it_keeps_the_rate(rate in 1_u32..5000) {
            let start = Instant::now();
            let (mut pace, mut sent) = (Pace::new(start), 0_u32);
            for ms in 0..2000 {
                while pace.take(rate, start + Duration::from_millis(ms)).is_none() {
                    sent += 1;
                }
            }
            let expected = f64::from(rate) * 2.0;
            prop_assert!((f64::from(sent) - expected).abs() <= expected * 0.01 + 2.0, "{sent} of {expected}");
        }
    }
}
