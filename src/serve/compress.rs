//! Answers in gzip, for clients that take it.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::reply::{Body, Reply, Stream};

/// Below this an answer is one packet anyway.
const BYTES_MIN: usize = 1 << 10;
/// The fastest: docs/api.md has the figures.
const LEVEL: Compression = Compression::fast();

/// Compresses `reply` where it is long enough and `accepts`, an `Accept-Encoding`, takes it.
pub fn compress(accepts: Option<&str>, mut reply: Reply) -> Reply {
    let is_long = match &reply.body {
        Body::Bytes(bytes) => bytes.len() >= BYTES_MIN || reply.status == 304,
        Body::Stream(_) => true,
    };
    if !is_long {
        return reply;
    }
    let reply_to_all = |reply: Reply| reply.with_header("Vary", "Accept-Encoding".to_owned());
    if reply.status == 304 || !accepts.is_some_and(takes_gzip) {
        return reply_to_all(reply);
    }
    reply.body = match reply.body {
        Body::Bytes(bytes) => Body::Bytes(gzip(&bytes)),
        Body::Stream(stream) => Body::Stream(gzip_stream(stream)),
    };
    reply_to_all(reply.with_header("Content-Encoding", "gzip".to_owned()))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), LEVEL);
    let written = gzip.write_all(bytes);
    written.and_then(|()| gzip.finish()).expect("writing to memory does not fail")
}

fn gzip_stream(stream: Stream) -> Stream {
    Box::new(move |to| {
        let mut gzip = GzEncoder::new(Unless { broken: false, to }, LEVEL);
        if let Err(error) = stream(&mut gzip) {
            // Else it would write its end when it is dropped, and what came until now would look whole.
            gzip.get_mut().broken = true;
            return Err(error);
        }
        gzip.finish().map(drop)
    })
}

/// Writes unless it is broken.
struct Unless<'a> {
    broken: bool,
    to: &'a mut dyn Write,
}

impl Write for Unless<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.broken { Err(io::ErrorKind::BrokenPipe.into()) } else { self.to.write(data) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Whether gzip is taken, and no less gladly than the answer as it is (RFC 9110, 12.5.3).
fn takes_gzip(accepts: &str) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in accepts.split(',') {
        let (coding, parameter) = element.split_once(';').unwrap_or((element, ""));
        let quality = quality(parameter);
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// 0 to 1; one that cannot be read counts as not wanted.
fn quality(parameter: &str) -> f32 {
    if parameter.trim().is_empty() {
        return 1.0;
    }
    let value = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let value = value.and_then(|(_, value)| value.trim().parse::<f32>().ok());
    value.filter(|value| (0.0..=1.0).contains(value)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (accepts, takes) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("br, *", true),
            ("gzip;q=0.001", true),
            ("identity;q=0.5, gzip ; Q=0.5", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("gzip;q=2", false),
            ("gzip;q=x", false),
            ("gzipped", false),
        ] {
            assert_eq!(takes_gzip(accepts), takes, "{accepts}");
        }
    }

    fn sent(stream: Stream) -> (io::Result<()>, Vec<u8>) {
        let mut sent = Vec::new();
        let ended = gzip_stream(stream)(&mut sent);
        (ended, sent)
    }

    #[test]
    fn a_stream_that_broke_does_not_look_whole() {
        let (ended, whole) = sent(Box::new(|to| to.write_all(&b"a line\n".repeat(10_000))));
        let mut text = String::new();
        GzDecoder::new(&*whole).read_to_string(&mut text).unwrap();
        assert_eq!((ended.is_ok(), text.len()), (true, 70_000));

        let fails = |to: &mut dyn Write| to.write_all(b"a line\n").and(Err(io::Error::other("the file is gone")));
        let (ended, broken) = sent(Box::new(fails));
        assert!(ended.is_err() && GzDecoder::new(&*broken).read_to_string(&mut String::new()).is_err());
    }
}
