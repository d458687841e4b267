//! What is done about dead letters: retried, republished, discarded. The row stays, whatever is.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::event::decode;

/// Dead letters that one order is about at most: the others wait their turn, and so does ingestion meanwhile.
pub const ORDER_MAX: usize = 500;

/// Which dead letters. Every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// The only tenant whose are meant.
    pub tenant: Option<String>,
    pub topic: Option<String>,
    /// One of the closed list of reasons.
    pub reason: Option<String>,
    /// Received at or after this time, as `event_dlq.received_at` is written.
    pub since: Option<String>,
    /// Received before this time.
    pub until: Option<String>,
    /// See [`group`].
    pub group: Option<String>,
}

impl LetterFilter {
    /// Names no dead letter, which never means every one.
    pub fn is_empty(&self) -> bool {
        *self == LetterFilter::default()
    }

    /// As the audit names it.
    pub fn text(&self) -> String {
        let parts = [
            ("topic", &self.topic),
            ("reason", &self.reason),
            ("since", &self.since),
            ("until", &self.until),
            ("group", &self.group),
        ];
        let given = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        given.collect::<Vec<_>>().join(" ")
    }
}

/// A retry through ingestion.
#[derive(Debug, Clone)]
pub struct Retry {
    pub ids: Vec<i64>,
    /// The value to store instead of the one that the record came with, and what was changed in it.
    pub edited: Option<Edited>,
    /// Everything is taken back at the end.
    pub rehearse: bool,
}

#[derive(Debug, Clone)]
pub struct Edited {
    pub value: Vec<u8>,
    pub note: String,
}

impl Edited {
    /// Whose event it would be, if it is one.
    pub fn tenant_id(&self) -> Option<String> {
        decode(Some(&self.value)).ok()
    }
}

/// What came of one dead letter's retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    Journaled {
        event_id: i64,
        topic: String,
        tenant_id: String,
    },
    /// As it is, the present rules refuse it still.
    Refused {
        error: String,
        attempts: i64,
    },
    Not(LetterRefusal),
}

/// Takes a dead letter out of everybody's reach, to send it to its topic.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: i64,
    /// It may be in Kafka already, and is to be sent once more.
    pub again: bool,
    /// What of it was edited.
    pub note: Option<String>,
}

/// What came of one that was sent to its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Republished {
    Acknowledged,
    Refused(String),
    Unknown(String),
}

/// Why nothing was done about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterRefusal {
    #[error("dead letter {id} not found")]
    NoSuch { id: i64 },
    #[error("dead letter {id} is {state}{}; nothing was done", became(event_id))]
    NotOpen { id: i64, state: String, event_id: Option<i64> },
    #[error(
        "dead letter {id} was sent to its topic before, and it is not known whether it arrived; look for it there, then send it once more with again=true, or discard it"
    )]
    Uncertain { id: i64 },
}

fn became(event_id: &Option<i64>) -> String {
    event_id.map_or_else(String::new, |id| format!(" as event {id}"))
}

/// The error with what differs from record to record taken out: numbers become `#`, quoted text `…`.
pub fn shape(error: &str) -> String {
    let mut shape = String::new();
    let mut rest = error.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '0'..='9' => {
                while rest.next_if(char::is_ascii_digit).is_some() {}
                shape.push('#');
            }
            '"' | '\'' => {
                shape.push(c);
                let mut inside = rest.clone();
                if inside.any(|other| other == c) {
                    rest = inside;
                    shape.extend(['…', c]);
                }
            }
            _ => shape.push(c),
        }
    }
    shape
}

/// Names the dead letters that failed for the same reason with an error of the same shape.
pub fn group(reason: &str, error: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (reason, shape(error)).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_and_quoted_text_are_of_one_shape() {
        assert_eq!(
            shape("not_json: expected value at line 12 column 3"),
            "not_json: expected value at line # column #"
        );
        assert_eq!(shape(r#"no "a b", or 'x'; it's 7"#), r#"no "…", or '…'; it's #"#);
        assert_eq!(group("r", "at 1"), group("r", "at 22"));
        assert_ne!(group("r", "at 1"), group("other", "at 1"));
        assert_ne!(group("r", "at 1"), group("r", "in 1"));
    }
}
