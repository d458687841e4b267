//! What the work on dead letters is answered with.

use schemars::JsonSchema;
use serde::Serialize;

/// A dry run of one dead letter's retry.
#[derive(Serialize, JsonSchema)]
pub struct RetryRehearsal {
    pub dry_run: bool,
    /// `pass` or `fail`.
    pub would: &'static str,
    /// Why it would fail.
    pub error: Option<String>,
}

/// A dead letter that is an event now.
#[derive(Serialize, JsonSchema)]
pub struct Journaled {
    #[schemars(example = &"journaled")]
    pub status: &'static str,
    pub dead_letter_id: i64,
    pub event_id: i64,
    pub topic: String,
}

/// A dead letter that is on its topic again.
#[derive(Serialize, JsonSchema)]
pub struct Republished {
    #[schemars(example = &"republished")]
    pub status: &'static str,
    pub dead_letter_id: i64,
    pub topic: String,
    pub partition: i32,
    pub offset: Option<i64>,
}

/// One that is refused still.
#[derive(Serialize, JsonSchema)]
pub struct Failure {
    pub dead_letter_id: i64,
    pub error: String,
}

/// A dry run of many retries.
#[derive(Serialize, JsonSchema)]
pub struct RetriesRehearsal {
    pub dry_run: bool,
    pub tried: usize,
    pub would_pass: usize,
    pub would_fail: usize,
    /// The first hundred.
    pub failures: Vec<Failure>,
}

#[derive(Serialize, JsonSchema)]
pub struct Retries {
    #[schemars(example = &"retried")]
    pub status: &'static str,
    pub tried: usize,
    pub journaled: usize,
    pub failed: usize,
    /// The first hundred.
    pub failures: Vec<Failure>,
}

#[derive(Serialize, JsonSchema)]
pub struct Discarded {
    #[schemars(example = &"discarded")]
    pub status: &'static str,
    pub dead_letter_id: i64,
}

#[derive(Serialize, JsonSchema)]
pub struct ManyDiscarded {
    #[schemars(example = &"discarded")]
    pub status: &'static str,
    pub discarded: usize,
}
