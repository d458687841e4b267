//! `verify`: did we miss anything?

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::load_config;
use crate::Failure;
use crate::config::{Overrides, parse_duration};
use crate::verify::{Verify, VerifyError, verify};

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
}

/// 0: complete. 1: something is missing or stands twice. 69: the broker does not answer. 74: a journal cannot be read.
pub fn run_verify(args: VerifyArgs) -> ExitCode {
    let overrides = Overrides { brokers: args.brokers, ..Overrides::default() };
    let verified = load_config(args.config.as_deref(), &overrides).and_then(|config| {
        let default = || vec![config.journal.path.clone()];
        let journals = if args.journals.is_empty() { default() } else { args.journals };
        let what = Verify { journals, offline: args.offline, wait: args.wait };
        verify(&config, &what, &mut io::stdout().lock()).map_err(|error| match error {
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
