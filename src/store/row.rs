//! How values stand in a row, and what an error says of a row that was refused.

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Row};

use crate::dead_letter::Reason;
use crate::event::{Bytes, Headers, Record};

/// Whether a row's own values are why `insert` failed. A trigger's expression may fail on one record's values with the
/// same code as a trigger that is broken altogether; only with the latter the statement cannot even be prepared.
pub(super) fn is_the_records(connection: &Connection, insert: &str, error: &rusqlite::Error) -> bool {
    let generic = error.sqlite_error_code() == Some(ErrorCode::Unknown);
    is_constraint(error) || (generic && connection.prepare(insert).is_ok())
}

/// Why a row was refused, by an error that is its own.
pub(super) fn refusal(error: &rusqlite::Error) -> (Reason, String) {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            let is_trigger = code.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER
                || code.code != ErrorCode::ConstraintViolation;
            let reason = if is_trigger { Reason::Trigger } else { Reason::Constraint };
            (reason, message.clone().unwrap_or_else(|| code.to_string()))
        }
        other => (Reason::Constraint, other.to_string()),
    }
}

pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

pub(super) fn value(record: &Record) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(text_or_blob(record.value.as_deref()))
}

pub(super) fn key(record: &Record) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(key_ref(record))
}

pub(super) fn key_ref(record: &Record) -> ValueRef<'_> {
    text_or_blob(record.key.as_ref().map(|key| key.0.as_slice()))
}

pub(super) fn text_or_blob(bytes: Option<&[u8]>) -> ValueRef<'_> {
    match bytes {
        None => ValueRef::Null,
        Some(bytes) if std::str::from_utf8(bytes).is_ok() => ValueRef::Text(bytes),
        Some(bytes) => ValueRef::Blob(bytes),
    }
}

pub(super) fn headers_text(record: &Record) -> Option<String> {
    headers_json(&record.headers)
}

pub(super) fn headers_json(headers: &Headers) -> Option<String> {
    (!headers.0.is_empty()).then(|| serde_json::to_string(headers).expect("names and values are strings"))
}

/// A time as every column of the file has it: `2025-11-03 20:03:58.586440`, UTC.
pub fn time_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// `2025-11-03 20:03:58.586440` as JSON users know it: `2025-11-03T20:03:58.586440+00:00`.
pub(super) fn time(row: &Row, column: usize) -> rusqlite::Result<String> {
    Ok(iso(&row.get::<_, String>(column)?))
}

pub(super) fn optional_time(row: &Row, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(row.get::<_, Option<String>>(column)?.map(|text| iso(&text)))
}

pub fn iso(text: &str) -> String {
    format!("{}+00:00", text.replacen(' ', "T", 1))
}

pub(super) fn bytes(row: &Row, column: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Bytes(bytes.to_vec())),
        ValueRef::Integer(number) => Some(Bytes(number.to_string().into_bytes())),
        ValueRef::Real(number) => Some(Bytes(number.to_string().into_bytes())),
    })
}

pub(super) fn headers(row: &Row, column: usize) -> rusqlite::Result<Headers> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(Headers::default()),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
        }),
    }
}
