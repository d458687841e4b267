//! The table's rows: where a request goes, what it may say there, and who may send it.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;

use schemars::JsonSchema;

use super::OperatorApi;
use super::answer::{Answer, Content};
use super::call::Call;
use super::parameter::{Parameter, Place, check_query};
use crate::auth::{Principal, Role};
use crate::serve::reply::{ApiError, Reply};

pub type Handler = fn(&OperatorApi, &Call) -> Result<Reply, ApiError>;

/// What a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Rows that belong to tenants: who may see one tenant only finds that one's.
    Tenants,
    /// What has no tenant: not for those who may see one tenant only.
    Box,
}

/// One method of one path.
pub struct Route {
    pub method: &'static str,
    /// A segment in braces stands for any one.
    pub path: &'static str,
    pub handler: Handler,
    /// In a few words.
    pub about: &'static str,
    pub parameters: &'static [&'static Parameter],
    /// Who may; `None`: everybody, without saying who it is.
    pub role: Option<Role>,
    pub reach: Reach,
    /// Its name in the audit, where it is an act.
    pub action: Option<&'static str>,
    pub body: Option<Content>,
    /// Whether an `Idempotency-Key` has a meaning.
    pub takes_key: bool,
    /// What it answers when all is well; and not well, where that is no `{"detail": …}`.
    pub answers: [Option<Answer>; ANSWERS_MAX],
    /// Parameters of the example beside those that it needs; one that only shows what would be done is always there.
    pub example: &'static [&'static Parameter],
    /// Statuses of errors beside those that every route has, or that follow from the rest of its row.
    pub errors: &'static [u16],
}

/// Kinds of answers of one route at most.
const ANSWERS_MAX: usize = 2;
/// What may be wrong with any request, with the box, or on the way.
const ERRORS_OF_ALL: [u16; 12] = [400, 408, 413, 417, 421, 422, 431, 500, 501, 502, 503, 505];

pub const fn get(path: &'static str, handler: Handler, about: &'static str) -> Route {
    Route {
        method: "GET",
        path,
        handler,
        about,
        parameters: &[],
        role: Some(Role::Viewer),
        reach: Reach::Tenants,
        action: None,
        body: None,
        takes_key: false,
        answers: [None; ANSWERS_MAX],
        example: &[],
        errors: &[],
    }
}

/// What changes something: `action` names it in the audit.
pub const fn act(path: &'static str, action: &'static str, handler: Handler, about: &'static str) -> Route {
    let route = get(path, handler, about);
    Route { method: "POST", role: Some(Role::Operator), action: Some(action), ..route }
}

impl Route {
    pub const fn takes(self, parameters: &'static [&'static Parameter]) -> Route {
        Route { parameters, ..self }
    }

    /// A JSON body, which there has to be.
    pub const fn body<T: JsonSchema>(self, example: &'static str) -> Route {
        Route { body: Some(Content::json::<T>(example)), ..self }
    }

    /// A JSON Patch (RFC 6902), or no body.
    pub const fn patch<T: JsonSchema>(self, example: &'static str) -> Route {
        Route { body: Some(Content::patch::<T>(example)), ..self }
    }

    /// Answers `status` with a `T` in JSON.
    pub const fn gives<T: JsonSchema>(self, status: u16) -> Route {
        self.answers(Answer::json::<T>(status))
    }

    /// Answers 200 with bytes of one of these media types.
    pub const fn gives_files(self, media_types: &'static [&'static str]) -> Route {
        self.answers(Answer::files(media_types))
    }

    const fn answers(self, answer: Answer) -> Route {
        let [first, second] = self.answers;
        let answers = if first.is_none() { [Some(answer), second] } else { [first, Some(answer)] };
        Route { answers, ..self }
    }

    /// Parameters of the example, beside those without which it is always wrong.
    pub const fn such_as(self, example: &'static [&'static Parameter]) -> Route {
        Route { example, ..self }
    }

    /// Errors that it may answer with, beside those of every route.
    pub const fn may(self, errors: &'static [u16]) -> Route {
        Route { errors, ..self }
    }

    pub const fn idempotency_key(self) -> Route {
        Route { takes_key: true, ..self }
    }

    pub const fn of_the_box(self) -> Route {
        Route { reach: Reach::Box, ..self }
    }

    /// It takes data out: that is put down in the audit as an act is.
    pub const fn noted_as(self, action: &'static str) -> Route {
        Route { action: Some(action), ..self }
    }

    pub const fn for_everybody(self) -> Route {
        Route { role: None, ..self }
    }

    pub const fn for_admins(self) -> Route {
        Route { role: Some(Role::Admin), ..self }
    }

    /// Whether it sends events to Kafka, or may.
    pub fn replays(&self) -> bool {
        matches!(self.action, Some("replay" | "replay.job" | "dlq.retry"))
    }

    /// # Errors
    /// Says what whoever asks would have to be.
    pub fn expect_allowed(&self, principal: &Principal) -> Result<(), ApiError> {
        let Some(role) = self.role.filter(|role| principal.role < *role) else { return self.expect_reach(principal) };
        let own = principal.role;
        Err(ApiError::Forbidden(format!("this is for the role {role} and those above it; you are {own}")))
    }

    fn expect_reach(&self, principal: &Principal) -> Result<(), ApiError> {
        match &principal.tenant {
            Some(tenant) if self.reach == Reach::Box => {
                Err(ApiError::Forbidden(format!("this is about the whole box; you may see {tenant:?} only")))
            }
            _ => Ok(()),
        }
    }

    /// Every status of an error that it may answer with, `asks` whether somebody has to say who it is.
    pub fn errors(&self, asks: bool) -> BTreeSet<u16> {
        let mut errors = BTreeSet::from(ERRORS_OF_ALL);
        errors.extend(self.errors);
        errors.extend(asks.then_some([401, 429]).into_iter().flatten());
        errors.extend(self.role.map(|_| 403));
        errors.extend(self.replays().then_some(429));
        errors.extend(self.path.contains('{').then_some(404));
        errors
    }

    /// Whether the API's description has this status.
    pub fn says(&self, status: u16) -> bool {
        let is_answer = self.answers.iter().flatten().any(|answer| answer.status == status);
        is_answer || self.errors(true).contains(&status)
    }

    /// Whether `path` is one of this route's; and what stood at its `{…}`.
    pub fn fits(&self, path: &str) -> Option<Option<String>> {
        let decoded = |placed: &str| percent_decode_str(placed).decode_utf8_lossy().into_owned();
        fits(self.path, path).map(|placed| placed.map(decoded))
    }

    /// # Errors
    /// Names what the request says that this route does not take, or that is wrong.
    pub fn check(&self, call: &Call) -> Result<(), ApiError> {
        let placed = self.parameters.iter().find(|parameter| parameter.place == Place::Path);
        if let (Some(parameter), Some(value)) = (placed, &call.placed) {
            parameter.check(value)?;
        }
        check_query(form_urlencoded::parse(call.request.query.as_bytes()), self.parameters)?;
        if self.method == "GET" {
            return Ok(());
        }
        if !self.takes_key && call.request.header("Idempotency-Key").is_some() {
            return Err(ApiError::parameter("Idempotency-Key", "has no meaning here; leave it out"));
        }
        // Some clients send an empty object with every POST.
        if self.body.is_none() && !matches!(call.body().trim_ascii(), b"" | b"{}") {
            return Err(ApiError::parameter("body", "is not taken here; leave it out"));
        }
        Ok(())
    }
}

fn fits<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let (mut own, mut given) = (pattern.split('/'), path.split('/'));
    let mut placed = None;
    loop {
        match (own.next(), given.next()) {
            (None, None) => return Some(placed),
            (Some(own), Some(given)) if own.starts_with('{') => placed = Some(given),
            (Some(own), Some(given)) if own == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_a_pattern_segment_by_segment() {
        assert_eq!(fits("/events/{id}", "/events/7"), Some(Some("7")));
        assert_eq!(fits("/events/{id}", "/events/"), Some(Some("")));
        assert_eq!(fits("/health", "/health"), Some(None));
        for path in ["/events", "/events/7/x", "/event/7", "events/7"] {
            assert_eq!(fits("/events/{id}", path), None, "{path}");
        }
    }
}
