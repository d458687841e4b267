//! When a partition's stream is poisoned: too many of its records become dead letters. Pure.

/// Records of one window of [`Limits::ratio_max`].
pub const WINDOW: u32 = 1000;

/// What a partition may give the DLQ before it is stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Dead letters in a row; 0 is no limit.
    pub consecutive_max: u32,
    /// Share of dead letters among [`WINDOW`] records; 1.0 is no limit.
    pub ratio_max: f64,
}

/// One partition's count, since it was begun or resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    consecutive: u32,
    records: u32,
    dead_letters: u32,
}

impl Breaker {
    pub fn stored(&mut self) {
        self.consecutive = 0;
        self.count();
    }

    /// Counts a dead letter. The stream is to stop after it where this gives the sentence that says why.
    pub fn dead_lettered(&mut self, limits: &Limits) -> Option<String> {
        self.consecutive += 1;
        self.dead_letters += 1;
        let (consecutive, dead_letters) = (self.consecutive, self.dead_letters);
        self.count();
        if limits.consecutive_max > 0 && consecutive >= limits.consecutive_max {
            return Some(format!("{consecutive} records in a row became dead letters"));
        }
        if f64::from(dead_letters) > limits.ratio_max * f64::from(WINDOW) {
            return Some(format!("{dead_letters} of the last {WINDOW} records or fewer became dead letters"));
        }
        None
    }

    fn count(&mut self) {
        self.records += 1;
        if self.records == WINDOW {
            (self.records, self.dead_letters) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records are taken of a stream of good (`true`) and bad ones before it is stopped.
    fn taken(limits: Limits, stream: impl Iterator<Item = bool>) -> Option<usize> {
        let mut breaker = Breaker::default();
        for (number, good) in stream.enumerate() {
            if good {
                breaker.stored();
            } else if breaker.dead_lettered(&limits).is_some() {
                return Some(number + 1);
            }
        }
        None
    }

    #[test]
    fn a_row_of_dead_letters_or_too_large_a_share_stops_the_stream() {
        let limits = Limits { consecutive_max: 100, ratio_max: 0.5 };
        assert_eq!(taken(limits, std::iter::repeat_n(false, 500)), Some(100));
        assert_eq!(taken(limits, (0..100_000).map(|n| n % 100 == 0)), Some(507), "the 501st dead letter of a window");
        assert_eq!(taken(limits, (0..100_000).map(|n| n % 2 == 0)), None, "half is not more than half");
        assert_eq!(taken(limits, (0..100_000).map(|n| n % 100 != 0)), None);
        let none = Limits { consecutive_max: 0, ratio_max: 1.0 };
        assert_eq!(taken(none, std::iter::repeat_n(false, 100_000)), None);
    }
}
