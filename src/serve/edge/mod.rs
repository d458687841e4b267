//! What stands between the network and tiny_http: it owns the ports, reads each request whole and strictly within limits
//! of size and time, and only then hands it over. One thread, `edge`, serves both ports.
//!
//! - `port`: accepts connections, whatever happens
//! - `seats`: who is connected, and who gives way
//! - `connection`: one client: requests in order, one at a time
//! - `head`, `chunked`: how a request is read (pure)
//! - `places`: how many requests are handed over at once; memory in all
//! - `forward`: to the threads behind, and the answer back
//! - `refusal`: what the edge answers by itself
//! - `descriptors`: how many connections there can be
//! - `tls`: the certificate
//!
//! A request that acts is handed over once, and only when it came whole. Nothing is ever sent again.

mod chunked;
mod connection;
mod descriptors;
mod forward;
mod head;
mod places;
mod port;
mod refusal;
mod seats;
pub mod tls;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

pub use self::head::{CLIENT, TLS};
use self::places::{Memory, Places};
use self::port::{Port, STANDING_MAX};
use self::seats::{Phase, Seats};
use super::upstream::Upstream;
use crate::config::Http;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// How often it is looked whether all connections have ended.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Running,
    /// No new connections and requests; those that came whole are answered.
    Finishing,
}

/// What one port is opened with.
pub struct Opening {
    pub name: &'static str,
    pub listener: TcpListener,
    pub upstream: Arc<Upstream>,
    pub threads: usize,
    /// Threads that only the probe's question gets.
    pub probe_threads: usize,
    pub probe_path: &'static str,
    pub body_bytes_max: usize,
    pub tls: Option<TlsAcceptor>,
}

/// The edge at work.
pub struct Edge {
    stage: watch::Sender<Stage>,
    thread: JoinHandle<()>,
}

impl Edge {
    /// Serves `openings`; `folder` holds the sockets behind and goes with the thread.
    ///
    /// # Errors
    /// If the system refuses a thread or a listener.
    pub fn start(
        openings: Vec<Opening>,
        folder: TempDir,
        limits: &Http,
        patience: Duration,
        metrics: &Arc<Metrics>,
        shutdown: &Arc<Shutdown>,
    ) -> io::Result<Edge> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stage, watched) = watch::channel(Stage::Running);
        let requests: usize = openings.iter().map(|opening| opening.threads).sum();
        let mut limits = limits.clone();
        limits.connections_max = descriptors::connections_max(limits.connections_max, openings.len(), requests);
        limits.waiting_max = limits.waiting_max.min(limits.connections_max / 4);
        let mut ports = Vec::new();
        for opening in openings {
            ports.push(open(&runtime, opening, limits.clone(), Arc::clone(metrics), watched.clone())?);
        }
        let shutdown = Arc::clone(shutdown);
        let thread = std::thread::Builder::new().name("edge".to_owned()).spawn(move || {
            let _guard = shutdown.on_panic();
            runtime.block_on(serve(ports, watched, patience));
            drop(folder);
        })?;
        Ok(Edge { stage, thread })
    }

    /// Asks it to finish the requests that it has.
    pub fn stop(self) -> JoinHandle<()> {
        self.stage.send_replace(Stage::Finishing);
        self.thread
    }
}

fn open(
    runtime: &Runtime,
    opening: Opening,
    limits: Http,
    metrics: Arc<Metrics>,
    stage: watch::Receiver<Stage>,
) -> io::Result<(tokio::net::TcpListener, Arc<Port>)> {
    let _inside = runtime.enter();
    opening.listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(opening.listener)?;
    let port = Port {
        name: opening.name,
        body_bytes_max: opening.body_bytes_max,
        seats: Seats::new(limits.connections_max, limits.connections_per_client_max),
        standing: Arc::new(Semaphore::new(STANDING_MAX)),
        places: Places::new(opening.threads, opening.probe_threads, limits.waiting_max, limits.waiting_timeout),
        probe_path: opening.probe_path,
        bodies: Memory::new(limits.buffered_bytes_max),
        answers: Memory::new(limits.buffered_bytes_max),
        upstream: opening.upstream,
        tls: opening.tls,
        limits,
        metrics,
        stage,
    };
    Ok((listener, Arc::new(port)))
}

/// Until a stop is asked for; then until the last request is answered, and the threads behind know that none will come.
async fn serve(
    ports: Vec<(tokio::net::TcpListener, Arc<Port>)>,
    mut stage: watch::Receiver<Stage>,
    patience: Duration,
) {
    let ports: Vec<Arc<Port>> = ports
        .into_iter()
        .map(|(listener, port)| {
            tokio::spawn(Arc::clone(&port).listen(listener));
            port
        })
        .collect();
    // An error: the other end is gone, which means the same.
    stage.wait_for(|stage| *stage == Stage::Finishing).await.ok();
    let deadline = tokio::time::Instant::now() + patience;
    while ports.iter().any(|port| port.seats.taken() > 0) {
        for port in &ports {
            port.seats.shed_all(Phase::Waiting);
            // Half of the time is theirs who are slow to take their answers, the rest belongs to the journal.
            if tokio::time::Instant::now() > deadline {
                port.seats.shed_all(Phase::Writing);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    for port in &ports {
        port.upstream.stop();
    }
}
