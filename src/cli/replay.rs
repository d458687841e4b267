//! `replay`: events on the live stream again.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::api::{ApiArgs, verb_or};
use crate::client::replay::{self, Items, Sending};
use crate::config::RATE_PER_S_MAX;
use crate::job::{Change, Filter};

#[derive(Args)]
#[command(subcommand_negates_reqs = true)]
pub struct ReplayArgs {
    #[command(flatten)]
    listed: ListedArgs,
    #[command(subcommand)]
    verb: Option<ReplayVerb>,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Args, Default, PartialEq)]
struct ListedArgs {
    /// The event; several are sent as a job
    #[arg(value_name = "ID", required = true)]
    ids: Vec<i64>,
    #[command(flatten)]
    sending: SendingArgs,
}

#[derive(Args, Default, PartialEq)]
struct SendingArgs {
    /// To this topic instead of the event's own
    #[arg(long, value_name = "TOPIC")]
    to_topic: Option<String>,
    /// Events a second [default: as the configuration says]
    #[arg(long, value_name = "N", value_parser = rate())]
    rate: Option<u32>,
    /// Leave out events that a newer one of the same key has superseded
    #[arg(long)]
    skip_superseded: bool,
    /// Leave out those that are replays themselves, journaled again
    #[arg(long)]
    skip_replays: bool,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Start the job and leave it
    #[arg(long)]
    no_wait: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Subcommand)]
enum ReplayVerb {
    /// What `replay ID…` means
    #[command(skip)]
    Listed(ListedArgs),
    /// The events that match all of this
    Range {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        sending: SendingArgs,
    },
    /// The newest jobs
    Jobs {
        /// How many [default: 20]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// running, paused, finished or cancelled
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
    },
    /// Everything known of one job
    Job(JobArg),
    /// What became of a job's events
    Items {
        #[command(flatten)]
        job: JobArg,
        /// pending, in_flight, acknowledged, failed, uncertain or cancelled
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// How many [default: 20]
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
        /// Where the list before this one ended
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
    },
    /// Watch a job until it ends
    Watch(JobArg),
    /// Send nothing more of a job until it is resumed
    Pause(OrderArgs),
    /// Go on with a paused job
    Resume(OrderArgs),
    /// End a job; what was sent stays sent
    Cancel(OrderArgs),
    /// Send again what failed in a job
    RetryFailed {
        #[command(flatten)]
        order: OrderArgs,
        /// Also what may have arrived already
        #[arg(long)]
        uncertain: bool,
    },
    /// Change how fast a job sends
    Rate {
        #[command(flatten)]
        order: OrderArgs,
        /// Events a second
        #[arg(value_name = "N", value_parser = rate())]
        rate: u32,
    },
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct FilterArgs {
    /// Received at or after this time, UTC unless it says otherwise
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Received before this time
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    tenant_id: Option<String>,
    /// Of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of this type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// With this Kafka key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

#[derive(Args)]
struct JobArg {
    /// The job
    #[arg(value_name = "JOB")]
    job: i64,
}

#[derive(Args)]
struct OrderArgs {
    /// The job
    #[arg(value_name = "JOB")]
    job: i64,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

fn rate() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=i64::from(RATE_PER_S_MAX))
}

impl SendingArgs {
    /// One event is sent at once, unless something is asked for that only a job does.
    fn wants_job(&self) -> bool {
        self.rate.is_some() || self.skip_superseded || self.skip_replays || self.dry_run || self.no_wait
    }

    fn sending(self) -> Sending {
        let SendingArgs { to_topic, rate, skip_superseded, skip_replays, dry_run, yes, no_wait, reason } = self;
        Sending { to_topic, rate, skip_superseded, skip_replays, reason, dry_run, yes, wait: !no_wait }
    }
}

pub fn run_replay(args: ReplayArgs) -> ExitCode {
    let ReplayArgs { listed, verb, api } = args;
    let verb = verb_or("replay", verb, listed, ReplayVerb::Listed);
    api.run(|shell| match verb? {
        ReplayVerb::Listed(ListedArgs { ids, sending }) => match ids[..] {
            [id] if !sending.wants_job() => replay::one(shell, id, sending.to_topic, sending.reason),
            _ => replay::many(shell, Filter { event_ids: Some(ids), ..Filter::default() }, &sending.sending()),
        },
        ReplayVerb::Range { filter, sending } => {
            let FilterArgs { start, end, tenant_id, topic, event_type, key } = filter;
            let filter = Filter { event_ids: None, start, end, tenant_id, topic, event_type, key };
            replay::many(shell, filter, &sending.sending())
        }
        ReplayVerb::Jobs { limit, state } => replay::jobs(shell, limit, state),
        ReplayVerb::Job(JobArg { job }) => replay::job(shell, job),
        ReplayVerb::Items { job: JobArg { job }, state, limit, cursor } => {
            replay::items(shell, job, Items { state, limit, cursor })
        }
        ReplayVerb::Watch(JobArg { job }) => replay::watch(shell, job),
        ReplayVerb::Pause(OrderArgs { job, reason }) => replay::order(shell, job, Change::Pause, reason),
        ReplayVerb::Resume(OrderArgs { job, reason }) => replay::order(shell, job, Change::Resume, reason),
        ReplayVerb::Cancel(OrderArgs { job, reason }) => replay::order(shell, job, Change::Cancel, reason),
        ReplayVerb::RetryFailed { order: OrderArgs { job, reason }, uncertain } => {
            replay::order(shell, job, Change::RetryFailed { uncertain }, reason)
        }
        ReplayVerb::Rate { order: OrderArgs { job, reason }, rate } => {
            replay::order(shell, job, Change::Rate(rate), reason)
        }
    })
}
