//! The HTTP threads: :9105 for Prometheus, :9106 for operators; and the edge before them.

mod compress;
mod conditional;
mod edge;
mod export;
mod metrics;
mod operator;
mod probe;
mod reply;
mod send;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tiny_http::Header;

pub use self::edge::tls::Certificate;
use self::edge::{CLIENT, Edge, Opening, TLS};
pub use self::export::Exports;
pub use self::metrics::MetricsApi;
pub use self::operator::{Description, OperatorApi, Removals};
pub use self::probe::Probe;
use self::reply::Reply;
use self::upstream::Upstream;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::replay::WAITING_MAX;
use crate::shutdown::Shutdown;

/// Threads that only `/health`, or only `/metrics`, gets.
const PROBE_THREADS: usize = 2;
/// Threads of the operators' API: those that replays may hold, twice as many for what else is slow, and the probe's.
const API_THREADS: usize = 3 * WAITING_MAX + PROBE_THREADS;
const METRICS_THREADS: usize = 2 * PROBE_THREADS;

/// One request, read whole.
pub struct Request {
    pub method: String,
    pub path: String,
    /// What follows the `?`.
    pub query: String,
    pub body: Vec<u8>,
    /// The address that asks.
    pub origin: String,
    /// Whether it came by TLS.
    pub is_encrypted: bool,
    headers: Vec<(String, String)>,
}

impl Request {
    /// The first of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }
}

/// One port's routes.
pub trait Routes: Send + Sync + 'static {
    fn answer(&self, request: &Request) -> Reply;
}

/// A listening socket that nobody answers on yet: a port that is taken is found before anything else starts.
pub struct Bound(TcpListener);

/// # Errors
/// Names the setting, the address and what to do.
pub fn bind(setting: &str, address: SocketAddr) -> Result<Bound, String> {
    TcpListener::bind(address).map(Bound).map_err(|error| {
        format!("{setting}: cannot listen on {address}: {error}; stop what uses the port, or set {setting} to another")
    })
}

impl Bound {
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// By which this box may be called.
pub fn names(config: &Config) -> Vec<String> {
    config.api.hosts.iter().cloned().chain(operator::own_name()).collect()
}

/// The certificate of the API, if it is to have one.
///
/// # Errors
/// Names the setting, the file and what to do.
pub fn certificate(config: &Config) -> Result<Option<Arc<Certificate>>, String> {
    if !config.api.tls.is_on() && config.api.auth.is_on() && !config.api.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.api.listen, "passwords and tokens travel in the clear; set api.tls.certificate and api.tls.key");
    }
    config.api.tls.is_on().then(|| Certificate::read(&config.api.tls)).transpose()
}

/// What the two ports are served with.
pub struct Ports {
    pub metrics: (Bound, MetricsApi),
    pub api: (Bound, OperatorApi),
    pub certificate: Option<Arc<Certificate>>,
}

/// The threads that answer on both ports.
pub struct Serving {
    edge: Edge,
    threads: Vec<JoinHandle<()>>,
}

/// Answers on both ports.
///
/// # Errors
/// If a thread, a socket or the folder for it cannot be made.
pub fn start(
    ports: Ports,
    config: &Config,
    metrics: &Arc<Metrics>,
    shutdown: &Arc<Shutdown>,
) -> std::io::Result<Serving> {
    let Ports { metrics: (metrics_port, metrics_api), api: (api_port, operator_api), certificate } = ports;
    let tls = certificate.map(|certificate| certificate.acceptor()).transpose().map_err(std::io::Error::other)?;
    let folder = upstream::folder()?;
    let metrics_upstream = Arc::new(Upstream::open(folder.path(), "metrics", METRICS_THREADS)?);
    let api_upstream = Arc::new(Upstream::open(folder.path(), "api", API_THREADS)?);
    let mut threads = answering("metrics", METRICS_THREADS, &metrics_upstream, &(Arc::new(metrics_api) as _))?;
    threads.extend(answering("api", API_THREADS, &api_upstream, &(Arc::new(operator_api) as _))?);
    let openings = vec![
        Opening {
            name: "metrics",
            listener: metrics_port.0,
            upstream: metrics_upstream,
            threads: METRICS_THREADS,
            probe_threads: PROBE_THREADS,
            probe_path: probe::METRICS,
            // Nothing there takes one.
            body_bytes_max: 0,
            tls: None,
        },
        Opening {
            name: "api",
            listener: api_port.0,
            upstream: api_upstream,
            threads: API_THREADS,
            probe_threads: PROBE_THREADS,
            probe_path: probe::HEALTH,
            body_bytes_max: config.http.body_bytes_max,
            tls,
        },
    ];
    let edge = Edge::start(openings, folder, &config.http, config.shutdown_timeout / 2, metrics, shutdown)?;
    Ok(Serving { edge, threads })
}

impl Serving {
    /// Asks the threads to finish the requests they have, and hands them out to be joined.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        let mut threads = self.threads;
        threads.push(self.edge.stop());
        threads
    }
}

fn answering(
    name: &str,
    threads: usize,
    upstream: &Arc<Upstream>,
    routes: &Arc<dyn Routes>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let start = |number| {
        let (upstream, routes) = (Arc::clone(upstream), Arc::clone(routes));
        let thread = thread::Builder::new().name(format!("{name}-{number}"));
        thread.spawn(move || upstream.take_requests(|request| answer(request, &*routes)))
    };
    (0..threads).map(start).collect()
}

fn answer(mut raw: tiny_http::Request, routes: &dyn Routes) {
    // Half a request is not carried out.
    let Some(request) = read(&mut raw) else { return };
    let reply = catch_unwind(AssertUnwindSafe(|| routes.answer(&request)));
    let reply = reply.unwrap_or_else(|_| Reply::internal_error());
    let reply = compress::compress(request.header("Accept-Encoding"), reply);
    // A stream may panic while it is written: that breaks off its transfer alone.
    let sent = catch_unwind(AssertUnwindSafe(|| send::send(raw, reply)));
    // A client that went away does not want its answer.
    if let Ok(Err(error)) = sent {
        tracing::debug!(%error, "an answer was not taken, or not made whole");
    }
}

/// None if the body is not whole.
fn read(raw: &mut tiny_http::Request) -> Option<Request> {
    let (path, query) = raw.url().split_once('?').unwrap_or((raw.url(), ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let header = |header: &Header| (header.field.to_string(), header.value.to_string());
    let all = raw.headers().iter().map(header);
    let (edges, headers): (Vec<_>, Vec<_>) = all.partition(|(name, _)| [CLIENT, TLS].contains(&name.as_str()));
    let of_edge = |name: &str| edges.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    // The edge gives a length whenever there is a body.
    let length = raw.body_length().unwrap_or_default();
    raw.as_reader().read_to_end(&mut body).ok().filter(|_| body.len() == length)?;
    Some(Request {
        method: raw.method().to_string(),
        path,
        query,
        body,
        origin: of_edge(CLIENT).unwrap_or_else(|| "unknown".to_owned()),
        is_encrypted: of_edge(TLS).is_some(),
        headers,
    })
}
