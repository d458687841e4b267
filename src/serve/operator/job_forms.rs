//! What a request for a job says, and what it is answered.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::parameter::TEXT_MAX;
use super::{time, whole};
use crate::config::RATE_PER_S_MAX;
use crate::store::{Found, Job};

/// Seconds that a client may ask to wait.
pub const WAIT_S_MAX: u64 = 60;

/// A body: the filter, of which something must be given, and the options, which may stand in the query as well.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewJob", transform = some_filter)]
pub struct Body {
    /// These events.
    #[schemars(length(min = 1), inner(range(min = 1, max = i64::MAX)))]
    #[serde(default, deserialize_with = "whole::optional_list")]
    pub event_ids: Option<Vec<i64>>,
    /// Received at or after this time.
    #[schemars(regex(pattern = time::PATTERN))]
    pub start: Option<String>,
    /// Received before this time, which is after the start.
    #[schemars(regex(pattern = time::PATTERN))]
    pub end: Option<String>,
    #[schemars(length(min = 1, max = TEXT_MAX))]
    pub tenant_id: Option<String>,
    /// The topic's whole name.
    #[schemars(length(min = 1, max = TEXT_MAX))]
    pub topic: Option<String>,
    /// Of this `payload.event_type`.
    #[schemars(length(min = 1, max = TEXT_MAX))]
    pub event_type: Option<String>,
    /// Of this Kafka key.
    #[schemars(length(min = 1, max = TEXT_MAX))]
    pub key: Option<String>,
    pub to_topic: Option<String>,
    #[schemars(range(min = 1, max = RATE_PER_S_MAX))]
    #[serde(default, deserialize_with = "whole::optional")]
    pub rate_per_s: Option<u32>,
    pub skip_superseded: Option<bool>,
    pub skip_replays: Option<bool>,
    /// How many events it is about, as the answer before said.
    #[schemars(range(min = 0, max = u64::MAX))]
    #[serde(default, deserialize_with = "whole::optional")]
    pub confirm: Option<u64>,
    pub dry_run: Option<bool>,
    /// Seconds to wait for the job's end before the answer.
    #[schemars(range(min = 0, max = WAIT_S_MAX))]
    #[serde(default, deserialize_with = "whole::optional")]
    pub wait: Option<u64>,
    /// Why, for the audit.
    #[schemars(length(max = TEXT_MAX))]
    pub reason: Option<String>,
}

/// One condition at least must be there, and not null.
fn some_filter(schema: &mut Schema) {
    let given = |name: &str| json!({"required": [name], "properties": {name: {"type": ["array", "string"]}}});
    let filters = ["event_ids", "start", "end", "tenant_id", "topic", "event_type", "key"];
    schema.insert("anyOf".to_owned(), filters.map(given).into_iter().collect());
}

/// The events of a batch: a list, or a list with a name.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Batch {
    List(
        #[serde(deserialize_with = "whole::list")]
        #[schemars(length(min = 1), inner(range(min = 1, max = i64::MAX)))]
        Vec<i64>,
    ),
    Named(NamedBatch),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedBatch {
    #[schemars(length(min = 1), inner(range(min = 1, max = i64::MAX)))]
    #[serde(deserialize_with = "whole::list")]
    pub event_ids: Vec<i64>,
}

/// What would be done.
#[derive(Serialize, JsonSchema)]
pub struct Plan {
    #[serde(flatten)]
    pub found: Found,
    pub rate_per_s: u32,
    /// How long it takes at that rate.
    pub seconds: f64,
    pub needs_confirm: bool,
}

/// The answer to a dry run.
#[derive(Serialize, JsonSchema)]
pub struct Rehearsal {
    #[serde(flatten)]
    pub plan: Plan,
    pub dry_run: bool,
}

/// A job that was made.
#[derive(Serialize, JsonSchema)]
pub struct Started {
    pub job_id: i64,
    #[schemars(example = &"running")]
    pub status: &'static str,
    /// Events that it sends.
    pub total: i64,
}

/// A job, how far it is and how fast.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Job")]
pub struct JobView {
    #[serde(flatten)]
    pub job: Job,
    pub rate: f64,
    pub seconds_left: Option<f64>,
    pub waiting_for: Option<String>,
}
