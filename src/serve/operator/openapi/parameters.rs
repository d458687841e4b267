//! What a request may say, as JSON Schema has it: exactly what the router takes.

use serde_json::{Value, json};

use crate::serve::operator::parameter::{Kind, Parameter, Place, TEXT_MAX};
use crate::serve::operator::replay::TO_TOPIC;
use crate::serve::operator::route::Route;
use crate::serve::operator::time;

/// The path's, the query's and the headers' parameters of a route.
pub fn of(route: &Route, to_topics: &[String]) -> Vec<Value> {
    let taken = route.parameters.iter().filter(|parameter| parameter.name != TO_TOPIC.name || !to_topics.is_empty());
    let mut all: Vec<Value> = taken.map(|parameter| described(parameter, to_topics)).collect();
    if route.takes_key {
        all.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "The same request with the same key is carried out once: the answer names the job that it made",
            "schema": {"type": "string", "pattern": KEY_PATTERN, "maxLength": 255},
            "example": "monday-1",
        }));
    }
    if route.action.is_some() {
        all.push(json!({
            "name": "X-Operator", "in": "header",
            "description": "Who asks, for the audit, where nobody has to log in; 500 characters of it are kept",
            "schema": {"type": "string"},
            "example": "anna",
        }));
    }
    all
}

/// An Idempotency-Key: printable ASCII, 1 to 255 of it, without spaces around it.
pub const KEY_PATTERN: &str = "^[!-~](?:[ -~]*[!-~])?$";

fn described(parameter: &Parameter, to_topics: &[String]) -> Value {
    let one = if parameter.name == TO_TOPIC.name {
        json!({"enum": to_topics})
    } else {
        with_form(schema(parameter.kind), parameter.form)
    };
    let (place, schema) = match (parameter.place, parameter.is_many) {
        (Place::Path, _) => ("path", in_path(one)),
        (Place::Query, false) => ("query", one),
        (Place::Query, true) => ("query", json!({"type": "array", "items": one})),
    };
    let example = match parameter.kind {
        _ if parameter.name == TO_TOPIC.name => json!(to_topics.first()),
        Kind::Integer { .. } | Kind::Flag => serde_json::from_str(parameter.example).unwrap_or_default(),
        _ => json!(parameter.example),
    };
    let example = if parameter.is_many { json!([example]) } else { example };
    let mut described = json!({"name": parameter.name, "in": place, "description": parameter.about});
    if parameter.is_required {
        described["required"] = true.into();
    }
    described["schema"] = schema;
    if !parameter.example.is_empty() {
        described["example"] = example;
    }
    described
}

fn with_form(mut schema: Value, form: Option<&str>) -> Value {
    if let Some(pattern) = form {
        schema["pattern"] = pattern.into();
    }
    schema
}

/// Clients take `.` and `..` out of a path, even escaped ones (RFC 3986, 5.2.4).
fn in_path(mut schema: Value) -> Value {
    if schema["type"] == "string" {
        schema["not"] = json!({"enum": [".", ".."]});
    }
    schema
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string", "minLength": 1, "maxLength": TEXT_MAX}),
        Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::Time => json!({"$ref": "#/components/schemas/Time"}),
    }
}

pub fn time() -> Value {
    json!({
        "description": "A day, or a day and a time, maybe with a zone; without one it is UTC: 2025-11-03, 2025-11-03 20:03:58.586440, \
                        2025-11-03T20:03:58+01:00",
        "type": "string",
        "pattern": time::PATTERN,
    })
}
