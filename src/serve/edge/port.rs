//! One listening port: what it allows, who is connected, where its requests go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Stage;
use super::connection::Connection;
use super::places::{Memory, Places};
use super::refusal::Refusal;
use super::seats::{Seat, Seats};
use crate::config::Http;
use crate::metrics::Metrics;
use crate::serve::upstream::Upstream;

/// Between two attempts at what could not be done for want of descriptors or seats.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections that wait for a seat, and how often they look: long enough for one who is slow to read to give way.
pub const STANDING_MAX: usize = 32;
const LOOKS: u32 = 25;

pub struct Port {
    pub name: &'static str,
    pub limits: Http,
    pub body_bytes_max: usize,
    pub seats: Arc<Seats>,
    /// Room for those who found no seat.
    pub standing: Arc<Semaphore>,
    pub places: Places,
    /// Its questions have places of their own.
    pub probe_path: &'static str,
    pub bodies: Memory,
    pub answers: Memory,
    pub upstream: Arc<Upstream>,
    pub tls: Option<TlsAcceptor>,
    pub metrics: Arc<Metrics>,
    pub stage: watch::Receiver<Stage>,
}

impl Port {
    pub fn is_stopping(&self) -> bool {
        *self.stage.borrow() != Stage::Running
    }

    pub fn count(&self, status: u16) {
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status / 100).clamp(1, 5) - 1];
        self.metrics.http.requests.with_label_values(&[self.name, class]).inc();
    }

    pub fn count_refused(&self, refusal: Refusal) {
        self.count(refusal.status());
        self.metrics.http.refused.with_label_values(&[self.name, refusal.reason()]).inc();
    }

    /// Takes connections until it is to stop. Nothing else ends it.
    pub async fn listen(self: Arc<Port>, listener: TcpListener) {
        let mut stage = self.stage.clone();
        loop {
            let accepted = tokio::select! {
                _ = stage.wait_for(|stage| *stage != Stage::Running) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.welcome(socket, peer).await,
                Err(error) => self.wait_for_descriptors(&error).await,
            }
        }
    }

    async fn welcome(self: &Arc<Port>, socket: TcpStream, peer: SocketAddr) {
        if let Some(seat) = self.seat(peer) {
            tokio::spawn(Arc::clone(self).attend(socket, peer, seat));
        } else if let Ok(room) = Arc::clone(&self.standing).try_acquire_owned() {
            tokio::spawn(Arc::clone(self).stand(socket, peer, room));
        } else {
            self.turn_away(&socket);
        }
        // The one that gave way frees its descriptor before another comes.
        tokio::task::yield_now().await;
    }

    fn seat(&self, peer: SocketAddr) -> Option<Seat> {
        let (seat, shed) = self.seats.admit(peer.ip(), Instant::now())?;
        if shed {
            self.metrics.http.refused.with_label_values(&[self.name, "gave_way"]).inc();
        }
        Some(seat)
    }

    /// A moment later somebody may have finished, or be seen to be stalled.
    async fn stand(self: Arc<Port>, socket: TcpStream, peer: SocketAddr, room: OwnedSemaphorePermit) {
        for _ in 0..LOOKS {
            sleep(PAUSE).await;
            if let Some(seat) = self.seat(peer) {
                drop(room);
                return self.attend(socket, peer, seat).await;
            }
        }
        self.turn_away(&socket);
    }

    fn turn_away(&self, socket: &TcpStream) {
        self.count_refused(Refusal::Connections);
        if self.tls.is_none() {
            // A new socket has room for it.
            socket.try_write(&Refusal::Connections.answer()).ok();
        }
    }

    /// Too many files are open, or the network is out of memory: a connection that waits is ended, and the next attempt
    /// comes soon.
    async fn wait_for_descriptors(&self, error: &io::Error) {
        tracing::debug!(port = self.name, %error, "a connection could not be accepted");
        self.metrics.http.refused.with_label_values(&[self.name, Refusal::Descriptors.reason()]).inc();
        self.seats.shed_one(Instant::now());
        sleep(PAUSE).await;
    }

    async fn attend(self: Arc<Port>, socket: TcpStream, peer: SocketAddr, seat: Seat) {
        let _open = Open::counted_by(self.metrics.http.connections.with_label_values(&[self.name]));
        let seat = Arc::new(seat);
        tokio::select! {
            // First: a connection that was told to give way while it waited must not begin with a request.
            biased;
            () = seat.given_away() => {}
            () = Arc::clone(&self).converse(socket, peer, Arc::clone(&seat)) => {}
        }
    }

    async fn converse(self: Arc<Port>, socket: TcpStream, peer: SocketAddr, seat: Arc<Seat>) {
        socket.set_nodelay(true).ok();
        let client = peer.ip().to_canonical();
        let Some(tls) = self.tls.clone() else {
            return Connection { wire: socket, port: self, seat, client, read: Vec::new() }.attend().await;
        };
        match timeout(self.limits.head_timeout, tls.accept(socket)).await {
            Ok(Ok(wire)) => Connection { wire, port: self, seat, client, read: Vec::new() }.attend().await,
            failed => {
                let reason = if failed.is_ok() { "tls" } else { "tls_too_slow" };
                self.metrics.http.refused.with_label_values(&[self.name, reason]).inc();
            }
        }
    }
}

/// Counts a connection for as long as it is there, however it ends.
struct Open(IntGauge);

impl Open {
    fn counted_by(connections: IntGauge) -> Open {
        connections.inc();
        Open(connections)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
