//! The command line: what to run, with which settings, and the exit code.

mod api;
mod archive;
mod backup;
mod dlq;
mod doctor;
mod events;
mod journal;
mod progress;
mod replay;
mod sink;
mod storage;
mod support;
mod user;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::Failure;
use crate::config::{Config, Level, Overrides, with_credentials};
use archive::{ArchiveArgs, run_archive};
use backup::{BackupArgs, RestoreArgs, run_backup, run_restore};
use dlq::{DlqArgs, run_dlq};
use doctor::{DoctorArgs, run_doctor};
use events::{AuditArgs, EventsArgs, ExportArgs, run_audit, run_events, run_export};
use journal::{JournalArgs, SqlArgs, check_journal, quarantine, sql};
use replay::{ReplayArgs, run_replay};
use sink::{CheckArgs, DemoArgs, check, run_demo, run_until_signal};
use storage::{StorageArgs, run_storage};
use support::{SupportArgs, run_support};
use user::{UserArgs, run_user};
use verify::{VerifyArgs, run_verify};

/// Keeps every CRM domain event from Kafka in one SQLite file, and lets an operator replay and repair.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Consume, store and serve until SIGTERM or Ctrl-C
    Run(Settings),
    /// Show the whole sink at work, on a Kafka broker inside this process
    Demo(DemoArgs),
    /// Check the configuration and print the settings in force; exit code 78 if it is wrong
    CheckConfig(CheckArgs),
    /// What came in: the newest events, one, those that conditions mean, or the history of one
    Events(EventsArgs),
    /// Write the events that conditions mean to a file
    Export(ExportArgs),
    /// Send events to Kafka again: one at once, many as a job
    Replay(ReplayArgs),
    /// What could not be stored: look, try again, put away
    Dlq(DlqArgs),
    /// Who replayed, retried, discarded or resumed what, and how it ended
    Audit(AuditArgs),
    /// What the journal takes, and how long the disk lasts
    Storage(StorageArgs),
    /// The Parquet files that events went to before they were deleted
    Archive(ArchiveArgs),
    /// The people who may log in to the API
    User(UserArgs),
    /// Did we miss anything? Compares the journal, or all journals of a group, with the broker; exit code 1 if so
    Verify(VerifyArgs),
    /// Read the whole journal and say what is wrong with it; works while the sink runs; exit code 74 if it is damaged
    CheckJournal(JournalArgs),
    /// Copy the journal into a folder, checked and hashed; works while the sink runs
    Backup(BackupArgs),
    /// Put a backup in the journal's place, with the sink stopped; what it replaces is moved aside
    Restore(RestoreArgs),
    /// Look at config, disk, files, clock, broker, journal, backups and certificates, and say what to do; exit code 1 if something fails
    Doctor(DoctorArgs),
    /// Put together what somebody who helps needs to know, without payloads, keys, headers or secrets
    SupportBundle(SupportArgs),
    /// Move a journal that cannot be used aside, every byte of it, with the sink stopped
    Quarantine(JournalArgs),
    /// Run SQL on the journal with the sink's own SQLite; works while the sink runs
    Sql(SqlArgs),
}

#[derive(Args, Clone)]
struct Settings {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// kafka.brokers
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: Option<String>,
    /// kafka.group_id
    #[arg(long, value_name = "NAME")]
    group_id: Option<String>,
    /// kafka.topics: names, or ^regex
    #[arg(long, value_name = "TOPIC,…")]
    topics: Option<String>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// metrics.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// api.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// log.level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<Level>,
}

/// Parses the command line, runs the verb, and gives the exit code: 0, 2 for a wrong command line, 1 for SQL that
/// failed, else as [`Failure::exit_code`] says. The API's verbs end as `ApiArgs::run` says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(settings) => run_until_signal(settings),
        Verb::CheckConfig(args) => check(&args),
        Verb::Demo(args) => run_demo(args),
        Verb::Events(args) => return run_events(args),
        Verb::Export(args) => return run_export(args),
        Verb::Replay(args) => return run_replay(args),
        Verb::Dlq(args) => return run_dlq(args),
        Verb::Audit(args) => return run_audit(args),
        Verb::Storage(args) => return run_storage(args),
        Verb::Archive(args) => return run_archive(args),
        Verb::User(args) => run_user(args),
        Verb::Verify(args) => return run_verify(args),
        Verb::CheckJournal(args) => check_journal(args),
        Verb::Backup(args) => run_backup(args),
        Verb::Restore(args) => run_restore(args),
        Verb::Doctor(args) => return run_doctor(args),
        Verb::SupportBundle(args) => run_support(args),
        Verb::Quarantine(args) => quarantine(args),
        Verb::Sql(args) => return sql(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("crm-events-sink: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The command line as clap has it, for what is made of it: man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err("give error, warn, info, debug or trace".to_owned()),
    }
}

fn load(settings: &Settings) -> Result<Config, Failure> {
    let overrides = Overrides {
        brokers: settings.brokers.clone(),
        group_id: settings.group_id.clone(),
        topics: settings.topics.clone(),
        journal: settings.journal.clone(),
        metrics_listen: settings.metrics_listen,
        api_listen: settings.api_listen,
        log_level: settings.log_level,
    };
    load_config(settings.config.as_deref(), &overrides)
}

fn load_config(file: Option<&Path>, overrides: &Overrides) -> Result<Config, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    Config::load(file, environment, overrides).map_err(|error| Failure::Config(error.to_string()))
}

/// [`load_config`] for a verb that talks to Kafka or serves.
fn with_secrets(config: Config) -> Result<Config, Failure> {
    with_credentials(config).map_err(|error| Failure::Config(error.to_string()))
}
