//! Sends events of the journal, and dead letters, to Kafka again, and accounts for it.
//!
//! - [`single`]: one event or dead letter, while the client waits
//! - [`jobs`]: those that are running, and how an operator changes them
//! - [`control`]: what passes between a job's thread and those who ask it to do something
//! - [`run`]: one job, from its first event to its last
//! - [`settle`]: what was in flight when the sink ended
//! - [`pace`]: when the next event is due (pure)
//! - [`outbound`]: a record as it goes out, and what the broker says of it

mod control;
mod jobs;
mod outbound;
mod pace;
mod run;
mod settle;
mod single;

pub use control::Shared;
pub use jobs::{ACTIVE_MAX, JobError, Jobs, Progress};
pub use single::{Placed, ReplayError, Replayer, WAITING_MAX};
