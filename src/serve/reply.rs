//! What a request is answered with, and the only map from error to HTTP status.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::archive::ArchiveError;
use crate::auth::AuthError;
use crate::dead_letter::work::LetterRefusal;
use crate::job::JobRefusal;
use crate::queue::OrderError;
use crate::removal::RemovalRefusal;
use crate::replay::{JobError, ReplayError};
use crate::store::StoreError;

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// `Allow`, `Retry-After`, `Location` or `Link`.
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

/// Writes a body that does not fit into memory. An error breaks the transfer off, so that the client sees it is not whole.
pub type Stream = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

pub enum Body {
    Bytes(Vec<u8>),
    Stream(Stream),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Body::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Body::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("nothing is at {path}; there are {there_are}")]
    NoSuchPath { path: String, there_are: String },
    #[error("{what} {id} not found")]
    NoSuchRow { what: &'static str, id: i64 },
    #[error("{0}")]
    Auth(#[from] AuthError),
    #[error("too many replays in a minute; wait {seconds} s, or send them as one job: POST /replay/batch")]
    TooManyReplays { seconds: u64 },
    #[error("Host: {host:?} is no name of this box; if it should be one, add it to the setting api.hosts")]
    Misdirected { host: String },
    /// Who asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// It was, and is erased.
    #[error("{0}")]
    Gone(String),
    /// What was asked for means nothing that exists.
    #[error("{0}")]
    Nothing(String),
    #[error("method not allowed; use {allow}")]
    Method { allow: String },
    #[error("{parameter}: {problem}")]
    Parameter { parameter: String, problem: String },
    #[error("two exports are on their way already; try again when one has ended")]
    TooManyExports,
    /// It goes on when the request says that it knows: `more` shows what there is to know.
    #[error("{what}")]
    Confirm { what: String, more: Value },
    /// It does not fit what is there (RFC 5789, 2.2).
    #[error("{0}")]
    Unfitting(String),
    /// Some of it was done; `more` says what.
    #[error("{error}; {done}")]
    Partly { error: String, done: String, more: Value },
    #[error("{0}")]
    Replay(#[from] ReplayError),
    #[error("{0}")]
    Job(#[from] JobError),
    #[error("{0}")]
    Letter(#[from] LetterRefusal),
    #[error("{0}")]
    Removal(#[from] RemovalRefusal),
    /// One at a time.
    #[error("another request erases or prunes just now; try again")]
    Removing,
    /// So nothing is deleted.
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Order(#[from] OrderError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl ApiError {
    pub fn parameter(parameter: impl Into<String>, problem: impl Into<String>) -> ApiError {
        ApiError::Parameter { parameter: parameter.into(), problem: problem.into() }
    }

    /// The request was at fault, not the box or the broker.
    pub fn is_refusal(&self) -> bool {
        self.status() < 500
    }

    pub fn status(&self) -> u16 {
        match self {
            ApiError::NoSuchPath { .. } | ApiError::NoSuchRow { .. } | ApiError::Nothing(_) => 404,
            ApiError::Auth(AuthError::TooMany { .. }) | ApiError::TooManyReplays { .. } | ApiError::TooManyExports => {
                429
            }
            ApiError::Auth(_) => 401,
            ApiError::Misdirected { .. } => 421,
            ApiError::Forbidden(_) => 403,
            ApiError::Method { .. } => 405,
            ApiError::Parameter { .. } => 422,
            ApiError::Confirm { .. } | ApiError::Unfitting(_) | ApiError::Removal(_) => 409,
            ApiError::Gone(_) => 410,
            ApiError::Removing => 429,
            ApiError::Replay(ReplayError::TimedOut { .. }) => 504,
            ApiError::Replay(ReplayError::Refused(_)) => 502,
            ApiError::Replay(ReplayError::Busy) | ApiError::Job(JobError::TooMany) => 429,
            ApiError::Replay(ReplayError::HeaderName(_)) => 409,
            ApiError::Job(JobError::Refused(JobRefusal::NoSuchJob { .. })) => 404,
            ApiError::Job(JobError::Refused(JobRefusal::KeyReused { .. })) => 422,
            ApiError::Job(JobError::Refused(_)) => 409,
            ApiError::Letter(LetterRefusal::NoSuch { .. }) => 404,
            ApiError::Letter(_) => 409,
            ApiError::Partly { .. } | ApiError::Archive(_) | ApiError::Order(_) | ApiError::Job(JobError::Order(_)) => {
                503
            }
            ApiError::Store(error) | ApiError::Job(JobError::Store(error)) if error.is_passing() => 503,
            ApiError::Store(_) | ApiError::Job(JobError::Store(_) | JobError::NotStarted(_)) => 500,
        }
    }

    /// What stands beside the detail.
    fn more(&self) -> Value {
        match self {
            ApiError::Confirm { more, .. } | ApiError::Partly { more, .. } => more.clone(),
            ApiError::Job(JobError::Refused(JobRefusal::Overlap { job_id, event_id, .. })) => {
                json!({"job_id": job_id, "event_id": event_id})
            }
            ApiError::Job(JobError::Refused(JobRefusal::KeyReused { job_id })) => json!({"job_id": job_id}),
            ApiError::Letter(LetterRefusal::NotOpen { id, state, event_id }) => {
                json!({"dead_letter_id": id, "state": state, "event_id": event_id})
            }
            ApiError::Removal(RemovalRefusal::Job { job_id, event_id, .. }) => {
                json!({"job_id": job_id, "event_id": event_id})
            }
            _ => Value::Null,
        }
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            ApiError::Method { allow } => vec![("Allow", allow.clone())],
            ApiError::Auth(AuthError::Missing { schemes } | AuthError::Wrong { schemes, .. }) => {
                vec![("WWW-Authenticate", schemes.clone())]
            }
            ApiError::Auth(AuthError::TooMany { seconds }) | ApiError::TooManyReplays { seconds } => {
                vec![("Retry-After", seconds.to_string())]
            }
            ApiError::TooManyExports => vec![("Retry-After", "10".to_owned())],
            ApiError::Replay(ReplayError::Busy) | ApiError::Removing | ApiError::Order(_) => {
                vec![("Retry-After", "1".to_owned())]
            }
            ApiError::Store(error) if error.is_passing() => vec![("Retry-After", "1".to_owned())],
            _ => Vec::new(),
        }
    }
}

impl Reply {
    pub fn json(status: u16, body: &impl Serialize) -> Reply {
        let body = serde_json::to_vec(body).expect("every answer's names are strings");
        Reply { status, content_type: "application/json", headers: Vec::new(), body: Body::Bytes(body) }
    }

    /// A body that is written while it is made: see [`Stream`].
    pub fn stream(
        content_type: &'static str,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        Reply { status: 200, content_type, headers: Vec::new(), body: Body::Stream(Box::new(body)) }
    }

    pub fn with_header(mut self, name: &'static str, value: String) -> Reply {
        self.headers.push((name, value));
        self
    }

    /// A list, and in its `Link` header (RFC 8288) where it goes on.
    pub fn page(list: &impl Serialize, next: Option<String>) -> Reply {
        let reply = Reply::json(200, list);
        match next {
            Some(next) => reply.with_header("Link", format!("<{next}>; rel=\"next\"")),
            None => reply,
        }
    }

    pub fn error(error: &ApiError) -> Reply {
        if error.status() == 500 {
            tracing::error!(%error, "a request failed");
        }
        let mut body = Map::from_iter([("detail".to_owned(), Value::String(error.to_string()))]);
        if let Value::Object(more) = error.more() {
            body.extend(more);
        }
        Reply { headers: error.headers(), ..Reply::json(error.status(), &body) }
    }

    /// The answer to a request whose handler panicked.
    pub fn internal_error() -> Reply {
        Reply::json(500, &json!({"detail": "internal error; the log says more"}))
    }
}
