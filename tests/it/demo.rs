//! `crm-events-sink demo`, as somebody who tries it for the first time.

use std::process::Stdio;

use crate::harness::{curl, eventually, free_port, kcat_read, program};

#[test]
fn the_demo_shows_the_whole_sink_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let (broker, api, metrics) = (free_port(), free_port(), free_port());
    let mut demo = program();
    demo.args(["demo", "--for", "12s", "--rate", "100", "--journal"]).arg(&journal);
    demo.args(["--broker-port", &broker.to_string()]);
    demo.args(["--api-listen", &format!("127.0.0.1:{api}"), "--metrics-listen", &format!("127.0.0.1:{metrics}")]);
    let demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let url = format!("http://127.0.0.1:{api}");
    eventually("the port answers", || std::net::TcpStream::connect(("127.0.0.1", api)).is_ok());
    eventually("events and dead letters show", || {
        let rows = |path: &str| curl(&[&format!("{url}{path}")]).json().as_array().unwrap().len();
        rows("/events/latest") == 20 && rows("/dlq") > 1
    });
    assert_eq!(curl(&["-X", "POST", &format!("{url}/replay/5")]).status, 200);
    assert!(!kcat_read(&format!("127.0.0.1:{broker}"), "apexflow.leads.created").is_empty());
    let ended = demo.wait_with_output().unwrap();
    let (shown, said) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert!(ended.status.success(), "{said}");
    assert!(shown.contains(&format!("curl {url}/events/latest")), "{shown}");
    let journal = rusqlite::Connection::open(&journal).unwrap();
    let count = |sql: &str| journal.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(DISTINCT topic) FROM event_journal"), 6);
    assert!(count("SELECT count(DISTINCT tenant_id) FROM event_journal") >= 3);
    let (events, dead) = (count("SELECT count(*) FROM event_journal"), count("SELECT count(*) FROM event_dlq"));
    assert!(shown.contains(&format!("{events} events journaled, {dead} dead letters")), "{shown}");
}
