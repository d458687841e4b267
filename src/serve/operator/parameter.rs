//! What a request may say: each parameter's name, place, form and limits, for the router, the handlers and the
//! description of the API alike.

use super::time;
use crate::serve::reply::ApiError;
use crate::store::time_text;
use form_urlencoded::Parse;

/// Characters of a reason, an operator's name, a filter's value or an Idempotency-Key at most.
pub const TEXT_MAX: usize = 500;

/// A parameter of a route.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub kind: Kind,
    pub about: &'static str,
    /// Empty: there is none that holds everywhere.
    pub example: &'static str,
    /// A pattern (ECMA 262) for the API's description: what of all texts its reader takes.
    pub form: Option<&'static str>,
    pub is_required: bool,
    /// It may be given several times.
    pub is_many: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1 to [`TEXT_MAX`] characters.
    Text,
    Integer {
        min: i64,
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    Word(&'static [&'static str]),
    /// See [`time::PATTERN`].
    Time,
}

impl Parameter {
    const fn query(name: &'static str, kind: Kind, about: &'static str, example: &'static str) -> Parameter {
        Parameter { name, place: Place::Query, kind, about, example, form: None, is_required: false, is_many: false }
    }

    pub const fn text(name: &'static str, about: &'static str, example: &'static str) -> Parameter {
        Parameter::query(name, Kind::Text, about, example)
    }

    pub const fn integer(
        name: &'static str,
        (min, max): (i64, i64),
        about: &'static str,
        example: &'static str,
    ) -> Parameter {
        Parameter::query(name, Kind::Integer { min, max }, about, example)
    }

    pub const fn flag(name: &'static str, about: &'static str) -> Parameter {
        Parameter::query(name, Kind::Flag, about, "true")
    }

    pub const fn word(name: &'static str, words: &'static [&'static str], about: &'static str) -> Parameter {
        Parameter::query(name, Kind::Word(words), about, words[0])
    }

    pub const fn time(name: &'static str, about: &'static str, example: &'static str) -> Parameter {
        Parameter::query(name, Kind::Time, about, example)
    }

    /// A row's number, at the path's `{id}`.
    pub const fn id(about: &'static str) -> Parameter {
        let kind = Kind::Integer { min: 1, max: i64::MAX };
        Parameter { place: Place::Path, is_required: true, ..Parameter::query("id", kind, about, "1") }
    }

    /// At the path's `{name}`.
    pub const fn in_path(self) -> Parameter {
        Parameter { place: Place::Path, is_required: true, ..self }
    }

    pub const fn form(self, pattern: &'static str) -> Parameter {
        Parameter { form: Some(pattern), ..self }
    }

    pub const fn required(self) -> Parameter {
        Parameter { is_required: true, ..self }
    }

    pub const fn many(self) -> Parameter {
        Parameter { is_many: true, ..self }
    }

    /// # Errors
    /// Says what is wrong with `value`, and what would be right.
    pub fn check(&self, value: &str) -> Result<(), ApiError> {
        let wrong = |problem: String| Err(ApiError::parameter(self.name, problem));
        match self.kind {
            _ if value.is_empty() => wrong("is empty; leave it out or give it a value".to_owned()),
            Kind::Text if value.chars().count() > TEXT_MAX => wrong(format!("is longer than {TEXT_MAX} characters")),
            Kind::Text => Ok(()),
            Kind::Integer { min, max } => match integer(value) {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                None if self.place == Place::Path => {
                    wrong(format!("{value:.40?} is no row number; give a whole number, as 42"))
                }
                // That there is no such row is said by who looks for it.
                Some(_) if self.place == Place::Path => Ok(()),
                _ => wrong(format!("{value:.40?} is not within {min} and {max}")),
            },
            Kind::Flag if ["true", "false"].contains(&value) => Ok(()),
            Kind::Flag => wrong(format!("{value:.40?} is neither true nor false")),
            Kind::Word(words) if words.contains(&value) => Ok(()),
            Kind::Word(words) => wrong(format!("{value:.40?} is none of {}", words.join(", "))),
            Kind::Time => journal_time(self.name, value).map(drop),
        }
    }
}

/// Digits as everybody writes them: without a plus sign, without leading zeros.
fn integer(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Checks what stands in a query against what the route takes.
///
/// # Errors
/// Names the parameter that is unknown, wrong, missing or there twice.
pub fn check_query(query: Parse, taken: &[&'static Parameter]) -> Result<(), ApiError> {
    let taken = || taken.iter().filter(|parameter| parameter.place == Place::Query);
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in query {
        let Some(parameter) = taken().find(|parameter| parameter.name == name) else {
            let there_are: Vec<&str> = taken().map(|parameter| parameter.name).collect();
            let problem = match there_are.is_empty() {
                true => "is no parameter here; there are none".to_owned(),
                false => format!("is no parameter here; there are {}", there_are.join(", ")),
            };
            return Err(ApiError::parameter(name.chars().take(40).collect::<String>(), problem));
        };
        parameter.check(&value)?;
        if seen.contains(&parameter.name) && !parameter.is_many {
            return Err(ApiError::parameter(parameter.name, "is given twice; give it once"));
        }
        seen.push(parameter.name);
    }
    match taken().find(|parameter| parameter.is_required && !seen.contains(&parameter.name)) {
        Some(missing) => {
            let problem = format!("is missing; give it, as {}={}", missing.name, missing.example.replace(' ', "+"));
            Err(ApiError::parameter(missing.name, problem))
        }
        None => Ok(()),
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
    let time = time::parse(text).ok_or_else(|| {
        let example = "as 2025-11-03 20:00:00, 2025-11-03, or 2025-11-03T20:00:00+01:00 (without a zone it is UTC)";
        ApiError::parameter(name, format!("{text:.60?} is no time; give one {example}"))
    })?;
    Ok(time_text(time))
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
