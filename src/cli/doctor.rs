//! `doctor`: what is right with the box and what is not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::api::client_of;
use super::backup::print;
use super::load_config;
use crate::Failure;
use crate::client::say;
use crate::config::{DEFAULT_PATH, Overrides};
use crate::doctor::{Finding, Level, Patient, examine};

#[derive(Args)]
pub struct DoctorArgs {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// 0: nothing fails. 1: something does.
pub fn run_doctor(args: DoctorArgs) -> ExitCode {
    let findings = findings(args.config.as_deref(), args.journal);
    let text = if args.json {
        serde_json::to_string_pretty(&findings).unwrap_or_default() + "\n"
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    };
    if let Err(failure) = print(&text) {
        say(&format!("crm-events-sink: {failure}"));
        return ExitCode::from(failure.exit_code());
    }
    if findings.iter().any(|finding| finding.level == Level::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What `doctor` finds.
pub fn findings(config: Option<&Path>, journal: Option<PathBuf>) -> Vec<Finding> {
    let default = Path::new(DEFAULT_PATH);
    let file = config.or(default.exists().then_some(default));
    let overrides = Overrides { journal, ..Overrides::default() };
    let looked = load_config(config, &overrides).and_then(|config| {
        let api = client_of(&config.api)?;
        Ok::<_, Failure>(examine(&Patient { config: &config, file, api: &api, now: Timestamp::now() }))
    });
    looked.unwrap_or_else(|error| vec![Finding::of_configuration(&error)])
}
