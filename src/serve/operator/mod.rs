//! :9106, for operators: one file a resource.

mod dlq;
mod events;
mod health;
mod integrity;
mod replay;
mod resume;

use std::sync::Arc;

use super::Routes;
use super::reply::{ApiError, Reply};
use crate::health::{Health, JOURNAL};
use crate::queue::Orders;
use crate::replay::Replayer;
use crate::store::Readers;
use crate::watermarks::Watermarks;

/// Rows that a list gives when it is not told.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 1000;

pub struct OperatorApi {
    pub readers: Readers,
    pub replayer: Replayer,
    pub orders: Orders,
    pub watermarks: Arc<Watermarks>,
    pub health: Arc<Health>,
}

/// What a path leads to.
enum Resource<'a> {
    Health,
    LatestEvents,
    Event(&'a str),
    Replay(&'a str),
    DeadLetters,
    DeadLetter(&'a str),
    Integrity,
    Resume,
}

impl Resource<'_> {
    fn at(path: &str) -> Option<Resource<'_>> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match segments[..] {
            ["health"] => Some(Resource::Health),
            ["events", "latest"] => Some(Resource::LatestEvents),
            ["events", id] => Some(Resource::Event(id)),
            ["replay", id] => Some(Resource::Replay(id)),
            ["dlq"] => Some(Resource::DeadLetters),
            ["dlq", id] => Some(Resource::DeadLetter(id)),
            ["integrity"] => Some(Resource::Integrity),
            ["consumer", "resume"] => Some(Resource::Resume),
            _ => None,
        }
    }

    fn allow(&self) -> &'static str {
        match self {
            Resource::Replay(_) | Resource::Resume => "POST",
            _ => "GET, HEAD",
        }
    }
}

impl OperatorApi {
    fn route(&self, method: &str, path: &str, query: &str) -> Result<Reply, ApiError> {
        let there_are =
            "/health, /events/latest, /events/{id}, /replay/{id}, /dlq, /dlq/{id}, /integrity and /consumer/resume";
        let resource = Resource::at(path).ok_or_else(|| ApiError::NoSuchPath { path: path.to_owned(), there_are })?;
        match (&resource, method) {
            (Resource::Health, "GET" | "HEAD") => Ok(health::get(&self.health)),
            (Resource::LatestEvents, "GET" | "HEAD") => events::latest(&self.readers, limit(query)?),
            (Resource::Event(id), "GET" | "HEAD") => events::get(&self.readers, row_id(id)?),
            (Resource::Replay(id), "POST") => replay::post(&self.readers, &self.replayer, row_id(id)?),
            (Resource::DeadLetters, "GET" | "HEAD") => dlq::latest(&self.readers, limit(query)?),
            (Resource::DeadLetter(id), "GET" | "HEAD") => dlq::get(&self.readers, row_id(id)?),
            (Resource::Integrity, "GET" | "HEAD") => {
                integrity::get(&self.readers, &self.watermarks, parameter(query, "topic"))
            }
            (Resource::Resume, "POST") => resume::post(&self.orders, parameter(query, "topic"), partition(query)?),
            _ => Err(ApiError::Method { allow: resource.allow() }),
        }
    }
}

impl Routes for OperatorApi {
    fn answer(&self, method: &str, path: &str, query: &str) -> Reply {
        self.route(method, path, query).unwrap_or_else(|error| Reply::error(&self.named(error)))
    }
}

impl OperatorApi {
    /// A damaged file is named, with what to do about it, here and in `/health`.
    fn named(&self, error: ApiError) -> ApiError {
        let ApiError::Store(error) = error else { return error };
        let error = self.readers.explain(error);
        if error.is_damage() {
            self.health.fault(JOURNAL, error.to_string());
        }
        ApiError::Store(error)
    }
}

fn row_id(text: &str) -> Result<i64, ApiError> {
    let problem = || format!("{:.40?} is no row number; give a whole number, as 42", text);
    text.parse().map_err(|_| ApiError::Parameter { parameter: "id", problem: problem() })
}

/// The last value of `name` in the query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let named = form_urlencoded::parse(query.as_bytes()).filter(|(n, _)| n == name).last();
    named.map(|(_, text)| text.into_owned())
}

fn partition(query: &str) -> Result<Option<i32>, ApiError> {
    let Some(text) = parameter(query, "partition") else { return Ok(None) };
    let problem = || format!("{text:.40?} is no partition; give a whole number, as 0");
    text.parse().map(Some).map_err(|_| ApiError::Parameter { parameter: "partition", problem: problem() })
}

fn limit(query: &str) -> Result<u32, ApiError> {
    let Some(text) = parameter(query, "limit") else { return Ok(LIMIT_DEFAULT) };
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(ApiError::Parameter {
            parameter: "limit",
            problem: format!("{text:.40?} is not within 1 and {LIMIT_MAX}; leave it out for {LIMIT_DEFAULT}"),
        }),
    }
}
