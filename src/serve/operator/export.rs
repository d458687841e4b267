//! `GET /export`: everything that a search finds, as a file.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::call::{Call, REASON};
use super::dlq::{SINCE, UNTIL};
use super::jobs::{EVENT_TYPE, KEY, TENANT_ID};
use super::parameter::Parameter;
use super::search::{ORDER, Q, REPLAYS, TOPIC, WHERE, selection};
use super::{OperatorApi, PATIENCE};
use crate::audit::{Act, Outcome};
use crate::queue::{Order, Orders};
use crate::serve::export::{Export, Format, Mask, Place};
use crate::serve::reply::{ApiError, Reply};

pub const FORMAT: Parameter = Parameter::word(
    "format",
    &["ndjson", "csv", "sqlite"],
    "A JSON object a line (ndjson, where it is left out), CSV for spreadsheets, or an SQLite file",
);
pub const MASK: Parameter = Parameter::text(
    "mask",
    "Members of the payload whose values become ***, at any depth, with commas between",
    "email,phone",
)
.form("^[^,]*[^, ][^,]*(?:,[^,]*[^, ][^,]*){0,49}$")
.many();
pub const EVENTS_MAX: Parameter =
    Parameter::integer("limit", (1, i64::MAX), "Events at most; all where it is left out", "10000");

/// The same selection as a search's.
pub const EXPORT: &[&Parameter] = &[
    &FORMAT,
    &TENANT_ID,
    &TOPIC,
    &EVENT_TYPE,
    &KEY,
    &SINCE,
    &UNTIL,
    &Q,
    &WHERE,
    &REPLAYS,
    &ORDER,
    &MASK,
    &EVENTS_MAX,
    &REASON,
];

pub fn get(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let search = selection(call)?;
    let mask = Mask::new(call.texts(&MASK)).map_err(|problem| ApiError::parameter(MASK.name, problem))?;
    let format = match call.text(&FORMAT).as_deref() {
        Some("csv") => Format::Csv,
        Some("sqlite") => Format::Sqlite,
        _ => Format::NdJson,
    };
    let name = format!("events-{}.{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), format.extension());
    let named = |reply: Reply| reply.with_header("Content-Disposition", format!("attachment; filename=\"{name}\""));
    if call.request.method == "HEAD" {
        return Ok(named(Reply::stream(format.content_type(), |_| Ok(()))));
    }
    let place = api.exports.take().ok_or(ApiError::TooManyExports)?;
    let masked = if mask.is_empty() { "nothing masked".to_owned() } else { format!("masked: {mask}") };
    let target = format!("{}?{}", call.request.path, api.without_key(&call.request.query)).chars().take(500).collect();
    let act = call.act(target).about(search.tenant_id.as_deref()).with(Outcome::Started, masked);
    let started_id = api.note(act.clone())?;
    let jobs = Arc::clone(&api.jobs);
    let export = Export {
        readers: api.readers.clone(),
        tenant: call.tenant().map(str::to_owned),
        search,
        mask,
        events_max: call.number(&EVENTS_MAX).unwrap_or(u64::MAX),
        is_stopping: Box::new(move || jobs.is_stopping()),
    };
    let mut ending = Ending { act: act.after(started_id), orders: api.orders.clone(), count: 0, _place: place };
    Ok(named(Reply::stream(format.content_type(), move |to| {
        let written = export.write(format, to, &mut ending.count);
        ending.ended(&written);
        written
    })))
}

/// Puts the end of an export down in the audit, however it ends; and gives its place to the next.
struct Ending {
    act: Act,
    orders: Orders,
    /// Events that were written.
    count: u64,
    _place: Place,
}

impl Ending {
    fn ended(&mut self, written: &io::Result<()>) {
        let outcome = if written.is_ok() { Outcome::Done } else { Outcome::Failed };
        let masked = self.act.detail.take().unwrap_or_default();
        let why = written.as_ref().err().map_or_else(String::new, |error| format!("; broken off: {error}"));
        self.act = self.act.with(outcome, format!("{masked}{why}"));
        if !why.is_empty() {
            tracing::warn!(target = self.act.target, why, "an export was broken off");
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.act.outcome == Outcome::Started {
            self.ended(&Err(io::Error::other("it was not taken")));
        }
        let act = self.act.counting(usize::try_from(self.count).unwrap_or(usize::MAX));
        if let Err(error) = self.orders.give(PATIENCE, |answer| Order::Note { act, answer }) {
            tracing::error!(target = self.act.target, %error, "the end of an export is not in the audit");
        }
    }
}
