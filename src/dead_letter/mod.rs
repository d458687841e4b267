//! A record that could not become an event, and the closed list of reasons.

pub mod breaker;
pub mod work;

use crate::event::{DecodeError, Record};

/// Why a record is a dead letter. The list is closed: these words stand in `event_dlq.reason`, in the metrics'
/// `reason` label and before the message in `event_dlq.error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    ValueAbsent,
    NotUtf8,
    NotJson,
    NotAnObject,
    /// A CHECK, NOT NULL or unique index that an operator added refused the row.
    Constraint,
    /// A trigger that an operator added refused the row.
    Trigger,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::ValueAbsent => "value_absent",
            Reason::NotUtf8 => "not_utf8",
            Reason::NotJson => "not_json",
            Reason::NotAnObject => "not_an_object",
            Reason::Constraint => "constraint",
            Reason::Trigger => "trigger",
        }
    }
}

/// A record with the reason it was not journaled. Nothing of the record is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub record: Record,
    pub reason: Reason,
    /// What exactly was wrong: line and column of bad JSON, the name of a constraint.
    pub message: String,
}

impl DeadLetter {
    pub fn undecodable(record: Record, error: DecodeError) -> DeadLetter {
        let (reason, message) = DeadLetter::blame(error);
        DeadLetter { record, reason, message }
    }

    /// Why a value that is no event is none.
    pub fn blame(error: DecodeError) -> (Reason, String) {
        match error {
            DecodeError::ValueAbsent => (Reason::ValueAbsent, "the record has no value (a tombstone)".to_owned()),
            DecodeError::NotUtf8(message) => (Reason::NotUtf8, message),
            DecodeError::NotJson(message) => (Reason::NotJson, message),
            DecodeError::NotAnObject(message) => (Reason::NotAnObject, message),
        }
    }

    /// The text of `event_dlq.error`.
    pub fn error(&self) -> String {
        shown(self.reason, &self.message)
    }
}

/// A reason and a message as `event_dlq.error` shows them.
pub fn shown(reason: Reason, message: &str) -> String {
    format!("{}: {message}", reason.as_str())
}
