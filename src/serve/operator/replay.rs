//! `POST /replay/{id}`: answered when the broker has the event.

use serde::Serialize;

use crate::replay::Replayer;
use crate::serve::reply::{ApiError, Reply};
use crate::store::Readers;

#[derive(Serialize)]
struct Replayed {
    status: &'static str,
    event_id: i64,
    topic: String,
    tenant_id: String,
}

pub fn post(readers: &Readers, replayer: &Replayer, id: i64) -> Result<Reply, ApiError> {
    let event = readers.event(id)?.ok_or(ApiError::NoSuchRow { what: "event", id })?;
    replayer.replay(&event, &readers.journal_id()?)?;
    let replayed = Replayed { status: "replayed", event_id: id, topic: event.topic, tenant_id: event.tenant_id };
    Ok(Reply::json(200, &replayed))
}
