//! `GET /health`: 200 while everything works, else 503 with what does not.

use serde::Serialize;

use crate::health::Health;
use crate::serve::reply::Reply;

#[derive(Serialize)]
struct State {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    reasons: Vec<String>,
}

pub fn get(health: &Health) -> Reply {
    let reasons = health.reasons();
    let (status, word) = if reasons.is_empty() { (200, "healthy") } else { (503, "unhealthy") };
    let (service, version) = ("crm-events-sink", env!("CARGO_PKG_VERSION"));
    Reply::json(status, &State { status: word, service, version, reasons })
}
