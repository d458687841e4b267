//! A request that has found its route and whose parameters are right: what it says, and who it is from.

use std::str::FromStr;

use super::parameter::{Parameter, Place, TEXT_MAX, journal_time};
use super::route::Route;
use crate::audit::Act;
use crate::auth::Principal;
use crate::serve::Request;
use crate::serve::reply::ApiError;

/// Rows that a list gives when it is not told, and at most.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: i64 = 1000;

pub const LIMIT: Parameter = Parameter::integer("limit", (1, LIMIT_MAX), "Rows at most; 20 where it is left out", "50");
/// Where a list goes on, as the `Link` header of the page before said.
pub const CURSOR: Parameter =
    Parameter::integer("cursor", (0, i64::MAX), "Where the list goes on: from the page before", "100");
pub const REASON: Parameter = Parameter::text("reason", "Why, for the audit", "lost by the mailer");

pub struct Call<'a> {
    pub request: &'a Request,
    pub route: &'static Route,
    /// What stood at the route's `{…}`.
    pub placed: Option<String>,
    /// `None`: nobody that is known, which some routes allow.
    pub principal: Option<Principal>,
}

impl Call<'_> {
    /// The row at the route's `{id}`.
    pub fn id(&self) -> i64 {
        // The router has looked at it.
        self.placed.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The only tenant whose data may be seen and touched.
    pub fn tenant(&self) -> Option<&str> {
        self.principal.as_ref().and_then(|principal| principal.tenant.as_deref())
    }

    /// # Errors
    /// If another tenant is asked for than the only one that may be.
    pub fn expect_own(&self, asked: Option<&str>) -> Result<(), ApiError> {
        match (self.tenant(), asked) {
            (Some(own), Some(asked)) if own != asked => Err(ApiError::Forbidden(format!(
                "{asked:.100?} is another tenant: you may see and touch {own:?} only; leave tenant_id out"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether whoever asks may see what is the whole box's.
    pub fn sees_box(&self) -> bool {
        self.principal.as_ref().is_some_and(|principal| principal.tenant.is_none())
    }

    /// What stands in the query, or in the path, for one of the route's parameters.
    pub fn text(&self, parameter: &Parameter) -> Option<String> {
        match parameter.place {
            Place::Path => self.placed.clone(),
            Place::Query => self.texts(parameter).next(),
        }
    }

    /// All of them, where it may be given several times.
    pub fn texts(&self, parameter: &Parameter) -> impl Iterator<Item = String> {
        let name = parameter.name;
        let pairs = form_urlencoded::parse(self.request.query.as_bytes());
        pairs.filter(move |(own, _)| own == name).map(|(_, value)| value.into_owned())
    }

    pub fn flag(&self, parameter: &Parameter) -> bool {
        self.text(parameter).as_deref() == Some("true")
    }

    pub fn number<T: FromStr>(&self, parameter: &Parameter) -> Option<T> {
        self.text(parameter)?.parse().ok()
    }

    /// A time, as the journal writes it.
    pub fn time(&self, parameter: &Parameter) -> Option<String> {
        journal_time(parameter.name, &self.text(parameter)?).ok()
    }

    pub fn limit(&self) -> u32 {
        self.number(&LIMIT).unwrap_or(LIMIT_DEFAULT)
    }

    /// Whether the query says anything but how long the list is to be.
    pub fn is_conditional(&self) -> bool {
        form_urlencoded::parse(self.request.query.as_bytes()).any(|(name, _)| name != LIMIT.name)
    }

    /// The address of this list's next page, which begins at `cursor`, if a page of `limit` rows was full.
    pub fn next_page(&self, rows: usize, limit: u32, cursor: i64) -> Option<String> {
        (rows >= limit as usize).then(|| self.page_at(&cursor.to_string()))
    }

    /// The address of this list from `cursor` on.
    pub fn page_at(&self, cursor: &str) -> String {
        let others = form_urlencoded::parse(self.request.query.as_bytes()).filter(|(name, _)| name != CURSOR.name);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(others).append_pair(CURSOR.name, cursor);
        format!("{}?{}", self.request.path, query.finish())
    }

    /// The row in the audit of what is asked for.
    pub fn act(&self, target: String) -> Act {
        let action = self.route.action.unwrap_or(self.route.path);
        Act {
            reason: self.text(&REASON),
            tenant_id: self.tenant().map(str::to_owned),
            ..Act::new(self.operator(), self.request.origin.clone(), action, target)
        }
    }

    /// Who asks: by the credentials, or, where none are asked for, who says to be asking.
    fn operator(&self) -> String {
        if let Some(name) = self.principal.as_ref().and_then(|principal| principal.name.as_ref()) {
            return name.clone();
        }
        let name = self.request.header("X-Operator").map(str::trim).filter(|name| !name.is_empty());
        name.map_or_else(|| "unknown".to_owned(), |name| name.chars().take(TEXT_MAX).collect())
    }

    /// # Errors
    /// If it is not what the API's description says it is.
    pub fn idempotency_key(&self) -> Result<Option<String>, ApiError> {
        let Some(key) = self.request.header("Idempotency-Key") else { return Ok(None) };
        let key = key.trim();
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ApiError::parameter("Idempotency-Key", "must have 1 to 255 printable ASCII characters"));
        }
        Ok(Some(key.to_owned()))
    }

    pub fn body(&self) -> &[u8] {
        &self.request.body
    }
}
