//! `verify`: did we miss anything? `verify --chain`: was anything changed?

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{load_config, with_secrets};
use crate::Failure;
use crate::config::{Overrides, parse_duration};
use crate::store::NotedHead;
use crate::verify::{Verify, VerifyError, parse_head, verify, verify_chains};

#[derive(Args)]
pub struct VerifyArgs {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A journal; give it again for each member of a group [default: journal.path]
    #[arg(long = "journal", value_name = "FILE")]
    journals: Vec<PathBuf>,
    /// kafka.brokers
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// Check the files alone, without the broker
    #[arg(long)]
    offline: bool,
    /// How long a sink that runs may take to store what the broker has now
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    wait: Duration,
    /// Check the hash chains instead: whether a row of journal or audit was changed, removed or put in by hand
    #[arg(long, conflicts_with_all = ["brokers", "offline"])]
    chain: bool,
    /// With --chain: a head that it printed earlier, which must still be in the chain; give it again for others
    #[arg(long = "head", value_name = "CHAIN:ID:HASH", value_parser = parse_head, requires = "chain")]
    heads: Vec<NotedHead>,
}

/// 0: complete, or whole. 1: something is missing, stands twice or was changed. 69: the broker does not answer. 74: a journal cannot be read.
pub fn run_verify(args: VerifyArgs) -> ExitCode {
    let overrides = Overrides { brokers: args.brokers, ..Overrides::default() };
    let verified = load_config(args.config.as_deref(), &overrides).and_then(|config| {
        let default = || vec![config.journal.path.clone()];
        let journals = if args.journals.is_empty() { default() } else { args.journals };
        let mut out = io::stdout().lock();
        let verified = if args.chain {
            verify_chains(&journals, &args.heads, &mut out)
        } else {
            let config = if args.offline { config } else { with_secrets(config)? };
            verify(&config, &Verify { journals, offline: args.offline, wait: args.wait }, &mut out)
        };
        verified.map_err(|error| match error {
            VerifyError::Journal(error) => Failure::Journal(error),
            VerifyError::Broker(error) => Failure::Port(error.to_string()),
            VerifyError::Output(error) => Failure::System(error),
        })
    });
    match verified {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("crm-events-sink: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
