//! :9106, for operators: one file a resource.

mod audit;
mod call;
mod dlq;
mod events;
mod health;
mod integrity;
mod jobs;
mod parameter;
mod repair;
mod replay;
mod resume;
mod route;
mod routes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::call::Call;
use self::routes::ROUTES;
use super::reply::{ApiError, Reply};
use super::{Request, Routes};
use crate::audit::{Act, Outcome};
use crate::auth::{Principal, Role};
use crate::config::Config;
use crate::health::{Health, JOURNAL};
use crate::queue::{Order, OrderError, Orders};
use crate::replay::{Jobs, Replayer};
use crate::store::Readers;
use crate::watermarks::Watermarks;

/// How long the writer may take to begin with what is asked for.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct OperatorApi {
    pub config: Arc<Config>,
    pub readers: Readers,
    pub replayer: Replayer,
    pub jobs: Arc<Jobs>,
    pub orders: Orders,
    pub watermarks: Arc<Watermarks>,
    pub health: Arc<Health>,
}

impl OperatorApi {
    fn route(&self, request: &Request) -> Result<Reply, ApiError> {
        let path = request.path.as_str();
        let found: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, route.fits(path)?))).collect();
        if found.is_empty() {
            let mut there_are: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
            there_are.dedup();
            return Err(ApiError::NoSuchPath { path: path.to_owned(), there_are: there_are.join(", ") });
        }
        let method = if request.method == "HEAD" { "GET" } else { &request.method };
        let Some((route, placed)) = found.iter().find(|(route, _)| route.method == method) else {
            let methods: BTreeSet<&str> = found.iter().map(|(route, _)| route.method).collect();
            let allow = methods.into_iter().collect::<Vec<_>>().join(", ").replace("GET", "GET, HEAD");
            return Err(ApiError::Method { allow });
        };
        let principal = Principal { name: None, role: Role::Admin, tenant: None };
        let call = Call { request, route, placed: placed.clone(), principal };
        let done = route.check(&call).and_then(|()| (route.handler)(self, &call));
        let Some(action) = route.action else { return done };
        // What a handler answers it has put down in the audit; what it refuses is put down here.
        done.inspect_err(|error| self.note_refusal(&call, action, error))
    }

    fn note_refusal(&self, call: &Call, action: &'static str, error: &ApiError) {
        let request = call.request;
        let target = format!("{}?{}", request.path, request.query).chars().take(500).collect();
        let outcome = if error.is_refusal() { Outcome::Refused } else { Outcome::Failed };
        if let Err(unnoted) = self.note(call.act(target).with(outcome, error)) {
            tracing::warn!(action, %error, %unnoted, "a refusal is not in the audit");
        }
    }

    /// Puts `act` down in the audit; the row's id.
    fn note(&self, act: Act) -> Result<i64, OrderError> {
        self.orders.give(PATIENCE, |answer| Order::Note { act, answer })
    }
}

impl Routes for OperatorApi {
    fn answer(&self, request: &Request) -> Reply {
        self.route(request).unwrap_or_else(|error| Reply::error(&self.named(error)))
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
