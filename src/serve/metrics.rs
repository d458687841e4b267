//! :9105, for Prometheus. Never touches SQLite: it must answer when the disk does not.

use std::sync::Arc;

use super::reply::{ApiError, Body, Reply};
use super::{Request, Routes};
use crate::auth::{Gate, Principal, Role};
use crate::metrics::Metrics;

pub struct MetricsApi {
    pub metrics: Arc<Metrics>,
    /// Where Prometheus has to say who it is.
    pub gate: Option<Arc<Gate>>,
}

impl MetricsApi {
    fn get(&self, request: &Request) -> Result<Reply, ApiError> {
        let allow = || ApiError::Method { allow: "GET, HEAD".to_owned() };
        match (request.path.as_str(), request.method.as_str()) {
            ("/metrics", "GET" | "HEAD") => {}
            ("/metrics", _) => return Err(allow()),
            (path, _) => {
                return Err(ApiError::NoSuchPath { path: path.to_owned(), there_are: "/metrics".to_owned() });
            }
        }
        let principal = self.admit(request)?;
        let text = self.metrics.text();
        let body = match &principal.tenant {
            None => text,
            Some(tenant) => only(&String::from_utf8_lossy(&text), tenant).into_bytes(),
        };
        let (content_type, body) = ("text/plain; version=0.0.4; charset=utf-8", Body::Bytes(body));
        Ok(Reply { status: 200, content_type, headers: Vec::new(), body })
    }

    fn admit(&self, request: &Request) -> Result<Principal, ApiError> {
        let Some(gate) = &self.gate else { return Ok(Principal { name: None, role: Role::Viewer, tenant: None }) };
        let admitted = gate.admit(request.header("Authorization"), &request.origin)?;
        Ok(admitted.ok_or_else(|| gate.missing())?)
    }
}

impl Routes for MetricsApi {
    fn answer(&self, request: &Request) -> Reply {
        self.get(request).unwrap_or_else(|error| Reply::error(&error))
    }
}

/// What a text of metrics says of one tenant: its samples, and the heads of their families.
fn only(text: &str, tenant: &str) -> String {
    let escaped = tenant.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let label = format!("tenant_id=\"{escaped}\"");
    let mut shown = String::new();
    let mut head = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            if line.starts_with("# HELP ") {
                head.clear();
            }
            head.push_str(line);
            head.push('\n');
        } else if line.contains(&label) {
            shown.push_str(&std::mem::take(&mut head));
            shown.push_str(line);
            shown.push('\n');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_sees_its_own_samples_only() {
        let text = "# HELP a A.\n# TYPE a counter\na{tenant_id=\"acme\"} 1\na{tenant_id=\"acme2\"} 2\n\
                    # HELP b B.\n# TYPE b gauge\nb 3\n\
                    # HELP c C.\n# TYPE c counter\nc{tenant_id=\"globex\",topic=\"tenant_id=\\\"acme\\\"\"} 4\n";
        assert_eq!(only(text, "acme"), "# HELP a A.\n# TYPE a counter\na{tenant_id=\"acme\"} 1\n");
        assert_eq!(only(text, "nobody"), "");
    }
}
