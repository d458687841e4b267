//! `run`, `demo` and `check-config`: the sink itself.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;

use super::backup::print;
use super::{Settings, load, with_secrets};
use crate::config::{InForce, Level, parse_duration};
use crate::demo::Demo;
use crate::reload::Reload;
use crate::shutdown::{Cause, Shutdown};
use crate::{Failure, consume, demo, run, serve, service};

#[derive(Args)]
pub struct DemoArgs {
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
pub struct CheckArgs {
    #[command(flatten)]
    settings: Settings,
    /// Do not look for what credential:NAME stands for: only the service has it
    #[arg(long)]
    no_credentials: bool,
}

pub fn run_until_signal(settings: Settings) -> Result<(), Failure> {
    let config = with_secrets(load(&settings)?)?;
    let log = start_log(config.log.level);
    let shutdown = Arc::new(Shutdown::default());
    let reload = Arc::new(Reload::default());
    let in_force = Arc::new(InForce::new(config));
    let taken = Arc::clone(&in_force);
    reload.register("settings", move || read_again(&settings, &taken, &log));
    let on_hangup = Arc::clone(&reload);
    watch_signals(&shutdown, move || on_hangup.run())?;
    run(&in_force, shutdown, &reload, |_| service::ready())
}

/// Takes the settings that may change while the sink runs; what has changed now, and what waits for a restart.
fn read_again(settings: &Settings, in_force: &InForce, log: &Log) -> Result<String, String> {
    let config = load(settings).and_then(with_secrets).map_err(|error| error.to_string())?;
    let changes = in_force.take(&config).map_err(|error| error.to_string())?;
    if !changes.waiting.is_empty() {
        tracing::warn!(settings = changes.waiting.join(", "), "changed, and not in force before a restart");
    }
    let taken = if changes.taken.is_empty() { "nothing".to_owned() } else { changes.taken.join(", ") };
    tracing::info!(settings = taken, "changed");
    // Last, so that what was said before is in the log whatever the new level is.
    log.modify(|level| *level = filter(config.log.level)).map_err(|error| error.to_string())?;
    Ok(format!("the level of the log is {}", filter(config.log.level)))
}

pub fn run_demo(args: DemoArgs) -> Result<(), Failure> {
    start_log(Level::Warn);
    let shutdown = Arc::new(Shutdown::default());
    // Its terminal was closed: nobody watches any more.
    let left = Arc::clone(&shutdown);
    watch_signals(&shutdown, move || left.begin(Cause::Requested))?;
    let DemoArgs { time, rate, journal, broker_port, metrics_listen, api_listen } = args;
    demo::demo(&Demo { time, rate, journal, broker_port, metrics_listen, api_listen }, &shutdown)
}

/// Prints the settings as they are written: what a credential stands for is not among them.
pub fn check(args: &CheckArgs) -> Result<(), Failure> {
    let config = load(&args.settings)?;
    // Without them a credential's name is a text as another; a file that it names is not looked for.
    let complete = if args.no_credentials { config.without_credentials() } else { with_secrets(config.clone())? };
    consume::check_settings(&complete).map_err(|error| Failure::Config(error.to_string()))?;
    serve::certificate(&complete).map_err(Failure::Config)?;
    let settings = config.shown().map_err(|error| Failure::Config(error.to_string()))?;
    print(&format!("# The configuration is valid. The settings in force:\n{settings}\n"))
}

/// By which the level of the log is changed.
type Log = Handle<LevelFilter, Registry>;

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

fn start_log(level: Level) -> Log {
    let (level, log) = tracing_subscriber::reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_thread_names(true);
    tracing_subscriber::registry().with(level).with(lines).init();
    log
}

/// SIGTERM or SIGINT asks for an orderly stop; a second one ends the process at once. SIGHUP does `on_hangup`.
fn watch_signals(shutdown: &Arc<Shutdown>, on_hangup: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let shutdown = Arc::clone(shutdown);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let watch = async move {
        let mut asked = false;
        loop {
            let kind = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = hangup.recv() => SignalKind::hangup(),
            };
            if kind == SignalKind::hangup() {
                on_hangup();
                continue;
            }
            if std::mem::replace(&mut asked, true) {
                std::process::exit(128 + kind.as_raw_value());
            }
            shutdown.begin(Cause::Requested);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(())
}
