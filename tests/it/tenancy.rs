//! Who may see one tenant sees and touches that one, on every way in.

use serde_json::{Value, json};

use crate::access::{ask, sink_with_users};
use crate::harness::{Answer, Sink, eventually};

fn get(sink: &Sink, name: &str, path: &str) -> Answer {
    ask(sink, name, "GET", path, &[])
}

fn post(sink: &Sink, name: &str, path: &str, body: &Value) -> Answer {
    ask(sink, name, "POST", path, &["-H", "Content-Type: application/json", "-d", &body.to_string()])
}

/// The ids of a list.
fn ids(list: &Value, name: &str) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|row| row[name].as_i64().unwrap()).collect()
}

fn letter_of(sink: &Sink, tenant: &str) -> i64 {
    sink.value(&format!("SELECT id FROM event_dlq WHERE tenant_id = '{tenant}'"))
}

#[test]
fn lists_and_rows_are_the_tenants_own() {
    let (_broker, sink) = sink_with_users("");
    assert_eq!(ids(&get(&sink, "vic", "/events/latest").json(), "id"), [3, 1]);
    assert_eq!(ids(&get(&sink, "vera", "/events/latest").json(), "id"), [4, 3, 2, 1]);
    assert_eq!(ids(&get(&sink, "vic", "/events/latest?limit=1").json(), "id"), [3]);
    let (own, foreign) = (letter_of(&sink, "acme"), letter_of(&sink, "globex"));
    for list in ["/dlq", "/dlq?state=all"] {
        assert_eq!(ids(&get(&sink, "vic", list).json(), "id"), [own], "{list}");
    }
    let groups = get(&sink, "vic", "/dlq/groups").json();
    assert_eq!((&groups[0]["count"], &groups[0]["sample"]["id"]), (&json!(1), &json!(own)));
    assert_eq!(get(&sink, "vic", "/events/1").status, 200);
    for (path, missing) in [
        ("/events/2".to_owned(), "event 2 not found".to_owned()),
        (format!("/dlq/{foreign}"), format!("dead letter {foreign} not found")),
    ] {
        let (theirs, nobodys) = (get(&sink, "vic", &path), get(&sink, "vic", "/events/99"));
        assert_eq!((theirs.status, theirs.detail()), (404, missing), "{path}");
        assert_eq!(nobodys.status, 404, "what is not there looks the same");
    }
    for path in ["/integrity", "/integrity?topic=apexflow.leads.created"] {
        assert_eq!(get(&sink, "vic", path).status, 403, "{path}");
    }
    assert_eq!(post(&sink, "alan", "/consumer/resume", &json!({})).status, 403);
}

#[test]
fn nothing_of_another_tenant_can_be_replayed_or_repaired() {
    let (_broker, sink) = sink_with_users("");
    let (own, foreign) = (letter_of(&sink, "acme"), letter_of(&sink, "globex"));
    for path in [
        "/replay/2".to_owned(),
        format!("/dlq/{foreign}/retry"),
        format!("/dlq/{foreign}/retry?mode=republish"),
        format!("/dlq/{foreign}/discard?reason=x"),
    ] {
        assert_eq!(ask(&sink, "olga", "POST", &path, &[]).status, 404, "{path}");
    }
    let batch = post(&sink, "olga", "/replay/batch", &json!([1, 2, 4]));
    assert_eq!((batch.status, batch.detail().ends_with("event 2, 4")), (404, true), "{}", batch.body);
    let asked = post(&sink, "olga", "/replay/jobs", &json!({"tenant_id": "globex"}));
    assert_eq!((asked.status, asked.detail().contains("another tenant")), (403, true), "{}", asked.body);
    let range = ask(&sink, "olga", "POST", "/replay/range?start=2025-01-01&dry_run=true", &[]).json();
    assert_eq!((&range["total"], &range["by_tenant"]), (&json!(2), &json!({"acme": 2})));

    let edit = json!([{"op": "replace", "path": "", "value": {"tenant_id": "globex", "event_type": "lead.created"}}]);
    let retry = format!("/dlq/{own}/retry");
    let refused = post(&sink, "olga", &retry, &edit);
    assert_eq!(refused.status, 409, "it shows the difference first: {}", refused.body);
    let confirm = refused.json()["confirm"].as_str().unwrap().to_owned();
    let refused = post(&sink, "olga", &format!("{retry}?confirm={confirm}"), &edit);
    assert_eq!((refused.status, refused.detail().contains("another tenant")), (403, true), "{}", refused.body);
    let filtered = ask(&sink, "olga", "POST", "/dlq/retry?error_reason=not_json&dry_run=true", &[]).json();
    assert_eq!(filtered["tried"], 1);
    let group = get(&sink, "olga", "/dlq/groups").json()[0]["group"].as_str().unwrap().to_owned();
    let discarded = ask(&sink, "olga", "POST", &format!("/dlq/groups/{group}/discard?reason=done"), &[]).json();
    assert_eq!(discarded["discarded"], 1);
    let states: String =
        sink.value("SELECT group_concat(tenant_id || ' ' || state, ', ' ORDER BY tenant_id) FROM event_dlq");
    assert_eq!(states, "acme discarded, globex open");
    assert_eq!(sink.events(), 4);
}

#[test]
fn jobs_keys_and_the_audit_are_the_tenants_own() {
    let (_broker, sink) = sink_with_users("");
    let make = |name: &str, ids: Value| {
        let body = ids.to_string();
        let arguments = ["-H", "Idempotency-Key: monday", "-d", &body];
        ask(&sink, name, "POST", "/replay/batch?wait=30", &arguments)
    };
    let job = |answer: Answer| answer.json()["job_id"].as_i64().unwrap();
    let (acmes, globexs) = (job(make("olga", json!([1]))), job(make("gus", json!([2]))));
    assert_ne!(acmes, globexs, "the same key of two tenants is not the same request");
    assert_eq!(job(make("olga", json!([1]))), acmes);
    eventually("both ended", || {
        get(&sink, "vera", "/replay/jobs?state=finished").json().as_array().unwrap().len() == 2
    });
    assert_eq!(ids(&get(&sink, "vic", "/replay/jobs").json(), "job_id"), [acmes]);
    for path in ["", "/items"] {
        assert_eq!(get(&sink, "vic", &format!("/replay/jobs/{acmes}{path}")).status, 200);
        assert_eq!(get(&sink, "vic", &format!("/replay/jobs/{globexs}{path}")).status, 404);
    }
    for verb in ["pause", "resume", "cancel", "retry-failed", "rate?rate_per_s=5"] {
        let refused = ask(&sink, "olga", "POST", &format!("/replay/jobs/{globexs}/{verb}"), &[]);
        assert_eq!(refused.status, 404, "{verb}: {}", refused.body);
    }
    // What an operator of the whole box does to one tenant's, that tenant's people see; other tenants' they do not.
    assert_eq!(ask(&sink, "otto", "POST", "/replay/3", &[]).status, 200);
    assert_eq!(ask(&sink, "otto", "POST", "/replay/4", &[]).status, 200);
    let audit = get(&sink, "vic", "/audit?limit=100").json();
    let all = audit.to_string();
    assert!(all.contains("event 3 to") && all.contains(&format!("job {acmes}")), "{all}");
    assert!(!all.contains("event 4 to") && !all.contains("gus") && !all.contains(&format!("job {globexs}:")), "{all}");
}

#[test]
fn a_job_that_may_not_be_seen_is_not_named() {
    let (_broker, sink) = sink_with_users("");
    let slow = post(&sink, "otto", "/replay/batch?rate_per_s=1", &json!([1, 2, 3, 4]));
    assert_eq!(slow.status, 202, "{}", slow.body);
    let refused = post(&sink, "olga", "/replay/batch", &json!([3]));
    let detail = refused.detail();
    assert_eq!((refused.status, detail.contains("somebody else's job")), (409, true), "{detail}");
    assert_eq!(refused.json()["job_id"], Value::Null);
    assert_eq!(get(&sink, "vic", "/replay/jobs").body, "[]");
}
