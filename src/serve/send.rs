//! Writes a reply: bytes with their length, a stream in chunks.

use std::io::{self, BufWriter, Write};

use tiny_http::{Header, Method, Request, Response, StatusCode};

use super::reply::{Body, Reply, Stream};

/// Bytes of a chunk at most.
const CHUNK_BYTES_MAX: usize = 16 << 10;

/// # Errors
/// If the client does not take it, or the stream could not be made whole.
pub fn send(to: Request, reply: Reply) -> io::Result<()> {
    match reply.body {
        // tiny_http would say that the answer which the client has is 0 bytes long.
        Body::Bytes(_) if reply.status == 304 => {
            let mut to = to.into_writer();
            to.write_all(head(304, &reply.headers).as_bytes())?;
            to.flush()
        }
        Body::Bytes(bytes) => {
            let response = Response::from_data(bytes).with_status_code(reply.status);
            // tiny_http would send long answers in chunks, and their end whatever happened.
            let mut response = response.with_chunked_threshold(usize::MAX);
            for (name, value) in headers(reply.content_type, &reply.headers) {
                response.add_header(header(name, value));
            }
            to.respond(response)
        }
        Body::Stream(stream) => {
            let more = [("Transfer-Encoding", "chunked".to_owned()), ("Content-Type", reply.content_type.to_owned())];
            let head = head(reply.status, &[&more[..], &reply.headers].concat());
            let is_head = *to.method() == Method::Head;
            let mut to = to.into_writer();
            to.write_all(head.as_bytes())?;
            if is_head { to.flush() } else { send_chunks(to, stream) }
        }
    }
}

fn headers<'a>(
    content_type: &'a str,
    headers: &'a [(&'static str, String)],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let more = headers.iter().map(|(name, value)| (*name, value.as_str()));
    std::iter::once(("Content-Type", content_type)).chain(more)
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our own headers are ASCII")
}

fn head(status: u16, headers: &[(&'static str, String)]) -> String {
    let reason = StatusCode(status).default_reason_phrase();
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head + "\r\n"
}

/// The last chunk is sent when the stream has come to its end, and never otherwise: without it the client knows that
/// something is missing. (tiny_http's own encoder sends it whenever it is dropped.)
fn send_chunks(to: impl Write, stream: Stream) -> io::Result<()> {
    let mut body = BufWriter::with_capacity(CHUNK_BYTES_MAX, Chunks(to));
    stream(&mut body)?;
    let Chunks(mut to) = body.into_inner().map_err(io::IntoInnerError::into_error)?;
    to.write_all(b"0\r\n\r\n")?;
    to.flush()
}

/// Makes a chunk of whatever is written.
struct Chunks<W>(W);

impl<W: Write> Write for Chunks<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // An empty chunk would be the last.
        if !data.is_empty() {
            write!(self.0, "{:x}\r\n", data.len())?;
            self.0.write_all(data)?;
            self.0.write_all(b"\r\n")?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_with_its_last_chunk_only_when_it_was_whole() {
        let mut whole = Vec::new();
        send_chunks(&mut whole, Box::new(|to| to.write_all(b"a,b\n"))).unwrap();
        assert_eq!(whole, b"4\r\na,b\n\r\n0\r\n\r\n");

        let mut broken = Vec::new();
        let fails = |to: &mut dyn Write| to.write_all(b"a,b\n").and(Err(io::Error::other("the file is gone")));
        assert!(send_chunks(&mut broken, Box::new(fails)).is_err());
        assert!(!broken.ends_with(b"0\r\n\r\n"), "{broken:?}");
    }

    #[test]
    fn a_long_stream_goes_out_in_chunks_of_bounded_size() {
        let mut sent = Vec::new();
        send_chunks(&mut sent, Box::new(|to| (0..5000).try_for_each(|_| to.write_all(b"12345678")))).unwrap();
        assert!(sent.starts_with(b"4000\r\n12345678"));
        assert!(sent.len() > 40_000 && sent.ends_with(b"\r\n0\r\n\r\n"));
    }
}
