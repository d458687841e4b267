//! A client that sends what it likes, byte by byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;

/// Longer than any time-out of a test.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client(pub TcpStream);

impl Client {
    pub fn to(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// One that takes little before it has been read.
    pub fn narrow(address: &str) -> Client {
        let client = Client::to(address);
        sockopt::set_socket_recv_buffer_size(&client.0, 4096).unwrap();
        client
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref())
    }

    /// What is answered until the other side closes.
    pub fn rest(&mut self) -> String {
        let mut answer = Vec::new();
        // A reset ends it as well; what came before counts.
        self.0.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What is answered to `bytes` and nothing after them.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes).ok();
        self.0.shutdown(Shutdown::Write).ok();
        self.rest()
    }

    pub fn get(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).unwrap();
        self.rest()
    }

    /// Ends by a reset instead of an orderly close.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }
}

/// The status codes of the answers in `text`, in order.
pub fn statuses(text: &str) -> Vec<u16> {
    let lines = text.split("HTTP/1.1 ").skip(1);
    // The words of an answer may name the version as well.
    lines.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}
