//! The sink asks itself what others ask it, all the way through its own sockets.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

use super::edge::tls::{Certificate, provider};
use crate::metrics::Metrics;
use crate::pulse::Heart;
use crate::shutdown::Shutdown;

/// The probe's questions.
pub const HEALTH: &str = "/health";
pub const METRICS: &str = "/metrics";

/// Both answers come within this time, or the probe has failed.
const DEADLINE: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_secs(10);

/// Goes through both listening sockets as a client does: TCP, TLS if it is on, the edge, a thread, the handler.
pub struct Probe {
    metrics: SocketAddr,
    api: SocketAddr,
    certificate: Option<Arc<Certificate>>,
}

impl Probe {
    /// `metrics` and `api` are what the ports listen on.
    pub fn new(metrics: SocketAddr, api: SocketAddr, certificate: Option<Arc<Certificate>>) -> Probe {
        Probe { metrics: reachable(metrics), api: reachable(api), certificate }
    }

    /// Asks for `GET /health` (healthy or not: that it is answered counts) and `GET /metrics`; how long both took together.
    ///
    /// # Errors
    /// Which question was not answered within a second of the first, and what came instead.
    pub fn ask(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let deadline = begun + DEADLINE;
        let health = self.ask_api(deadline).map_err(|error| format!("GET {HEALTH} on {}: {error}", self.api))?;
        // The edge's own 503 names no service.
        if !(is(&health, 200) || is(&health, 503)) || !health.contains(r#""service""#) {
            return Err(format!("GET {HEALTH} on {}: answered {:.100}", self.api, health));
        }
        let plain = connect(self.metrics, deadline).and_then(|stream| exchange(stream, METRICS, self.metrics));
        let metrics = plain.map_err(|error| format!("GET {METRICS} on {}: {error}", self.metrics))?;
        // 401: the handler has been asked, and wants to know by whom.
        if !(is(&metrics, 200) || is(&metrics, 401)) {
            return Err(format!("GET {METRICS} on {}: answered {:.100}", self.metrics, metrics));
        }
        Ok(begun.elapsed())
    }

    /// Asks again and again until the sink stops; each answer is a beat of `heart`. The log has each change once.
    pub fn repeat(&self, metrics: &Metrics, heart: &Heart, shutdown: &Shutdown) {
        let mut answered = true;
        self.show_certificate(metrics);
        while !shutdown.wait(BETWEEN) {
            self.show_certificate(metrics);
            match self.ask() {
                Ok(took) => {
                    heart.beat();
                    metrics.http.probe_seconds.set(took.as_secs_f64());
                    if !answered {
                        tracing::info!("the sink answers its own questions again");
                    }
                    answered = true;
                }
                // Asked while it stopped.
                Err(_) if shutdown.has_begun() => {}
                Err(error) => {
                    metrics.http.probe_failures.inc();
                    if answered {
                        tracing::warn!(error, "the sink does not answer its own question within a second");
                    }
                    answered = false;
                }
            }
        }
    }

    /// A reload may have brought another.
    fn show_certificate(&self, metrics: &Metrics) {
        let ends_at = self.certificate.as_ref().and_then(|certificate| certificate.ends_at());
        metrics.http.certificate_expires.set(ends_at.unwrap_or(0));
    }

    fn ask_api(&self, deadline: Instant) -> io::Result<String> {
        let stream = connect(self.api, deadline)?;
        let Some(certificate) = &self.certificate else { return exchange(stream, HEALTH, self.api) };
        let config = trusting_only(certificate).map_err(io::Error::other)?;
        let name = ServerName::IpAddress(self.api.ip().into());
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        exchange(StreamOwned::new(connection, stream), HEALTH, self.api)
    }
}

/// Listening on every address includes loopback.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

fn is(answer: &str, status: u16) -> bool {
    answer.starts_with(&format!("HTTP/1.1 {status} "))
}

/// A connection of which every read and write ends at `deadline`.
fn connect(address: SocketAddr, deadline: Instant) -> io::Result<Timed> {
    let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    Ok(Timed { stream, deadline })
}

fn exchange(mut stream: impl Read + Write, path: &str, host: SocketAddr) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn trusting_only(certificate: &Arc<Certificate>) -> Result<ClientConfig, Error> {
    let verifier = Own { certificate: Arc::clone(certificate), provider: provider() };
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Takes the very certificate that the sink shows, whatever its names and dates, and no other.
#[derive(Debug)]
struct Own {
    certificate: Arc<Certificate>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificate.current().end_entity_cert()? == shown {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the API shows another certificate than its own".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
