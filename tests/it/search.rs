//! Finding events: what each condition means, and that no page doubles or skips one, whatever happens between pages.

use serde_json::{Value, json};

use crate::access::{ask, sink_with_users};
use crate::harness::{Answer, Embedded, Record, Sender, Setup, Sink, curl, eventually, program};

const LEADS: &str = "apexflow.leads.created";
const CHANGED: &str = "apexflow.leads.status_changed";
const JOBS: &str = "apexflow.jobs.created";

/// Asks with conditions, which are encoded.
fn find(sink: &Sink, conditions: &[(&str, &str)]) -> Answer {
    let pairs: Vec<String> = conditions.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let url = format!("http://{}/events", sink.api);
    let mut arguments = vec!["-G", &url];
    for pair in &pairs {
        arguments.extend(["--data-urlencode", pair]);
    }
    curl(&arguments)
}

fn ids(answer: &Value) -> Vec<i64> {
    answer["events"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"))
        .iter()
        .map(|e| e["id"].as_i64().unwrap())
        .collect()
}

#[track_caller]
fn found(sink: &Sink, conditions: &[(&str, &str)]) -> Vec<i64> {
    ids(&find(sink, conditions).json())
}

/// Seven events, of which the first six came by Kafka and the last is a replay of the second.
fn sink_with_history() -> (Embedded, Sink) {
    let broker = Embedded::start(&[(LEADS, 1), (CHANGED, 1), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    for (number, (topic, key, value)) in [
        (LEADS, Some("acme:lead:17"), r#"{"tenant_id":"acme","event_type":"lead.created","status":"new","name":"Ünal 50% O'Neil"}"#),
        (CHANGED, Some("acme:lead:17"), r#"{"tenant_id":"acme","event_type":"lead.status_changed","status":"qualified","score":1.10,"by":{"name":"eva"}}"#),
        (JOBS, Some("acme:job:4"), r#"{"tenant_id":"acme","event_type":"job.created","status":null,"open":true,"tags":["a","b"]}"#),
        (LEADS, Some("globex:lead:17"), r#"{"tenant_id":"globex","event_type":"lead.created","status":"new","note":"GRAZ_west"}"#),
        (LEADS, None, r#"{"tenant_id":"globex","event_type":"lead.created","id":5}"#),
        (CHANGED, Some("acme:lead:17"), r#"{"tenant_id":"globex","event_type":"lead.status_changed","score":"1.10"}"#),
    ]
    .into_iter()
    .enumerate()
    {
        sender.send(&Record { topic, key: key.map(str::as_bytes), value: Some(value.as_bytes()), ..Record::default() });
        sink.await_events(number as i64 + 1);
    }
    assert_eq!(sink.post("/replay/2").status, 200);
    sink.await_events(7);
    (broker, sink)
}

#[test]
fn each_condition_means_what_it_says() {
    let (_broker, sink) = sink_with_history();
    let second: String = sink.value("SELECT received_at FROM event_journal WHERE id = 2");
    let fifth: String = sink.value("SELECT received_at FROM event_journal WHERE id = 5");
    for (conditions, expected) in [
        (&[][..], &[7, 6, 5, 4, 3, 2, 1][..]),
        (&[("order", "asc"), ("limit", "3")], &[1, 2, 3]),
        (&[("tenant_id", "globex")], &[6, 5, 4]),
        (&[("topic", LEADS)], &[5, 4, 1]),
        (&[("topic", "leads")], &[7, 6, 5, 4, 2, 1]),
        (&[("topic", "leads.created")], &[5, 4, 1]),
        (&[("topic", "apexflow.leads.*")], &[7, 6, 5, 4, 2, 1]),
        (&[("topic", "apexflow.*.created")], &[5, 4, 3, 1]),
        (&[("topic", "lead")], &[]),
        (&[("event_type", "lead.created")], &[5, 4, 1]),
        (&[("key", "acme:lead:17")], &[7, 6, 2, 1]),
        (&[("key", "acme:lead:17"), ("tenant_id", "acme")], &[7, 2, 1]),
        (&[("since", &second)], &[7, 6, 5, 4, 3, 2]),
        (&[("since", &second), ("until", &fifth)], &[4, 3, 2]),
        (&[("since", &second), ("until", &fifth), ("key", "acme:lead:17")], &[2]),
        (&[("since", &second), ("until", &fifth), ("tenant_id", "acme"), ("order", "asc")], &[2, 3]),
        (&[("since", "2100-01-01")], &[]),
        (&[("until", "2100-01-01"), ("topic", "jobs")], &[3]),
        (&[("q", "graz_W")], &[4]),
        (&[("q", "Ünal")], &[1]),
        (&[("q", "50%")], &[1]),
        (&[("q", "5%%")], &[]),
        (&[("q", "O'Neil")], &[1]),
        (&[("where", "payload.status:qualified")], &[7, 2]),
        (&[("where", "payload.status:new"), ("where", "payload.tenant_id:globex")], &[4]),
        (&[("where", "payload.by.name:eva"), ("replays", "none")], &[2]),
        (&[("where", "payload.score:1.10")], &[7, 6, 2]),
        (&[("where", "payload.open:true")], &[3]),
        (&[("where", "payload.status:null")], &[3]),
        (&[("where", r#"payload.tags:["a","b"]"#)], &[3]),
        (&[("where", "payload.id:5"), ("topic", "leads")], &[5]),
        (&[("replays", "only")], &[7]),
        (&[("replays", "only"), ("tenant_id", "globex")], &[]),
        (&[("replays", "none"), ("topic", CHANGED)], &[6, 2]),
    ] {
        assert_eq!(found(&sink, conditions), expected, "{conditions:?}");
    }
    let one = find(&sink, &[("limit", "1"), ("payload", "true"), ("replays", "only")]).json();
    assert_eq!(one["events"][0]["payload"]["score"].to_string(), "1.10");
    let names: Vec<&String> = one["events"][0].as_object().unwrap().keys().collect();
    let all = ["id", "tenant_id", "topic", "received_at", "event_type", "kafka_key", "replay_of", "payload"];
    assert_eq!(names, all);
    // What an operator's own INSERT made is no obstacle.
    let odd = "INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset) \
               VALUES ('acme', 'odd', 'no json', '2999-01-01 00:00:00.000000', 0, 0)";
    assert!(sink.sql(odd).status.success());
    assert_eq!(found(&sink, &[("where", "payload.status:qualified")]), [7, 2]);
    assert_eq!(find(&sink, &[("topic", "odd"), ("payload", "true")]).json()["events"][0]["payload"], "no json");
}

#[test]
fn a_history_is_the_keys_own_or_the_event_and_its_replays() {
    let (_broker, sink) = sink_with_history();
    let history = sink.get("/events/2/history").json();
    assert_eq!(ids(&history), [1, 2, 7], "the same key of another tenant is not in it");
    let relations: Vec<&Value> = history["events"].as_array().unwrap().iter().map(|e| &e["relation"]).collect();
    assert_eq!(relations, [&Value::Null, &json!("itself"), &json!("replay")]);
    let page = sink.get("/events/2/history?limit=2").json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&sink.get(&format!("/events/2/history?limit=2&cursor={cursor}")).json()), [7]);
    assert_eq!(ids(&sink.get("/events/2/history?order=desc").json()), [7, 2, 1]);

    assert_eq!(sink.post("/replay/5").status, 200);
    sink.await_events(8);
    assert_eq!(ids(&sink.get("/events/5/history").json()), [5, 8], "without a key: itself and its replays");
    assert_eq!(sink.get("/events/99/history").status, 404);
}

#[test]
fn pages_neither_double_nor_skip_while_events_come_go_and_are_replayed() {
    let broker = Embedded::start(&[(LEADS, 2), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    for number in 0..300 {
        sender.queue_event([LEADS, JOBS][number as usize % 2], ["acme", "globex"][number as usize % 3 % 2], number);
    }
    sender.flush();
    sink.await_events(300);
    for (conditions, sql) in [
        (&[("limit", "7")][..], "true"),
        (&[("limit", "7"), ("tenant_id", "acme")], "tenant_id = 'acme'"),
        (&[("limit", "7"), ("topic", "created")], "true"),
        (&[("limit", "7"), ("topic", LEADS)], "topic LIKE '%leads%'"),
        (&[("limit", "7"), ("where", "payload.tenant_id:globex")], "tenant_id = 'globex'"),
    ] {
        // What an earlier turn replayed may still be on its way: the first page says which is the newest.
        let first = find(&sink, conditions).json();
        let mut all = ids(&first);
        let newest = all[0];
        let sql = format!(
            "SELECT json_group_array(id) FROM
             (SELECT id FROM event_journal WHERE id <= {newest} AND {sql} ORDER BY id DESC)"
        );
        let mut expected: Vec<i64> = serde_json::from_str(&sink.value::<String>(&sql)).unwrap();
        let (mut cursor, mut pages) = (first["next_cursor"].as_str().map(str::to_owned), 1);
        while let Some(next) = cursor {
            if pages % 5 == 1 {
                sender.event(LEADS, "acme", 1000 + pages);
                let last = *all.last().unwrap();
                assert_eq!(sink.post(&format!("/replay/{last}")).status, 200);
                // Seen already, the very last one, and one that is not seen yet.
                let gone = last - 20;
                assert!(sink.sql(&format!("DELETE FROM event_journal WHERE id IN ({last}, {gone})")).status.success());
                expected.retain(|id| *id != gone);
            }
            let page = find(&sink, &[conditions, &[("cursor", next.as_str())]].concat()).json();
            all.extend(ids(&page));
            pages += 1;
            cursor = page["next_cursor"].as_str().map(str::to_owned);
        }
        assert_eq!(all, expected, "{conditions:?}");
        assert!(pages > 10, "{conditions:?}: {pages} pages");
        eventually("what came while it was read", || sink.value::<i64>("SELECT max(id) FROM event_journal") > newest);
    }
    let first = find(&sink, &[("limit", "2"), ("topic", "leads")]);
    let link = first.head.lines().find(|line| line.starts_with("Link: ")).unwrap().to_owned();
    let next = link.strip_prefix("Link: <").unwrap().split_once(">; rel=\"next\"").unwrap().0;
    let by_link = ids(&sink.get(next).json());
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(by_link, found(&sink, &[("limit", "2"), ("topic", "leads"), ("cursor", &cursor)]));
}

#[test]
fn what_cannot_be_meant_is_refused_by_its_name() {
    let (_broker, sink) = sink_with_history();
    let cursor =
        find(&sink, &[("limit", "1"), ("tenant_id", "acme")]).json()["next_cursor"].as_str().unwrap().to_owned();
    for (conditions, name) in [
        (&[("limit", "0")][..], "limit"),
        (&[("limit", "1001")], "limit"),
        (&[("since", "yesterday")], "since"),
        (&[("since", "2025-11-04"), ("until", "2025-11-03")], "until"),
        (&[("order", "up")], "order"),
        (&[("replays", "some")], "replays"),
        (&[("where", "status:won")], "where"),
        (&[("where", "payload.status")], "where"),
        (&[("where", "payload.a\".b:x")], "where"),
        (&[("topic", "")], "topic"),
        (&[("q", "")], "q"),
        (&[("payload", "yes")], "payload"),
        (&[("cursor", "17")], "cursor"),
        (&[("cursor", &cursor)], "cursor"),
        (&[("cursor", &cursor), ("tenant_id", "globex")], "cursor"),
        (&[("cursor", &cursor), ("tenant_id", "acme"), ("order", "asc")], "cursor"),
        (&[("colour", "red")], "colour"),
    ] {
        let refused = find(&sink, conditions);
        assert_eq!(refused.status, 422, "{conditions:?}: {}", refused.body);
        assert!(refused.detail().starts_with(&format!("{name}: ")), "{conditions:?}: {}", refused.body);
    }
    // A cursor goes on with another limit.
    assert_eq!(found(&sink, &[("cursor", &cursor), ("tenant_id", "acme"), ("limit", "1000")]), [3, 2, 1]);
    let history = sink.get(&format!("/events/2/history?cursor={cursor}"));
    assert_eq!((history.status, history.detail().starts_with("cursor: ")), (422, true));
}

#[test]
fn no_value_is_taken_for_sql() {
    let (_broker, sink) = sink_with_history();
    for attempt in [
        "x' OR '1'='1",
        "x'; DROP TABLE event_journal; --",
        "') UNION SELECT 1, value, 1, 1, 1, 1, 1, 1 FROM journal_info --",
        "?1",
        "%",
        "\\",
    ] {
        for name in ["tenant_id", "topic", "event_type", "key", "q"] {
            let answer = find(&sink, &[(name, attempt)]);
            assert_eq!(
                (answer.status, ids(&answer.json()).len()),
                (200, usize::from(name == "q" && attempt == "%")),
                "{name}={attempt}"
            );
        }
        for name in ["since", "until", "order", "replays", "limit", "cursor", "payload"] {
            assert_eq!(find(&sink, &[(name, attempt)]).status, 422, "{name}={attempt}");
        }
        let by_value = find(&sink, &[("where", &format!("payload.status:{attempt}"))]);
        assert_eq!((by_value.status, ids(&by_value.json()).len()), (200, 0), "{attempt}");
        let by_path = find(&sink, &[("where", &format!("payload.{attempt}:new"))]);
        let nothing = by_path.status == 422 || ids(&by_path.json()).is_empty();
        assert!(nothing, "{attempt}: {}", by_path.body);
    }
    assert_eq!(sink.events(), 7);
}

#[test]
fn who_may_see_one_tenant_finds_that_ones_events_alone() {
    let (_broker, sink) = sink_with_users("");
    let as_vic = |path: &str| ask(&sink, "vic", "GET", path, &[]);
    for path in ["/events", "/events?topic=leads", "/events?q=lead", "/events?tenant_id=acme", "/events?order=desc"] {
        assert_eq!(ids(&as_vic(path).json()), [3, 1], "{path}");
    }
    assert_eq!(ids(&as_vic("/events?key=globex:lead:2").json()), [0_i64; 0]);
    assert_eq!((as_vic("/events?tenant_id=globex").status, as_vic("/events/2/history").status), (403, 404));
    assert_eq!(as_vic("/events/1/history").status, 200);
    // A cursor that somebody else got is not one of this search.
    let cursor = ask(&sink, "vera", "GET", "/events?limit=1", &[]).json()["next_cursor"].as_str().unwrap().to_owned();
    assert_eq!(as_vic(&format!("/events?cursor={cursor}")).status, 422);
}

/// Most of it is looked at without being found: each page ends in time, and the search comes to its end all the same.
#[test]
fn a_search_for_what_is_rare_comes_in_short_pages_and_finds_all() {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).start();
    insert_many(&sink, 400_000);
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let began = std::time::Instant::now();
        let page = sink.get(&format!("/events?where=payload.n:7&q=lead{cursor}")).json();
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "a page takes its budget, not the search's time");
        all.extend(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(all, [7]);
}

/// Events that an operator has inserted, the payload's `n` from 1 on.
pub fn insert_many(sink: &Sink, count: u32) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         INSERT INTO event_journal (tenant_id, topic, payload, received_at, kafka_partition, kafka_offset, kafka_key) \
         SELECT 'bulk', 'apexflow.bulk.made', json_object('tenant_id', 'bulk', 'event_type', 'lead.created', 'n', i, \
         'email', 'person' || i || '@example.com', 'notes', printf('%.200c', 'x')), \
         '2025-11-03 20:00:00.' || printf('%06d', i), 0, i, 'bulk:lead:' || (i % 1000) FROM n"
    );
    let done = sink.sql(&sql);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn the_shell_follows_pages_to_the_number_that_is_asked_for() {
    let (_broker, sink) = sink_with_history();
    let run = |arguments: &[&str]| {
        let api = format!("http://{}", sink.api);
        let done = program().arg("events").args(arguments).args(["--api", &api]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let found: Value =
        serde_json::from_str(&run(&["search", "--topic", "leads", "--where", "payload.status:new", "--json"])).unwrap();
    assert_eq!(ids(&found), [4, 1]);
    let table = run(&["search", "--tenant-id", "acme", "--limit", "2"]);
    assert!(table.starts_with("ID  TENANT ID  TOPIC") && table.lines().count() == 3, "{table}");
    let history = run(&["history", "2", "--payload"]);
    assert!(history.contains("itself") && history.contains("replay") && history.contains("qualified"), "{history}");
}
