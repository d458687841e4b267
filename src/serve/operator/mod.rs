//! :9106, for operators: one file a resource.

mod answer;
mod archive;
mod audit;
mod browser;
mod call;
mod description;
mod dlq;
mod erase;
mod events;
mod export;
mod health;
mod integrity;
mod job_forms;
mod jobs;
mod openapi;
mod page;
mod parameter;
mod prune;
mod removal_answers;
mod removals;
mod repair;
mod repair_answers;
mod replay;
mod resume;
mod route;
mod routes;
mod search;
mod storage;
mod time;
mod whole;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use self::browser::own_name;
use self::call::Call;
pub use self::description::Description;
pub use self::removals::Removals;
use self::route::Route;
use self::routes::ROUTES;
use super::export::Exports;
use super::reply::{ApiError, Reply};
use super::{Request, Routes, conditional};
use crate::archive::Archive;
use crate::audit::{Act, Outcome};
use crate::auth::Gate;
use crate::config::{Config, InForce};
use crate::health::{Health, JOURNAL};
use crate::queue::{Order, OrderError, Orders};
use crate::replay::{Jobs, Replayer};
use crate::retention::Status;
use crate::store::Readers;
use crate::watermarks::Watermarks;

/// How long the writer may take to begin with what is asked for.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct OperatorApi {
    pub config: Arc<Config>,
    /// For what a reload may have changed.
    pub in_force: Arc<InForce>,
    pub readers: Readers,
    pub replayer: Replayer,
    pub jobs: Arc<Jobs>,
    pub orders: Orders,
    pub watermarks: Arc<Watermarks>,
    pub health: Arc<Health>,
    pub gate: Arc<Gate>,
    pub exports: Exports,
    /// By which this box may be called.
    pub names: Vec<String>,
    pub description: Description,
    pub removals: Removals,
    pub storage: Arc<Status>,
    pub archive: Arc<Archive>,
}

impl OperatorApi {
    fn route(&self, request: &Request) -> Result<Reply, ApiError> {
        browser::expect_own_host(request, &self.names)?;
        let (route, placed) = find(request)?;
        let principal = self.gate.admit(request.header("Authorization"), &request.origin)?;
        if principal.is_none() && route.role.is_some() {
            return Err(self.gate.missing().into());
        }
        let call = Call { request, route, placed, principal };
        let done = self.expect_allowed(&call).and_then(|()| (route.handler)(self, &call));
        let status = done.as_ref().map_or_else(ApiError::status, |reply| reply.status);
        debug_assert!(route.says(status), "{} answers {status}, which its row does not say", route.path);
        let Some(action) = route.action else { return done };
        // What a handler answers it has put down in the audit; what it refuses is put down here.
        done.inspect_err(|error| self.note_refusal(&call, action, error))
    }

    fn expect_allowed(&self, call: &Call) -> Result<(), ApiError> {
        let (route, request) = (call.route, call.request);
        if let Some(principal) = &call.principal {
            route.expect_allowed(principal)?;
            if route.replays() {
                let counted = self.gate.count_replay(principal, &request.origin);
                counted.map_err(|seconds| ApiError::TooManyReplays { seconds })?;
            }
        }
        if route.action.is_some() {
            browser::expect_own_origin(request)?;
        }
        route.check(call)
    }

    /// But for those who are only too fast: that would fill the audit.
    fn note_refusal(&self, call: &Call, action: &'static str, error: &ApiError) {
        if matches!(error, ApiError::TooManyReplays { .. } | ApiError::TooManyExports) {
            return;
        }
        let request = call.request;
        let target = format!("{}?{}", request.path, self.without_key(&request.query)).chars().take(500).collect();
        let outcome = if error.is_refusal() { Outcome::Refused } else { Outcome::Failed };
        if let Err(unnoted) = self.note(call.act(target).with(outcome, error)) {
            tracing::warn!(action, %error, %unnoted, "a refusal is not in the audit");
        }
    }

    /// A query as the audit may have it, which stays for ever: of a key its digest.
    fn without_key(&self, query: &str) -> String {
        let pairs = || form_urlencoded::parse(query.as_bytes());
        if !pairs().any(|(name, _)| name == "key") {
            return query.to_owned();
        }
        let mut shown = form_urlencoded::Serializer::new(String::new());
        for (name, value) in pairs() {
            let value = if name == "key" { self.digest(&value).into() } else { value };
            shown.append_pair(&name, &value);
        }
        shown.finish()
    }

    fn digest(&self, key: &str) -> String {
        self.readers.key_digest(key).map_or_else(|_| "(not shown)".to_owned(), |digest| format!("sha256:{digest}"))
    }

    /// Puts `act` down in the audit; the row's id.
    fn note(&self, act: Act) -> Result<i64, OrderError> {
        self.orders.give(PATIENCE, |answer| Order::Note { act, answer })
    }
}

/// The route of a request, and what stood at its `{…}`.
fn find(request: &Request) -> Result<(&'static Route, Option<String>), ApiError> {
    let path = request.path.as_str();
    let mut found: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, route.fits(path)?))).collect();
    // `/dlq/retry` is itself, whatever the method, and not a dead letter's number.
    if found.iter().any(|(_, placed)| placed.is_none()) {
        found.retain(|(_, placed)| placed.is_none());
    }
    if found.is_empty() {
        let mut there_are: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        there_are.dedup();
        return Err(ApiError::NoSuchPath { path: path.to_owned(), there_are: there_are.join(", ") });
    }
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    let methods: BTreeSet<&str> = found.iter().map(|(route, _)| route.method).collect();
    found.into_iter().find(|(route, _)| route.method == method).ok_or_else(|| {
        let allow = methods.into_iter().collect::<Vec<_>>().join(", ").replace("GET", "GET, HEAD");
        ApiError::Method { allow }
    })
}

impl Routes for OperatorApi {
    fn answer(&self, request: &Request) -> Reply {
        let reply = self.route(request).unwrap_or_else(|error| Reply::error(&self.named(error)));
        conditional::finish(request, reply)
    }
}

impl OperatorApi {
    /// A damaged file is named, with what to do about it, here and in `/health`.
    fn named(&self, error: ApiError) -> ApiError {
        let ApiError::Store(error) = error else { return error };
        let error = self.readers.explain(error);
        if error.is_damage() {
            self.health.fault(JOURNAL, error.to_string());
        }
        ApiError::Store(error)
    }
}
