//! What goes for good, and what stays: erasure of a tenant or a key, and pruning.

use std::fs;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::access::{ask, sink_with_users};
use crate::coverage::{integrity, verify};
use crate::harness::{Embedded, Record, Sender, Setup, Sink, curl, eventually};

const LEADS: &str = "apexflow.leads.created";
const CHAINED: &str = "journal.chain = true";

/// Files in which `text` stands, of the journal's own: whatever page or log it is in.
fn files_with(sink: &Sink, text: &str) -> Vec<String> {
    let folder = sink.journal().parent().unwrap().to_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

fn send(sender: &Sender, tenant: &str, key: &str, value: &str) {
    let value = value.replace("TENANT", tenant);
    let headers: &[(&str, Option<&[u8]>)] = &[("who", Some(key.as_bytes()))];
    sender.queue(&Record {
        topic: LEADS,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers,
        ..Record::default()
    });
}

/// Erases after it was asked what that would be.
#[track_caller]
fn erase(sink: &Sink, tenant: &str, key: &str) -> Value {
    let path = format!("/tenants/{tenant}/erase?reason=GDPR+request+9{key}");
    let asked = sink.post(&path);
    assert_eq!(asked.status, 409, "{asked:?}");
    let confirm = asked.json()["confirm"].as_str().unwrap().to_owned();
    let done = sink.post(&format!("{path}&confirm={confirm}"));
    assert_eq!(done.status, 200, "{done:?}");
    // The same once more does nothing more.
    let again = sink.post(&format!("{path}&confirm={confirm}"));
    assert_eq!((again.status, again.json()), (200, done.json()));
    done.json()
}

#[test]
fn a_tenant_is_erased_from_every_file_and_nothing_else_is() {
    let broker = Embedded::start(&[(LEADS, 2)]);
    let sender = Sender::to(&broker.bootstrap());
    // Many rows of two tenants among each other, so that the pages of the indexes split.
    for number in 0..4000_u64 {
        let tenant = if number % 3 == 0 { "acme" } else { "bolt" };
        let key = format!("{tenant}:lead:{}", number * 7919 % 4000);
        send(
            &sender,
            tenant,
            &key,
            &format!(
                r#"{{"tenant_id":"TENANT","name":"Secret-{tenant}-{number}","pad":"{}"}}"#,
                "x".repeat(number as usize % 2000)
            ),
        );
    }
    // Dead letters: by the value's tenant, by the key, by name only, and another tenant's.
    send(&sender, "acme", "acme:lead:1", r#"{"tenant_id":"TENANT","name":"Secret-acme-broken"#);
    sender.queue(&Record {
        topic: LEADS,
        value: Some(br#"{"tenant_id":"acme","name":"Secret-acme-nobody's"#),
        ..Record::default()
    });
    send(&sender, "bolt", "bolt:lead:1", r#"{"tenant_id":"TENANT","name":"Secret-bolt-broken"#);
    sender.flush();
    let mut sink = Setup::with(&broker.bootstrap()).toml(CHAINED).start();
    sink.await_events(4000);
    eventually("the dead letters are there", || sink.dead_letters() == 3);
    // A replay of one of its events, a dead letter that was edited into an event, a job that names a key.
    let first: i64 = sink.value("SELECT min(id) FROM event_journal WHERE tenant_id = 'acme'");
    assert_eq!(sink.post(&format!("/replay/{first}?reason=proof")).status, 200);
    let patch = r#"[{"op":"replace","path":"","value":{"tenant_id":"acme","name":"Secret-acme-edited"}}]"#;
    let letter: i64 = sink.value("SELECT id FROM event_dlq WHERE payload LIKE '%acme-broken%'");
    let retry = |confirm: &str| {
        curl(&["-X", "POST", "-d", patch, &format!("http://{}/dlq/{letter}/retry?confirm={confirm}", sink.api)])
    };
    let confirm = retry("x").json()["confirm"].as_str().unwrap().to_owned();
    assert_eq!(retry(&confirm).status, 200);
    let key: String =
        sink.value("SELECT kafka_key FROM event_journal WHERE tenant_id = 'acme' ORDER BY id DESC LIMIT 1");
    assert_eq!(sink.post(&format!("/replay/range?start=2020-01-01&key={key}&wait=30")).status, 200);
    let rows = sink.events();

    let dry = sink.post("/tenants/acme/erase?reason=look&dry_run=true").json();
    let acme: i64 = sink.value("SELECT count(*) FROM event_journal WHERE tenant_id = 'acme'");
    let counts =
        json!([dry["events"], dry["dead_letters"], dry["dead_letters_by_name"], dry["jobs"], dry["blocked_by"]]);
    assert_eq!(counts, json!([acme, 2, 1, 1, null]));
    assert!(files_with(&sink, "Secret-acme-").contains(&"journal.db".to_owned()), "nothing was done");
    let done = erase(&sink, "acme", "");
    assert_eq!(json!([done["events"], done["dead_letters"], done["needs_vacuum"]]), json!([acme, 2, false]));

    assert_eq!(files_with(&sink, "Secret-acme-"), [""; 0]);
    assert_eq!(
        files_with(&sink, "acme:lead:"),
        [""; 0],
        "neither in a row nor in an index, a header, a job or the audit"
    );
    let bolt = "SELECT count(*) FROM event_journal WHERE tenant_id = 'bolt' AND payload LIKE '%Secret-bolt-%' AND kafka_key LIKE 'bolt:lead:%'";
    assert_eq!(sink.value::<i64>(bolt), 4000 - 4000 / 3 - 1);
    assert!(!files_with(&sink, "Secret-bolt-broken").is_empty());
    assert_eq!(sink.events(), rows, "the rows stay where they were");
    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!((code, report.contains(&format!("{acme} of them erased"))), (0, true), "{report}");
    assert_eq!(verify(&sink, &["--offline"]).0, 0);

    // Nothing of it can be sent or repaired any more.
    let event = sink.get(&format!("/events/{first}")).json();
    let shown = json!([event["payload"], event["kafka_key"], event["erased"], event["tenant_id"]]);
    assert_eq!(shown, json!([{}, null, done["certificate"], "acme"]));
    let found = sink.get("/events?tenant_id=acme&order=asc&limit=1&payload=true").json();
    let found = &found["events"][0];
    assert_eq!((&found["erased"], &found["payload"]), (&done["certificate"], &json!({})), "a search says so too");
    assert_eq!(sink.post(&format!("/replay/{first}?reason=try")).status, 410);
    let batch = curl(&["-X", "POST", "-d", &format!("[{first}]"), &format!("http://{}/replay/batch", sink.api)]);
    assert_eq!(batch.status, 410);
    let nobodys: i64 = sink.value("SELECT id FROM event_dlq WHERE state = 'erased'");
    let refused = sink.post(&format!("/dlq/{nobodys}/retry?mode=republish"));
    assert_eq!((refused.status, refused.detail().contains("is erased")), (409, true));
    assert_eq!(sink.metric("crm_events_dlq_open"), 1.0);

    // The certificate.
    let audit = sink.get("/audit?action=tenant.erase&limit=100").json();
    let of = |outcome: &str| audit.as_array().unwrap().iter().find(|row| row["outcome"] == outcome).unwrap().clone();
    let (started, ended) = (of("started"), of("done"));
    assert_eq!((&started["id"], &ended["started_id"]), (&done["certificate"], &done["certificate"]));
    assert_eq!(json!([ended["reason"], ended["count"]]), json!(["GDPR request 9", acme + 2]));

    // What arrives later is stored as ever.
    send(&sender, "acme", "acme:lead:1", r#"{"tenant_id":"TENANT","name":"later"}"#);
    sender.flush();
    sink.await_events(rows + 1);
    // Empty rows that somebody fills again are found.
    assert_eq!(sink.stop(), Some(0));
    Connection::open(sink.journal())
        .unwrap()
        .execute("UPDATE event_journal SET payload = '{\"a\":1}' WHERE id = ?1", [first])
        .unwrap();
    let (code, report) = verify(&sink, &["--chain"]);
    assert_eq!(
        (code, report.contains(&format!("row {first}: it was filled after it was erased"))),
        (1, true),
        "{report}"
    );
}

#[test]
fn one_key_is_erased_and_the_tenants_others_stay() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..300 {
        let key = format!("acme:lead:{}", 100 + number % 30);
        send(
            &sender,
            "acme",
            &key,
            &format!(r#"{{"tenant_id":"TENANT","name":"Name-{}-","n":{number}}}"#, 100 + number % 30),
        );
    }
    send(&sender, "acme", "acme:lead:117", r#"{"name":"Name-117-"#);
    send(&sender, "bolt", "acme:lead:117", r#"{"tenant_id":"TENANT","note":"somebody else's record with this key"}"#);
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).toml(CHAINED).start();
    sink.await_events(301);
    eventually("the dead letter is there", || sink.dead_letters() == 1);
    assert_eq!(sink.post("/tenants/acme/erase?reason=x&key=acme:lead:999").status, 404);
    let done = erase(&sink, "acme", "&key=acme:lead:117");
    assert_eq!(json!([done["events"], done["dead_letters"]]), json!([10, 1]));
    assert_eq!(files_with(&sink, "Name-117-"), [""; 0]);
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE payload LIKE '%Name-1%'"), 290);
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE kafka_key = 'acme:lead:117'"), 1, "bolt's");
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
    // The audit tells whoever knows the key that it was this one.
    let journal_id: String = sink.value("SELECT value FROM journal_info WHERE name = 'journal_id'");
    let sum = format!("printf '%s:%s' {journal_id} acme:lead:117 | sha256sum");
    let sum = std::process::Command::new("sh").args(["-c", &sum]).output().unwrap().stdout;
    let digest = String::from_utf8(sum).unwrap()[..64].to_owned();
    let audit = sink.get("/audit?limit=100").body;
    assert!(audit.contains(&digest) && !audit.contains("acme:lead:117"), "{audit}");
}

#[test]
fn what_a_job_has_still_to_send_is_neither_erased_nor_pruned() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..100 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).toml(CHAINED).start();
    sink.await_events(100);
    let url = format!("http://{}/replay/batch?rate_per_s=1", sink.api);
    assert_eq!(curl(&["-X", "POST", "-d", "[40,41,42,43,44,45,46,47,48,49]", &url]).status, 202);
    assert_eq!(sink.post("/replay/jobs/1/pause").status, 200);
    let confirm = sink.post("/tenants/acme/erase?reason=x").json()["confirm"].as_str().unwrap().to_owned();
    let refused = sink.post(&format!("/tenants/acme/erase?reason=x&confirm={confirm}"));
    assert_eq!((refused.status, &refused.json()["job_id"]), (409, &json!(1)), "{refused:?}");
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE erased IS NOT NULL"), 0);

    let now = "2099-01-01";
    assert_eq!(sink.post(&format!("/prune?until={now}&dry_run=true")).status, 422, "events keep coming");
    let now: String = sink.value("SELECT replace(datetime('now', '+0 seconds'), ' ', 'T')");
    eventually("they are old", || sink.value::<String>("SELECT replace(datetime('now'), ' ', 'T')") > now);
    let now: String = sink.value("SELECT replace(datetime('now'), ' ', 'T')");
    let dry = sink.post(&format!("/prune?until={now}&dry_run=true")).json();
    let events = dry["events"].as_i64().unwrap();
    assert!((39..=48).contains(&events) && dry["stops_before"].as_str().unwrap().contains("job 1"), "{dry}");
    assert_eq!(sink.post(&format!("/prune?until={now}&confirm=7")).status, 409);
    assert_eq!(
        sink.events(),
        100 + sink.value::<i64>("SELECT count(*) FROM event_journal WHERE replay_of IS NOT NULL")
    );
    let before = verify(&sink, &["--chain"]).1;
    let pruned = sink.post(&format!("/prune?until={now}&confirm={events}&reason=old"));
    assert_eq!((pruned.status, &pruned.json()["events"]), (200, &json!(events)), "{pruned:?}");
    assert_eq!(sink.value::<i64>("SELECT min(id) FROM event_journal"), events + 1);

    // The chain is whole, the offsets are accounted for, and heads from before are in it still.
    let head = before.lines().find_map(|line| line.trim().strip_prefix("head journal")).unwrap();
    let (code, report) = verify(&sink, &["--chain", "--head", &format!("journal{head}")]);
    assert_eq!((code, report.contains(&format!("rows up to {events} were pruned"))), (0, true), "{report}");
    let (code, report) = verify(&sink, &["--offline"]);
    assert_eq!((code, report.contains(&format!("{events} rows were deleted"))), (0, true), "{report}");
    let leads = integrity(&sink, LEADS, 0);
    assert_eq!((&leads["pruned"], &leads["gaps"]), (&json!(events), &json!([])));
    let audit = sink.get("/audit?action=prune&limit=2").json();
    assert_eq!(
        json!([audit[0]["outcome"], audit[0]["count"], audit[1]["outcome"]]),
        json!(["done", events, "started"])
    );

    // Without the job everything goes.
    assert_eq!(sink.post("/replay/jobs/1/cancel").status, 200);
    let all = sink.post(&format!("/prune?until={now}&dry_run=true")).json()["events"].as_i64().unwrap();
    assert_eq!(sink.post(&format!("/prune?until={now}&confirm={all}")).status, 200);
    sender.event(LEADS, "acme", 1000);
    eventually("it is stored", || {
        sink.value::<i64>("SELECT count(*) FROM event_journal WHERE kafka_offset >= 100") > 0
    });
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
}

#[test]
fn an_erasure_that_was_cut_short_goes_on_and_is_not_called_done_before() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    for number in 0..20_000 {
        sender.queue_event(LEADS, "acme", number);
    }
    sender.flush();
    let sink = Setup::with(&broker.bootstrap()).toml(CHAINED).start();
    sink.await_events(20_000);
    let path = "/tenants/acme/erase?reason=proof";
    let confirm = sink.post(path).json()["confirm"].as_str().unwrap().to_owned();
    let url = format!("http://{}{path}&confirm={confirm}", sink.api);
    let mut asking = std::process::Command::new("curl").args(["-s", "-X", "POST", &url]).spawn().unwrap();
    let erased = "SELECT count(*) FROM event_journal WHERE erased IS NOT NULL";
    eventually("it is under way", || sink.value::<i64>(erased) > 0);
    let sink = sink.restart();
    asking.wait().unwrap();
    let before = sink.value::<i64>(erased);
    assert!(before < 20_000, "the machine was too fast for this test");
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM audit WHERE outcome = 'done' AND action = 'tenant.erase'"), 0);
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
    let done = sink.post(&format!("{path}&confirm={confirm}"));
    assert_eq!((done.status, &done.json()["events"]), (200, &json!(20_000)), "{done:?}");
    let begun = "SELECT count(*) FROM audit WHERE outcome = 'started' AND action = 'tenant.erase'";
    assert_eq!((sink.value::<i64>(begun), files_with(&sink, "acme:lead:").len()), (1, 0));
    assert_eq!(verify(&sink, &["--chain"]).0, 0);
}

#[test]
fn only_admins_erase_and_prune_and_each_only_its_own_tenant() {
    let (_broker, sink) = sink_with_users("");
    for (who, path, status) in [
        ("otto", "/tenants/acme/erase?reason=x&dry_run=true", 403),
        ("otto", "/prune?until=2025-01-01&dry_run=true", 403),
        ("alan", "/prune?until=2025-01-01&dry_run=true", 403),
        ("alan", "/tenants/globex/erase?reason=x&dry_run=true", 404),
        ("alan", "/tenants/acme/erase?dry_run=true", 422),
        ("alan", "/tenants/acme/erase?reason=x&dry_run=true", 200),
        ("ada", "/tenants/globex/erase?reason=x&dry_run=true", 200),
        ("ada", "/prune?until=2025-01-01&dry_run=true", 200),
    ] {
        let answer = ask(&sink, who, "POST", path, &[]);
        assert_eq!(answer.status, status, "{who} {path}: {}", answer.body);
    }
    assert_eq!(sink.value::<i64>("SELECT count(*) FROM event_journal WHERE erased IS NOT NULL"), 0);
}
