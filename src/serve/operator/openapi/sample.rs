//! Examples of answers, made of their schemas.

use serde_json::{Map, Value, json};

const DEPTH_MAX: usize = 8;

/// What a value of this name looks like: what a schema cannot say.
fn known(name: &str) -> Option<Value> {
    Some(match name {
        "detail" => json!("what is wrong, and what to do"),
        "tenant_id" => json!("acme"),
        "topic" => json!("apexflow.leads.created"),
        "payload" => json!({"tenant_id": "acme", "event_type": "lead.created", "id": 17, "name": "Ada"}),
        "kafka_key" => json!("acme:lead:17"),
        "kafka_headers" => json!([["traceparent", "00-1"]]),
        "kafka_timestamp" => json!(1_762_200_238_586_i64),
        "error" | "last_error" | "sample_error" => json!("not_json: expected value at line 1 column 1"),
        "group" => json!("0f1e2d3c4b5a6978"),
        "shape" => json!("expected value at line # column #"),
        "state" => json!("open"),
        "service" => json!("crm-events-sink"),
        "version" => json!(env!("CARGO_PKG_VERSION")),
        "would" => json!("fail"),
        "operator" => json!("anna"),
        "origin" => json!("127.0.0.1"),
        "action" => json!("replay"),
        "target" => json!("event 17 to apexflow.leads.created"),
        "outcome" => json!("done"),
        "reason" => json!("lost by the mailer"),
        "request" => json!({"tenant_id": "acme"}),
        "by_topic" => json!({"apexflow.leads.created": 3}),
        "by_tenant" => json!({"acme": 3}),
        "at" => json!("2025-11-03T20:03:58.586440+00:00"),
        name if name.ends_with("_at") => json!("2025-11-03T20:03:58.586440+00:00"),
        _ => return None,
    })
}

/// Adds an example to every JSON answer in `document`.
pub fn add(document: &mut Value, schemas: &Map<String, Value>) {
    let responses = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = responses.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for operation in operations {
        for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            let Some(content) = response.get_mut("content").and_then(|content| content.get_mut("application/json"))
            else {
                continue;
            };
            content["example"] = of(&content["schema"], schemas, "", 0);
        }
    }
}

fn of(schema: &Value, schemas: &Map<String, Value>, name: &str, depth: usize) -> Value {
    if let Some(value) = schema.pointer("/examples/0").cloned().or_else(|| known(name)) {
        return value;
    }
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(referred) = schema["$ref"].as_str().and_then(|path| schemas.get(path.rsplit('/').next()?)) {
        return of(referred, schemas, name, depth + 1);
    }
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    if let Some(one) = ["anyOf", "oneOf", "allOf"].iter().find_map(|of| schema.get(*of)?.get(0)) {
        return of(one, schemas, name, depth + 1);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"].get(0)?.as_str());
    match kind {
        Some("object") => object(schema, schemas, depth),
        Some("array") => json!([of(&schema["items"], schemas, name, depth + 1)]),
        Some("integer") => json!(1),
        Some("number") => json!(1.5),
        Some("boolean") => json!(true),
        Some("string") => json!("…"),
        _ => Value::Null,
    }
}

fn object(schema: &Value, schemas: &Map<String, Value>, depth: usize) -> Value {
    let properties = schema["properties"].as_object().into_iter().flatten();
    Value::Object(properties.map(|(name, schema)| (name.clone(), of(schema, schemas, name, depth + 1))).collect())
}
