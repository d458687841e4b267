//! A request that came whole, handed to the threads behind the edge; and its answer, read back piece by piece.

use std::io::{self, ErrorKind};
use std::path::Path;

use httparse::{EMPTY_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::chunked::Decoder;
use super::head::{Framing, HEADERS_MAX, content_length};
use super::places::Place;
use super::refusal::Refusal;
use crate::serve::upstream::Upstream;

/// Bytes of an answer's head: its `Link` may repeat a request's whole query.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Bytes of an answer that are in hand at once.
pub const PIECE_BYTES: usize = 64 << 10;
/// What concerns the connection behind the edge alone, or is its software's name.
const LEFT_OUT: [&str; 3] = ["connection", "keep-alive", "server"];

/// An answer that has begun.
pub struct Answer {
    pub status: u16,
    /// Its first line and headers, without the empty line at the end.
    pub head: String,
    pub framing: Framing,
    from: UnixStream,
    read: Vec<u8>,
    left: u64,
    decoder: Decoder,
    /// Held until the thread has given all of the answer away.
    _place: Place,
}

/// Sends `request` and waits for its answer's head. Once only, whatever happens: it may act.
///
/// # Errors
/// [`Refusal::Lost`] when it was sent and no answer came; else it was not sent.
pub async fn forward(to: &Upstream, place: Place, request: &[u8], is_head: bool) -> Result<Answer, Refusal> {
    let mut stream = connect(to).await?;
    stream.write_all(request).await.map_err(|_| Refusal::Lost)?;
    let mut read = Vec::new();
    let (status, head, framing) = loop {
        if let Some(begun) = begin(&mut read, is_head)? {
            break begun;
        }
        read.reserve(4096);
        match stream.read_buf(&mut read).await {
            Ok(bytes) if bytes > 0 && read.len() <= HEAD_BYTES_MAX => {}
            _ => return Err(Refusal::Lost),
        }
    };
    let left = if let Framing::Length(length) = framing { length } else { 0 };
    Ok(Answer { status, head, framing, from: stream, read, left, decoder: Decoder::default(), _place: place })
}

async fn connect(to: &Upstream) -> Result<UnixStream, Refusal> {
    let path = to.path();
    // tiny_http takes two descriptors for a connection, and ends or panics when it cannot.
    let spare = [(); 3].map(|()| std::fs::File::open("/dev/null"));
    if spare.iter().any(Result::is_err) {
        return Err(Refusal::Descriptors);
    }
    drop(spare);
    match UnixStream::connect(&path).await {
        Err(error) if [ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&error.kind()) => {
            // Nothing was sent.
            reconnect(to, &path).await.map_err(|error| {
                tracing::error!(%error, "the listener behind the port has ended and cannot be made anew");
                Refusal::Busy
            })
        }
        connected => connected.map_err(|_| Refusal::Descriptors),
    }
}

async fn reconnect(to: &Upstream, dead: &Path) -> io::Result<UnixStream> {
    to.revive(dead)?;
    UnixStream::connect(to.path()).await
}

/// The head in `read`, which is taken out of it when it is there whole.
fn begin(read: &mut Vec<u8>, is_head: bool) -> Result<Option<(u16, String, Framing)>, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(read) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Refusal::Lost),
    };
    let status = response.code.unwrap_or_default();
    let mut head = format!("HTTP/1.1 {status} {}\r\n", response.reason.unwrap_or_default());
    let mut framing = Framing::None;
    for header in response.headers.iter() {
        let (name, value) = (header.name, std::str::from_utf8(header.value).map_err(|_| Refusal::Lost)?);
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(content_length(value).map_err(|_| Refusal::Lost)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
            continue;
        }
        if !LEFT_OUT.iter().any(|left_out| name.eq_ignore_ascii_case(left_out)) {
            head.extend([name, ": ", value, "\r\n"]);
        }
    }
    if is_head || status == 204 || status == 304 {
        framing = Framing::None;
    }
    read.drain(..length);
    Ok(Some((status, head, framing)))
}

impl Answer {
    /// Appends more of the body to `piece`, as its client gets it: in chunks, or for `plain` without them. False at its end.
    ///
    /// # Errors
    /// If it ends before its end.
    pub async fn next(&mut self, piece: &mut Vec<u8>, plain: bool) -> io::Result<bool> {
        if self.is_whole() {
            return Ok(false);
        }
        if self.read.is_empty() {
            self.read.reserve(PIECE_BYTES);
            if self.from.read_buf(&mut self.read).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.take(piece, plain)?;
        self.read.clear();
        Ok(true)
    }

    fn is_whole(&self) -> bool {
        match self.framing {
            Framing::None => true,
            Framing::Length(_) => self.left == 0,
            Framing::Chunked => self.decoder.is_done(),
        }
    }

    fn take(&mut self, piece: &mut Vec<u8>, plain: bool) -> io::Result<()> {
        if self.framing != Framing::Chunked {
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.read.len());
            piece.extend_from_slice(&self.read[..here]);
            self.left -= here as u64;
            return Ok(());
        }
        let mut data = Vec::new();
        let used = self.decoder.decode(&self.read, &mut data).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        piece.extend_from_slice(if plain { &data } else { &self.read[..used] });
        Ok(())
    }
}
