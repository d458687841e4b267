//! `events` and `audit`: what came in, and who did what.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::{ApiArgs, verb_or};
use crate::client::{audit, events};

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
    })
}

pub fn run_audit(args: AuditArgs) -> ExitCode {
    let AuditArgs { limit, cursor, action, since, api } = args;
    api.run(|shell| audit::audit(shell, audit::Audit { limit, cursor, action, since }))
}
