//! `GET /events` and `GET /events/{id}/history`: finding events.

use schemars::JsonSchema;
use serde::Serialize;

use super::OperatorApi;
use super::call::{Call, LIMIT};
use super::dlq::{SINCE, UNTIL};
use super::events::ID;
use super::jobs::{EVENT_TYPE, KEY, TENANT_ID};
use super::parameter::Parameter;
use crate::event::Bytes;
use crate::serve::reply::{ApiError, Reply};
use crate::store::{Condition, FoundEvent, Page, Position, Replays, Search, SearchOrder, next_cursor, position};

pub const TOPIC: Parameter = Parameter::text(
    "topic",
    "A topic's whole name, some of its dotted segments (leads), or a glob (apexflow.leads.*)",
    "leads",
);
pub const Q: Parameter = Parameter::text("q", "Text that occurs in the payload; ASCII letters in either case", "Graz");
pub const WHERE: Parameter =
    Parameter::text("where", "A member of the payload and its value; may be given again", "payload.status:qualified")
        .form(r#"^payload(?:\.[^.:"\\\x00-\x1f\x7f-\x9f]+)+:"#)
        .many();
pub const REPLAYS: Parameter = Parameter::word("replays", &["only", "none"], "Only replays, or none; else both");
pub const ORDER: Parameter =
    Parameter::word("order", &["desc", "asc"], "Newest first (desc, where it is left out) or oldest first (asc)");
pub const CURSOR: Parameter = Parameter::text("cursor", "Where the search goes on: next_cursor of the page before", "");
pub const PAYLOAD: Parameter = Parameter::flag("payload", "Each event with its payload");

/// The parameters of a search.
pub const SEARCH: &[&Parameter] =
    &[&TENANT_ID, &TOPIC, &EVENT_TYPE, &KEY, &SINCE, &UNTIL, &Q, &WHERE, &REPLAYS, &ORDER, &PAYLOAD, &LIMIT, &CURSOR];
pub const HISTORY: &[&Parameter] = &[&ID, &ORDER, &PAYLOAD, &LIMIT, &CURSOR];

#[derive(Serialize, JsonSchema)]
pub struct Found<T> {
    pub events: Vec<T>,
    /// Where the search goes on; null: nowhere. A page may have fewer events than were asked for, even none, and one.
    pub next_cursor: Option<String>,
}

/// An event of a history.
#[derive(Serialize, JsonSchema)]
pub struct Told {
    #[serde(flatten)]
    event: FoundEvent,
    /// `itself`: the event that was asked about; `replay`: a replay of it.
    relation: Option<&'static str>,
}

pub fn list(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let search = selection(call)?;
    let page = page(api, call, &search)?;
    Ok(answer(call, &search, page, |event| event))
}

/// Every event of the same key and tenant, the oldest first.
pub fn history(api: &OperatorApi, call: &Call) -> Result<Reply, ApiError> {
    let id = call.id();
    let event = api.readers.event(call.tenant(), id)?.ok_or(ApiError::NoSuchRow { what: "event", id })?;
    let family_of = event.kafka_key.is_none().then_some(id);
    let order = if call.text(&ORDER).is_none() { SearchOrder::OldestFirst } else { order(call) };
    let tenant_id = Some(event.tenant_id);
    let search = Search { tenant_id, key: event.kafka_key, family_of, order, ..Search::default() };
    let page = page(api, call, &search)?;
    Ok(answer(call, &search, page, |event| {
        let is_replay = event.replay_of == Some(id);
        let relation = if event.id == id { Some("itself") } else { is_replay.then_some("replay") };
        Told { event, relation }
    }))
}

/// What the request's conditions mean.
///
/// # Errors
/// If it asks for another tenant than the only one that may be, or a condition cannot be read.
pub fn selection(call: &Call) -> Result<Search, ApiError> {
    let asked = call.text(&TENANT_ID);
    call.expect_own(asked.as_deref())?;
    let mut conditions = Vec::new();
    for text in call.texts(&WHERE) {
        conditions.push(text.parse().map_err(|problem: String| ApiError::parameter(WHERE.name, problem))?);
    }
    conditions.extend(call.text(&EVENT_TYPE).map(Condition::event_type));
    let (since, until) = (call.time(&SINCE), call.time(&UNTIL));
    if since.is_some() && until.is_some() && since >= until {
        return Err(ApiError::parameter(UNTIL.name, "is not after since"));
    }
    Ok(Search {
        tenant_id: call.tenant().map(str::to_owned).or(asked),
        topic: call.text(&TOPIC),
        key: call.text(&KEY).map(|key| Bytes(key.into_bytes())),
        since,
        until,
        text: call.text(&Q),
        conditions,
        replays: call.text(&REPLAYS).map(|word| if word == "only" { Replays::Only } else { Replays::None }),
        family_of: None,
        event_ids: None,
        order: order(call),
    })
}

fn order(call: &Call) -> SearchOrder {
    if call.text(&ORDER).as_deref() == Some("asc") { SearchOrder::OldestFirst } else { SearchOrder::NewestFirst }
}

fn page(api: &OperatorApi, call: &Call, search: &Search) -> Result<Page<FoundEvent>, ApiError> {
    let after = call.text(&CURSOR).map(|cursor| position(search, &cursor)).transpose();
    let after: Option<Position> = after.map_err(|problem| ApiError::parameter(CURSOR.name, problem))?;
    Ok(api.readers.search(call.tenant(), search, after.as_ref(), call.limit(), call.flag(&PAYLOAD))?)
}

fn answer<T: Serialize>(call: &Call, search: &Search, page: Page<FoundEvent>, tell: impl Fn(FoundEvent) -> T) -> Reply {
    let next_cursor = page.next.map(|next| next_cursor(search, &next));
    let next_page = next_cursor.as_ref().map(|cursor| call.page_at(cursor));
    Reply::page(&Found { events: page.events.into_iter().map(tell).collect(), next_cursor }, next_page)
}
