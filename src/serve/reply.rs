//! What a request is answered with, and the only map from error to HTTP status.

use serde::Serialize;

use crate::queue::OrderError;
use crate::replay::ReplayError;
use crate::store::StoreError;

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// `Allow` or `Retry-After`.
    pub header: Option<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("nothing is at {path}; there are {there_are}")]
    NoSuchPath { path: String, there_are: &'static str },
    #[error("{what} {id} not found")]
    NoSuchRow { what: &'static str, id: i64 },
    #[error("method not allowed; use {allow}")]
    Method { allow: &'static str },
    #[error("{parameter}: {problem}")]
    Parameter { parameter: &'static str, problem: String },
    #[error("{0}")]
    Replay(#[from] ReplayError),
    #[error("{0}")]
    Order(#[from] OrderError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

#[derive(Serialize)]
struct Detail {
    detail: String,
}

impl Reply {
    pub fn json(status: u16, body: &impl Serialize) -> Reply {
        let body = serde_json::to_vec(body).expect("every answer's names are strings");
        Reply { status, content_type: "application/json", header: None, body }
    }

    pub fn error(error: &ApiError) -> Reply {
        if status(error) == 500 {
            tracing::error!(%error, "a request failed");
        }
        let reply = Reply::json(status(error), &Detail { detail: error.to_string() });
        Reply { header: header(error), ..reply }
    }

    /// The answer to a request whose handler panicked.
    pub fn internal_error() -> Reply {
        Reply::json(500, &Detail { detail: "internal error; the log says more".to_owned() })
    }
}

fn status(error: &ApiError) -> u16 {
    match error {
        ApiError::NoSuchPath { .. } | ApiError::NoSuchRow { .. } => 404,
        ApiError::Method { .. } => 405,
        ApiError::Parameter { .. } => 422,
        ApiError::Replay(ReplayError::TimedOut { .. }) => 504,
        ApiError::Replay(ReplayError::Refused(_)) => 502,
        ApiError::Replay(ReplayError::Busy) => 429,
        ApiError::Replay(ReplayError::HeaderName) => 409,
        ApiError::Order(OrderError::NotNow) => 503,
        ApiError::Store(error) if error.is_passing() => 503,
        ApiError::Store(_) => 500,
    }
}

fn header(error: &ApiError) -> Option<(&'static str, String)> {
    match error {
        ApiError::Method { allow } => Some(("Allow", (*allow).to_owned())),
        ApiError::Replay(ReplayError::Busy) => Some(("Retry-After", "1".to_owned())),
        ApiError::Store(error) if error.is_passing() => Some(("Retry-After", "1".to_owned())),
        _ => None,
    }
}
