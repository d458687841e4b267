//! What was in flight when the sink ended: it went out, or it did not, and this process cannot know.
//!
//! But the sink reads what it replays. Once it has read each partition as far as the broker's log went some seconds
//! after the start, what came back is acknowledged (the writer noted it, in the transaction that stored it), and what
//! did not is not there: it is sent, for the first time. Where the sink does not read the partition (another topic,
//! another member of the group) nobody knows: these events stay `uncertain`, and whether they are sent again is the
//! operator's choice.

use std::time::{Duration, Instant};

use super::control::Want;
use super::outbound::Context;
use super::run::Run;
use crate::job::{Step, Verdict};

/// What the process before gave to the network may reach the broker's log after it ended.
const AFTER: Duration = Duration::from_secs(5);
/// How long the sink may take to read what there was.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const TICK: Duration = Duration::from_millis(200);
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// A partition, and how far its log went.
type End = (String, i32, i64);

/// How much the sink has read of some partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    All,
    Behind,
    /// Of one of them nothing, ever.
    Elsewhere,
}

impl Run {
    /// Finds out about what is in flight; whether the job goes on. Not so when the sink stops.
    pub(super) fn settle(&self) -> bool {
        if self.job.in_flight == 0 {
            return true;
        }
        let Some(places) = self.keep_trying(|| self.shared.readers.in_flight_places(self.job.job_id)) else {
            return false;
        };
        self.control.say(Some("what was in flight when the sink ended to come back".to_owned()));
        if !self.sleep(AFTER) {
            return false;
        }
        let Some(ends) = self.keep_trying(|| self.log_ends(&places)) else { return false };
        let deadline = Instant::now() + PATIENCE;
        let mut read = self.read(&ends);
        while read == Read::Behind && Instant::now() < deadline {
            if !self.sleep(TICK) {
                return false;
            }
            read = self.read(&ends);
        }
        let unknown = "the sink ended before it was acknowledged, and does not read where it went".to_owned();
        let verdict = if read == Read::All { Verdict::Unsent } else { Verdict::Uncertain(unknown) };
        self.step(Step::Settle { job_id: self.job.job_id, verdict })
    }

    /// Whether the sink still runs after that time.
    fn sleep(&self, time: Duration) -> bool {
        self.control.wait_while(time, |want| want != Want::Stop) != Want::Stop
    }

    fn keep_trying<T, E: std::fmt::Display>(&self, attempt: impl Fn() -> Result<T, E>) -> Option<T> {
        loop {
            match attempt() {
                Ok(done) => return Some(done),
                Err(error) => {
                    self.control.say(Some(error.to_string()));
                    if !self.sleep(TICK) {
                        return None;
                    }
                }
            }
        }
    }

    fn log_ends(&self, places: &[(String, Option<i32>)]) -> Result<Vec<End>, rdkafka::error::KafkaError> {
        let client: &rdkafka::client::Client<Context> = self.client();
        let mut ends = Vec::new();
        for (topic, partition) in places {
            let metadata = client.fetch_metadata(Some(topic), BROKER_PATIENCE)?;
            let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
            // A partition that is no more: it went where its key says.
            let is_gone = partition.is_some_and(|number| partitions.iter().all(|known| known.id() != number));
            for known in partitions {
                if is_gone || partition.is_none_or(|number| number == known.id()) {
                    let (_, high) = client.fetch_watermarks(topic, known.id(), BROKER_PATIENCE)?;
                    ends.push((topic.clone(), known.id(), high));
                }
            }
        }
        Ok(ends)
    }

    /// A journal that cannot be read just now may say it later.
    fn read(&self, ends: &[End]) -> Read {
        let mut read = Read::All;
        for (topic, partition, high) in ends.iter().filter(|(_, _, high)| *high > 0) {
            match self.shared.readers.position(topic, *partition) {
                Ok(None) => return Read::Elsewhere,
                Ok(Some(at)) if at.next_offset >= *high => {}
                Ok(Some(_)) | Err(_) => read = Read::Behind,
            }
        }
        read
    }
}
