//! `dlq`: what could not be stored, tried again or put away.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::http::Request;
use super::replay::{counted, just_after};
use super::table::Column::{Left, Right};
use super::table::{escape, pairs, plain, table};
use super::{ClientError, Outcome, Shell, say};

/// Failures that are shown above a question.
const FAILURES_ASKED: usize = 10;

/// The state of a dead letter that nobody has dealt with.
const OPEN: &str = "open";

/// Which dead letters are listed.
pub struct Letters {
    /// Open ones, where it is not said.
    pub state: Option<String>,
    pub topic: Option<String>,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub limit: Option<u32>,
    pub cursor: Option<String>,
}

/// The newest dead letters.
///
/// # Errors
/// See [`ClientError`].
pub fn list(shell: &Shell, wanted: Letters) -> Result<Outcome, ClientError> {
    let request =
        Request::get("/dlq").with("state", Some(wanted.state.as_deref().unwrap_or(OPEN))).with("topic", wanted.topic);
    let request = request.with("reason", wanted.reason).with("since", wanted.since);
    let request = request.with("limit", wanted.limit).with("cursor", wanted.cursor);
    let columns = [
        Right("id"),
        Left("state"),
        Right("attempts"),
        Left("group"),
        Left("topic"),
        Left("received_at"),
        Left("error"),
    ];
    shell.list(&request, &columns)
}

/// Everything known of one dead letter.
///
/// # Errors
/// See [`ClientError`].
pub fn show(shell: &Shell, id: i64) -> Result<Outcome, ClientError> {
    shell.show(&Request::get(format!("/dlq/{id}")))
}

/// Dead letters that failed alike.
///
/// # Errors
/// See [`ClientError`].
pub fn groups(shell: &Shell, state: Option<String>) -> Result<Outcome, ClientError> {
    let columns = [
        Left("group"),
        Right("count"),
        Right("sample/id"),
        Left("first_received_at"),
        Left("last_received_at"),
        Left("shape"),
    ];
    let state = state.as_deref().unwrap_or(OPEN);
    shell.list(&Request::get("/dlq/groups").with("state", Some(state)), &columns)
}

/// How one dead letter is tried again.
#[derive(Debug, Default)]
pub struct Retry {
    /// To its topic, as it came, instead of into the journal.
    pub republish: bool,
    /// Although it may have arrived.
    pub again: bool,
    /// Changed by this JSON Patch first.
    pub patch: Option<Vec<u8>>,
    pub dry_run: bool,
    pub yes: bool,
    pub reason: Option<String>,
}

impl Retry {
    fn request(&self, id: i64) -> Request {
        let request = Request::post(format!("/dlq/{id}/retry")).with("mode", self.republish.then_some("republish"));
        let request = request.flag("again", self.again).flag("dry_run", self.dry_run);
        let request = request.with("reason", self.reason.as_ref());
        match &self.patch {
            Some(patch) => request.body("application/json-patch+json", patch.clone()),
            None => request,
        }
    }
}

/// What the API says of an edit before it does it.
#[derive(Deserialize)]
struct Edit {
    difference: Vec<Box<RawValue>>,
    before: Box<RawValue>,
    after: Box<RawValue>,
    confirm: String,
}

impl Edit {
    fn of(status: u16, body: &[u8]) -> Option<Edit> {
        (status == 409).then(|| serde_json::from_slice(body).ok()).flatten()
    }

    fn text(&self) -> String {
        let difference = self.difference.iter().map(|step| (String::new(), step.get().to_owned()));
        let mut lines: Vec<(String, String)> = difference.collect();
        if let Some((heading, _)) = lines.first_mut() {
            *heading = "difference".to_owned();
        }
        lines.push(("before".to_owned(), plain(&self.before)));
        lines.push(("after".to_owned(), plain(&self.after)));
        pairs(lines)
    }
}

/// What became of one dead letter, or what would.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Retried {
    event_id: Option<i64>,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    would: Option<String>,
    error: Option<String>,
}

impl Retried {
    fn text(&self, id: i64) -> String {
        let topic = self.topic.as_deref().unwrap_or("its topic");
        let text = match (&self.would, self.event_id, self.partition, self.offset) {
            (Some(would), ..) => {
                let error = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("dead letter {id} would {would}{error}")
            }
            (_, Some(event), ..) => format!("dead letter {id} is event {event} of {topic} now"),
            (_, _, Some(partition), Some(offset)) => {
                format!("dead letter {id} went to {topic} again: partition {partition}, offset {offset}")
            }
            _ => format!("dead letter {id} went to {topic} again"),
        };
        escape(&text) + "\n"
    }
}

/// Tries one dead letter again. An edit is shown and asked for first.
///
/// # Errors
/// See [`ClientError`]; a dead letter that is still refused is one.
pub fn retry_one(shell: &Shell, id: i64, retry: &Retry) -> Result<Outcome, ClientError> {
    let request = retry.request(id);
    let answer = match shell.client.ask(&request) {
        Err(ClientError::Refused { status, detail, body }) => {
            let Some(edit) = Edit::of(status, &body) else {
                return Err(ClientError::Refused { status, detail, body });
            };
            say(edit.text().trim_end());
            shell.confirm(&format!("Retry dead letter {id} so?"), retry.yes)?;
            shell.client.ask(&request.with("confirm", Some(edit.confirm)))?
        }
        answered => answered?,
    };
    shell.print(&answer, |retried: Retried| retried.text(id))?;
    Ok(Outcome::Done)
}

/// Dead letters that have all of this.
#[derive(Debug, Default)]
pub struct Filter {
    pub group: Option<String>,
    pub topic: Option<String>,
    pub error_reason: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
}

/// What became of many dead letters, or what would.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tried {
    tried: u64,
    journaled: u64,
    failed: u64,
    would_pass: u64,
    would_fail: u64,
    failures: Vec<Value>,
}

impl Tried {
    fn failures(&self, limit: usize) -> String {
        match &self.failures[..limit.min(self.failures.len())] {
            [] => String::new(),
            some => table(&[Right("dead_letter_id"), Left("error")], some),
        }
    }

    fn would(&self, limit: usize) -> String {
        let Tried { tried, would_pass, would_fail, .. } = self;
        format!("{}: {would_pass} would pass, {would_fail} would fail\n{}", letters(*tried), self.failures(limit))
    }

    fn did(&self) -> String {
        let Tried { tried, journaled, failed, .. } = self;
        format!("{} tried: {journaled} journaled, {failed} failed\n{}", letters(*tried), self.failures(usize::MAX))
    }
}

fn letters(count: u64) -> String {
    counted(count, "dead letter")
}

#[derive(Deserialize)]
struct Received {
    received_at: String,
}

/// Dead letters may keep coming: those that are there now are meant, so that the answer still fits the question.
fn until_now(shell: &Shell) -> Result<Option<String>, ClientError> {
    let request = Request::get("/dlq").with("state", Some(OPEN)).with("limit", Some(1));
    let newest: Vec<Received> = shell.client.ask(&request)?.read()?;
    Ok(newest.first().and_then(|newest| just_after(&newest.received_at)))
}

/// Tries those that match again: shows what would pass, asks, does it.
///
/// # Errors
/// See [`ClientError`].
pub fn retry_many(
    shell: &Shell,
    filter: &Filter,
    dry_run: bool,
    yes: bool,
    reason: Option<&str>,
) -> Result<Outcome, ClientError> {
    let until = match &filter.until {
        Some(until) => Some(until.clone()),
        None => until_now(shell)?,
    };
    let request = || {
        let request = Request::post("/dlq/retry").with("group", filter.group.as_ref());
        let request = request.with("topic", filter.topic.as_ref()).with("error_reason", filter.error_reason.as_ref());
        request.with("since", filter.since.as_ref()).with("until", until.as_ref()).with("reason", reason)
    };
    let planned = shell.client.ask(&request().flag("dry_run", true))?;
    if dry_run {
        shell.print(&planned, |would: Tried| would.would(usize::MAX))?;
        return Ok(Outcome::Done);
    }
    let plan: Tried = planned.read()?;
    say(plan.would(FAILURES_ASKED).trim_end());
    shell.confirm(&format!("Retry {}?", letters(plan.tried)), yes)?;
    let answer = shell.client.ask(&request().with("confirm", Some(plan.tried)))?;
    let done: Tried = answer.read()?;
    shell.print(&answer, |done: Tried| done.did())?;
    Ok(if done.failed == 0 { Outcome::Done } else { Outcome::NotAll })
}

/// Puts one dead letter away: it stays in the file, and is open no more.
///
/// # Errors
/// See [`ClientError`].
pub fn discard_one(shell: &Shell, id: i64, reason: &str) -> Result<Outcome, ClientError> {
    let answer = shell.client.ask(&Request::post(format!("/dlq/{id}/discard")).with("reason", Some(reason)))?;
    shell.print(&answer, |_: IgnoredAny| format!("dead letter {id} is discarded\n"))?;
    Ok(Outcome::Done)
}

#[derive(Deserialize)]
struct Group {
    group: String,
    count: u64,
    shape: String,
}

#[derive(Deserialize)]
struct Discarded {
    discarded: u64,
}

/// Puts the open dead letters of a group away: shows what they are, asks, does it.
///
/// # Errors
/// See [`ClientError`].
pub fn discard_group(shell: &Shell, group: &str, reason: &str, yes: bool) -> Result<Outcome, ClientError> {
    let groups: Vec<Group> = shell.client.ask(&Request::get("/dlq/groups").with("state", Some(OPEN)))?.read()?;
    let Some(found) = groups.iter().find(|found| found.group == group) else {
        let problem = "no open dead letters are of this group; see: crm-events-sink dlq groups";
        return Err(ClientError::Missing(problem.to_owned()));
    };
    say(&escape(&format!("{}: {}", letters(found.count), found.shape)));
    shell.confirm(&format!("Discard {}?", letters(found.count)), yes)?;
    // A listed name is one that a path can hold.
    let request = Request::post(format!("/dlq/groups/{group}/discard")).with("reason", Some(reason));
    let answer = shell.client.ask(&request.with("confirm", Some(found.count)))?;
    shell.print(&answer, |Discarded { discarded }| format!("{} discarded\n", letters(discarded)))?;
    Ok(Outcome::Done)
}
