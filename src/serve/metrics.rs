//! :9105, for Prometheus. Never touches SQLite: it must answer when the disk does not.

use std::sync::Arc;

use super::reply::{ApiError, Reply};
use super::{Request, Routes};
use crate::metrics::Metrics;

pub struct MetricsApi(pub Arc<Metrics>);

impl Routes for MetricsApi {
    fn answer(&self, request: &Request) -> Reply {
        match (request.path.as_str(), request.method.as_str()) {
            ("/metrics", "GET" | "HEAD") => Reply {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                headers: Vec::new(),
                body: self.0.text(),
            },
            ("/metrics", _) => Reply::error(&ApiError::Method { allow: "GET, HEAD".to_owned() }),
            (path, _) => {
                Reply::error(&ApiError::NoSuchPath { path: path.to_owned(), there_are: "/metrics".to_owned() })
            }
        }
    }
}
