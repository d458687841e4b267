//! `GET /openapi.json` and `GET /docs`: the API describes itself, from the table that routes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::call::Call;
use super::routes::ROUTES;
use super::{OperatorApi, openapi, page};
use crate::config::Config;
use crate::serve::reply::{ApiError, Body, Reply};

/// Made once: it changes with the program and its settings only.
pub struct Description {
    openapi: Value,
    page: page::Page,
}

impl Description {
    pub fn of(config: &Config) -> Description {
        let openapi = openapi::document(ROUTES, config);
        let page = page::Page::of(&openapi);
        Description { openapi, page }
    }
}

/// An OpenAPI document, for its own description.
pub struct OpenApi;

impl JsonSchema for OpenApi {
    fn schema_name() -> Cow<'static, str> {
        "OpenApi".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let version = openapi::VERSION;
        json_schema!({
            "description": "See https://spec.openapis.org/oas/v3.1.1.html.",
            "type": "object",
            "properties": {"openapi": {"const": version}, "info": {"type": "object"}, "paths": {"type": "object"}},
            "required": ["openapi", "info", "paths"],
        })
    }
}

pub fn openapi(api: &OperatorApi, _: &Call) -> Result<Reply, ApiError> {
    Ok(Reply::json(200, &api.description.openapi))
}

pub fn docs(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let scheme = if call.request.is_encrypted { "https" } else { "http" };
    let host = call.request.header("Host").unwrap_or("localhost:9106");
    let (page, body) = (&api.description.page, api.description.page.at(&format!("{scheme}://{host}")));
    let headers = vec![("Content-Security-Policy", page.policy.clone())];
    Ok(Reply { status: 200, content_type: "text/html; charset=utf-8", headers, body: Body::Bytes(body.into_bytes()) })
}
