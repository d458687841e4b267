//! Requests that are not what they say, come slowly, or come in ways that clients may send them.

use std::net::Shutdown;

use super::client::{Client, statuses};
use super::{SHORT, Target};
use crate::harness::{curl, eventually};

fn acts(target: &Target) -> i64 {
    target.sink.value("SELECT count(*) FROM audit")
}

#[test]
fn a_length_that_lies_is_huge_or_stands_twice_does_nothing() {
    let target = Target::start(SHORT, 3);
    let hidden = "GET /events/2 HTTP/1.1\r\nHost: a\r\n\r\n";
    for (lengths, status) in [
        ("Content-Length: abc\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +2\r\n", 400),
        ("Content-Length: 2, 2\r\n", 400),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 2\r\nContent-Length: 40\r\n", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Content-Length: 9000000000000\r\n", 413),
        ("Content-Length: 18446744073709551616\r\n", 413),
        ("Content-Length: 1048577\r\n", 413),
        // It says more than comes.
        ("Content-Length: 1000\r\n", 400),
    ] {
        let request = format!("POST /replay/1 HTTP/1.1\r\nHost: a\r\n{lengths}\r\n{{}}{hidden}");
        let answer = Client::to(&target.sink.api).ask(request);
        assert_eq!(statuses(&answer), [status], "{lengths}: {answer}");
        assert!(answer.contains("{\"detail\":\"") && answer.contains("Connection: close\r\n"), "{answer}");
        target.answers();
    }
    assert_eq!(acts(&target), 0, "nothing was done");
    assert_eq!(target.sink.events(), 3);
    target.ends_as_before();
}

#[test]
fn bytes_that_are_no_request_are_told_so() {
    let target = Target::start(SHORT, 0);
    let many = format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400),
        (b"\xff\xfe\xfd\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /health HTTP/9.9\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /he\xffalth HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        (many.as_bytes(), 431),
    ] {
        for address in [&target.sink.api, &target.sink.metrics] {
            let answer = Client::to(address).ask(bytes);
            assert_eq!(statuses(&answer), [status], "{:?}: {answer}", String::from_utf8_lossy(bytes));
        }
    }
    // Silence is not answered, and a head that does not end is.
    assert_eq!(Client::to(&target.sink.api).rest(), "");
    let mut slow = Client::to(&target.sink.api);
    slow.send("GET /health HTTP/1.1\r\nHost: a\r\n").unwrap();
    assert_eq!(statuses(&slow.rest()), [408]);
    target.ends_as_before();
}

#[test]
fn a_body_may_come_in_chunks_or_after_a_100_and_is_read_right() {
    let target = Target::start(SHORT, 3);
    let api = format!("http://{}/replay/batch?dry_run=true", target.sink.api);
    let chunked = curl(&["-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-d", r#"{"event_ids":[1,3]}"#, &api]);
    assert_eq!((chunked.status, chunked.json()["total"].as_i64()), (200, Some(2)), "{}", chunked.body);

    let head = "POST /replay/batch?dry_run=true HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    let mut patient = Client::to(&target.sink.api);
    patient.send(format!("{head}Connection: close\r\nContent-Length: 19\r\n\r\n")).unwrap();
    let mut said = [0; 25];
    std::io::Read::read_exact(&mut patient.0, &mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    let answer = patient.ask(r#"{"event_ids":[1,2]}"#);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""total":2"#), "{answer}");

    // Too much is known before it is sent.
    let refused = Client::to(&target.sink.api).ask(format!("{head}Content-Length: 2000000\r\n\r\n"));
    assert_eq!(statuses(&refused), [413]);
    let chunks = "POST /replay/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, status) in [("2\r\n{}", 400), ("2\r\n{}\r\nx\r\n", 400), ("-2\r\n{}\r\n0\r\n\r\n", 400)] {
        assert_eq!(statuses(&Client::to(&target.sink.api).ask(format!("{chunks}{body}"))), [status], "{body:?}");
    }
    let endless = format!("{chunks}{}", format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(40));
    assert_eq!(statuses(&Client::to(&target.sink.api).ask(endless)), [413]);
    assert_eq!(acts(&target), 2, "the two dry runs and nothing else");
    target.ends_as_before();
}

#[test]
fn a_body_byte_by_byte_holds_nobody_up_and_does_nothing() {
    let target = Target::start(SHORT, 1);
    let head = "POST /replay/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    let mut slow: Vec<Client> = (0..300).map(|_| Client::to(&target.sink.api)).collect();
    for client in &mut slow {
        client.send(head).ok();
    }
    for _ in 0..3 {
        for client in &mut slow {
            client.send("x").ok();
        }
        target.answers();
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let last = statuses(&slow.last_mut().unwrap().rest());
    assert_eq!(last, [408], "the body took longer than http.body_timeout");
    assert_eq!(acts(&target), 0);
    drop(slow);
    target.ends_as_before();
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let target = Target::start(SHORT, 40);
    let one = |id: i64| format!("GET /events/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let all: String = (1..=40).map(one).collect();
    let answers = Client::to(&target.sink.api).ask(all);
    assert_eq!(statuses(&answers), [200; 40]);
    let ids: Vec<i64> = answers
        .split(r#"{"id":"#)
        .skip(1)
        .filter_map(|rest| rest.split(',').next()?.parse().ok())
        .filter(|id| (1..=40).contains(id))
        .collect();
    let mut first_of_each = ids;
    first_of_each.dedup();
    assert!(first_of_each.windows(2).all(|pair| pair[0] < pair[1]), "{first_of_each:?}");
    // One that is refused ends it: what follows cannot be told from its body.
    let broken = format!("{}GET /health HTTP/1.1\r\n\r\n{}", one(1), one(2));
    assert_eq!(statuses(&Client::to(&target.sink.api).ask(broken)), [200, 400]);
    // HTTP/1.0 gets one answer.
    let old = "GET /health HTTP/1.0\r\n\r\n";
    assert_eq!(statuses(&Client::to(&target.sink.api).ask(old.repeat(2))), [200]);
    target.ends_as_before();
}

#[test]
fn nobody_can_claim_to_be_somebody_else_behind_the_edge() {
    let target = Target::start("", 1);
    let claim = ["-X", "POST", "-H", "X-Edge-Client: 6.6.6.6", "-H", "x-edge-tls: 1"];
    let url = format!("http://{}/replay/1", target.sink.api);
    assert_eq!(curl(&[&claim[..], &[url.as_str()]].concat()).status, 200);
    assert_eq!(target.sink.value::<String>("SELECT DISTINCT origin FROM audit"), "127.0.0.1");
    target.sink.await_events(2);
}

#[test]
fn a_request_that_came_whole_is_answered_although_the_sink_stops() {
    let mut target = Target::start("replay.timeout = '3s'\nshutdown_timeout = '20s'", 1);
    target.broker.cluster().broker_down(-1).unwrap();
    let mut waits = Client::to(&target.sink.api);
    waits.send("POST /replay/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let idle = Client::to(&target.sink.api);
    eventually("it is being done", || acts(&target) == 1);
    target.sink.signal("TERM");
    assert_eq!(statuses(&waits.rest()), [504], "it waited for Kafka to its end");
    idle.0.shutdown(Shutdown::Both).ok();
    assert_eq!(target.sink.wait(), Some(0));
}
