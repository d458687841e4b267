//! The description of the API in OpenAPI 3.1, made of the table that routes: it cannot say anything else.

mod curl;
mod parameters;
mod responses;
mod sample;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::answer::Content;
use super::route::{Reach, Route};
use crate::config::Config;
pub use curl::ORIGIN;

pub const VERSION: &str = "3.1.1";

const ABOUT: &str = "Events of a CRM, as they were received; replays of them; work on what could not be stored.\n\n\
    Errors are `{\"detail\": \"…\"}`. A parameter that is not listed is refused, never ignored. Times without a zone are UTC. \
    Lists are newest first; where there is more, a `Link` header names the next page. Every path that takes GET takes HEAD. \
    What is read has an `ETag`: `If-None-Match` with it is answered 304 as long as nothing has changed. \
    Answers of 1 KiB and more come in gzip where `Accept-Encoding` takes it.";

/// What the settings say about the API.
struct Setting<'a> {
    /// The names of the security schemes.
    schemes: Vec<&'static str>,
    to_topics: &'a [String],
}

pub fn document(routes: &[Route], config: &Config) -> Value {
    let auth = &config.api.auth;
    let schemes = [("basic", auth.has_users()), ("bearer", auth.has_tokens())];
    let schemes = schemes.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name).collect();
    let setting = Setting { schemes, to_topics: &config.replay.to_topics };
    let (mut takes, mut gives) = (generator(SchemaSettings::for_deserialize), generator(SchemaSettings::for_serialize));
    let mut paths = Map::new();
    for route in routes {
        let operation = operation(route, &setting, &mut takes, &mut gives);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let mut schemas = definitions(&mut takes);
    setting.narrow(&mut schemas);
    schemas.extend(definitions(&mut gives));
    schemas.insert("Error".to_owned(), responses::error());
    schemas.insert("Time".to_owned(), parameters::time());
    let mut document = json!({
        "openapi": VERSION,
        "info": {"title": "CRM Events Sink", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
                 "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": tags(routes),
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses::errors(routes, setting.asks()),
                       "headers": responses::headers(), "securitySchemes": setting.security_schemes()},
    });
    if setting.asks() {
        document["security"] = setting.schemes.iter().map(|name| json!({*name: []})).collect();
    }
    let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    sample::add(&mut document, &schemas);
    document
}

/// Parsing and writing have schemas of their own: what may be left out differs.
fn generator(contract: fn(SchemaSettings) -> SchemaSettings) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    contract(settings).into_generator()
}

fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut schemas = generator.take_definitions(true);
    schemas.values_mut().for_each(responses::name_times);
    schemas
}

impl Setting<'_> {
    fn asks(&self) -> bool {
        !self.schemes.is_empty()
    }

    /// The topics that are allowed are a setting.
    fn narrow(&self, schemas: &mut Map<String, Value>) {
        for schema in schemas.values_mut() {
            let Some(Value::Object(properties)) = schema.get_mut("properties") else { continue };
            if self.to_topics.is_empty() {
                properties.shift_remove("to_topic");
            } else if let Some(to_topic) = properties.get_mut("to_topic") {
                *to_topic = json!({"description": "Another topic than the events' own", "enum": self.to_topics});
            }
        }
    }

    fn security_schemes(&self) -> Value {
        let scheme = |name: &&'static str| {
            let about = match *name {
                "basic" => json!({"type": "http", "scheme": "basic"}),
                _ => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
            };
            ((*name).to_owned(), about)
        };
        Value::Object(self.schemes.iter().map(scheme).collect())
    }
}

fn operation(route: &Route, setting: &Setting, takes: &mut SchemaGenerator, gives: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "tags": [tag(route)],
        "x-role": route.role.map_or("everybody", |role| role.as_str()),
        "x-reach": if route.reach == Reach::Box { "box" } else { "tenants" },
        "parameters": parameters::of(route, setting.to_topics),
        "responses": responses::of(route, setting.asks(), gives),
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": curl::example(route, &setting.schemes)}],
    });
    if let Some(action) = route.action {
        operation["x-action"] = action.into();
    }
    if let Some(body) = &route.body {
        operation["requestBody"] = request_body(body, takes);
    }
    if setting.asks() && route.role.is_none() {
        // Who says who it is may be told more.
        operation["security"] = json!([]);
    }
    operation
}

fn request_body(body: &Content, takes: &mut SchemaGenerator) -> Value {
    let example: Value = serde_json::from_str(body.example).unwrap_or_default();
    let content = json!({"schema": (body.schema)(takes), "example": example});
    json!({"required": body.is_required, "content": {body.media_type: content}})
}

/// `get_events_id` for `GET /events/{id}`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '-', '.']).map(|word| word.trim_matches(['{', '}']));
    std::iter::once(route.method.to_lowercase().as_str())
        .chain(words.filter(|word| !word.is_empty()))
        .collect::<Vec<_>>()
        .join("_")
}

fn tag(route: &Route) -> &str {
    match route.path {
        "/openapi.json" | "/docs" | "/health" => "about",
        path if path.starts_with("/replay/") && !path.starts_with("/replay/{") => "jobs",
        path => path.split('/').nth(1).unwrap_or_default(),
    }
}

fn tags(routes: &[Route]) -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    for name in routes.iter().map(tag) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| json!({"name": name})).collect()
}
