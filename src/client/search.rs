//! `events search`, `events history` and `export`: finding events, and taking them out.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::http::Request;
use super::shell::say;
use super::table::Column::{self, Left, Right};
use super::table::{escape, table};
use super::{ClientError, Outcome, Shell};

/// Events of a page at most.
const PAGE_EVENTS_MAX: usize = 1000;

/// Which events, as the API's parameters have it.
#[derive(Debug, Default)]
pub struct Selection {
    pub tenant_id: Option<String>,
    pub topic: Option<String>,
    pub event_type: Option<String>,
    pub key: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub q: Option<String>,
    pub conditions: Vec<String>,
    pub replays: Option<String>,
    pub order: Option<String>,
}

impl Selection {
    fn add_to(&self, request: Request) -> Request {
        let mut request = request
            .with("tenant_id", self.tenant_id.as_ref())
            .with("topic", self.topic.as_ref())
            .with("event_type", self.event_type.as_ref())
            .with("key", self.key.as_ref())
            .with("since", self.since.as_ref())
            .with("until", self.until.as_ref())
            .with("q", self.q.as_ref())
            .with("replays", self.replays.as_ref())
            .with("order", self.order.as_ref());
        for condition in &self.conditions {
            request = request.with("where", Some(condition));
        }
        request
    }
}

/// How much of a list, and from where on.
#[derive(Debug)]
pub struct Part {
    pub limit: usize,
    pub cursor: Option<String>,
    pub payload: bool,
}

#[derive(Deserialize)]
struct Page {
    events: Vec<Value>,
    next_cursor: Option<String>,
}

const FOUND: &[Column] =
    &[Right("id"), Left("tenant_id"), Left("topic"), Left("event_type"), Left("kafka_key"), Left("received_at")];
const TOLD: &[Column] =
    &[Right("id"), Left("topic"), Left("event_type"), Left("received_at"), Right("replay_of"), Left("relation")];
const WITH_PAYLOAD: Column = Left("payload");

/// The events that are meant, page after page until there are as many as were asked for.
///
/// # Errors
/// See [`ClientError`].
pub fn search(shell: &Shell, selection: &Selection, part: Part) -> Result<Outcome, ClientError> {
    pages(shell, || selection.add_to(Request::get("/events")), part, FOUND)
}

/// Every event of an event's key.
///
/// # Errors
/// See [`ClientError`].
pub fn history(shell: &Shell, id: i64, part: Part) -> Result<Outcome, ClientError> {
    pages(shell, || Request::get(format!("/events/{id}/history")), part, TOLD)
}

fn pages(shell: &Shell, ask: impl Fn() -> Request, part: Part, columns: &[Column]) -> Result<Outcome, ClientError> {
    let Part { limit, mut cursor, payload } = part;
    let mut events = Vec::new();
    // A page may be short, even empty, while there are more.
    loop {
        let left = (limit - events.len()).min(PAGE_EVENTS_MAX);
        let request = ask().with("limit", Some(left)).with("cursor", cursor).flag("payload", payload);
        let page: Page = shell.client.ask(&request)?.read()?;
        events.extend(page.events);
        cursor = page.next_cursor;
        if cursor.is_none() || events.len() >= limit {
            break;
        }
    }
    let mut columns = columns.to_vec();
    columns.extend(payload.then_some(WITH_PAYLOAD));
    let text = table(&columns, &events);
    shell.put(json!({"events": events, "next_cursor": cursor}).to_string().as_bytes(), &text)?;
    if let (Some(cursor), false) = (&cursor, shell.json) {
        say(&format!("There may be more: --cursor {}", escape(cursor)));
    }
    Ok(Outcome::Done)
}

/// What is taken out, and where to.
#[derive(Debug)]
pub struct Export {
    pub selection: Selection,
    pub format: String,
    pub mask: Option<String>,
    pub limit: Option<u64>,
    pub reason: Option<String>,
    pub output: PathBuf,
}

/// Writes all that is meant to a file, which is there when it is whole and not before.
///
/// # Errors
/// See [`ClientError`]; then the file is as it was before, or not there.
pub fn export(shell: &Shell, export: &Export) -> Result<Outcome, ClientError> {
    let request = export.selection.add_to(Request::download("/export"));
    let request = request
        .with("format", Some(&export.format))
        .with("mask", export.mask.as_ref())
        .with("limit", export.limit)
        .with("reason", export.reason.as_ref());
    let folder = export.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    let bytes = shell.client.download(&request, file.as_file_mut())?;
    file.as_file_mut().flush()?;
    file.as_file().sync_all()?;
    file.persist(&export.output).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()?;
    let output = export.output.display().to_string();
    shell.put(
        json!({"output": output, "bytes": bytes}).to_string().as_bytes(),
        &format!("{bytes} bytes in {output}\n"),
    )?;
    Ok(Outcome::Done)
}
