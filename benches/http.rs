//! What abuse does to a sink, and how many requests a second it answers: one binary or several, side by side in one run.
//! `cargo bench --bench http -- BINARY…`; docs/http.md has the figures. Each attack meets a process of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an attack is kept up before it is looked what it did.
const KEPT_UP: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

struct Sink {
    child: Child,
    api: String,
    metrics: String,
}

impl Sink {
    /// The demo: it brings its own broker. `files`: `ulimit -n`.
    fn start(binary: &str, files: u32) -> Sink {
        let [api, metrics] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh", binary, "demo", "--rate", "50"]);
        shell.args(["--api-listen", &api, "--metrics-listen", &metrics]);
        let child = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
        let sink = Sink { child, api, metrics };
        let deadline = Instant::now() + Duration::from_secs(60);
        while sink.answers().is_none() {
            assert!(Instant::now() < deadline, "{binary} does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        // The consumer has its partitions, and some events are there.
        std::thread::sleep(Duration::from_secs(6));
        sink
    }

    /// How long the slower of `GET /health` and `GET /metrics` took, each from a new connection.
    fn answers(&self) -> Option<Duration> {
        Some(ask(&self.api, "/health")?.max(ask(&self.metrics, "/metrics")?))
    }

    fn number(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn ask(address: &str, path: &str) -> Option<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    (&head == b"HTTP/1.1 200").then(|| begun.elapsed())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// Sends `bytes` on each of `connections` and keeps them open, unread.
fn held(address: &str, connections: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, Duration::from_secs(1)).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(bytes).ok();
        Some(stream)
    };
    (0..connections).filter_map(connect).collect()
}

fn head(address: &str) -> Vec<TcpStream> {
    let mut open = held(address, 1, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ");
    let piece = vec![b'a'; 1 << 20];
    for stream in &mut open {
        (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
    }
    open
}

fn trickle(address: &str) -> Vec<TcpStream> {
    let mut open =
        held(address, 100, b"POST /replay/batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n");
    for _ in 0..3 {
        open.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap_or_default());
        std::thread::sleep(Duration::from_secs(1));
    }
    open
}

fn resets(address: &str) -> Vec<TcpStream> {
    for stream in held(address, 3000, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap_or_default();
    }
    Vec::new()
}

type Attack = fn(&Sink) -> Vec<TcpStream>;

const GET: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ATTACKS: [(&str, u32, Attack); 9] = [
    ("none", 8192, |_| Vec::new()),
    ("2,000 idle connections", 8192, |sink| held(&sink.api, 2000, b"")),
    ("a header of 1 GiB", 8192, |sink| head(&sink.api)),
    ("Content-Length: 9000000000000", 8192, |sink| {
        held(&sink.api, 1, b"POST /replay/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000000\r\n\r\n")
    }),
    ("100 bodies, a byte a second", 8192, |sink| trickle(&sink.api)),
    ("50 × 8,000 requests in a row, unread", 8192, |sink| held(&sink.api, 50, GET.repeat(8000).as_bytes())),
    ("50 × 500 /metrics, unread", 8192, |sink| {
        held(&sink.metrics, 50, GET.replace("health", "metrics").repeat(500).as_bytes())
    }),
    ("3,000 resets", 8192, |sink| resets(&sink.api)),
    ("300 connections, 128 descriptors", 128, |sink| held(&sink.api, 300, b"")),
];

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "none".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1000.0))
}

fn attack(binary: &str, (name, files, attack): (&str, u32, Attack)) {
    let mut sink = Sink::start(binary, files);
    let open = attack(&sink);
    std::thread::sleep(KEPT_UP);
    let (during, rss, threads) = (sink.answers(), sink.number("VmRSS:") >> 10, sink.number("Threads:"));
    drop(open);
    std::thread::sleep(KEPT_UP);
    let after = sink.answers();
    let survived = if !sink.is_alive() {
        "process gone"
    } else if after.is_some() {
        "yes"
    } else {
        "deaf"
    };
    println!("| {name} | {survived} | {} | {} | {rss} | {threads} |", shown(during), shown(after));
}

/// By Debian's wrk, with 16 connections that are kept.
fn requests_per_second(sink: &Sink) -> String {
    let url = format!("http://{}/health", sink.api);
    let Ok(ran) = Command::new("wrk").args(["-t2", "-c16", "-d5s", &url]).output() else { return "no wrk".to_owned() };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap_or("none");
    line.trim().to_owned()
}

fn main() {
    // Cargo adds --bench.
    let binaries: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if binaries.is_empty() {
        println!("give binaries: cargo bench --bench http -- target/release/crm-events-sink");
    }
    for binary in &binaries {
        println!(
            "\n{binary}\n\n| attack | survived | answer during, ms | after, ms | RSS, MB | threads |\n|---|---|---|---|---|---|"
        );
        ATTACKS.into_iter().for_each(|each| attack(binary, each));
    }
    println!("\nGET /health a second, 16 connections kept, by round");
    let sinks: Vec<Sink> = binaries.iter().map(|binary| Sink::start(binary, 8192)).collect();
    for _ in 0..ROUNDS {
        println!("{}", sinks.iter().map(requests_per_second).collect::<Vec<_>>().join("\t"));
    }
}
