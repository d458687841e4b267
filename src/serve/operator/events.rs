//! `GET /events/latest` and `GET /events/{id}`.

use crate::serve::reply::{ApiError, Reply};
use crate::store::Readers;

pub fn latest(readers: &Readers, limit: u32) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &readers.latest_events(limit)?))
}

pub fn get(readers: &Readers, id: i64) -> Result<Reply, ApiError> {
    let event = readers.event(id)?.ok_or(ApiError::NoSuchRow { what: "event", id })?;
    Ok(Reply::json(200, &event))
}
