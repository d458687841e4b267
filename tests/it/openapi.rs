//! The API's description: valid, true of the running sink, and readable.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::access::{LEADS, ask, sink_with_users};
use crate::harness::{Answer, Embedded, PROGRAM, Record, Sender, Setup, Sink, curl, eventually};

/// Of schemathesis; another one finds other things.
const SEED: &str = "20251103";

/// Where `tests/tools.sh python` put schemathesis and the validator of OpenAPI documents.
fn tool(name: &str) -> PathBuf {
    Path::new(PROGRAM).ancestors().nth(2).unwrap().join("tools/python/bin").join(name)
}

/// A sink with events, dead letters and jobs in it.
fn busy_sink(toml: &str) -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 2), ("apexflow.leads.repaired", 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let toml = format!("replay.to_topics = [\"apexflow.leads.repaired\"]\n{toml}");
    let sink = Setup::with(&broker.bootstrap()).toml(&toml).start();
    for number in 1..=30 {
        sender.queue_event(LEADS, if number % 2 == 1 { "acme" } else { "globex" }, number);
        sender.queue(&Record {
            topic: LEADS,
            value: Some(format!("no json {number}").as_bytes()),
            ..Record::default()
        });
    }
    sender.flush();
    sink.await_events(30);
    eventually("the dead letters are there", || sink.dead_letters() == 30);
    (broker, sink)
}

fn url(sink: &Sink, path: &str) -> String {
    format!("http://{}{path}", sink.api)
}

fn document(sink: &Sink) -> Value {
    sink.get("/openapi.json").json()
}

/// Every operation of the document: path, method, and what is said of it.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, said)| (path.as_str(), method.as_str(), said))
    });
    all.collect()
}

#[test]
fn the_description_is_valid_and_says_of_every_route_what_it_answers() {
    let (_broker, sink) = busy_sink("");
    let file = sink.folder.path().join("openapi.json");
    std::fs::write(&file, sink.get("/openapi.json").body).unwrap();
    let checked = Command::new(tool("openapi-spec-validator")).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let document = document(&sink);
    assert!(operations(&document).len() >= 27);
    for (path, method, said) in operations(&document) {
        let responses = said["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path} has no answer: add .gives");
        for status in ["422", "500", "503"] {
            assert!(responses.contains_key(status), "{method} {path} {status}");
        }
        assert!(["everybody", "viewer", "operator", "admin"].contains(&said["x-role"].as_str().unwrap()));
        assert!(["tenants", "box"].contains(&said["x-reach"].as_str().unwrap()));
    }
}

/// Requests that the description calls valid and some that it does not, against the running sink; all checks.
fn schemathesis(sink: &Sink, more: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let mut run = Command::new(tool("schemathesis"));
    run.arg("run").arg(url(sink, "/openapi.json")).args(["--checks", "all", "--seed", SEED, "--no-color"]);
    // Answers that wait for Kafka take a second; the rest of the time is the machine's.
    run.args(["--max-examples", "15", "--request-timeout", "30", "--warnings", "off"]).args(more);
    run.env("PYTHONPATH", root).env("SCHEMATHESIS_HOOKS", "hooks").current_dir(sink.folder.path());
    let ran = run.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    println!("seed {SEED}\n{said}");
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("Test cases:"), "{said}");
}

#[test]
fn the_sink_answers_as_its_description_says() {
    let (_broker, sink) = busy_sink("");
    schemathesis(&sink, &[]);
    assert_eq!(sink.get("/health").status, 200);
}

#[test]
fn the_sink_answers_as_its_description_says_to_those_who_log_in() {
    let (_broker, sink) = sink_with_users("api.auth.failures_per_minute = 1000\n");
    schemathesis(&sink, &["--auth", "ada:password of ada"]);
    let document = document(&sink);
    assert_eq!(document["components"]["securitySchemes"]["basic"]["scheme"], "basic");
    assert_eq!(document["security"], serde_json::json!([{"basic": []}]));
}

#[test]
fn the_page_shows_every_route_and_loads_nothing() {
    let (_broker, sink) = busy_sink("");
    let page = sink.get("/docs");
    assert!(page.head.contains("Content-Security-Policy: default-src 'none'; style-src 'sha256-"), "{}", page.head);
    assert!(
        page.head.contains("X-Content-Type-Options: nosniff\r\n") && page.head.contains("Referrer-Policy: no-referrer")
    );
    for loads in ["<script", "<img", "<link", "<iframe", "@import", "url(", " src=", " style=", "href=\"http"] {
        assert!(!page.body.contains(loads), "the page has {loads}");
    }
    let document = document(&sink);
    for (path, method, said) in operations(&document) {
        let name = format!("<b class=\"{method}\">{}</b> <code>{path}</code>", method.to_uppercase());
        assert!(page.body.contains(&name), "{name}");
        let section = page.body.split(&format!("<section id={}>", said["operationId"])).nth(1).unwrap();
        let section = section.split("</section>").next().unwrap();
        for parameter in said["parameters"].as_array().unwrap() {
            let name = format!("<dt><code>{}</code>", parameter["name"].as_str().unwrap());
            assert!(section.contains(&name), "{method} {path} lacks {name}");
        }
    }
}

#[test]
fn the_pages_examples_work_when_they_are_pasted() {
    let (_broker, sink) = busy_sink("");
    let page = sink.get("/docs").body;
    let examples: Vec<&str> =
        page.split("<pre class=\"curl\">").skip(1).map(|rest| rest.split("</pre>").next().unwrap()).collect();
    assert!(examples.len() >= 27);
    for example in examples {
        let unescaped = example.replace("&#39;", "'").replace("&quot;", "\"").replace("&amp;", "&");
        let command = unescaped.replacen("curl ", "curl -s -o /dev/null -w '%{http_code}' --max-time 30 ", 1);
        let ran = Command::new("bash").args(["-c", &command]).output().unwrap();
        let status = String::from_utf8(ran.stdout).unwrap();
        // 404 and 409: of a job or a group that is not there, or not in that state, in this sink.
        assert!(["200", "202", "404", "409"].contains(&status.as_str()), "{unescaped}: {status}");
    }
}

fn with(sink: &Sink, path: &str, headers: &[&str]) -> Answer {
    let url = url(sink, path);
    let headers = headers.iter().flat_map(|header| ["-H", header]);
    curl(&headers.chain([url.as_str()]).collect::<Vec<_>>())
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn who_has_an_answer_already_gets_it_not_again() {
    let (_broker, sink) = busy_sink("");
    for path in ["/events/1", "/openapi.json", "/docs", "/events/latest"] {
        let first = sink.get(path);
        let tag = header(&first, "ETag").unwrap_or_else(|| panic!("{path}: {}", first.head)).to_owned();
        let again = with(&sink, path, &[&format!("If-None-Match: \"other\", {tag}")]);
        assert_eq!(
            (again.status, again.body.as_str(), header(&again, "ETag")),
            (304, "", Some(tag.as_str())),
            "{path}"
        );
        assert_eq!(header(&again, "Content-Length"), None, "of what the client has it would be wrong");
        assert_eq!(with(&sink, path, &["If-None-Match: W/\"other\""]).status, 200);
    }
    let before = header(&sink.get("/events/1"), "ETag").unwrap().to_owned();
    assert_eq!(sink.post("/replay/1").status, 200);
    eventually("the replay is in the event's answer", || {
        with(&sink, "/events/1", &[&format!("If-None-Match: {before}")]).status == 200
    });
    assert_eq!(header(&sink.get("/events/1"), "Cache-Control"), Some("private, no-cache"));
    assert_eq!(header(&sink.get("/events/99"), "Cache-Control"), Some("no-store"));
}

#[test]
fn long_answers_come_in_gzip_to_those_who_take_it() {
    let (_broker, sink) = busy_sink("");
    let path = "/events/latest?limit=30";
    let plain = sink.get(path);
    assert_eq!((header(&plain, "Content-Encoding"), header(&plain, "Vary")), (None, Some("Accept-Encoding")));
    let address = url(&sink, path);
    let gzip = curl(&["--compressed", &address]);
    assert_eq!((header(&gzip, "Content-Encoding"), &gzip.body), (Some("gzip"), &plain.body));
    let length: usize = header(&gzip, "Content-Length").unwrap().parse().unwrap();
    assert!(length < plain.body.len() / 2, "{length} of {}", plain.body.len());
    let head = curl(&["--head", "-H", "Accept-Encoding: gzip", &address]);
    assert_eq!(header(&head, "Content-Length"), header(&gzip, "Content-Length"), "HEAD has the head of GET");
    assert_eq!(header(&with(&sink, path, &["Accept-Encoding: gzip;q=0, *"]), "Content-Encoding"), None);
    assert_eq!(header(&with(&sink, "/health", &["Accept-Encoding: gzip"]), "Content-Encoding"), None, "it is short");
}

#[test]
fn what_has_a_path_of_its_own_is_no_row_number() {
    let (_broker, sink) = sink_with_users("");
    let wrong = ask(&sink, "ada", "GET", "/dlq/retry", &[]);
    assert_eq!((wrong.status, header(&wrong, "Allow")), (405, Some("POST")));
    wrong.detail();
}
