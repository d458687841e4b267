//! :9105, for Prometheus. Never touches SQLite: it must answer when the disk does not.

use std::sync::Arc;

use super::Routes;
use super::reply::{ApiError, Reply};
use crate::metrics::Metrics;

pub struct MetricsApi(pub Arc<Metrics>);

impl Routes for MetricsApi {
    fn answer(&self, method: &str, path: &str, _: &str) -> Reply {
        match (path, method) {
            ("/metrics", "GET" | "HEAD") => Reply {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                header: None,
                body: self.0.text(),
            },
            ("/metrics", _) => Reply::error(&ApiError::Method { allow: "GET, HEAD" }),
            _ => Reply::error(&ApiError::NoSuchPath { path: path.to_owned(), there_are: "/metrics" }),
        }
    }
}
