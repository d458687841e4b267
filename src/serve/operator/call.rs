//! A request that has found its route: its parameters, read by type, and who it is from.

use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

use crate::audit::{Act, Outcome};
use crate::serve::Request;
use crate::serve::reply::ApiError;
use crate::store::time_text;

/// Rows that a list gives when it is not told.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 1000;
/// Characters of a reason, an operator's name, a filter's value or an Idempotency-Key at most.
const TEXT_MAX: usize = 500;

pub struct Call<'a> {
    pub request: &'a Request,
    /// What stood at the route's `{…}`.
    pub placed: Option<&'a str>,
}

impl Call<'_> {
    /// The row at the route's `{id}`.
    pub fn id(&self) -> Result<i64, ApiError> {
        let text = self.placed.unwrap_or_default();
        let problem = || format!("{text:.40?} is no row number; give a whole number, as 42");
        text.parse().map_err(|_| ApiError::parameter("id", problem()))
    }

    /// The last value of `name` in the query, unless it is empty.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        let pairs = form_urlencoded::parse(self.request.query.as_bytes());
        let value = pairs.filter(|(own, _)| own == name).last().map(|(_, value)| value.into_owned());
        let value = value.filter(|value| !value.is_empty());
        bounded(name, value)
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        form_urlencoded::parse(self.request.query.as_bytes()).map(|(name, _)| name.into_owned())
    }

    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(ApiError::parameter(name, format!("{other:.40?} is neither true nor false"))),
        }
    }

    pub fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, ApiError>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let problem = format!("{text:.40?} is not within {} and {}", range.start(), range.end());
                Err(ApiError::parameter(name, problem))
            }
        }
    }

    /// One of `words`.
    pub fn word(&self, name: &str, words: &[&str]) -> Result<Option<String>, ApiError> {
        match self.text(name)? {
            Some(text) if !words.contains(&text.as_str()) => {
                Err(ApiError::parameter(name, format!("{text:.40?} is none of {}", words.join(", "))))
            }
            text => Ok(text),
        }
    }

    /// A time, as the journal writes it.
    pub fn time(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.text(name)?.map(|text| journal_time(name, &text)).transpose()
    }

    pub fn limit(&self) -> Result<u32, ApiError> {
        let given = form_urlencoded::parse(self.request.query.as_bytes()).filter(|(name, _)| name == "limit").last();
        let Some((_, text)) = given else { return Ok(LIMIT_DEFAULT) };
        match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => {
                let problem = format!("{text:.40?} is not within 1 and {LIMIT_MAX}; leave it out for {LIMIT_DEFAULT}");
                Err(ApiError::parameter("limit", problem))
            }
        }
    }

    /// The address of this list's next page, which begins at `cursor`, if a page of `limit` rows was full.
    pub fn next_page(&self, rows: usize, limit: u32, cursor: i64) -> Option<String> {
        if rows < limit as usize {
            return None;
        }
        let others = form_urlencoded::parse(self.request.query.as_bytes()).filter(|(name, _)| name != "cursor");
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(others).append_pair("cursor", &cursor.to_string());
        Some(format!("{}?{}", self.request.path, query.finish()))
    }

    /// The row in the audit of what is asked for.
    pub fn act(&self, action: &'static str, target: String) -> Result<Act, ApiError> {
        Ok(Act {
            operator: self.operator(),
            origin: self.request.origin.clone(),
            action,
            target,
            reason: self.text("reason")?,
            count: None,
            outcome: Outcome::Done,
            detail: None,
            started_id: None,
        })
    }

    /// Who says to be asking.
    pub fn operator(&self) -> String {
        let name = self.request.header("X-Operator").map(str::trim).filter(|name| !name.is_empty());
        name.map_or_else(|| "unknown".to_owned(), |name| name.chars().take(TEXT_MAX).collect())
    }

    pub fn idempotency_key(&self) -> Result<Option<String>, ApiError> {
        let Some(key) = self.request.header("Idempotency-Key") else { return Ok(None) };
        let key = key.trim();
        if key.is_empty() || key.len() > 255 {
            return Err(ApiError::parameter("Idempotency-Key", "must have 1 to 255 characters"));
        }
        Ok(Some(key.to_owned()))
    }

    pub fn body(&self) -> Result<&[u8], ApiError> {
        match &self.request.body {
            Ok(body) => Ok(body),
            Err(error) => Err((*error).into()),
        }
    }
}

/// # Errors
/// If the value is longer than any that is meant.
pub fn bounded(name: &str, value: Option<String>) -> Result<Option<String>, ApiError> {
    if value.as_ref().is_some_and(|value| value.chars().count() > TEXT_MAX) {
        return Err(ApiError::parameter(name, format!("is longer than {TEXT_MAX} characters")));
    }
    Ok(value)
}

/// A time as people and the journal write it: `2025-11-03`, `2025-11-03 20:03:58.586440`, or ISO 8601 with `T` and a
/// zone. Without a zone it is UTC.
pub fn journal_time(name: &str, text: &str) -> Result<String, ApiError> {
    let time = parse_time(text).ok_or_else(|| {
        let example = "as 2025-11-03 20:00:00, 2025-11-03, or 2025-11-03T20:00:00+01:00 (without a zone it is UTC)";
        ApiError::parameter(name, format!("{text:.60?} is no time; give one {example}"))
    })?;
    Ok(time_text(time))
}

fn parse_time(text: &str) -> Option<Timestamp> {
    // In a query an unescaped `+` is a space: the one before a zone is meant as it was written.
    let zoned = match text.rsplit_once(' ') {
        Some((time, zone)) if time.len() >= 16 && zone.len() <= 6 => format!("{time}+{zone}"),
        _ => text.to_owned(),
    };
    let utc = |time: DateTime| Offset::UTC.to_timestamp(time).ok();
    let instant = zoned.parse::<Timestamp>().ok();
    let local = || text.parse::<DateTime>().ok().and_then(utc);
    let day = || text.parse::<Date>().ok().and_then(|day| utc(day.to_datetime(jiff::civil::Time::midnight())));
    instant.or_else(local).or_else(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let read = |text: &str| journal_time("start", text).map_err(|error| error.to_string());
        for (text, meant) in [
            ("2025-11-03", "2025-11-03 00:00:00.000000"),
            ("2025-11-03 20:03:58", "2025-11-03 20:03:58.000000"),
            ("2025-11-03 20:03:58.586440", "2025-11-03 20:03:58.586440"),
            ("2025-11-03T20:03:58.586440+00:00", "2025-11-03 20:03:58.586440"),
            ("2025-11-03T20:03:58 01:00", "2025-11-03 19:03:58.000000"),
            ("2025-11-03 20:03:58+01:00", "2025-11-03 19:03:58.000000"),
            ("2025-11-03 20:03", "2025-11-03 20:03:00.000000"),
            ("2025-11-03T20:03:58Z", "2025-11-03 20:03:58.000000"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant), "{text}");
        }
        for text in ["yesterday", "2025-13-01", "20", "2025-11-03T25:00:00"] {
            assert!(read(text).unwrap_err().contains("is no time"), "{text}");
        }
    }
}
