//! The description as a page: no script, nothing from elsewhere.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::openapi::ORIGIN;

const STYLE: &str = include_str!("page.css");

pub struct Page {
    html: String,
    /// Its Content-Security-Policy: this page's style, and nothing else at all.
    pub policy: String,
}

impl Page {
    pub fn of(openapi: &Value) -> Page {
        let hash = BASE64.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Page { html: html(openapi), policy }
    }

    /// The page as it is read at `origin`, as `http://localhost:9106`: its examples ask there.
    pub fn at(&self, origin: &str) -> String {
        self.html.replace(ORIGIN, &escaped(origin))
    }
}

fn html(openapi: &Value) -> String {
    let title = text(&openapi["info"]["title"]);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}: API</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<p><small>Version {} · <a href=\"/openapi.json\">openapi.json</a></small></p>\n",
        text(&openapi["info"]["version"])
    );
    for paragraph in text(&openapi["info"]["description"]).split("\n\n") {
        put(&mut html, format_args!("<p>{}</p>\n", with_code(paragraph)));
    }
    let tags: Vec<&str> =
        openapi["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str()).collect();
    html += "<nav><ul>\n";
    for (path, method, operation) in tags.iter().flat_map(|tag| tagged(openapi, tag)) {
        let id = text(&operation["operationId"]);
        put(&mut html, format_args!("<li><a href=\"#{id}\">{}</a>\n", name(path, method)));
    }
    html += "</ul></nav>\n";
    for tag in tags {
        put(&mut html, format_args!("<h2>{}</h2>\n", escaped(tag)));
        for (path, method, operation) in tagged(openapi, tag) {
            section(&mut html, openapi, &name(path, method), operation);
        }
    }
    html + &errors(openapi)
}

/// The operations of a tag: path, method, and what is said of it.
fn tagged<'a>(openapi: &'a Value, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    let paths = openapi["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    });
    operations.filter(move |(_, _, operation)| operation["tags"][0] == tag)
}

fn name(path: &str, method: &str) -> String {
    format!("<b class=\"{method}\">{}</b> <code>{}</code>", method.to_uppercase(), escaped(path))
}

fn section(html: &mut String, openapi: &Value, name: &str, operation: &Value) {
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    put(
        html,
        format_args!("<section id=\"{id}\">\n<h3>{name}</h3>\n<p>{summary}. <small>{}</small></p>\n", who(operation)),
    );
    let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    if !parameters.is_empty() {
        *html += "<h4>Parameters</h4>\n<dl>\n";
        parameters.iter().for_each(|one| parameter(html, one));
        *html += "</dl>\n";
    }
    for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let need = if operation["requestBody"]["required"] == true { "" } else { ", may be left out" };
        let (media_type, example) = (escaped(media_type), escaped(&content["example"].to_string()));
        put(html, format_args!("<h4>Body</h4>\n<p><small>{media_type}{need}</small></p>\n<pre>{example}</pre>\n"));
    }
    let curl = text(&operation["x-codeSamples"][0]["source"]);
    put(html, format_args!("<h4>Example</h4>\n<pre class=\"curl\">{curl}</pre>\n<h4>Answers</h4>\n"));
    answers(html, openapi, operation);
    *html += "</section>\n";
}

fn who(operation: &Value) -> String {
    let role = match operation["x-role"].as_str().unwrap_or_default() {
        "everybody" => "For everybody".to_owned(),
        role => format!("For the role {role} and above"),
    };
    let reach = if operation["x-reach"] == "box" { "; not for those who may see one tenant only" } else { "" };
    format!("{role}{reach}.")
}

fn parameter(html: &mut String, one: &Value) {
    let name = text(&one["name"]);
    let place = match one["in"].as_str() {
        Some("path") => "in the path, ",
        Some("header") => "header, ",
        _ if one["required"] == true => "required, ",
        _ => "",
    };
    let example = match &one["example"] {
        Value::Null => String::new(),
        Value::String(text) => format!("; as <code>{}</code>", escaped(text)),
        Value::Array(several) if several.len() == 1 => format!("; as <code>{}</code>", text(&several[0])),
        other => format!("; as <code>{}</code>", escaped(&other.to_string())),
    };
    put(
        html,
        format_args!(
            "<dt><code>{name}</code>\n<dd>{} <small>{place}{}{example}</small>\n",
            text(&one["description"]),
            escaped(&limits(&one["schema"])),
        ),
    );
}

/// What a schema takes, in words.
fn limits(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("{}; may be given several times", limits(&schema["items"])),
        Some("boolean") => "true | false".to_owned(),
        Some("integer") if schema["maximum"] == i64::MAX => format!("a whole number from {}", schema["minimum"]),
        Some("integer") => format!("{} to {}", schema["minimum"], schema["maximum"]),
        _ if schema["minLength"].is_number() => {
            format!("{} to {} characters", schema["minLength"], schema["maxLength"])
        }
        _ if schema["$ref"].is_string() => "a day, or a day and a time".to_owned(),
        _ if schema["maxLength"].is_number() => format!("1 to {} printable ASCII characters", schema["maxLength"]),
        _ => "text".to_owned(),
    }
}

/// The route's own answers with their example; of the errors that many have in common, the statuses.
fn answers(html: &mut String, openapi: &Value, operation: &Value) {
    let mut common = Vec::new();
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        if response["$ref"].is_string() {
            let about = text(&openapi["components"]["responses"][status]["description"]);
            common.push(format!("<dt>{status}\n<dd>{about}\n"));
            continue;
        }
        for (media_type, content) in response["content"].as_object().into_iter().flatten() {
            let (about, media_type) = (text(&response["description"]), escaped(media_type));
            put(html, format_args!("<p>{status}: {about} <small>{media_type}</small></p>\n"));
            if let Some(example) = content.get("example").filter(|_| operation["operationId"] != "get_openapi_json") {
                let example = serde_json::to_string_pretty(example).unwrap_or_default();
                put(html, format_args!("<pre>{}</pre>\n", escaped(&example)));
            }
        }
    }
    put(html, format_args!("<details><summary>Other statuses</summary>\n<dl>\n{}</dl></details>\n", common.concat()));
}

fn errors(openapi: &Value) -> String {
    let about = text(&openapi["components"]["schemas"]["Error"]["description"]);
    format!(
        "<h2>errors</h2>\n<p>{about}</p>\n<pre>{}</pre>\n",
        escaped(r#"{"detail": "limit: \"0\" is not within 1 and 1000"}"#)
    )
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Between backticks there is code.
fn with_code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

fn put(html: &mut String, what: std::fmt::Arguments) {
    // Writing to a String does not fail.
    html.write_fmt(what).ok();
}
