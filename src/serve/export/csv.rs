//! CSV (RFC 4180) for spreadsheets.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::store::EventDetail;

const HEAD: &[u8] = b"id,tenant_id,topic,received_at,kafka_key,replay_of,kafka_partition,kafka_offset,kafka_timestamp,\
dlq_id,kafka_headers,payload\r\n";

pub fn write_head(to: &mut dyn Write) -> io::Result<()> {
    to.write_all(HEAD)
}

/// What is NULL in the journal is empty.
pub fn write_row(event: &EventDetail, to: &mut dyn Write) -> io::Result<()> {
    let cells = [
        event.id.to_string(),
        text(&event.tenant_id),
        text(&event.topic),
        text(&event.received_at),
        event.kafka_key.as_ref().map_or_else(String::new, |key| key.as_text().map_or_else(|| json(key), text)),
        number(event.replay_of),
        event.kafka_partition.to_string(),
        event.kafka_offset.to_string(),
        number(event.kafka_timestamp),
        number(event.dlq_id),
        if event.kafka_headers.0.is_empty() { String::new() } else { json(&event.kafka_headers) },
        text(&event.payload.0),
    ];
    let row = cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
    to.write_all(row.as_bytes())?;
    to.write_all(b"\r\n")
}

fn number(number: Option<impl Display>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys and headers are strings")
}

/// A spreadsheet takes what begins so for a formula, and obeys it: an apostrophe before it says that it is text.
fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text.to_owned() }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be_and_are_no_formulas() {
        assert_eq!(quoted(r#"{"a":"x, y"}"#), r#""{""a"":""x, y""}""#);
        assert_eq!(quoted("acme:lead:17"), "acme:lead:17");
        assert_eq!((text("=1+1"), text("acme"), text("@SUM(A1)")), ("'=1+1".into(), "acme".into(), "'@SUM(A1)".into()));
    }
}
