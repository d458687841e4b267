//! Who is let in, and what from: passwords, pages from elsewhere, too many at once, an API that others can reach.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Answer, Embedded, Record, Sender, Setup, Sink, curl, eventually, program};

pub const LEADS: &str = "apexflow.leads.created";

/// `crm-events-sink user add`, as a script runs it.
pub fn add_user(file: &Path, name: &str, role: &str, tenant: Option<&str>, password: &str) {
    let mut add = program();
    add.args(["user", "add", name, "--role", role, "--file"]).arg(file);
    if let Some(tenant) = tenant {
        add.args(["--tenant", tenant]);
    }
    let mut child = add.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    assert!(child.wait().unwrap().success());
}

/// The users of [`sink_with_users`] are in this file.
fn users_file(sink: &Sink) -> PathBuf {
    let config = fs::read_to_string(sink.folder.path().join("config.toml")).unwrap();
    let line = config.lines().find(|line| line.starts_with("api.auth.users_file")).unwrap();
    line.split('"').nth(1).unwrap().into()
}

/// A sink with events of two tenants and a dead letter of each, that knows people by a file of users.
pub fn sink_with_users(more: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let folder = tempfile::tempdir().unwrap().keep();
    let users = folder.join("users");
    for (name, role, tenant) in [
        ("vera", "viewer", None),
        ("otto", "operator", None),
        ("ada", "admin", None),
        ("vic", "viewer", Some("acme")),
        ("olga", "operator", Some("acme")),
        ("alan", "admin", Some("acme")),
        ("gus", "operator", Some("globex")),
    ] {
        add_user(&users, name, role, tenant, &format!("password of {name}"));
    }
    let toml = format!("api.auth.users_file = {users:?}\n{more}");
    let sink = Setup::with(&broker.bootstrap()).toml(&toml).start();
    for number in 1..=4 {
        sender.queue_event(LEADS, if number % 2 == 1 { "acme" } else { "globex" }, number);
    }
    for tenant in ["acme", "globex"] {
        let key = format!("{tenant}:lead:9");
        let letter = Record { topic: LEADS, key: Some(key.as_bytes()), value: Some(b"no json"), ..Record::default() };
        sender.queue(&letter);
    }
    sender.flush();
    sink.await_events(4);
    eventually("the dead letters are there", || sink.dead_letters() == 2);
    (broker, sink)
}

/// Asks as somebody.
pub fn ask(sink: &Sink, name: &str, method: &str, path: &str, more: &[&str]) -> Answer {
    let user = format!("{name}:password of {name}");
    let url = format!("http://{}{path}", sink.api);
    let mut arguments = vec!["-X", method, "-u", &user, "--path-as-is"];
    arguments.extend(more);
    arguments.push(&url);
    curl(&arguments)
}

#[test]
fn who_does_not_say_who_it_is_or_lies_gets_nothing() {
    let (_broker, sink) = sink_with_users("");
    for path in ["/events/latest", "/events/1", "/dlq", "/audit", "/integrity", "/replay/jobs"] {
        let refused = sink.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("WWW-Authenticate: Basic realm="), "{}", refused.head);
    }
    assert_eq!(sink.post("/replay/1").status, 401);
    let url = format!("http://{}/events/1", sink.api);
    for wrong in ["vera:password of otto", "nobody:password of vera", "vera:", ":", "vera:password of vera "] {
        let refused = curl(&["-u", wrong, &url]);
        assert_eq!(refused.status, 401, "{wrong}");
        assert!(refused.detail().contains("no such user, or another password"), "{}", refused.body);
    }
    for header in ["Basic", "Basic !!!", "Basic dmVyYQ==", "Bearer x", "Digest a=b", ""] {
        assert_eq!(curl(&["-H", &format!("Authorization: {header}"), &url]).status, 401, "{header}");
    }
    assert_eq!(ask(&sink, "vera", "GET", "/events/1", &[]).status, 200);
    // Whether it works is for everybody; why not is not.
    assert_eq!(sink.get("/health").status, 200);
    assert_eq!(sink.events(), 4);
}

#[test]
fn a_role_may_what_it_is_for_and_the_audit_knows_the_name() {
    let (_broker, sink) = sink_with_users("");
    let refused = ask(&sink, "vera", "POST", "/replay/1", &["-H", "X-Operator: otto"]);
    assert_eq!((refused.status, refused.detail().contains("for the role operator")), (403, true), "{}", refused.body);
    assert_eq!(ask(&sink, "otto", "POST", "/replay/1?reason=lost", &["-H", "X-Operator: vera"]).status, 200);
    let audit = ask(&sink, "vera", "GET", "/audit", &[]).json();
    let named = |row: &serde_json::Value| format!("{} {}", row["operator"].as_str().unwrap(), row["outcome"]);
    let rows: Vec<String> = audit.as_array().unwrap().iter().map(named).collect();
    assert_eq!(rows, ["otto \"done\"", "otto \"started\"", "vera \"refused\""]);
}

#[test]
fn wrong_passwords_have_to_wait_and_right_ones_go_on() {
    let (_broker, sink) = sink_with_users("api.auth.failures_per_minute = 4\n");
    assert_eq!(ask(&sink, "vera", "GET", "/events/1", &[]).status, 200);
    let url = format!("http://{}/events/1", sink.api);
    let statuses: Vec<u16> = (0..6).map(|_| curl(&["-u", "vera:a guess of hers", &url]).status).collect();
    assert_eq!(statuses, [401, 401, 401, 429, 429, 429]);
    let blocked = curl(&["-u", "vera:password of vera?", &url]);
    assert!(blocked.head.contains("Retry-After: "), "{}", blocked.head);
    assert_eq!(ask(&sink, "vera", "GET", "/events/1", &[]).status, 200, "it was right before");
    assert_eq!(ask(&sink, "otto", "GET", "/events/1", &[]).status, 200, "another name is not held up");
}

#[test]
fn too_many_replays_in_a_minute_have_to_wait() {
    let (_broker, sink) = sink_with_users("api.replays_per_minute = 3\n");
    let replay = |name| ask(&sink, name, "POST", "/replay/1", &[]);
    let statuses: Vec<u16> = (0..5).map(|_| replay("otto").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert!(replay("otto").head.contains("Retry-After: "));
    assert_eq!(replay("ada").status, 200, "everybody has a limit of their own");
    sink.await_events(8);
    let refused: i64 = sink.value("SELECT count(*) FROM audit WHERE outcome = 'refused'");
    assert_eq!(refused, 0, "they would fill the audit");
}

#[test]
fn a_page_from_elsewhere_can_neither_act_nor_read() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).toml("api.hosts = [\"branch-17.example.com\"]\n").start();
    sender.event(LEADS, "acme", 1);
    sink.await_events(1);
    let url = format!("http://{}/replay/1", sink.api);
    let port = sink.api.rsplit(':').next().unwrap();
    for foreign in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1",
        "Origin: http://localhost:1",
        "Sec-Fetch-Site: cross-site",
    ] {
        let refused = curl(&["-X", "POST", "-H", foreign, &url]);
        assert_eq!((refused.status, refused.detail().contains("nothing was done")), (403, true), "{foreign}");
    }
    for host in ["evil.example", "evil.example:9106", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
        for path in ["/events/1", "/health"] {
            let refused = curl(&["-H", &format!("Host: {host}"), &format!("http://{}{path}", sink.api)]);
            assert!([400, 421].contains(&refused.status), "{host}{path}: {}", refused.status);
        }
    }
    assert_eq!(sink.events(), 1);
    for host in ["localhost", &format!("127.0.0.1:{port}"), "[::1]:9106", "Branch-17.example.com:80", "LOCALHOST:1"] {
        let own = curl(&["-H", &format!("Host: {host}"), &format!("http://{}/events/1", sink.api)]);
        assert_eq!(own.status, 200, "{host}: {}", own.body);
    }
    let own = format!("Origin: http://{}", sink.api);
    assert_eq!(curl(&["-X", "POST", "-H", &own, "-H", "Sec-Fetch-Site: same-origin", &url]).status, 200);
    sink.await_events(2);
}

#[test]
fn an_api_that_others_can_reach_needs_auth_or_a_word() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let start = |toml: &str| {
        let setup = Setup::with(&broker.bootstrap());
        let mut command = setup.command();
        let config = command.get_args().last().unwrap().to_owned();
        let text = fs::read_to_string(&config).unwrap();
        let open = text.replace("api.listen = \"127.0.0.1:0\"", "api.listen = \"0.0.0.0:0\"");
        fs::write(&config, format!("{toml}\n{open}")).unwrap();
        let mut check = program();
        let checked = check.arg("check-config").arg("--config").arg(&config).output().unwrap();
        (checked.status.code(), String::from_utf8(checked.stderr).unwrap(), command.arg("--help").get_args().count())
    };
    let (code, said, _) = start("");
    assert_eq!(code, Some(78));
    assert!(said.contains("api.listen") && said.contains("api.allow_unauthenticated = true"), "{said}");
    let users = tempfile::tempdir().unwrap();
    let file = users.path().join("users");
    add_user(&file, "ada", "admin", None, "password of ada");
    assert_eq!(start(&format!("api.auth.users_file = {file:?}")).0, Some(0));
    assert_eq!(start("api.allow_unauthenticated = true").0, Some(0));
    let (code, said, _) = start("metrics.auth = true\napi.allow_unauthenticated = true");
    assert_eq!((code, said.contains("metrics.auth")), (Some(78), true), "{said}");
}

#[test]
fn a_start_with_users_that_cannot_be_read_says_why() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    let refused = || {
        let setup = Setup::with(&broker.bootstrap()).toml(&format!("api.auth.users_file = {file:?}"));
        let ended = setup.command().output().unwrap();
        assert_eq!(ended.status.code(), Some(78));
        String::from_utf8(ended.stderr).unwrap()
    };
    assert!(refused().contains("crm-events-sink user add"));
    add_user(&file, "ada", "admin", None, "password of ada");
    Command::new("chmod").arg("0644").arg(&file).status().unwrap();
    assert!(refused().contains("chmod 0640"));
}

#[test]
fn what_is_secret_is_in_no_log_and_no_answer() {
    let (_broker, sink) = sink_with_users("log.level = \"trace\"\n");
    assert_eq!(ask(&sink, "ada", "POST", "/replay/1", &[]).status, 200);
    let wrong = curl(&["-u", "ada:Geheimnis-9471", &format!("http://{}/events/1", sink.api)]);
    let token = curl(&["-H", "Authorization: Bearer Geheimnis-9471", &format!("http://{}/events/1", sink.api)]);
    let config = sink.folder.path().join("config.toml");
    let shown = program().arg("check-config").arg("--config").arg(config).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for (place, text) in [("log", sink.log()), ("wrong", wrong.body), ("token", token.body), ("check-config", shown)] {
        for secret in ["Geheimnis", "password of", "argon2id", "R2VoZWltbmlz", "cGFzc3dvcmQg"] {
            assert!(!text.contains(secret), "{secret} in {place}");
        }
    }
}

#[test]
fn a_path_is_taken_as_it_is_and_no_header_can_be_put_in() {
    let (_broker, sink) = sink_with_users("");
    for path in [
        "/events/../health",
        "/events/%2e%2e/health",
        "//health",
        "/health/",
        "/./health",
        "/events/1%00",
        "/dlq/1/../1",
    ] {
        let missing = ask(&sink, "ada", "GET", path, &[]);
        assert!([400, 404, 422].contains(&missing.status), "{path}: {} {}", missing.status, missing.body);
    }
    for path in
        ["/audit?action=a%0d%0aX-Put-In:%201&limit=1", "/dlq?topic=%0d%0aX-Put-In:%201&limit=1", "/%0d%0aX-Put-In:%201"]
    {
        let answer = ask(&sink, "ada", "GET", path, &[]);
        assert!(!answer.head.to_lowercase().contains("\nx-put-in"), "{path}: {}", answer.head);
    }
    for value in ["' OR 1=1 --", "1; DROP TABLE audit", "\" OR \"\"=\""] {
        let encoded = format!("action={value}");
        let found = ask(&sink, "ada", "GET", "/audit", &["-G", "--data-urlencode", &encoded]);
        assert_eq!((found.status, found.body.as_str()), (200, "[]"), "{value}");
    }
    assert_eq!(ask(&sink, "ada", "GET", "/events/1%20OR%201=1", &[]).status, 422);
    assert_eq!(sink.events(), 4);
}

#[test]
fn the_shells_verbs_log_in_by_the_environment() {
    let (_broker, sink) = sink_with_users("");
    let events = |variables: &[(&str, &str)]| {
        let mut verb = program();
        verb.args(["events", "latest", "--json", "--api", &format!("http://{}", sink.api)]);
        let done = verb.envs(variables.iter().copied()).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = events(&[]);
    assert_eq!((code, said.contains("needs credentials")), (Some(1), true), "{said}");
    let vic = [("CRM_EVENTS_SINK_USER", "vic"), ("CRM_EVENTS_SINK_PASSWORD", "password of vic")];
    let (code, said) = events(&vic);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("acme") && !said.contains("globex"), "{said}");
    assert_eq!(events(&[("CRM_EVENTS_SINK_TOKEN", "x.y.z")]).0, Some(1));
}

#[test]
fn prometheus_says_who_it_is_where_that_is_set() {
    let (_broker, sink) = sink_with_users("metrics.auth = true\n");
    let url = format!("http://{}/metrics", sink.metrics);
    assert_eq!(curl(&[&url]).status, 401);
    let all = curl(&["-u", "vera:password of vera", &url]);
    assert!(all.body.contains("tenant_id=\"globex\"") && all.body.contains("crm_events_build_info"), "{}", all.body);
    let acme = curl(&["-u", "vic:password of vic", &url]).body;
    assert!(acme.contains("tenant_id=\"acme\""), "{acme}");
    assert!(!acme.contains("globex") && !acme.contains("crm_events_build_info"), "{acme}");
}

#[test]
fn users_are_read_again_on_sighup_and_wrong_ones_are_not() {
    let (_broker, sink) = sink_with_users("");
    let file = users_file(&sink);
    let status = |name: &str| ask(&sink, name, "GET", "/events/1", &[]).status;
    assert_eq!((status("vera"), status("nina")), (200, 401));
    add_user(&file, "nina", "viewer", None, "password of nina");
    let removed = program().args(["user", "remove", "vera", "--file"]).arg(&file).output().unwrap();
    assert!(removed.status.success());
    assert_eq!((status("vera"), status("nina")), (200, 401), "nobody said that it is to be read");
    sink.signal("HUP");
    eventually("nina is let in", || status("nina") == 200);
    assert_eq!(status("vera"), 401, "a password that was right is forgotten");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{before}\nnonsense\n")).unwrap();
    sink.signal("HUP");
    eventually("the log says so", || sink.log().contains("the old stays in force"));
    assert_eq!(status("nina"), 200);
}

#[test]
fn why_the_box_is_not_well_is_for_those_who_may_see_it() {
    let (broker, sink) = sink_with_users("dlq.max_consecutive = 3\n");
    let sender = Sender::to(&broker.bootstrap());
    for _ in 0..4 {
        sender.send(&Record { topic: LEADS, value: Some(b"no json"), ..Record::default() });
    }
    eventually("it is halted", || sink.get("/health").status == 503);
    assert_eq!(sink.get("/health").json()["reasons"], serde_json::json!(["those who may see the whole box see why"]));
    assert_eq!(
        ask(&sink, "vic", "GET", "/health", &[]).json()["reasons"][0],
        "those who may see the whole box see why"
    );
    let said = ask(&sink, "vera", "GET", "/health", &[]).body;
    assert!(said.contains("poisoned") && said.contains(LEADS), "{said}");
}

#[test]
fn passwords_in_the_clear_are_warned_of() {
    let (_broker, sink) = sink_with_users("");
    assert!(!sink.log().contains("in the clear"), "nobody else hears what is said on loopback");
    let users = users_file(&sink);
    let toml = format!("api.auth.users_file = {users:?}\n");
    let open = Setup::with("127.0.0.1:1").toml(&toml).start_with(|command| {
        command.args(["--api-listen", "0.0.0.0:0"]);
    });
    assert!(open.log().contains("passwords and tokens travel in the clear"), "{}", open.log());
}
