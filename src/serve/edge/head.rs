//! The head of a request: read strictly, and written anew for what is behind the edge. Pure.
//!
//! What two servers could read in two ways is refused, not mended: a request must not be able to hide a second one.

use httparse::{EMPTY_HEADER, Error, Status};

use super::refusal::Refusal;

pub const HEADERS_MAX: usize = 64;

/// Tells the threads behind the edge who asks, and whether by TLS. A client's own is left out.
pub const CLIENT: &str = "x-edge-client";
pub const TLS: &str = "x-edge-tls";

/// What concerns one connection alone, or is said anew behind the edge.
const LEFT_OUT: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    CLIENT,
    TLS,
];

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes that it took.
    pub length: usize,
    pub method: String,
    pub target: String,
    /// HTTP/1.0: no keep-alive, no chunks.
    pub is_old: bool,
    pub framing: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// All but [`LEFT_OUT`].
    headers: Vec<(String, String)>,
}

/// The head that `bytes` begin with, if it is there whole. What follows it is the body or the next request.
///
/// # Errors
/// If no head can begin so, or it is larger than `bytes_max`.
pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Option<Head>, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) if length <= bytes_max => length,
        Ok(Status::Partial) if bytes.len() < bytes_max => return Ok(None),
        Ok(_) => return Err(Refusal::HeadTooLarge(bytes_max)),
        Err(Error::Version) => return Err(Refusal::Version),
        Err(Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders(HEADERS_MAX)),
        Err(error) => return Err(Refusal::Malformed(problem(error))),
    };
    only_whole_line_ends(&bytes[..length])?;
    let target = request.path.unwrap_or_default();
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::Malformed(
            "its target must begin with / and hold printable ASCII alone; percent-encode it",
        ));
    }
    let is_old = request.version == Some(0);
    let headers = texts(request.headers)?;
    one_host(&headers, is_old)?;
    Ok(Some(Head {
        length,
        method: request.method.unwrap_or_default().to_owned(),
        target: target.to_owned(),
        is_old,
        framing: framing(&headers, is_old)?,
        keep_alive: !is_old && !all(&headers, "connection").any(says_close),
        expects_continue: expects_continue(&headers)?,
        headers: headers.into_iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str())).collect(),
    }))
}

impl Head {
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// What goes to the threads behind the edge, before a body of `body_length` bytes.
    pub fn written_anew(&self, client: &str, tls: bool, body_length: usize) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend([CLIENT, ": ", client, "\r\n"]);
        if tls {
            head.extend([TLS, ": 1\r\n"]);
        }
        if body_length > 0 {
            head.extend(["content-length: ", &body_length.to_string(), "\r\n"]);
        }
        head.push_str("connection: close\r\n\r\n");
        head.into_bytes()
    }
}

fn problem(error: Error) -> &'static str {
    match error {
        Error::HeaderName => "a header's name is none, or the header is folded over two lines",
        Error::HeaderValue => "a header's value holds a byte that it must not",
        Error::NewLine => "a line does not end as it must",
        _ => "its first line is not METHOD TARGET HTTP/1.1",
    }
}

/// A bare line feed is a line's end to some and a part of it to others.
fn only_whole_line_ends(head: &[u8]) -> Result<(), Refusal> {
    let is_bare = |(at, byte): (usize, &u8)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r');
    if head.iter().enumerate().any(is_bare) {
        return Err(Refusal::Malformed("a line ends without a carriage return"));
    }
    Ok(())
}

/// Names in lower case.
fn texts(headers: &[httparse::Header]) -> Result<Vec<(String, String)>, Refusal> {
    let text = |header: &httparse::Header| {
        let value = std::str::from_utf8(header.value).ok().filter(|value| value.is_ascii());
        let value = value.ok_or(Refusal::Malformed("a header's value holds bytes other than ASCII"))?;
        Ok((header.name.to_ascii_lowercase(), value.to_owned()))
    };
    headers.iter().map(text).collect()
}

fn all<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
}

fn one_host(headers: &[(String, String)], is_old: bool) -> Result<(), Refusal> {
    match all(headers, "host").count() {
        1 => Ok(()),
        0 if is_old => Ok(()),
        0 => Err(Refusal::Malformed("it has no Host header")),
        _ => Err(Refusal::Malformed("it has more than one Host header")),
    }
}

fn framing(headers: &[(String, String)], is_old: bool) -> Result<Framing, Refusal> {
    let codings: Vec<&str> = all(headers, "transfer-encoding").collect();
    let lengths: Vec<&str> = all(headers, "content-length").collect();
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(Framing::None),
        ([], [length]) => content_length(length).map(Framing::Length),
        ([], _) => Err(Refusal::Malformed("it has more than one Content-Length")),
        (_, []) if is_old => Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding")),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([_], []) => Err(Refusal::Coding),
        (_, []) => Err(Refusal::Malformed("it has more than one Transfer-Encoding")),
        _ => Err(Refusal::Malformed("it has both a Transfer-Encoding and a Content-Length")),
    }
}

/// Digits alone; a number too large to hold is as good as the largest.
pub fn content_length(text: &str) -> Result<u64, Refusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Malformed("its Content-Length is no number"));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn says_close(connection: &str) -> bool {
    connection.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"))
}

fn expects_continue(headers: &[(String, String)]) -> Result<bool, Refusal> {
    let expected: Vec<&str> = all(headers, "expect").collect();
    match expected.as_slice() {
        [] => Ok(false),
        [one] if one.eq_ignore_ascii_case("100-continue") => Ok(true),
        _ => Err(Refusal::Expectation),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1024;

    fn read(head: &str) -> Result<Head, Refusal> {
        parse(head.as_bytes(), MAX).map(|head| head.expect("it is whole"))
    }

    fn refused(head: &str) -> u16 {
        read(head).expect_err(head).status()
    }

    #[test]
    fn a_head_is_written_anew_with_what_the_edge_knows() {
        let head = "\r\nPOST /replay/1?a=b HTTP/1.1\r\nHost: here\r\nX-Operator: ann\r\nConnection: close\r\nTE: trailers\r\n\
                    X-Edge-Client: 6.6.6.6\r\nx-edge-tls: 1\r\nContent-Length: 2\r\n\r\n{}";
        let head = read(head).unwrap();
        assert_eq!((head.path(), head.framing, head.keep_alive), ("/replay/1", Framing::Length(2), false));
        let written = String::from_utf8(head.written_anew("10.0.0.1", false, 2)).unwrap();
        let expected = "POST /replay/1?a=b HTTP/1.1\r\nhost: here\r\nx-operator: ann\r\nx-edge-client: 10.0.0.1\r\n\
                        content-length: 2\r\nconnection: close\r\n\r\n";
        assert_eq!(written, expected);
        assert!(head.written_anew("::1", true, 0).windows(15).any(|text| text == b"\r\nx-edge-tls: 1"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (lines, status) in [
            ("", 400),
            ("Host: a\r\nHost: a\r\n", 400),
            ("Host: a\r\n folded: b\r\n", 400),
            ("Host: a\nX: b\r\n", 400),
            ("Host : a\r\n", 400),
            ("Host: a\r\nX: \x00\r\n", 400),
            ("Host: a\r\nX: é\r\n", 400),
            ("Host: a\r\nContent-Length: -1\r\n", 400),
            ("Host: a\r\nContent-Length: +1\r\n", 400),
            ("Host: a\r\nContent-Length: 1, 1\r\n", 400),
            ("Host: a\r\nContent-Length: 0x1\r\n", 400),
            ("Host: a\r\nContent-Length:\r\n", 400),
            ("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
            ("Host: a\r\nTransfer-Encoding: xchunked\r\n", 501),
            ("Host: a\r\nExpect: 200-ok\r\n", 417),
        ] {
            assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{lines}\r\n")), status, "{lines:?}");
        }
        for (line, status) in [
            ("GET / HTTP/2.0", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET / HTTP/1.2", 505),
            ("GET /", 400),
            ("GET  HTTP/1.1", 400),
            ("GET http://a/ HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 505),
            ("OPTIONS * HTTP/1.1", 400),
            ("GET /\u{e9} HTTP/1.1", 400),
            ("G\u{1}T / HTTP/1.1", 400),
        ] {
            let status_is = refused(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert_eq!(status_is, status, "{line:?}");
        }
        assert_eq!(refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok_and(|head| !head.keep_alive));
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_headers() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(MAX));
        assert_eq!(parse(long.as_bytes(), MAX), Err(Refusal::HeadTooLarge(MAX)));
        assert_eq!(read(&format!("{long}\r\n\r\n")), Err(Refusal::HeadTooLarge(MAX)));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(HEADERS_MAX));
        assert_eq!(refused(&many), 431);
        assert_eq!(
            read(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", "9".repeat(30)))
                .map(|head| head.framing),
            Ok(Framing::Length(u64::MAX))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_begin_a_second_request(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes, MAX).ok();
        }

        /// Whatever a client puts into lines, what is written anew is one head that reads the same.
        #[test]
        fn what_is_written_anew_reads_the_same(
            target in "/[!-~]{0,20}", name in "[A-Za-z-]{1,12}", value in "[ -~\t]{0,30}", end in "(\r\n|\n|\r|)"
        ) {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{name}: {value}{end}{name}: b\r\n\r\n");
            if let Ok(Some(first)) = parse(head.as_bytes(), MAX) {
                let written = first.written_anew("::1", false, 0);
                let again = parse(&written, MAX + 100).unwrap().unwrap();
                prop_assert_eq!(again.length, written.len());
                prop_assert_eq!((&again.method, &again.target, again.framing), (&first.method, &first.target, Framing::None));
            }
        }
    }
}
