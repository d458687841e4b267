//! `GET /health`: 200 while everything works, else 503 with what does not.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperatorApi;
use super::call::Call;
use crate::serve::reply::{ApiError, Reply};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub struct State {
    /// `healthy` or `unhealthy`.
    #[schemars(example = &"healthy")]
    status: &'static str,
    service: &'static str,
    version: &'static str,
    /// What does not work.
    #[schemars(extend("examples" = [[]]))]
    reasons: Vec<String>,
}

/// The reasons name topics and files: they are for those who may see the box.
pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let mut reasons = api.health.reasons();
    let (status, word) = if reasons.is_empty() { (200, "healthy") } else { (503, "unhealthy") };
    if !call.sees_box() && !reasons.is_empty() {
        reasons = vec!["those who may see the whole box see why".to_owned()];
    }
    let (service, version) = ("crm-events-sink", env!("CARGO_PKG_VERSION"));
    Ok(Reply::json(status, &State { status: word, service, version, reasons }))
}
