//! Taking events out: three formats with the same content, masks that leave nothing, and transfers that are whole or broken.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::access::{ask, sink_with_users};
use crate::harness::{Disk, Embedded, Record, Sender, Setup, Sink, curl, eventually, program, within};
use crate::search::insert_many;

const LEADS: &str = "apexflow.leads.created";
const HOSTILE: &str = "{ \"tenant_id\": \"=cmd|' /C calc'!A0\",\r\n \"email\":\"eva@example.com\", \"n\":1.10,\"by\":[{\"email\":\"b@x\",\"phone\":\"+43 1\"}]}";

fn sink_with_hostile_events() -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    sender.queue_event(LEADS, "acme", 1);
    let headers: &[(&str, Option<&[u8]>)] = &[("email", Some(b"h@example.com")), ("trace", Some(b"1"))];
    let record = Record {
        topic: LEADS,
        key: Some(b"a,\"b\"\n:1"),
        value: Some(HOSTILE.as_bytes()),
        headers,
        ..Record::default()
    };
    sender.queue(&record);
    sender.queue(&Record {
        topic: LEADS,
        key: Some(b"\xff\x00"),
        value: Some(br#"{"tenant_id":"acme"}"#),
        ..Record::default()
    });
    sender.flush();
    sink.await_events(3);
    (broker, sink)
}

/// The file that curl wrote.
fn download(sink: &Sink, query: &str) -> Vec<u8> {
    let path = sink.folder.path().join("download");
    let url = format!("http://{}/export?{query}", sink.api);
    let done = Command::new("curl").args(["-sSf", "-o"]).arg(&path).arg(&url).output().unwrap();
    assert!(done.status.success(), "{query}: {}", String::from_utf8_lossy(&done.stderr));
    fs::read(path).unwrap()
}

fn python(script: &str, input: &std::path::Path) -> String {
    let done = Command::new("python3").args(["-c", script]).arg(input).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Exports in the audit, how they ended and of how many events.
fn ends(sink: &Sink) -> Vec<(String, Value)> {
    let rows = sink.get("/audit?action=export").json();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (row["outcome"].as_str().unwrap().to_owned(), row["count"].clone())).collect()
}

#[test]
fn the_formats_hold_the_same_events() {
    let (_broker, sink) = sink_with_hostile_events();
    let lines = String::from_utf8(download(&sink, "order=asc")).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 3, "each event is one line:\n{lines}");
    let mut one = sink.get("/events/2").json();
    one.as_object_mut().unwrap().remove("replays");
    assert_eq!(events[1], one);
    assert!(lines.contains(&HOSTILE.replace(['\r', '\n'], " ")), "byte for byte but for line breaks:\n{lines}");

    download(&sink, "format=csv&order=asc");
    let path = sink.folder.path().join("download");
    let rows = python(
        "import csv,json,sys\nprint(json.dumps(list(csv.DictReader(open(sys.argv[1],newline='',encoding='utf-8')))))",
        &path,
    );
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    assert_eq!((rows.len(), &rows[1]["payload"], &rows[1]["kafka_key"]), (3, &HOSTILE.into(), &"a,\"b\"\n:1".into()));
    assert_eq!(rows[1]["tenant_id"], "'=cmd|' /C calc'!A0", "no formula for a spreadsheet");
    assert_eq!(
        (&rows[0]["id"], &rows[0]["replay_of"], &rows[2]["kafka_key"]),
        (&"1".into(), &"".into(), &r#"{"base64":"/wA="}"#.into())
    );

    download(&sink, "format=sqlite");
    let ask = |sql: &str| Command::new("sqlite3").arg("-readonly").arg(&path).arg(sql).output().unwrap().stdout;
    let columns = "id, tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, hex(kafka_key), typeof(kafka_key), \
                   kafka_headers, kafka_timestamp, replay_of, kafka_epoch, dlq_id, erased";
    let sql = format!("SELECT {columns} FROM event_journal ORDER BY id");
    let journal = Command::new("sqlite3").arg("-readonly").arg(sink.journal()).arg(&sql).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&ask(&sql)), String::from_utf8_lossy(&journal));
    assert_eq!(ask("PRAGMA integrity_check"), b"ok\n");

    let head = curl(&["--head", &format!("http://{}/export?format=csv", sink.api)]).head;
    for line in ["Content-Type: text/csv; charset=utf-8", "Content-Disposition: attachment; filename=\"events-"] {
        assert!(head.contains(line), "{head}");
    }
    eventually("the audit has all", || ends(&sink).len() == 6);
    assert!(ends(&sink).iter().all(|(outcome, count)| outcome == "started" || (outcome == "done" && *count == 3)));
    let refused = sink.get("/export?format=xml");
    assert_eq!((refused.status, refused.detail().starts_with("format: ")), (422, true));
    assert_eq!(download(&sink, "topic=nowhere"), b"");
    assert_eq!(String::from_utf8(download(&sink, "limit=1&order=asc")).unwrap().lines().count(), 1);
}

#[test]
fn what_is_masked_is_nowhere_in_the_file_and_the_rest_is_as_it_was() {
    let (_broker, sink) = sink_with_hostile_events();
    for format in ["ndjson", "csv", "sqlite"] {
        let file = download(&sink, &format!("format={format}&mask=email,by.phone"));
        let text = String::from_utf8_lossy(&file);
        for secret in ["eva@example.com", "b@x", "+43 1", "h@example.com"] {
            assert!(!text.contains(secret), "{format}: {secret}");
        }
        if format == "sqlite" {
            let masked = HOSTILE.replace("eva@example.com", "***").replace("b@x", "***").replace("+43 1", "***");
            assert!(text.contains(&masked), "{text}");
            assert!(text.contains(r#"{"tenant_id":"acme"}"#));
        }
    }
    assert!(!String::from_utf8(download(&sink, "mask=kafka_key")).unwrap().contains("acme:lead:1"));
    let refused = sink.get("/export?mask=email,,phone");
    assert_eq!((refused.status, refused.detail().starts_with("mask: ")), (422, true));
    let noted = sink.get("/audit?action=export").json().to_string();
    assert!(noted.contains("masked: email, by.phone"), "{noted}");
}

#[test]
fn who_may_see_one_tenant_takes_out_that_ones_events_alone() {
    let (_broker, sink) = sink_with_users("");
    for format in ["ndjson", "csv", "sqlite"] {
        let url = format!("http://{}/export?format={format}", sink.api);
        let file = Command::new("curl").args(["-sSf", "-u", "vic:password of vic", &url]).output().unwrap().stdout;
        let text = String::from_utf8_lossy(&file);
        assert!(text.contains("acme:lead:3") && !text.contains("globex"), "{format}: {text}");
    }
    assert_eq!(ask(&sink, "vic", "GET", "/export?tenant_id=globex", &[]).status, 403);
    eventually("it stands in the tenant's own audit", || {
        ask(&sink, "vic", "GET", "/audit?action=export", &[]).json().to_string().contains("\"done\"")
    });
}

/// Takes its time.
fn slow_curl(sink: &Sink, query: &str) -> Child {
    let url = format!("http://{}/export?{query}", sink.api);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--limit-rate", "1M", "-o", "/dev/null", &url]).stderr(Stdio::null()).spawn().unwrap()
}

fn resident_kilobytes(sink: &Sink) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sink.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn large_exports_need_little_memory_and_leave_no_file_and_no_thread_behind() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    insert_many(&sink, 200_000);
    sink.get("/events?limit=1000&payload=true");
    let before = resident_kilobytes(&sink);
    for format in ["ndjson", "csv", "sqlite"] {
        let file = download(&sink, &format!("format={format}&mask=email"));
        assert!(file.len() > 40_000_000, "{format}: {}", file.len());
        let grown = resident_kilobytes(&sink).saturating_sub(before);
        assert!(grown < 30_000, "{format}: {grown} kB more than before");
    }
    // Two at once; a client that is killed gives its place back.
    let mut slow = [slow_curl(&sink, "format=ndjson"), slow_curl(&sink, "format=csv")];
    eventually("both have begun", || ends(&sink).iter().filter(|(outcome, _)| outcome == "started").count() == 5);
    eventually("a third is refused", || {
        let third = sink.get("/export?limit=1");
        third.status == 429 && third.head.contains("Retry-After: 10")
    });
    for curl in &mut slow {
        curl.kill().unwrap();
        curl.wait().unwrap();
    }
    eventually("their places are free", || sink.get("/export?limit=1").status == 200);
    eventually("the audit says that they were broken off", || {
        ends(&sink).iter().filter(|(outcome, _)| outcome == "failed").count() == 2
    });
    let mut left =
        fs::read_dir(sink.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.all(|name| !name.contains("export")), "a copy has no name");
}

#[test]
fn an_export_that_cannot_be_finished_is_a_broken_transfer() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    insert_many(&sink, 200_000);
    let kept = sink.folder.path().join("kept.ndjson");
    fs::write(&kept, "from before").unwrap();
    let whole = shell_export(
        &sink,
        &["--output", sink.folder.path().join("whole.csv").to_str().unwrap(), "--format", "csv", "--limit", "5"],
    );
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(fs::read_to_string(sink.folder.path().join("whole.csv")).unwrap().lines().count(), 6);

    let url = format!("http://{}/export", sink.api);
    let mut slow = Command::new("curl")
        .args(["-sS", "--limit-rate", "2M", "-o", "/dev/null", &url])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it has begun", || ends(&sink).iter().filter(|(outcome, _)| outcome == "started").count() == 2);
    assert!(sink.sql("ALTER TABLE event_journal RENAME COLUMN kafka_headers TO gone").status.success());
    let mut code = None;
    within(Duration::from_secs(120), "curl ends", || {
        code = slow.try_wait().unwrap();
        code.is_some()
    });
    let code = code.unwrap().code();
    assert!(matches!(code, Some(18 | 56)), "curl says that something is missing: {code:?}");
    let broken = shell_export(&sink, &["--output", kept.to_str().unwrap()]);
    assert_eq!(
        (broken.status.code(), fs::read_to_string(&kept).unwrap().as_str()),
        (Some(69), "from before"),
        "{broken:?}"
    );
    let names =
        fs::read_dir(sink.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with(".tmp")), "the shell leaves nothing behind");
}

fn shell_export(sink: &Sink, arguments: &[&str]) -> Output {
    program().args(["export", "--api", &format!("http://{}", sink.api)]).args(arguments).output().unwrap()
}

#[test]
fn an_sqlite_file_is_not_built_on_room_that_ingestion_needs() {
    let disk = Disk::mount(128 << 20);
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).on(&disk).start();
    Sender::to(&broker.bootstrap()).event(LEADS, "acme", 1);
    sink.await_events(1);
    assert!(download(&sink, "format=sqlite").starts_with(b"SQLite format 3\0"));
    disk.fill(60 << 20);
    let url = format!("http://{}/export?format=sqlite", sink.api);
    let broken = Command::new("curl").args(["-sS", "-o", "/dev/null", &url]).output().unwrap();
    assert!(matches!(broken.status.code(), Some(18 | 56)), "{broken:?}");
    eventually("the audit says why", || sink.get("/audit?action=export").body.contains("free bytes on the disk"));
    assert_eq!(String::from_utf8(download(&sink, "format=ndjson")).unwrap().lines().count(), 1);
}
