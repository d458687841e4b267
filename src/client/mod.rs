//! The operators' API from the shell: one request at a time, its answer as a table or as the JSON that it is.
//!
//! `http` speaks to the API, `trust` knows its certificate, `shell` to the person, `table` makes text of JSON; `plan` and `watch` are what
//! comes before and after a bulk action. The rest is one file a verb group. It needs nothing of the sink but its API,
//! and [`crate::job`] for the form of what it asks.

pub mod archive;
pub mod audit;
pub mod dlq;
pub mod events;
mod http;
mod look;
mod plan;
pub mod replay;
pub mod search;
mod shell;
pub mod storage;
mod table;
mod trust;
mod watch;

pub use http::{Api, Client, Credentials};
pub use shell::{Shell, say};
pub use trust::Trust;

use std::io;

/// How a verb ended that did what it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Done,
    /// Some of it failed, is uncertain, or was cancelled.
    NotAll,
    /// Ctrl-C: what was begun goes on without its watcher.
    Left,
}

/// Why a verb did not do what it was asked for. Each has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Usage(String),
    #[error("not confirmed{0}; nothing was done")]
    NotConfirmed(&'static str),
    #[error("cannot reach the API at {api}: {why}. Does the sink run? See: systemctl status crm-events-sink")]
    Unreachable { api: String, why: String },
    #[error("what answers at {api} is not this API: {why}")]
    Foreign { api: String, why: String },
    #[error(
        "no answer from {api}: {why}. Whether it was done is not known: look before you do it again (crm-events-sink audit)"
    )]
    Unknown { api: String, why: String },
    #[error(
        "the transfer from {api} broke off: {why}. Nothing was kept of it; try again (crm-events-sink audit says why)"
    )]
    Broken { api: String, why: String },
    #[error("{0}")]
    Missing(String),
    #[error("{detail}")]
    Refused { status: u16, detail: String, body: Vec<u8> },
    #[error("{0}")]
    System(#[from] io::Error),
}

impl ClientError {
    /// 1: refused, not there, or not known. 2: usage, or not confirmed. 69: the API cannot be reached. 71: the system.
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Refused { .. } | ClientError::Missing(_) | ClientError::Unknown { .. } => 1,
            ClientError::Usage(_) | ClientError::NotConfirmed(_) => 2,
            ClientError::Unreachable { .. } | ClientError::Foreign { .. } | ClientError::Broken { .. } => 69,
            ClientError::System(_) => 71,
        }
    }

    /// A sink that restarts or a file that is locked: the same question may be answered a moment later.
    fn is_passing(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } => true,
            ClientError::Refused { status, .. } => [429, 500, 503].contains(status),
            _ => false,
        }
    }
}
