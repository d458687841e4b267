//! Clients that take as much as they can get: connections, memory, threads, file descriptors.

use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;

use super::client::{Client, statuses};
use super::{LEADS, SHORT, Target, status};
use crate::harness::{Embedded, Setup, eventually};

#[test]
fn two_thousand_idle_connections_give_way() {
    let target = Target::start("", 1);
    let mut idle = Vec::new();
    for number in 0..2000 {
        let address = if number % 4 == 0 { &target.sink.metrics } else { &target.sink.api };
        let mut client = Client::to(address);
        if number % 2 == 0 {
            // Begun, and never ended.
            client.send("GET /health HTTP/1.1\r\nHost: ").ok();
        }
        idle.push(client);
        if number % 200 == 0 {
            target.answers();
        }
    }
    target.answers();
    target.is_bounded();
    let open = target.sink.metric(r#"crm_events_http_connections{port="api"}"#);
    assert!((1.0..=64.0).contains(&open), "{open} connections of one address");
    assert!(target.sink.metric(r#"crm_events_http_refused_total{port="api",reason="gave_way"}"#) > 1000.0);
    assert!(status(&target.sink, "Threads:") <= target.threads_before + 8);
    drop(idle);
    target.ends_as_before();
}

#[test]
fn a_head_of_a_gibibyte_ends_at_its_limit() {
    let target = Target::start(SHORT, 0);
    let flood = |mut client: Client| {
        client.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
        let piece = vec![b'a'; 1 << 20];
        let sent = (0..1024).take_while(|_| client.send(&piece).is_ok()).count();
        (sent, client.rest())
    };
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4).map(|_| scope.spawn(|| flood(Client::to(&target.sink.api)))).collect();
        target.answers();
        for ended in floods {
            let (sent, _) = ended.join().unwrap();
            assert!(sent < 32, "{sent} MiB were taken");
        }
    });
    target.is_bounded();
    // One that stops at the limit reads why.
    let long = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(17 << 10));
    let answer = Client::to(&target.sink.api).ask(long);
    assert_eq!(statuses(&answer), [431]);
    assert!(answer.contains("16384 bytes"), "{answer}");
    target.ends_as_before();
}

#[test]
fn clients_that_never_read_are_cut_off() {
    let target = Target::start(SHORT, 300);
    // Each answer is 300 events long; fifty of them are more than any socket takes by itself.
    let asks = "GET /events/latest?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let metrics = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(300);
    let mut deaf = Vec::new();
    for _ in 0..60 {
        let (mut api, mut prometheus) = (Client::narrow(&target.sink.api), Client::narrow(&target.sink.metrics));
        api.send(&asks).ok();
        prometheus.send(&metrics).ok();
        deaf.push((api, prometheus));
        target.answers();
    }
    target.is_bounded();
    eventually("they are cut off", || {
        target.answers();
        target.sink.metric(r#"crm_events_http_connections{port="api"}"#) == 0.0
    });
    drop(deaf);
    target.ends_as_before();
}

#[test]
fn a_flood_of_requests_in_a_row_is_not_kept_in_memory() {
    let target = Target::start(SHORT, 0);
    let flood = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(400_000);
    std::thread::scope(|scope| {
        let address = &target.sink.api;
        let senders: Vec<_> = (0..8)
            .map(|_| {
                let mut client = Client::narrow(address);
                let flood = &flood;
                scope.spawn(move || client.send(flood).is_err())
            })
            .collect();
        while !senders.iter().all(|sender| sender.is_finished()) {
            target.answers();
            target.is_bounded();
        }
        assert!(senders.into_iter().all(|sender| sender.join().unwrap()), "they do not read, so they are cut off");
    });
    target.ends_as_before();
}

#[test]
fn resets_in_every_phase_leave_nothing() {
    let target = Target::start(SHORT, 100);
    let body = "POST /replay/batch?dry_run=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: 19\r\n\r\n";
    let whole = format!("{body}{{\"event_ids\":[1,2]}}");
    let answered = "GET /events/latest?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let phases =
        ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: a\r\n", body, &whole[..whole.len() - 5], &whole, &answered];
    for round in 0..150 {
        for phase in phases {
            let mut client = Client::to(&target.sink.api);
            client.send(phase).ok();
            if round % 3 == 0 {
                // A moment later it is in the next phase.
                std::thread::sleep(Duration::from_micros(500));
            }
            client.reset();
        }
        if round % 25 == 0 {
            target.answers();
        }
    }
    target.ends_as_before();
}

#[test]
fn health_is_answered_while_every_slow_place_is_taken() {
    let target = Target::start("http.waiting_timeout = '500ms'", 1);
    // What acts waits for the writer, which waits for who holds the file: five seconds at most.
    let other = Connection::open(target.sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let acts: Vec<Client> = (0..12)
        .map(|_| {
            let mut client = Client::to(&target.sink.api);
            client.send("POST /replay/77 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
            client
        })
        .collect();
    eventually("every place but the probe's is taken", || target.sink.get("/events/latest").status == 503);
    for _ in 0..3 {
        let turned_away = target.sink.get("/events/latest");
        assert_eq!(turned_away.status, 503, "{}", turned_away.body);
        assert!(turned_away.head.contains("Retry-After: 1") && turned_away.detail().contains("nothing was done"));
        target.answers();
    }
    assert!(target.sink.metric(r#"crm_events_http_refused_total{port="api",reason="busy"}"#) >= 4.0);
    other.execute_batch("ROLLBACK").unwrap();
    for mut act in acts {
        assert_eq!(statuses(&act.rest()), [404], "there is no event 77");
    }
    assert_eq!(target.sink.get("/events/latest").status, 200, "there is room again");
    target.ends_as_before();
}

#[test]
fn few_file_descriptors_are_enough_to_be_seen() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 160 && exec \"$@\"", "sh"]);
    let sink = Setup::with(&broker.bootstrap()).start_under(shell);
    let target = Target::of(sink, broker, 1);
    assert!(target.sink.log().contains("http.connections_max is lowered"), "{}", target.sink.log());
    let idle: Vec<Client> = (0..300)
        .map(|number| Client::to(if number % 2 == 0 { &target.sink.api } else { &target.sink.metrics }))
        .collect();
    target.answers();
    drop(idle);
    target.ends_as_before();
}

#[test]
fn with_no_file_descriptor_left_it_waits_and_goes_on() {
    let target = Target::start("", 1);
    let limit = |files: u64| {
        let limits = format!("--nofile={files}:");
        let pid = format!("--pid={}", target.sink.pid());
        assert!(Command::new("prlimit").args([&pid, &limits]).status().unwrap().success());
    };
    let open = || std::fs::read_dir(format!("/proc/{}/fd", target.sink.pid())).unwrap().count() as u64;
    let mut kept = Client::to(&target.sink.api);
    let ask = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let before = open();
    // From none left to as many as a request takes: whichever step finds none, it is not the last.
    for spare in 0..6 {
        limit(before + 1 + spare);
        kept.send(ask).ok();
        let _new: Vec<Client> = (0..5).map(|_| Client::to(&target.sink.api)).collect();
        std::thread::sleep(Duration::from_millis(200));
        limit(4096);
        eventually("it answers again", || Client::to(&target.sink.api).get("/health").starts_with("HTTP/1.1 200 "));
        target.answers();
        kept = Client::to(&target.sink.api);
    }
    drop(kept);
    target.ends_as_before();
}

#[test]
fn more_whole_requests_than_may_wait_leave_seats_for_the_probe() {
    let target = Target::start("", 1);
    let other = Connection::open(target.sink.journal()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let acts: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = Client::to(&target.sink.api);
            client.send("POST /replay/77 HTTP/1.1\r\nHost: localhost\r\n\r\n").ok();
            client
        })
        .collect();
    for _ in 0..10 {
        target.answers();
    }
    other.execute_batch("ROLLBACK").unwrap();
    drop(acts);
    target.ends_as_before();
}
