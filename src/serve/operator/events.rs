//! `GET /events/latest` and `GET /events/{id}`.

use super::OperatorApi;
use super::call::Call;
use super::parameter::Parameter;
use crate::serve::reply::{ApiError, Reply};

pub const ID: Parameter = Parameter::id("The event");

pub fn latest(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &api.readers.latest_events(call.tenant(), call.limit())?))
}

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let event = api.readers.event(call.tenant(), id)?.ok_or(ApiError::NoSuchRow { what: "event", id })?;
    Ok(Reply::json(200, &event))
}
