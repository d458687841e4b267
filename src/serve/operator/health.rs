//! `GET /health`: 200 while everything works, else 503 with what does not.

use serde::Serialize;

use super::OperatorApi;
use super::call::Call;
use crate::serve::reply::{ApiError, Reply};

#[derive(Serialize)]
struct State {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    reasons: Vec<String>,
}

pub fn get(api: &OperatorApi, _: &Call) -> Result<Reply, ApiError> {
    let reasons = api.health.reasons();
    let (status, word) = if reasons.is_empty() { (200, "healthy") } else { (503, "unhealthy") };
    let (service, version) = ("crm-events-sink", env!("CARGO_PKG_VERSION"));
    Ok(Reply::json(status, &State { status: word, service, version, reasons }))
}
