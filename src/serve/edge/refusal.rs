//! Why the edge answers a request itself, and with what.

use std::time::Duration;

use serde_json::json;

/// The closed list; [`Refusal::reason`] is its label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    #[error("the request's line and headers are larger than {0} bytes; send fewer or shorter headers")]
    HeadTooLarge(usize),
    #[error("the request has more than {0} headers; send fewer")]
    TooManyHeaders(usize),
    #[error("the request's head took longer than {0:?} to come; send it at once")]
    HeadTooSlow(Duration),
    #[error("this server speaks HTTP/1.1 and HTTP/1.0; use one of them")]
    Version,
    #[error("the transfer coding is not known here; send the body with a Content-Length or chunked")]
    Coding,
    #[error("the expectation is not known here; leave Expect out or send 100-continue")]
    Expectation,
    #[error("the body is larger than {0} bytes; name the events by a time range, or ask in parts")]
    BodyTooLarge(usize),
    #[error("the body took longer than {0:?} to come; nothing was done")]
    BodyTooSlow(Duration),
    #[error("the body did not come whole; nothing was done")]
    BodyBroken,
    #[error("too many requests are being answered; nothing was done, try again")]
    Busy,
    #[error("there are too many connections; close some or try again")]
    Connections,
    #[error("too many large requests came at once; nothing was done, try again")]
    Memory,
    #[error("the sink has no file descriptors left; nothing was done, try again and raise LimitNOFILE")]
    Descriptors,
    #[error("the sink is stopping; nothing was done, try again")]
    Stopping,
    #[error("the answer was lost; what was asked for may have been done: see GET /audit before asking again")]
    Lost,
}

impl Refusal {
    pub fn status(self) -> u16 {
        match self {
            Refusal::Malformed(_) | Refusal::BodyBroken => 400,
            Refusal::HeadTooSlow(_) | Refusal::BodyTooSlow(_) => 408,
            Refusal::BodyTooLarge(_) => 413,
            Refusal::Expectation => 417,
            Refusal::HeadTooLarge(_) | Refusal::TooManyHeaders(_) => 431,
            Refusal::Coding => 501,
            Refusal::Lost => 502,
            Refusal::Version => 505,
            Refusal::Busy | Refusal::Connections | Refusal::Memory | Refusal::Descriptors | Refusal::Stopping => 503,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Malformed(_) => "malformed",
            Refusal::HeadTooLarge(_) => "head_too_large",
            Refusal::TooManyHeaders(_) => "too_many_headers",
            Refusal::HeadTooSlow(_) => "head_too_slow",
            Refusal::Version => "version",
            Refusal::Coding => "coding",
            Refusal::Expectation => "expectation",
            Refusal::BodyTooLarge(_) => "body_too_large",
            Refusal::BodyTooSlow(_) => "body_too_slow",
            Refusal::BodyBroken => "body_broken",
            Refusal::Busy => "busy",
            Refusal::Connections => "connections",
            Refusal::Memory => "memory",
            Refusal::Descriptors => "descriptors",
            Refusal::Stopping => "stopping",
            Refusal::Lost => "lost",
        }
    }

    /// The whole answer; the connection is closed after it.
    pub fn answer(self) -> Vec<u8> {
        let status = self.status();
        let phrase = tiny_http::StatusCode(status).default_reason_phrase();
        let retry = if status == 503 { "Retry-After: 1\r\n" } else { "" };
        let body = json!({"detail": self.to_string()}).to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{retry}\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
