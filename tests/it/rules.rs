//! Every role, with every tenant and with one, at every route that the API describes: a route without a rule fails here.

use serde_json::Value;

use crate::access::{LEADS, ask, sink_with_users};
use crate::harness::{Answer, Embedded, Record, Sender, Sink, eventually};

/// Each role's people: of the whole box, and of the tenant `acme`.
const PEOPLE: [(&str, &str, &str); 3] =
    [("viewer", "vera", "vic"), ("operator", "otto", "olga"), ("admin", "ada", "alan")];

/// What stands at a path's `{…}`: something of the tenant `acme`, and something of `globex`.
struct Rows {
    letters: (i64, i64),
    jobs: (i64, i64),
    groups: (String, String),
}

impl Rows {
    fn make(broker: &Embedded, sink: &Sink) -> Rows {
        let sender = Sender::to(&broker.bootstrap());
        let key = Some(&b"globex:lead:10"[..]);
        sender.send(&Record { topic: LEADS, key, value: Some(b"[1]"), ..Record::default() });
        eventually("the dead letter is there", || sink.dead_letters() == 3);
        let job = |name, body| {
            let made = ask(sink, name, "POST", "/replay/batch?wait=30", &["-d", body]);
            made.json()["job_id"].as_i64().unwrap_or_else(|| panic!("{}", made.body))
        };
        let group = |name, reason: &str| {
            let groups = ask(sink, name, "GET", "/dlq/groups", &[]).json();
            let of_reason = groups.as_array().unwrap().iter().find(|group| group["reason"] == reason);
            of_reason.unwrap()["group"].as_str().unwrap().to_owned()
        };
        let letter = |tenant: &str| sink.value(&format!("SELECT min(id) FROM event_dlq WHERE tenant_id = '{tenant}'"));
        Rows {
            letters: (letter("acme"), letter("globex")),
            jobs: (job("olga", "[1]"), job("gus", "[2]")),
            groups: (group("olga", "not_json"), group("gus", "not_an_object")),
        }
    }

    /// The path with a row of `acme`'s, and with one of `globex`'s where the path names a row.
    fn placed(&self, path: &str) -> (String, Option<String>) {
        let Some((before, rest)) = path.split_once('{') else { return (path.to_owned(), None) };
        let (name, after) = rest.split_once('}').unwrap();
        let numbers = |(own, foreign): (i64, i64)| (own.to_string(), foreign.to_string());
        let (own, foreign) = match (before, name) {
            ("/events/", "id") | ("/replay/", "id") => ("1".to_owned(), "2".to_owned()),
            ("/dlq/", "id") => numbers(self.letters),
            ("/replay/jobs/", "id") => numbers(self.jobs),
            ("/dlq/groups/", "group") => self.groups.clone(),
            ("/tenants/", "tenant_id") => ("acme".to_owned(), "globex".to_owned()),
            _ => panic!("{path}: whose rows are these? Say it here, and test that tenants are kept apart"),
        };
        (format!("{before}{own}{after}"), Some(format!("{before}{foreign}{after}")))
    }
}

/// One operation, as it is described.
struct Operation<'a> {
    method: String,
    path: &'a str,
    role: &'a str,
    reach: &'a str,
    query: String,
    body: Option<String>,
}

impl Operation<'_> {
    fn read<'a>(path: &'a str, method: &str, described: &'a Value) -> Operation<'a> {
        let needed = described["parameters"].as_array().unwrap().iter();
        let needed = needed.filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut query = form_urlencoded::Serializer::new(String::new());
        for parameter in needed {
            query.append_pair(parameter["name"].as_str().unwrap(), &text(&parameter["example"]));
        }
        let contents = described["requestBody"]["content"].as_object();
        let example =
            contents.and_then(|contents| contents.values().next()).map(|content| content["example"].to_string());
        Operation {
            method: method.to_uppercase(),
            path,
            role: described["x-role"].as_str().unwrap_or_else(|| panic!("{method} {path} has no rule")),
            reach: described["x-reach"].as_str().unwrap_or_else(|| panic!("{method} {path} has no reach")),
            query: query.finish(),
            body: example,
        }
    }

    fn ask(&self, sink: &Sink, name: &str, path: &str) -> Answer {
        let mut arguments = vec!["-H", "Content-Type: application/json"];
        if let Some(body) = &self.body {
            arguments.extend(["-d", body]);
        }
        ask(sink, name, &self.method, &format!("{path}?{}", self.query), &arguments)
    }

    fn rank(role: &str) -> usize {
        ["everybody", "viewer", "operator", "admin"].iter().position(|known| *known == role).unwrap()
    }

    fn hold(&self, sink: &Sink, rows: &Rows) {
        let (own, foreign) = rows.placed(self.path);
        let (needs, what) = (Operation::rank(self.role), format!("{} {}", self.method, self.path));
        let nobody = ask(sink, "nobody", &self.method, &format!("{own}?{}", self.query), &[]).status;
        assert_eq!(nobody, 401, "{what}: wrong credentials are always");
        let silent =
            crate::harness::curl(&["-X", &self.method, &format!("http://{}{own}?{}", sink.api, self.query)]).status;
        assert_eq!(silent == 401, needs > 0, "{what} without credentials: {silent}");
        for (role, whole, one) in PEOPLE {
            let may = Operation::rank(role) >= needs;
            let status = self.ask(sink, whole, &own).status;
            assert_eq!(status == 403, !may, "{what} as {role}: {status}");
            let answer = self.ask(sink, one, &own);
            if self.reach == "box" {
                assert_eq!(answer.status, 403, "{what} as {role} of one tenant");
                continue;
            }
            assert_eq!(answer.status == 403, !may, "{what} as {role} of one tenant: {}", answer.body);
            let shows = answer.body.contains("globex") && self.role != "everybody";
            assert!(!shows, "{what} shows another tenant's: {}", answer.body);
            if let Some(foreign) = foreign.as_ref().filter(|_| may) {
                let theirs = self.ask(sink, one, foreign);
                assert_eq!(theirs.status, 404, "{what} of another tenant as {role}: {}", theirs.body);
            }
        }
    }
}

#[test]
fn every_route_has_its_role_and_keeps_tenants_apart() {
    let (broker, sink) = sink_with_users("api.auth.failures_per_minute = 1000\n");
    let rows = Rows::make(&broker, &sink);
    let described = ask(&sink, "vera", "GET", "/openapi.json", &[]).json();
    let mut operations = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            Operation::read(path, method, operation).hold(&sink, &rows);
            operations += 1;
        }
    }
    assert!(operations > 30, "only {operations}");
    let touched: i64 = sink
        .value("SELECT count(*) FROM event_dlq WHERE reason = 'not_an_object' AND (state <> 'open' OR attempts > 0)");
    assert_eq!(touched, 0, "it is globex's, and only acme's people had to do with its group");
}
