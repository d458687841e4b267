//! `dlq`: the dead letters' workbench.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::{ApiArgs, verb_or};
use crate::client::dlq::{self, Filter, Letters, Retry};
use crate::client::{ClientError, Outcome, Shell};

#[derive(Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    verb: Option<DlqVerb>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Subcommand)]
enum DlqVerb {
    /// The newest dead letters
    List(ListArgs),
    /// Everything known of one dead letter, its bytes included
    Show {
        /// The dead letter
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// Dead letters that failed alike, the most first
    Groups {
        /// As for list [default: open]
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Try one, or all that match, again
    Retry(RetryArgs),
    /// Put one, or a group, away: it stays in the file, and is open no more
    Discard(DiscardArgs),
}

#[derive(Args, Default, PartialEq)]
struct ListArgs {
    /// open, journaled, republished, discarded, uncertain or all [default: open]
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Refused for this reason, as not_json
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Received at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How many [default: 20]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Where the list before this one ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

/// What names many, and so goes with nothing that is for one.
const FILTERS: [&str; 5] = ["group", "topic", "error_reason", "since", "until"];

#[derive(Args)]
struct RetryArgs {
    #[command(flatten)]
    which: Which,
    /// Send it to its topic as it came, instead of into the journal
    #[arg(long, conflicts_with_all = FILTERS, conflicts_with = "dry_run")]
    republish: bool,
    /// Send it although it may have arrived
    #[arg(long, requires = "republish")]
    again: bool,
    /// Change it first by this JSON Patch (RFC 6902); - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = FILTERS)]
    patch: Option<PathBuf>,
    /// Only say what would pass
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// The dead letter
    #[arg(value_name = "ID", conflicts_with_all = FILTERS)]
    id: Option<i64>,
    /// Those of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Those of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Those refused for this reason, as not_json
    #[arg(long, value_name = "REASON")]
    error_reason: Option<String>,
    /// Those received at or after this time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Those received before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Args)]
struct DiscardArgs {
    /// The dead letter
    #[arg(value_name = "ID", required_unless_present = "group", conflicts_with = "group")]
    id: Option<i64>,
    /// Those of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub fn run_dlq(args: DlqArgs) -> ExitCode {
    let DlqArgs { verb, list, api } = args;
    let verb = verb_or("dlq", verb, list, DlqVerb::List);
    api.run(|shell| match verb? {
        DlqVerb::List(ListArgs { state, topic, reason, since, limit, cursor }) => {
            dlq::list(shell, Letters { state, topic, reason, since, limit, cursor })
        }
        DlqVerb::Show { id } => dlq::show(shell, id),
        DlqVerb::Groups { state } => dlq::groups(shell, state),
        DlqVerb::Retry(args) => retry(shell, args),
        DlqVerb::Discard(DiscardArgs { id: Some(id), reason, .. }) => dlq::discard_one(shell, id, &reason),
        DlqVerb::Discard(DiscardArgs { group, reason, yes, .. }) => {
            dlq::discard_group(shell, &group.unwrap_or_default(), &reason, yes)
        }
    })
}

fn retry(shell: &Shell, args: RetryArgs) -> Result<Outcome, ClientError> {
    let RetryArgs { which, republish, again, patch, dry_run, yes, reason } = args;
    let Some(id) = which.id else {
        let Which { group, topic, error_reason, since, until, .. } = which;
        let filter = Filter { group, topic, error_reason, since, until };
        return dlq::retry_many(shell, &filter, dry_run, yes, reason.as_deref());
    };
    let patch = patch.as_deref().map(read).transpose()?;
    dlq::retry_one(shell, id, &Retry { republish, again, patch, dry_run, yes, reason })
}

fn read(file: &Path) -> Result<Vec<u8>, ClientError> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") { io::stdin().read_to_end(&mut text).map(|_| text) } else { fs::read(file) };
    read.map_err(|error| ClientError::Usage(format!("cannot read the patch {}: {error}", file.display())))
}
