//! A record that could not become an event, and the closed list of reasons.

pub mod breaker;
pub mod work;

use crate::event::{DecodeError, Record, UNKNOWN_TENANT, decode};

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

/// Whose a dead letter is, as `event_dlq.tenant_id` has it: the value's `tenant_id` where it can be read, else the key's
/// part before its first `:`, else nobody's.
pub fn tenant(record: &Record) -> Option<String> {
    let of_value = decode(record.value.as_deref()).ok().filter(|tenant_id| tenant_id != UNKNOWN_TENANT);
    of_value.or_else(|| {
        let key = record.key.as_ref()?.as_text()?;
        let (tenant_id, _) = key.split_once(':')?;
        Some(tenant_id.to_owned()).filter(|tenant_id| !tenant_id.is_empty())
    })
}

/// A reason and a message as `event_dlq.error` shows them.
pub fn shown(reason: Reason, message: &str) -> String {
    format!("{}: {message}", reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Bytes, Headers, Position};

    #[test]
    fn a_dead_letter_is_its_values_tenants_else_its_keys_else_nobodys() {
        let tenant = |key: Option<&[u8]>, value: &[u8]| {
            let position = Position { topic: "leads".into(), partition: 0, offset: 0 };
            let key = key.map(|key| Bytes(key.to_vec()));
            let (value, headers) = (Some(value.to_vec()), Headers::default());
            super::tenant(&Record { position, key, value, headers, timestamp_ms: None })
        };
        for (key, value, whose) in [
            (Some(&b"acme:lead:1"[..]), &br#"{"tenant_id":"bolt"}"#[..], Some("bolt")),
            (Some(b"acme:lead:1"), br#"{"tenant_id":7}"#, Some("7")),
            (Some(b"acme:lead:1"), br#"{"tenant_id":"bolt"#, Some("acme")),
            (Some(b"acme:lead:1"), b"{}", Some("acme")),
            (Some(b"acme"), b"{}", None),
            (Some(b":lead:1"), b"no json", None),
            (Some(b"\xff:lead:1"), b"no json", None),
            (None, br#"{"tenant_id":null}"#, None),
        ] {
            assert_eq!(tenant(key, value).as_deref(), whose, "{key:?} {value:?}");
        }
    }
}
