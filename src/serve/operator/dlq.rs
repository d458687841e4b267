//! `GET /dlq` and `GET /dlq/{id}`.

use crate::serve::reply::{ApiError, Reply};
use crate::store::Readers;

pub fn latest(readers: &Readers, limit: u32) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &readers.latest_dead_letters(limit)?))
}

pub fn get(readers: &Readers, id: i64) -> Result<Reply, ApiError> {
    let letter = readers.dead_letter(id)?.ok_or(ApiError::NoSuchRow { what: "dead letter", id })?;
    Ok(Reply::json(200, &letter))
}
