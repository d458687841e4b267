//! The command line: what to run, with which settings, and the exit code.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Level, Overrides, Property, parse_duration};
use crate::demo::Demo;
use crate::shutdown::{Cause, Shutdown};
use crate::store::{self, SqlError, StoreError, run_sql};
use crate::verify::{Verify, VerifyError, verify};
use crate::{Failure, consume, demo, run};

/// Keeps every CRM domain event from Kafka in one SQLite file, and lets an operator replay and repair with curl.
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
    CheckConfig(Settings),
    /// Did we miss anything? Compares the journal, or all journals of a group, with the broker; exit code 1 if so
    Verify(VerifyArgs),
    /// Read the whole journal and say what is wrong with it; works while the sink runs; exit code 74 if it is damaged
    CheckJournal(JournalArgs),
    /// Move a journal that cannot be used aside, every byte of it, with the sink stopped
    Quarantine(JournalArgs),
    /// Run SQL on the journal with the sink's own SQLite; works while the sink runs
    Sql(SqlArgs),
}

#[derive(Args)]
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

#[derive(Args)]
struct DemoArgs {
    /// Stop by itself after this time, as 30s
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    time: Option<Duration>,
    /// Events a second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Keep the journal in this file [default: a temporary one, removed at the end]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Let kcat talk to the broker at localhost:PORT
    #[arg(long, value_name = "PORT")]
    broker_port: Option<u16>,
    /// metrics.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// api.listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
}

#[derive(Args)]
struct VerifyArgs {
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

#[derive(Args)]
struct JournalArgs {
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Args)]
struct SqlArgs {
    /// Refuse to write
    #[arg(long)]
    readonly: bool,
    /// Configuration file [default: /etc/crm-events-sink/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// journal.path
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// The statements; without them they are read from standard input
    statements: Option<String>,
}

/// Parses the command line, runs the verb, and gives the exit code: 0, 2 for a wrong command line, 1 for SQL that
/// failed, else as [`Failure::exit_code`] says.
pub fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(settings) => load(&settings).and_then(run_until_signal),
        Verb::CheckConfig(settings) => load(&settings).and_then(|config| check(&config)),
        Verb::Demo(args) => run_demo(args),
        Verb::Verify(args) => return run_verify(args),
        Verb::CheckJournal(args) => check_journal(args),
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

fn load_config(file: Option<&std::path::Path>, overrides: &Overrides) -> Result<Config, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    Config::load(file, environment, overrides).map_err(|error| Failure::Config(error.to_string()))
}

fn run_until_signal(config: Config) -> Result<(), Failure> {
    start_log(config.log.level);
    let shutdown = Arc::new(Shutdown::default());
    stop_on_signal(&shutdown)?;
    run(config, shutdown, |_| {})
}

fn run_demo(args: DemoArgs) -> Result<(), Failure> {
    start_log(Level::Warn);
    let shutdown = Arc::new(Shutdown::default());
    stop_on_signal(&shutdown)?;
    let DemoArgs { time, rate, journal, broker_port, metrics_listen, api_listen } = args;
    demo::demo(&Demo { time, rate, journal, broker_port, metrics_listen, api_listen }, &shutdown)
}

fn check(config: &Config) -> Result<(), Failure> {
    consume::check_settings(config).map_err(|error| Failure::Config(error.to_string()))?;
    let mut shown = config.clone();
    for (name, value) in &mut shown.kafka.properties {
        if ["password", "secret", "key", "jaas", "config", "pem"].iter().any(|word| name.contains(word)) {
            *value = Property::Text("(not shown)".to_owned());
        }
    }
    let settings = toml::to_string(&shown).map_err(|error| Failure::Config(error.to_string()))?;
    println!("# The configuration is valid. The settings in force:\n{settings}");
    Ok(())
}

/// 0: complete. 1: something is missing or stands twice. 69: the broker does not answer. 74: a journal cannot be read.
fn run_verify(args: VerifyArgs) -> ExitCode {
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

fn journal(args: JournalArgs) -> Result<PathBuf, Failure> {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    Ok(load_config(args.config.as_deref(), &overrides)?.journal.path)
}

fn check_journal(args: JournalArgs) -> Result<(), Failure> {
    let journal = journal(args)?;
    let (began, mut said) = (Instant::now(), 0);
    let findings = store::check_whole(&journal, move || {
        let seconds = began.elapsed().as_secs();
        if seconds > said && io::stderr().is_terminal() {
            said = seconds;
            eprint!("\rchecking: {seconds} s");
        }
    });
    if began.elapsed().as_secs() > 0 && io::stderr().is_terminal() {
        eprintln!();
    }
    let findings = findings?;
    if findings.is_empty() {
        println!("{}: the journal is whole", journal.display());
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    Err(StoreError::damaged(&journal, format!("{} findings, see above", findings.len())).into())
}

fn quarantine(args: JournalArgs) -> Result<(), Failure> {
    let journal = journal(args)?;
    let aside = store::quarantine(&journal, Timestamp::now())?;
    println!(
        "The journal is now {aside}, and so are its -wal and -shm where there were any. Nothing was changed in them:\n  \
         crm-events-sink sql --readonly --journal {aside} 'SELECT count(*) FROM event_journal'\n\
         Now start the sink. It makes a new {journal} and reads from Kafka everything that Kafka still has.",
        aside = aside.display(),
        journal = journal.display(),
    );
    Ok(())
}

fn sql(args: SqlArgs) -> ExitCode {
    let overrides = Overrides { journal: args.journal, ..Overrides::default() };
    let done =
        load_config(args.config.as_deref(), &overrides).map_err(|failure| failure.to_string()).and_then(|config| {
            let statements = args.statements.map_or_else(|| io::read_to_string(io::stdin()), Ok);
            let statements = statements.map_err(|error| format!("cannot read the statements: {error}"))?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            let ran = run_sql(&config.journal.path, &statements, args.readonly, &mut out);
            let flushed = out.flush().map_err(SqlError::from);
            ran.and(flushed).map_err(|error| format!("{}: {error}", config.journal.path.display()))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crm-events-sink: {message}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(level: Level) {
    let level = match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_thread_names(true)
        .init();
}

/// SIGTERM, SIGINT or SIGHUP asks for an orderly stop; a second one ends the process at once.
fn stop_on_signal(shutdown: &Arc<Shutdown>) -> Result<(), Failure> {
    let shutdown = Arc::clone(shutdown);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let watch = async move {
        for stop_now in [false, true] {
            let number = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
            };
            if stop_now {
                std::process::exit(128 + number);
            }
            shutdown.begin(Cause::Requested);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}
