//! CRM Events Sink: keeps every CRM domain event from Kafka in one SQLite file, and lets an operator replay and repair.
//!
//! ```text
//! Kafka ─► consume ─► queue ─► write ─► SQLite file ─► serve (:9105, :9106)
//!            ▲          │(durable offsets back)            │
//!            │◄─────────┘                                  ▼
//!            └───────────── Kafka ◄──────────────────── replay
//! ```
//!
//! In the order in which an event meets them:
//! - [`event`]: a record as Kafka gave it; the pure step that makes an event of it
//! - [`dead_letter`]: a record that could not become one, and the closed list of reasons
//! - [`coverage`]: which offsets the file holds, and why it does not hold others
//! - [`consume`]: poll, decode, queue; commit what is durable
//! - [`queue`]: bounded, both ways: batches and orders forward, durable offsets back
//! - [`write`]: the writer thread: one transaction a batch
//! - [`store`]: the journal file: one writer, many readers, all SQL
//! - [`job`], [`audit`]: what a bulk replay is; what an operator does, as it is put down
//! - [`removal`]: what is pruned and erased
//! - [`archive`]: events go to Parquet files before they are pruned
//! - [`retention`]: what is too old or too much goes, a whole day at once
//! - [`replay`]: an event goes to its topic again, or a job's events do, until the broker has them
//! - [`auth`]: who asks, and what that one may do
//! - [`serve`]: the HTTP threads
//! - [`client`]: the same API from the shell
//! - [`verify`]: the auditor's question, from the shell: did we miss anything?
//! - [`backup`]: the journal's copies, and the way back
//! - [`doctor`]: what is right with the box and what is not
//! - [`support`]: all that for somebody else, without what is in the journal
//!
//! Beside the flow: [`config`], [`metrics`], [`health`], [`watermarks`], [`shutdown`], [`reload`], [`pulse`] and [`service`] for systemd, [`cli`], [`demo`]. [`run`] is the only wiring.
//!
//! Absent on purpose: an event id of our own making (topic, partition and offset are the identity a producer gives),
//! a second write connection, automatic offset commits, a retry of anything that could put a record in twice.

pub mod archive;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
pub mod consume;
pub mod coverage;
pub mod dead_letter;
pub mod demo;
pub mod doctor;
pub mod event;
pub mod health;
pub mod job;
pub mod metrics;
pub mod pulse;
pub mod queue;
pub mod reload;
pub mod removal;
pub mod replay;
pub mod retention;
pub mod serve;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod support;
pub mod verify;
pub mod watermarks;
pub mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use archive::Archive;
use auth::Gate;
use backup::BackupError;
use config::InForce;
use consume::Consume;
use health::Health;
use metrics::Metrics;
use pulse::Pulses;
use reload::Reload;
use replay::{Jobs, Replayer};
use retention::Retention;
use serve::{MetricsApi, OperatorApi, Ports, Probe};
use service::Service;
use shutdown::{Cause, Shutdown};
use store::{Readers, StoreError};
use watermarks::Watermarks;
use write::{Opening, Write};

/// Why the sink did not start, or did not end well. Each has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Port(String),
    #[error("{0}")]
    Journal(#[from] StoreError),
    #[error("{0}")]
    Backup(#[from] BackupError),
    #[error("{0}")]
    Output(String),
    #[error("{0}")]
    System(#[from] std::io::Error),
    #[error(
        "a thread of the sink panicked; what is in the journal is safe and Kafka has the rest. Please report the lines above"
    )]
    Panicked,
}

impl Failure {
    /// From sysexits.h, as systemd's `RestartPreventExitStatus` wants them: 78 configuration, 75 journal in use,
    /// 74 journal unusable, 73 a file that cannot be made, 71 system, 70 a fault of the program, 69 port taken; [`BackupError::exit_code`] has those of
    /// backups.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) => 78,
            Failure::Journal(error) => error.exit_code(),
            Failure::Backup(error) => error.exit_code(),
            Failure::Output(_) => 73,
            Failure::System(_) => 71,
            Failure::Panicked => 70,
            Failure::Port(_) => 69,
        }
    }
}

/// Where a running sink answers.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub metrics: SocketAddr,
    pub api: SocketAddr,
}

/// Starts every part, calls `ready`, and returns after `shutdown` was asked for and the queue is drained. What can be read
/// again meanwhile is registered with `reload`.
///
/// # Errors
/// See [`Failure`]. Until everything that can fail has been tried, nothing is consumed.
pub fn run(
    in_force: &Arc<InForce>,
    shutdown: Arc<Shutdown>,
    reload: &Reload,
    ready: impl FnOnce(Addresses),
) -> Result<(), Failure> {
    let config = in_force.get();
    let metrics = Arc::new(Metrics::new(config.metrics.max_tenants, store::sqlite_version()));
    let health = Arc::new(Health::default());
    let durable = Arc::new(queue::Durable::default());
    let watermarks = Arc::new(Watermarks::default());
    let pulses = Arc::new(Pulses::default());

    let gate = Arc::new(Gate::new(&config).map_err(Failure::Config)?);
    let certificate = serve::certificate(&config).map_err(Failure::Config)?;
    let readers = Readers::open(&config.journal.path);
    let mut opening = Opening::new(&config, &readers, &health, &shutdown);
    let _lock = opening.lock()?;
    let metrics_port = serve::bind("metrics.listen", config.metrics.listen).map_err(Failure::Port)?;
    let api_port = serve::bind("api.listen", config.api.listen).map_err(Failure::Port)?;
    let addresses = Addresses { metrics: metrics_port.address()?, api: api_port.address()? };
    let opened = opening.open()?;
    let replayer = Replayer::new(Arc::clone(&config), Arc::clone(&metrics));

    let (inlet, orders, outlet) = queue::bounded(config.queue.batches_max);
    let jobs = Arc::new(Jobs::new(replay::Shared {
        config: Arc::clone(&config),
        metrics: Arc::clone(&metrics),
        readers: readers.clone(),
        orders: orders.clone(),
        shutdown: Arc::clone(&shutdown),
    }));
    let consumers = consumers(&consume::Shared {
        config: Arc::clone(&config),
        inlet,
        durable: Arc::clone(&durable),
        readers: readers.clone(),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        watermarks: Arc::clone(&watermarks),
        shutdown: Arc::clone(&shutdown),
        pulses: Arc::clone(&pulses),
    })?;
    let write = {
        let (path, limits, metrics) = (config.journal.path.clone(), write::limits(&config), Arc::clone(&metrics));
        let log_bytes_max = config.journal.wal_bytes_max;
        let (health, shutdown, pulses) = (Arc::clone(&health), Arc::clone(&shutdown), Arc::clone(&pulses));
        move || {
            let Some((store, reserve)) = opening.finish(opened) else { return };
            let aftermath = write::Aftermath::default();
            let stage = Write {
                last_transaction: None,
                last_arrival: None,
                store,
                reserve,
                aftermath,
                path,
                queue: outlet,
                durable,
                metrics,
                health,
                shutdown,
                limits,
                log_bytes_max,
                heart: pulses.heart(write::PART),
            };
            stage.run();
        }
    };

    let mut threads = vec![spawn(write::PART, &shutdown, write)?];
    for (name, consumer) in consumers {
        threads.push(spawn(&name, &shutdown, move || consumer.run())?);
    }
    let going_on = Arc::clone(&jobs);
    threads.push(spawn("replay", &shutdown, move || going_on.go_on())?);
    let storage = Arc::new(retention::Status::default());
    let archive = Archive::new(&config, readers.clone(), orders.clone(), Arc::clone(&metrics), Arc::clone(&health));
    archive.measure();
    let archive = Arc::new(archive);
    let (archiving, stopping) = (Arc::clone(&archive), Arc::clone(&shutdown));
    let retention = Retention::new(retention::Shared {
        config: Arc::clone(&config),
        readers: readers.clone(),
        orders: orders.clone(),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        shutdown: Arc::clone(&shutdown),
        archive: Box::new(move |last_id| {
            archiving.step(last_id, || stopping.has_begun()).map_err(|error| error.to_string())
        }),
        status: Arc::clone(&storage),
    });
    threads.push(spawn("retention", &shutdown, move || retention.run())?);
    let watched_health = Arc::clone(&health);
    let api = OperatorApi {
        config: Arc::clone(&config),
        in_force: Arc::clone(in_force),
        readers,
        replayer,
        jobs: Arc::clone(&jobs),
        orders,
        watermarks,
        health,
        gate: Arc::clone(&gate),
        exports: serve::Exports::default(),
        names: serve::names(&config),
        description: serve::Description::of(&config),
        removals: serve::Removals::default(),
        storage,
        archive,
    };
    let (limited, limits) = (Arc::clone(&gate), Arc::clone(in_force));
    reload.register("limits", move || {
        let per_minute = limits.get().api.replays_per_minute;
        limited.limit_replays(per_minute);
        Ok(format!("{per_minute} replays a minute"))
    });
    if config.api.auth.is_on() {
        let gate = Arc::clone(&gate);
        reload.register("auth", move || gate.reload());
    }
    let metrics_api = MetricsApi { metrics: Arc::clone(&metrics), gate: config.metrics.auth.then_some(gate) };
    let probe = Probe::new(addresses.metrics, addresses.api, certificate.clone());
    if let Some(certificate) = certificate.clone() {
        reload.register("certificate", move || certificate.reload());
    }
    let ports = Ports { metrics: (metrics_port, metrics_api), api: (api_port, api), certificate };
    let serving = serve::start(ports, &config, &metrics, &shutdown)?;
    let service = Service {
        metrics: Arc::clone(&metrics),
        health: watched_health,
        pulses: Arc::clone(&pulses),
        shutdown: Arc::clone(&shutdown),
        stop_within: config.shutdown_timeout,
    };
    threads.push(spawn("service", &shutdown, move || service.run())?);
    let probing = (Arc::clone(&metrics), Arc::clone(&shutdown));
    let (shown, backups) = (Arc::clone(&metrics), config.backup.folder.clone());
    let watched = Arc::clone(&shutdown);
    threads.push(spawn("backups", &shutdown, move || backup::show(&backups, &shown, &watched))?);
    threads.push(spawn("probe", &shutdown, move || {
        let heart = pulses.answer("probe");
        probe.repeat(&probing.0, &heart, &probing.1);
    })?);
    tracing::info!(journal = %config.journal.path.display(), brokers = config.kafka.brokers, api = %addresses.api, metrics = %addresses.metrics, "running");
    ready(addresses);

    while !shutdown.wait(Duration::from_secs(3600)) {}
    tracing::info!("stopping: draining the queue, answering the requests in flight");
    let deadline = Instant::now() + config.shutdown_timeout;
    threads.extend(serving.stop());
    threads.extend(jobs.stop());
    // The writer waits for everybody who could still ask for something.
    drop(jobs);
    join(threads, deadline);
    match shutdown.cause() {
        Some(Cause::Panicked) => Err(Failure::Panicked),
        _ => Ok(()),
    }
}

fn consumers(shared: &consume::Shared) -> Result<Vec<(String, Consume)>, Failure> {
    let make = |number: usize| {
        let name = format!("consume-{number}");
        let consumer =
            Consume::new(name.clone(), number, shared.clone()).map_err(|error| Failure::Config(error.to_string()))?;
        Ok((name, consumer))
    };
    (0..shared.config.kafka.consumers).map(make).collect()
}

fn spawn(
    name: &str,
    shutdown: &Arc<Shutdown>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let shutdown = Arc::clone(shutdown);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _guard = shutdown.on_panic();
        body();
    })
}

/// Waits for the threads until `deadline`. One that is late ends with the process: what it had in hand, Kafka has.
fn join(threads: Vec<JoinHandle<()>>, deadline: Instant) {
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic has been seen by the thread's guard.
            thread.join().ok();
        } else {
            tracing::warn!(thread = thread.thread().name(), "not finished within shutdown_timeout; left behind");
        }
    }
}
