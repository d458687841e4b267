//! `POST /replay/{id}`: answered when the broker has the event.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperatorApi;
use super::call::Call;
use super::parameter::Parameter;
use crate::audit::{Act, Outcome};
use crate::replay::{Placed, ReplayError};
use crate::serve::reply::{ApiError, Reply};

pub const TO_TOPIC: Parameter = Parameter::text(
    "to_topic",
    "Another topic than the event's own, if replay.to_topics allows it",
    "apexflow.leads.repaired",
);

#[derive(Serialize, JsonSchema)]
pub struct Replayed {
    #[schemars(example = &"replayed")]
    status: &'static str,
    event_id: i64,
    topic: String,
    tenant_id: String,
}

pub fn post(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let event = api.readers.event(call.tenant(), id)?.ok_or(ApiError::NoSuchRow { what: "event", id })?;
    if let Some(certificate) = event.erased {
        let what = format!("event {id} is erased (see audit row {certificate}), and cannot be replayed any more");
        return Err(ApiError::Gone(what));
    }
    let to_topic = allowed_topic(api, call.text(&TO_TOPIC))?;
    let topic = to_topic.clone().unwrap_or_else(|| event.topic.clone());
    let act = call.act(format!("event {id} to {topic}")).about(Some(&event.tenant_id)).counting(1);
    let started_id = api.note(act.with(Outcome::Started, ""))?;
    let replayed = api.replayer.replay(&event, to_topic.as_deref(), &api.readers.journal_id()?);
    note_end(api, &act.after(started_id), &replayed);
    Ok(match replayed {
        Ok(_) => {
            let body = Replayed { status: "replayed", event_id: id, topic, tenant_id: event.tenant_id };
            Reply::json(200, &body)
        }
        Err(error) => Reply::error(&error.into()),
    })
}

/// How a replay ended, as the audit has it.
pub fn ended(act: &Act, replayed: &Result<Placed, ReplayError>) -> Act {
    match replayed {
        Ok(at) => {
            let offset = at.offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
            act.with(Outcome::Done, format!("partition {}{offset}", at.partition))
        }
        Err(error @ ReplayError::TimedOut { .. }) => act.with(Outcome::Unknown, error),
        Err(error) => act.with(Outcome::Failed, error),
    }
}

/// It happened, whether it can be put down or not: that it was begun stands there.
fn note_end(api: &OperatorApi, act: &Act, replayed: &Result<Placed, ReplayError>) {
    if let Err(error) = api.note(ended(act, replayed)) {
        tracing::error!(target = act.target, %error, "the end of a replay is not in the audit");
    }
}

/// # Errors
/// A topic that nobody allowed.
pub fn allowed_topic(api: &OperatorApi, to_topic: Option<String>) -> Result<Option<String>, ApiError> {
    let allowed = &api.config.replay.to_topics;
    match to_topic {
        Some(topic) if !allowed.contains(&topic) => {
            let problem = if allowed.is_empty() {
                format!("{topic:.249?} is not allowed: the setting replay.to_topics names no topic")
            } else {
                format!("{topic:.249?} is not allowed: the setting replay.to_topics has {}", allowed.join(", "))
            };
            Err(ApiError::parameter("to_topic", problem))
        }
        to_topic => Ok(to_topic),
    }
}
