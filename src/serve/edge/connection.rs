//! One client's connection: a request is read whole, handed over, answered; then the next.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::chunked::Decoder;
use super::forward::{Answer, PIECE_BYTES, forward};
use super::head::{self, Framing, Head};
use super::places::Held;
use super::port::Port;
use super::refusal::Refusal;
use super::seats::{Phase, Seat};

/// Bytes that are read at once of a head or body.
const READ_BYTES: usize = 4 << 10;
const BODY_READ_BYTES: usize = 64 << 10;
/// Larger answers are copied while they are made, and hold their thread for it.
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// After the last answer: what is still coming is read and left, so that its sender sees the answer and no reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// TCP, with TLS or without.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    const IS_TLS: bool;
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    const IS_TLS: bool = false;
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    const IS_TLS: bool = true;
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// How it goes on after a request.
enum Next {
    Request,
    Close,
    /// The answer is not whole, and this client could not tell by its form.
    Reset,
}

/// A body, and the memory that it counts for.
struct Body {
    bytes: Vec<u8>,
    held: Held,
}

pub struct Connection<W> {
    pub wire: W,
    pub port: Arc<Port>,
    pub seat: Arc<Seat>,
    pub client: IpAddr,
    /// What was read and not used yet. The next request may stand in it.
    pub read: Vec<u8>,
}

impl<W: Wire> Connection<W> {
    /// Answers requests one by one until one side has had enough.
    pub async fn attend(mut self) {
        let mut patience = self.port.limits.head_timeout;
        loop {
            self.seat.enter(Phase::Waiting);
            match self.answer_one(patience).await {
                Ok(Next::Request) => patience = self.port.limits.idle_timeout,
                Ok(Next::Close) => break,
                Ok(Next::Reset) => {
                    self.wire.tcp().set_zero_linger().ok();
                    return;
                }
                Err(refusal) => {
                    self.refuse(refusal).await;
                    break;
                }
            }
        }
        self.seat.enter(Phase::Waiting);
        timeout(LINGER, self.linger()).await.ok();
    }

    /// `patience` is for its first byte.
    async fn answer_one(&mut self, patience: Duration) -> Result<Next, Refusal> {
        let Some(head) = self.read_head(patience).await? else { return Ok(Next::Close) };
        let Body { bytes, held } = self.read_body(&head).await?;
        self.seat.enter(Phase::Working);
        let place = self.port.places.take(head.path() == self.port.probe_path).await?;
        if self.port.is_stopping() {
            return Err(Refusal::Stopping);
        }
        let mut request = head.written_anew(&self.client.to_string(), W::IS_TLS, bytes.len());
        request.extend_from_slice(&bytes);
        drop(bytes);
        let answer = forward(&self.port.upstream, place, &request, head.is_head()).await?;
        drop((request, held));
        self.port.count(answer.status);
        self.deliver(answer, &head).await
    }

    /// None: the client has left, or never said anything.
    async fn read_head(&mut self, patience: Duration) -> Result<Option<Head>, Refusal> {
        let begun = !self.read.is_empty() || matches!(timeout(patience, self.fill(READ_BYTES)).await, Ok(Ok(1..)));
        if !begun {
            return Ok(None);
        }
        let limit = self.port.limits.head_timeout;
        timeout(limit, self.collect_head()).await.unwrap_or(Err(Refusal::HeadTooSlow(limit)))
    }

    async fn collect_head(&mut self) -> Result<Option<Head>, Refusal> {
        let bytes_max = self.port.limits.head_bytes_max;
        let mut seen = 0;
        loop {
            // Read anew at a line's end only: one who sends byte by byte must not make it cost the square.
            let is_due = seen == 0 || self.read.len() >= bytes_max || self.read[seen..].contains(&b'\n');
            if is_due && let Some(head) = head::parse(&self.read, bytes_max)? {
                self.read.drain(..head.length);
                return Ok(Some(head));
            }
            seen = self.read.len();
            if !matches!(self.fill(READ_BYTES).await, Ok(1..)) {
                return Ok(None);
            }
        }
    }

    async fn read_body(&mut self, head: &Head) -> Result<Body, Refusal> {
        let mut body = Body { bytes: Vec::new(), held: self.port.bodies.nothing() };
        let bytes_max = self.port.body_bytes_max;
        match head.framing {
            Framing::None => return Ok(body),
            Framing::Length(length) if length > bytes_max as u64 => return Err(Refusal::BodyTooLarge(bytes_max)),
            _ => {}
        }
        let limit = self.port.limits.body_timeout;
        let read = timeout(limit, async {
            if head.expects_continue && !head.is_old && self.read.is_empty() {
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| Refusal::BodyBroken)?;
            }
            match head.framing {
                Framing::Length(length) => self.collect_counted(length, &mut body).await,
                _ => self.collect_chunks(&mut body).await,
            }
        });
        read.await.unwrap_or(Err(Refusal::BodyTooSlow(limit)))?;
        Ok(body)
    }

    async fn collect_counted(&mut self, length: u64, body: &mut Body) -> Result<(), Refusal> {
        let mut left = usize::try_from(length).map_err(|_| Refusal::BodyTooLarge(self.port.body_bytes_max))?;
        while left > 0 {
            self.have_some().await?;
            let here = left.min(self.read.len());
            body.held.grow(here)?;
            body.bytes.extend(self.read.drain(..here));
            left -= here;
        }
        Ok(())
    }

    async fn collect_chunks(&mut self, body: &mut Body) -> Result<(), Refusal> {
        let mut decoder = Decoder::default();
        while !decoder.is_done() {
            self.have_some().await?;
            body.held.grow(self.read.len())?;
            let used = decoder.decode(&self.read, &mut body.bytes);
            let used = used.map_err(|_| Refusal::Malformed("its body is not in chunks"))?;
            self.read.drain(..used);
            if body.bytes.len() > self.port.body_bytes_max {
                return Err(Refusal::BodyTooLarge(self.port.body_bytes_max));
            }
        }
        Ok(())
    }

    /// Waits for a part of the body.
    async fn have_some(&mut self) -> Result<(), Refusal> {
        if self.read.is_empty() && !matches!(self.fill(BODY_READ_BYTES).await, Ok(1..)) {
            return Err(Refusal::BodyBroken);
        }
        Ok(())
    }

    /// Appends what comes next, at most about `bytes`; 0 at the end.
    async fn fill(&mut self, bytes: usize) -> io::Result<usize> {
        self.read.reserve(bytes);
        self.wire.read_buf(&mut self.read).await
    }

    async fn deliver(&mut self, mut answer: Answer, asked: &Head) -> Result<Next, Refusal> {
        let keep = asked.keep_alive && !self.port.is_stopping();
        let mut out = std::mem::take(&mut answer.head).into_bytes();
        let is_chunked = answer.framing == Framing::Chunked;
        if is_chunked && !asked.is_old {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(if keep { b"\r\n" } else { b"Connection: close\r\n\r\n" });
        // An answer that is in memory behind the edge is taken whole, so that a slow client holds no thread.
        let _held = match answer.framing {
            Framing::Length(length) if length <= AHEAD_BYTES_MAX => {
                let mut held = self.port.answers.nothing();
                held.grow(usize::try_from(length).map_err(|_| Refusal::Lost)?).is_ok().then_some(held)
            }
            _ => None,
        };
        if _held.is_some() {
            while answer.next(&mut out, false).await.map_err(|_| Refusal::Lost)? {}
            drop(answer);
            return Ok(if self.write(&out).await.is_ok() && keep { Next::Request } else { Next::Close });
        }
        match self.copy(answer, out, asked.is_old).await {
            Ok(()) if keep => Ok(Next::Request),
            Ok(()) => Ok(Next::Close),
            Err(_) => Ok(Next::Reset),
        }
    }

    async fn copy(&mut self, mut answer: Answer, mut out: Vec<u8>, is_old: bool) -> io::Result<()> {
        loop {
            self.write(&out).await?;
            out.clear();
            self.seat.enter(Phase::Working);
            if !answer.next(&mut out, is_old).await? {
                return Ok(());
            }
        }
    }

    /// Each piece within its time.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.seat.enter(Phase::Writing);
            timeout(self.port.limits.write_timeout, self.send(piece)).await??;
        }
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }

    async fn refuse(&mut self, refusal: Refusal) {
        self.port.count_refused(refusal);
        self.write(&refusal.answer()).await.ok();
    }

    async fn linger(&mut self) -> io::Result<()> {
        self.wire.shutdown().await?;
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            self.read.clear();
            match self.fill(READ_BYTES).await? {
                0 => break,
                bytes => read += bytes,
            }
        }
        Ok(())
    }
}
