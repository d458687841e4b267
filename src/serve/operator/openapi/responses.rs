//! What a route answers: its own answers, and the errors that all have in common.

use std::collections::BTreeSet;

use schemars::generate::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::serve::operator::answer::Answer;
use crate::serve::operator::call::CURSOR;
use crate::serve::operator::route::Route;

/// Every status that `route` may answer with.
pub fn of(route: &Route, asks: bool, gives: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in route.answers.iter().flatten() {
        responses.insert(answer.status.to_string(), answered(route, answer, gives));
    }
    if route.method == "GET" {
        responses.insert("304".to_owned(), reference("responses", "304"));
    }
    for status in route.errors(asks) {
        // A route that says more about a status than this says it itself.
        responses.entry(status.to_string()).or_insert_with(|| reference("responses", &status.to_string()));
    }
    Value::Object(responses)
}

fn answered(route: &Route, answer: &Answer, gives: &mut SchemaGenerator) -> Value {
    let schema = answer.schema.map_or_else(|| json!({"type": "string"}), |schema| json!(schema(gives)));
    let content = answer.media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema})));
    let content = Value::Object(content.collect());
    let mut headers = Map::new();
    let takes = |name: &str| route.parameters.iter().any(|parameter| parameter.name == name);
    let has = [
        ("ETag", route.method == "GET" && answer.status == 200 && answer.schema.is_some()),
        ("Link", takes(CURSOR.name)),
        ("Location", route.takes_key),
    ];
    for (name, _) in has.into_iter().filter(|(_, has)| *has) {
        headers.insert(name.to_owned(), reference("headers", name));
    }
    json!({"description": about(answer.status), "headers": headers, "content": content})
}

fn reference(of: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{of}/{name}")})
}

/// The answers that are alike for all routes.
pub fn errors(routes: &[Route], asks: bool) -> Value {
    let mut statuses: BTreeSet<u16> = routes.iter().flat_map(|route| route.errors(asks)).collect();
    statuses.insert(405);
    let mut responses = Map::new();
    responses.insert(
        "304".to_owned(),
        json!({"description": about(304), "headers": {"ETag": reference("headers", "ETag")}}),
    );
    for status in statuses {
        let headers = match status {
            401 => json!({"WWW-Authenticate": reference("headers", "WWW-Authenticate")}),
            405 => json!({"Allow": reference("headers", "Allow")}),
            429 | 503 => json!({"Retry-After": reference("headers", "Retry-After")}),
            _ => json!({}),
        };
        let content = json!({"application/json": {"schema": reference("schemas", "Error")}});
        responses
            .insert(status.to_string(), json!({"description": about(status), "headers": headers, "content": content}));
    }
    Value::Object(responses)
}

pub fn headers() -> Value {
    let header =
        |about: &str, example: &str| json!({"description": about, "schema": {"type": "string"}, "example": example});
    json!({
        "Allow": header("The methods that the path takes", "GET, HEAD"),
        "ETag": header("Names this very answer, for If-None-Match", "W/\"0f1e2d3c4b5a69788796a5b4c3d2e1f0\""),
        "Link": header("The next page, where there is one (RFC 8288)", "</audit?limit=50&cursor=100>; rel=\"next\""),
        "Location": header("The job that was made, where one was", "/replay/jobs/1"),
        "Retry-After": header("Seconds to wait", "1"),
        "WWW-Authenticate": header("How to say who it is (RFC 9110, 11.6.1)", "Basic realm=\"crm-events-sink\""),
    })
}

pub fn error() -> Value {
    json!({
        "description": "What is wrong and what to do. Beside it may stand, by case, what there is to know before it is asked for again: \
                        a plan, a count, a difference, the job or the dead letter in the way.",
        "type": "object",
        "properties": {"detail": {"type": "string"}},
        "required": ["detail"],
    })
}

/// In an answer every time stands under a name that ends so.
pub fn name_times(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                let is_time = |(name, _): &(&String, &mut Value)| *name == "at" || name.ends_with("_at");
                for (_, property) in properties.iter_mut().filter(is_time) {
                    property["format"] = "date-time".into();
                }
            }
            object.values_mut().for_each(name_times);
        }
        Value::Array(items) => items.iter_mut().for_each(name_times),
        _ => {}
    }
}

fn about(status: u16) -> &'static str {
    match status {
        200 => "What was asked for",
        202 => "It was begun",
        304 => "The client has it already",
        400 => "The request is malformed",
        401 => "Credentials are missing or wrong",
        403 => "Whoever asks may not; or a web page from elsewhere asks",
        404 => "There is no such thing, or not for whoever asks",
        405 => "The path does not take this method",
        408 => "The request took too long to come",
        409 => "It does not go with what is there, or needs to be confirmed: nothing was done",
        413 => "The body is too large",
        417 => "The expectation is not known",
        421 => "The host is none of this box's",
        422 => "A parameter is wrong: its name, then the problem",
        429 => "Too many, too fast",
        431 => "The request's head is too large",
        500 => "A fault of the program or the journal; the log says more",
        501 => "The transfer coding is not known",
        502 => "Kafka refused it, or the answer was lost on the way",
        503 => "The box cannot just now; it can be tried again",
        504 => "Kafka did not say in time whether it has it",
        505 => "The HTTP version is not spoken",
        _ => "See the detail",
    }
}
