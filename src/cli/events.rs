//! `events`, `export` and `audit`: what came in, finding it and taking it out, and who did what.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::{ApiArgs, verb_or};
use crate::client::search::{Export, Part, Selection};
use crate::client::{audit, events, search};

#[derive(Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    verb: Option<EventsVerb>,
    #[command(flatten)]
    latest: Latest,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Subcommand)]
enum EventsVerb {
    /// The newest events
    Latest(Latest),
    /// Everything known of one event, its payload included
    Show {
        /// The event
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// The events that conditions mean, newest first
    Search {
        #[command(flatten)]
        selection: Box<SelectionArgs>,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Every event of an event's key, oldest first
    History {
        /// The event
        #[arg(value_name = "ID")]
        id: i64,
        #[command(flatten)]
        part: PartArgs,
    },
}

#[derive(Args)]
struct PartArgs {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Where the list before this one ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// With their payloads
    #[arg(long)]
    payload: bool,
}

#[derive(Args)]
struct SelectionArgs {
    /// Of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant_id: Option<String>,
    /// Of this topic: its whole name, some of its dotted segments (leads), or a glob ('apexflow.leads.*')
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of this payload.event_type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// Of this Kafka key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Received at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Received before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// With this text in the payload; ASCII letters in either case
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// With this member of the payload, as payload.status:qualified; may be given again
    #[arg(long = "where", value_name = "PATH:VALUE")]
    conditions: Vec<String>,
    /// only: nothing but replays; none: no replays
    #[arg(long, value_name = "WHICH", value_parser = ["only", "none"])]
    replays: Option<String>,
    /// desc: newest first; asc: oldest first
    #[arg(long, value_name = "ORDER", value_parser = ["desc", "asc"])]
    order: Option<String>,
}

#[derive(Args)]
pub struct ExportArgs {
    /// Where to: the file is there when it is whole, and not before
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// ndjson (an object a line), csv or sqlite
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_parser = ["ndjson", "csv", "sqlite"])]
    format: String,
    /// Members of the payload whose values become ***, at any depth, as email,phone
    #[arg(long, value_name = "NAME,…")]
    mask: Option<String>,
    /// How many at most [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Args, Default, PartialEq)]
struct Latest {
    /// How many [default: 20]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Args)]
pub struct AuditArgs {
    /// How many [default: 20]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where the list before this one ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// One action alone, as replay or dlq.retry
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// From this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run_events(args: EventsArgs) -> ExitCode {
    let EventsArgs { verb, latest, api } = args;
    let verb = verb_or("events", verb, latest, EventsVerb::Latest);
    api.run(|shell| match verb? {
        EventsVerb::Latest(Latest { limit }) => events::latest(shell, limit),
        EventsVerb::Show { id } => events::show(shell, id),
        EventsVerb::Search { selection, part } => search::search(shell, &(*selection).into(), part.into()),
        EventsVerb::History { id, part } => search::history(shell, id, part.into()),
    })
}

pub fn run_export(args: ExportArgs) -> ExitCode {
    let ExportArgs { output, format, mask, limit, reason, selection, api } = args;
    let export = Export { selection: selection.into(), format, mask, limit, reason, output };
    api.run(|shell| search::export(shell, &export))
}

impl From<PartArgs> for Part {
    fn from(args: PartArgs) -> Part {
        let PartArgs { limit, cursor, payload } = args;
        Part { limit: limit as usize, cursor, payload }
    }
}

impl From<SelectionArgs> for Selection {
    fn from(args: SelectionArgs) -> Selection {
        let SelectionArgs { tenant_id, topic, event_type, key, since, until, q, conditions, replays, order } = args;
        Selection { tenant_id, topic, event_type, key, since, until, q, conditions, replays, order }
    }
}

pub fn run_audit(args: AuditArgs) -> ExitCode {
    let AuditArgs { limit, cursor, action, since, api } = args;
    api.run(|shell| audit::audit(shell, audit::Audit { limit, cursor, action, since }))
}
