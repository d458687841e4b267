//! The HTTP threads: :9105 for Prometheus, :9106 for operators.

mod metrics;
mod operator;
mod reply;

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tiny_http::{Header, Request, Response, Server};

pub use self::metrics::MetricsApi;
pub use self::operator::OperatorApi;
use self::reply::Reply;
use crate::replay::WAITING_MAX;

/// Threads of the operators' API: those that replays may hold, and as many that always answer.
pub const API_THREADS: usize = 2 * WAITING_MAX;
pub const METRICS_THREADS: usize = 2;

/// One port's routes. `path` has no query; `query` is what follows the `?`.
pub trait Routes: Send + Sync + 'static {
    fn answer(&self, method: &str, path: &str, query: &str) -> Reply;
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

fn answer(request: Request, routes: &dyn Routes) {
    let method = request.method().to_string();
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    let reply = catch_unwind(AssertUnwindSafe(|| routes.answer(&method, path, query)));
    let reply = reply.unwrap_or_else(|_| Reply::internal_error());
    let mut response = Response::from_data(reply.body)
        .with_status_code(reply.status)
        .with_header(header("Content-Type", reply.content_type));
    if let Some((name, value)) = reply.header {
        response.add_header(header(name, &value));
    }
    // A client that went away does not want its answer.
    if let Err(error) = request.respond(response) {
        tracing::debug!(%error, "an answer was not taken");
    }
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our own headers are ASCII")
}
