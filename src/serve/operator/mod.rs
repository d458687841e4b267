//! :9106, for operators: one file a resource.

mod audit;
mod call;
mod dlq;
mod events;
mod health;
mod integrity;
mod jobs;
mod repair;
mod replay;
mod resume;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::call::Call;
use super::reply::{ApiError, Reply};
use super::{Request, Routes};
use crate::audit::{Act, Outcome};
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

type Handler = fn(&OperatorApi, &Call) -> Result<Reply, ApiError>;

/// What one method does at one path.
struct Route {
    method: &'static str,
    /// `{…}` stands for one segment.
    path: &'static str,
    handler: Handler,
    /// Of what acts: its name in the audit, and the parameters that it takes. Others are refused, since a condition
    /// that is misspelt would be one that does not hold anybody back.
    act: Option<(&'static str, &'static [&'static str])>,
}

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { method: "GET", path, handler, act: None }
}

const fn post(
    path: &'static str,
    action: &'static str,
    parameters: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route { method: "POST", path, handler, act: Some((action, parameters)) }
}

/// The first that fits is taken.
const ROUTES: &[Route] = &[
    get("/health", health::get),
    get("/events/latest", events::latest),
    get("/events/{id}", events::get),
    post("/replay/batch", "replay.job", jobs::OPTIONS, jobs::batch),
    post("/replay/range", "replay.job", jobs::RANGE, jobs::range),
    post("/replay/jobs", "replay.job", jobs::OPTIONS, jobs::post),
    get("/replay/jobs", jobs::list),
    get("/replay/jobs/{id}", jobs::get),
    get("/replay/jobs/{id}/items", jobs::items),
    post("/replay/jobs/{id}/pause", "replay.job.pause", &["reason"], jobs::pause),
    post("/replay/jobs/{id}/resume", "replay.job.resume", &["reason"], jobs::resume),
    post("/replay/jobs/{id}/cancel", "replay.job.cancel", &["reason"], jobs::cancel),
    post("/replay/jobs/{id}/retry-failed", "replay.job.retry-failed", &["reason", "uncertain"], jobs::retry_failed),
    post("/replay/jobs/{id}/rate", "replay.job.rate", &["reason", "rate_per_s"], jobs::rate),
    post("/replay/{id}", "replay", &["reason", "to_topic"], replay::post),
    get("/dlq", dlq::list),
    get("/dlq/groups", dlq::groups),
    post("/dlq/retry", "dlq.retry", repair::FILTERED, repair::retry_filtered),
    post("/dlq/groups/{group}/retry", "dlq.retry", repair::BULK, repair::retry_group),
    post("/dlq/groups/{group}/discard", "dlq.discard", &["reason", "confirm"], repair::discard_group),
    get("/dlq/{id}", dlq::get),
    post("/dlq/{id}/retry", "dlq.retry", repair::ONE, repair::retry),
    post("/dlq/{id}/discard", "dlq.discard", &["reason"], repair::discard),
    get("/audit", audit::list),
    get("/integrity", integrity::get),
    post("/consumer/resume", "consumer.resume", &["reason", "topic", "partition"], resume::post),
];

/// The routes that make a job, and so take an `Idempotency-Key`.
const MAKE_JOBS: [&str; 3] = ["/replay/batch", "/replay/range", "/replay/jobs"];

/// Whether `path` is one of `pattern`; and what stood at its `{…}`.
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

impl OperatorApi {
    fn route(&self, request: &Request) -> Result<Reply, ApiError> {
        let path = request.path.as_str();
        let found: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, fits(route.path, path)?))).collect();
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
        let call = Call { request, placed: *placed };
        let Some((action, parameters)) = route.act else { return (route.handler)(self, &call) };
        let done = expect_only(&call, route, parameters).and_then(|()| (route.handler)(self, &call));
        // What a handler answers it has put down in the audit; what it refuses is put down here.
        done.inspect_err(|error| self.note_refusal(&call, action, error))
    }

    fn note_refusal(&self, call: &Call, action: &'static str, error: &ApiError) {
        let request = call.request;
        let target = format!("{}?{}", request.path, request.query).chars().take(500).collect();
        let outcome = if error.is_refusal() { Outcome::Refused } else { Outcome::Failed };
        let act = call.act(action, target).map(|act| act.with(outcome, error));
        if let Err(unnoted) = act.and_then(|act| Ok(self.note(act)?)) {
            tracing::warn!(action, %error, %unnoted, "a refusal is not in the audit");
        }
    }

    /// Puts `act` down in the audit; the row's id.
    fn note(&self, act: Act) -> Result<i64, OrderError> {
        self.orders.give(PATIENCE, |answer| Order::Note { act, answer })
    }
}

fn expect_only(call: &Call, route: &Route, parameters: &[&str]) -> Result<(), ApiError> {
    if let Some(unknown) = call.names().find(|name| !parameters.contains(&name.as_str())) {
        let problem = format!("is no parameter here; there are {}", parameters.join(", "));
        return Err(ApiError::parameter(unknown.chars().take(40).collect::<String>(), problem));
    }
    if !MAKE_JOBS.contains(&route.path) && call.request.header("Idempotency-Key").is_some() {
        let problem = format!("is taken by {} only; leave it out", MAKE_JOBS.join(", "));
        return Err(ApiError::parameter("Idempotency-Key", problem));
    }
    Ok(())
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
