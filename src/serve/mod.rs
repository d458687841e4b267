//! The HTTP threads: :9105 for Prometheus, :9106 for operators.

mod metrics;
mod operator;
mod reply;
mod send;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Server};

pub use self::metrics::MetricsApi;
pub use self::operator::OperatorApi;
use self::reply::Reply;
use crate::config::Config;
use crate::replay::WAITING_MAX;

/// Threads of the operators' API: those that replays may hold, and as many that always answer.
pub const API_THREADS: usize = 2 * WAITING_MAX;
pub const METRICS_THREADS: usize = 2;

/// Bytes of a request's body at most: about 200,000 event ids.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// One request, read whole.
pub struct Request {
    pub method: String,
    pub path: String,
    /// What follows the `?`.
    pub query: String,
    pub body: Result<Vec<u8>, BodyError>,
    /// The address that asks.
    pub origin: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {BODY_BYTES_MAX} bytes; name the events by a time range instead")]
    TooLarge,
    #[error("the body did not come whole")]
    Broken,
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

/// The threads that answer on one port.
pub struct Serving {
    server: Arc<Server>,
    threads: Vec<JoinHandle<()>>,
}

/// Answers on `bound` from `threads` threads.
///
/// # Errors
/// If a thread cannot be made.
pub fn start(name: &str, bound: Bound, threads: usize, routes: Arc<dyn Routes>) -> std::io::Result<Serving> {
    let server = Server::from_listener(bound.0, None).map_err(std::io::Error::other)?;
    let mut serving = Serving { server: Arc::new(server), threads: Vec::new() };
    for number in 0..threads {
        let (server, routes) = (Arc::clone(&serving.server), Arc::clone(&routes));
        let thread = thread::Builder::new().name(format!("{name}-{number}"));
        serving.threads.push(thread.spawn(move || answer_requests(&server, &*routes))?);
    }
    Ok(serving)
}

impl Serving {
    /// Asks the threads to finish the requests they have, and hands them out to be joined.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        for _ in &self.threads {
            self.server.unblock();
        }
        self.threads
    }
}

fn answer_requests(server: &Server, routes: &dyn Routes) {
    while let Ok(request) = server.recv() {
        answer(request, routes);
    }
}

fn answer(mut raw: tiny_http::Request, routes: &dyn Routes) {
    let request = read(&mut raw);
    let reply = catch_unwind(AssertUnwindSafe(|| routes.answer(&request)));
    let reply = reply.unwrap_or_else(|_| Reply::internal_error());
    // A stream may panic while it is written: that breaks off its transfer alone.
    let sent = catch_unwind(AssertUnwindSafe(|| send::send(raw, reply)));
    // A client that went away does not want its answer.
    if let Ok(Err(error)) = sent {
        tracing::debug!(%error, "an answer was not taken, or not made whole");
    }
}

fn read(raw: &mut tiny_http::Request) -> Request {
    let (path, query) = raw.url().split_once('?').unwrap_or((raw.url(), ""));
    let header = |header: &Header| (header.field.to_string(), header.value.to_string());
    let mut request = Request {
        method: raw.method().to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Ok(Vec::new()),
        origin: raw.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string()),
        headers: raw.headers().iter().map(header).collect(),
    };
    if raw.body_length().is_none_or(|length| length > 0) {
        request.body = read_body(raw);
    }
    request
}

fn read_body(raw: &mut tiny_http::Request) -> Result<Vec<u8>, BodyError> {
    if raw.body_length().is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    let limit = BODY_BYTES_MAX as u64 + 1;
    match raw.as_reader().take(limit).read_to_end(&mut body) {
        Ok(read) if read > BODY_BYTES_MAX => Err(BodyError::TooLarge),
        Ok(_) => Ok(body),
        Err(_) => Err(BodyError::Broken),
    }
}
