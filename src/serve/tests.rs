//! Both ports' way with routes of the tests' own: what the product's routes cannot be made to do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::config::Http;

struct Fake;

impl Routes for Fake {
    fn answer(&self, request: &Request) -> Reply {
        let whole = |to: &mut dyn Write| (0..50_000).try_for_each(|number| writeln!(to, "line {number}"));
        match request.path.as_str() {
            "/whole" => Reply::stream("text/csv", whole),
            "/broken" => Reply::stream("text/csv", move |to| {
                whole(to)?;
                Err(io::Error::other("the file is gone"))
            }),
            "/panics" => Reply::stream("text/csv", move |to| {
                whole(to)?;
                panic!("as the test wants");
            }),
            "/large" => Reply::json(200, &"x".repeat(3 << 20)),
            "/panics-at-once" => panic!("as the test wants"),
            _ => Reply::json(200, &request.body.len()),
        }
    }
}

/// Bytes of the bodies that came.
struct Tells(Mutex<Vec<usize>>);

impl Routes for Tells {
    fn answer(&self, request: &Request) -> Reply {
        self.0.lock().unwrap().push(request.body.len());
        Reply::json(200, &1)
    }
}

/// Runs `with` against a port with [`Fake`] behind it, and stops that.
fn served(with: impl FnOnce(SocketAddr, &Path)) {
    let (metrics, shutdown) = (Arc::new(Metrics::new(1, "3")), Arc::new(Shutdown::default()));
    let folder = upstream::folder().unwrap();
    let upstream = Arc::new(Upstream::open(folder.path(), "test", 3).unwrap());
    let threads = answering("test", 3, &upstream, &(Arc::new(Fake) as _)).unwrap();
    let bound = bind("test", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.address().unwrap();
    let opening = Opening {
        name: "test",
        listener: bound.0,
        upstream,
        threads: 3,
        probe_threads: 1,
        probe_path: "/health",
        body_bytes_max: 1000,
        tls: None,
    };
    let limits = Http::default();
    let path = folder.path().to_owned();
    let edge = Edge::start(vec![opening], folder, &limits, Duration::from_secs(1), &metrics, &shutdown).unwrap();
    with(address, &path);
    edge.stop().join().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(!shutdown.has_begun() && !path.exists(), "the folder of the sockets is gone");
}

/// What comes until the end, and whether that was an orderly one.
fn get(address: SocketAddr, path: &str, version: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer).is_ok();
    (String::from_utf8(answer).unwrap(), ended)
}

#[test]
fn a_stream_that_breaks_off_is_never_taken_for_a_whole_one() {
    served(|address, _| {
        let (whole, _) = get(address, "/whole", "1.1");
        assert!(whole.contains("Transfer-Encoding: chunked\r\n") && whole.ends_with("line 49999\n\r\n0\r\n\r\n"));
        for path in ["/broken", "/panics"] {
            let (broken, _) = get(address, path, "1.1");
            // How much of it arrives is not said: the reset overtakes what is still to be sent.
            assert!(broken.starts_with("HTTP/1.1 200 ") && !broken.ends_with("\r\n0\r\n\r\n"), "{path}");
        }
        // Without chunks the end of the connection is the end of the body: it must not look like one.
        let (whole, orderly) = get(address, "/whole", "1.0");
        assert!(orderly && whole.ends_with("line 49998\nline 49999\n") && !whole.contains("chunked"));
        let (_, orderly) = get(address, "/broken", "1.0");
        assert!(!orderly, "it ends by a reset");
        let (large, _) = get(address, "/large", "1.1");
        assert!(large.contains("Content-Length: 3145730\r\n") && large.len() > 3 << 20);
        let (failed, _) = get(address, "/panics-at-once", "1.1");
        assert!(failed.starts_with("HTTP/1.1 500 ") && failed.contains("internal error"), "{failed}");
        assert!(get(address, "/", "1.1").0.ends_with("\r\n\r\n0"), "and it goes on");
    });
}

#[test]
fn the_request_that_finds_no_listener_behind_the_edge_gets_a_new_one() {
    served(|address, folder| {
        for listener in ["test-0.sock", "test-1.sock"] {
            std::fs::remove_file(folder.join(listener)).unwrap();
            assert!(get(address, "/", "1.1").0.ends_with("\r\n\r\n0"), "without {listener}");
        }
    });
}

#[test]
fn half_a_request_is_not_carried_out() {
    let folder = upstream::folder().unwrap();
    let upstream = Arc::new(Upstream::open(folder.path(), "test", 1).unwrap());
    let tells = Arc::new(Tells(Mutex::default()));
    let threads = answering("test", 1, &upstream, &(Arc::clone(&tells) as _)).unwrap();
    // As if the edge had died in the middle.
    for (sent, of) in [(2000, 3000), (3000, 3000)] {
        let mut stream = std::os::unix::net::UnixStream::connect(upstream.path()).unwrap();
        write!(stream, "POST / HTTP/1.1\r\nContent-Length: {of}\r\nConnection: close\r\n\r\n").unwrap();
        stream.write_all(&vec![b'x'; sent]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(*tells.0.lock().unwrap(), [3000]);
    upstream.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_listener_that_has_ended_is_replaced_and_its_threads_go_on() {
    let folder = upstream::folder().unwrap();
    let upstream = Arc::new(Upstream::open(folder.path(), "test", 2).unwrap());
    let threads = answering("test", 2, &upstream, &(Arc::new(Fake) as _)).unwrap();
    let first = upstream.path();
    upstream.revive(&first).unwrap();
    upstream.revive(&first).unwrap();
    assert!(upstream.path().ends_with("test-1.sock"), "once: {}", upstream.path().display());
    for _ in 0..5 {
        let mut stream = std::os::unix::net::UnixStream::connect(upstream.path()).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    upstream.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
