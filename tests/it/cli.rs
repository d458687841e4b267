//! The API's verbs from the shell, as a person and as a script meet them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};

use crate::harness::{Embedded, PROGRAM, Record, Sender, Setup, Sink, eventually, program};

const LEADS: &str = "apexflow.leads.created";
const JOBS: &str = "apexflow.jobs.created";

/// What a verb said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn ran(command: &mut Command, input: &str) -> Said {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // One that asks for nothing may have ended before it is given it.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let ended = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: ended.status.code().unwrap(), out: text(ended.stdout), err: text(ended.stderr) }
}

/// Runs the words of `line` as Anna, who became root.
fn shell_with(api: &str, line: &str, input: &str) -> Said {
    let mut command = program();
    command.args(line.split_whitespace()).args(["--api", &format!("http://{api}")]);
    ran(command.env("SUDO_USER", "anna").env("USER", "root"), input)
}

fn shell(sink: &Sink, line: &str) -> Said {
    shell_with(&sink.api, line, "")
}

/// The same at a terminal, where `type_in` gets the keyboard. Everything shown comes back as one text.
fn at_terminal(sink: &Sink, line: &str, type_in: impl FnOnce(&mut dyn FnMut(&str))) -> Said {
    let words = format!("{PROGRAM} {line} --api http://{}", sink.api);
    let mut script = Command::new("script");
    script.args(["-qfec", &words, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = script.spawn().expect("script is part of Debian");
    let mut keyboard = terminal.stdin.take().unwrap();
    type_in(&mut |keys| keyboard.write_all(keys.as_bytes()).unwrap());
    let mut shown = String::new();
    terminal.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    drop(keyboard);
    Said { code: terminal.wait().unwrap().code().unwrap(), out: shown, err: String::new() }
}

fn sink_with_events(leads: u64, jobs: u64) -> (Embedded, Sender, Sink) {
    let broker = Embedded::start(&[(LEADS, 3), (JOBS, 1)]);
    let sender = Sender::to(&broker.bootstrap());
    let sink = Setup::with(&broker.bootstrap()).start();
    for (topic, count) in [(LEADS, leads), (JOBS, jobs)] {
        for number in 1..=count {
            sender.queue_event(topic, "acme", number);
        }
        sender.flush();
        // One topic's events first, so that a test knows which is which.
        sink.await_events(if topic == LEADS { leads } else { leads + jobs } as i64);
    }
    (broker, sender, sink)
}

/// A sink with dead letters: `value`s that are no events.
fn sink_with_dead_letters(values: &[&str]) -> (Embedded, Sender, Sink) {
    let (broker, sender, sink) = sink_with_events(1, 0);
    for (number, value) in values.iter().enumerate() {
        sender.send(&Record { topic: LEADS, value: Some(value.as_bytes()), ..Record::default() });
        eventually("it is a dead letter", || sink.dead_letters() == number as i64 + 1);
    }
    (broker, sender, sink)
}

fn lines(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// The last entry of the audit.
fn audited(sink: &Sink) -> Value {
    sink.get("/audit?limit=1").json()[0].clone()
}

#[test]
fn events_are_a_table_for_people_and_the_apis_json_for_scripts() {
    let (_broker, _sender, sink) = sink_with_events(12, 0);
    let listed = shell(&sink, "events --limit 4").well();
    let rows = lines(&listed);
    assert_eq!(rows[0].join(" "), "ID TENANT ID TOPIC RECEIVED AT");
    assert_eq!(rows[1..].iter().map(|row| row[0]).collect::<Vec<_>>(), ["12", "11", "10", "9"]);
    assert_eq!(rows[1][1..3], ["acme", LEADS]);
    assert!(listed.lines().nth(4).unwrap().starts_with(" 9  acme"), "numbers stand to the right: {listed}");
    assert_eq!(shell(&sink, "events latest").well().lines().count(), 13);

    let api = sink.get("/events/latest?limit=2").body;
    assert_eq!(shell(&sink, "events --json --limit 2").well(), format!("{api}\n"));
    assert_eq!(shell(&sink, "events --json latest --limit 2").well(), format!("{api}\n"), "wherever --json stands");

    let one = shell(&sink, "events show 5").well();
    assert!(one.starts_with("id "), "the API's order: {one}");
    assert!(one.contains(r#""name":"Lead "#) && one.contains("replay_of"), "{one}");
    assert_eq!(shell(&sink, "events show 5 --json").json(), sink.get("/events/5").json());
}

#[test]
fn one_event_is_replayed_at_once_in_the_name_of_the_person_behind_sudo() {
    let (_broker, _sender, sink) = sink_with_events(2, 0);
    let replayed = shell(&sink, "replay 2 --reason lost-downstream").well();
    assert_eq!(replayed, format!("replayed event 2 of acme to {LEADS}\n"));
    sink.await_events(3);
    assert_eq!(sink.value::<i64>("SELECT replay_of FROM event_journal WHERE id = 3"), 2);
    let audited = audited(&sink);
    let told = [&audited["operator"], &audited["action"], &audited["outcome"], &audited["reason"]];
    assert_eq!(told, ["anna", "replay", "done", "lost-downstream"]);

    let missing = shell(&sink, "replay 99");
    assert_eq!((missing.code, missing.out.as_str()), (1, ""));
    assert_eq!(missing.err, "crm-events-sink: event 99 not found\n");
    let missing = shell(&sink, "replay 99 --json");
    assert_eq!((missing.code, missing.json()), (1, json!({"detail": "event 99 not found"})));
    assert_eq!(sink.events(), 3);
}

#[test]
fn several_events_are_planned_confirmed_sent_and_watched() {
    let (_broker, _sender, sink) = sink_with_events(5, 0);
    let unasked = shell(&sink, "replay 1 2 3");
    assert_eq!((unasked.code, unasked.out.as_str()), (2, ""));
    for said in ["events", "3,", &format!("3 of {LEADS}"), "3 of acme", "no terminal", "--yes", "nothing was done"] {
        assert!(unasked.err.contains(said), "{said:?} in {}", unasked.err);
    }
    assert_eq!(shell(&sink, "replay jobs --json").json(), json!([]));

    let done = shell(&sink, "replay 1 2 3 --yes");
    assert_eq!((done.code, done.out.as_str()), (0, "Job 1 is finished: 3 of 3 acknowledged\n"), "{}", done.err);
    assert!(!done.err.contains('\r') && !done.err.contains('\u{1b}'), "no bar without a terminal: {}", done.err);
    sink.await_events(8);
    let copies = "SELECT count(DISTINCT replay_of) FROM event_journal WHERE replay_of IN (1, 2, 3)";
    assert_eq!(sink.value::<i64>(copies), 3);

    let unknown = shell(&sink, "replay 4 99 --yes");
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("99"), "{}", unknown.err);
    assert_eq!(shell(&sink, "replay 4 5 --yes --json").json()["acknowledged"], 2);
    sink.await_events(10);
}

#[test]
fn a_range_is_what_its_plan_has_seen_and_a_dry_run_sends_nothing() {
    let (_broker, sender, sink) = sink_with_events(4, 3);
    let plan = shell(&sink, &format!("replay range --topic {JOBS} --start 2025-01-01 --dry-run --json")).json();
    assert_eq!((&plan["total"], &plan["by_topic"]), (&3.into(), &json!({JOBS: 3})));
    let plan = shell(&sink, "replay range --start 2025-01-01 --dry-run").well();
    assert!(plan.contains(&format!("4 of {LEADS}")) && plan.contains(&format!("3 of {JOBS}")), "{plan}");
    // One id alone, as soon as only a job can do what is asked.
    assert!(shell(&sink, "replay 1 --dry-run").well().contains(&format!("1 of {LEADS}")));
    assert_eq!(shell(&sink, "replay jobs --json").json(), json!([]));

    let started = at_terminal(&sink, &format!("replay range --topic {LEADS}"), |keys| {
        // The question stands, and meanwhile another event comes.
        let plans = "SELECT count(*) FROM audit WHERE outcome = 'dry_run'";
        eventually("the plan was asked for", || sink.value::<i64>(plans) == 4);
        sender.event(LEADS, "acme", 5);
        sink.await_events(8);
        keys("y\n");
    });
    assert_eq!(started.code, 0, "{}", started.out);
    assert!(started.out.contains("Replay 4 events? [y/N]"), "{}", started.out);
    assert!(started.out.contains("Job 1 is finished: 4 of 4 acknowledged"), "{}", started.out);
    sink.await_events(12);

    let nothing = shell(&sink, "replay range --tenant-id nobody");
    assert_eq!((nothing.code, nothing.err.contains("nothing was done")), (1, true), "{nothing:?}");
    let wrong = shell(&sink, "replay range --start yesterday --yes");
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("start"), "{}", wrong.err);
}

#[test]
fn a_no_at_the_terminal_leaves_everything_as_it_is() {
    let (_broker, _sender, sink) = sink_with_events(3, 0);
    let refused = at_terminal(&sink, "replay 1 2", |keys| {
        eventually("the plan was asked for", || audited(&sink)["outcome"] == "dry_run");
        keys("n\n");
    });
    assert_eq!(refused.code, 2, "{}", refused.out);
    assert!(refused.out.contains("not confirmed; nothing was done"), "{}", refused.out);
    assert_eq!(shell(&sink, "replay jobs --json").json(), json!([]));
}

#[test]
fn ctrl_c_leaves_the_job_running_and_says_how_to_go_on() {
    let (_broker, _sender, sink) = sink_with_events(30, 0);
    let left = at_terminal(&sink, "replay range --topic apexflow.leads.created --rate 2 --yes", |keys| {
        eventually("the job has begun to send", || {
            let job = sink.get("/replay/jobs/1");
            job.status == 200 && job.json()["acknowledged"].as_i64() > Some(0)
        });
        // The bar is drawn at the next look.
        thread::sleep(Duration::from_secs(1));
        keys("\u{3}");
    });
    assert_eq!(left.code, 130, "{}", left.out);
    assert!(left.out.contains("job 1 [") && left.out.contains("/30 "), "a bar: {}", left.out);
    assert!(left.out.contains("Job 1 goes on.") && left.out.contains("replay watch 1"), "{}", left.out);
    assert_eq!(shell(&sink, "replay job 1 --json").json()["status"], "running");

    let cancelled = shell(&sink, "replay cancel 1 --reason enough").well();
    assert!(cancelled.starts_with("Job 1 is cancelled: "), "{cancelled}");
    let watched = shell(&sink, "replay watch 1");
    assert_eq!(watched.code, 1, "not all of it was sent");
    assert!(watched.out.contains("cancelled"), "{}", watched.out);
    let again = shell(&sink, "replay resume 1");
    assert_eq!((again.code, again.out.as_str()), (1, ""), "a cancelled job does not go on");
    assert!(!again.err.is_empty());
}

#[test]
fn a_job_is_paused_sped_up_resumed_and_looked_into() {
    let (_broker, _sender, sink) = sink_with_events(40, 0);
    let started = shell(&sink, &format!("replay range --topic {LEADS} --rate 1 --yes --no-wait --reason drill"));
    assert_eq!(started.well(), "Job 1 sends 40 events. Watch it: crm-events-sink replay watch 1\n");
    assert!(shell(&sink, "replay pause 1").well().starts_with("Job 1 is paused: "));
    assert!(shell(&sink, "replay rate 1 1000").well().starts_with("Job 1 is paused: "));
    assert_eq!(shell(&sink, "replay job 1 --json").json()["rate_per_s"], 1000);
    assert!(shell(&sink, "replay resume 1").well().starts_with("Job 1 is "));
    assert_eq!(shell(&sink, "replay watch 1").well(), "Job 1 is finished: 40 of 40 acknowledged\n");

    let jobs = shell(&sink, "replay jobs").well();
    let rows = lines(&jobs);
    assert_eq!(rows[0][..3], ["JOB", "ID", "STATUS"]);
    assert_eq!(rows[1][..4], ["1", "finished", "40", "40"]);
    assert!(jobs.contains("anna") && jobs.contains("drill"), "{jobs}");
    let job = shell(&sink, "replay job 1").well();
    assert!(job.lines().any(|line| line.split_whitespace().eq(["acknowledged", "40"])), "{job}");

    let items = shell(&sink, "replay items 1 --limit 3");
    assert_eq!(lines(&items.out)[3][..3], ["3", "acknowledged", LEADS], "{items:?}");
    let more = items.err.strip_prefix("There are more: ").expect("the list goes on").trim_end();
    let next = shell(&sink, &format!("replay items 1 --limit 3 {more}")).well();
    assert_eq!(lines(&next)[1][0], "4", "{next}");
    assert_eq!(shell(&sink, "replay items 1 --state failed").well().lines().count(), 1, "a heading alone");
    assert_eq!(shell(&sink, "replay job 7").code, 1);
}

#[test]
fn what_kafka_refuses_is_exit_code_1_and_is_sent_again_when_asked_for() {
    let (broker, _sender, sink) = sink_with_events(2, 0);
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2];
    broker.cluster().request_errors(RDKafkaApiKey::Produce, &refusal);
    let failed = shell(&sink, "replay 1 2 --yes");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.out.contains(" failed"), "{failed:?}");
    broker.cluster().clear_request_errors(RDKafkaApiKey::Produce);
    let items = shell(&sink, "replay items 1 --state failed").well();
    assert!(items.to_lowercase().contains("authorization"), "{items}");
    shell(&sink, "replay retry-failed 1").well();
    assert_eq!(shell(&sink, "replay watch 1").well(), "Job 1 is finished: 2 of 2 acknowledged\n");
    sink.await_events(4);
}

#[test]
fn dead_letters_are_listed_grouped_and_tried_again() {
    let (_broker, _sender, sink) = sink_with_dead_letters(&["{\"a\":", "{\"bb\":", "[]"]);
    let listed = shell(&sink, "dlq").well();
    let rows = lines(&listed);
    assert_eq!(rows[0][..2], ["ID", "STATE"]);
    assert_eq!((rows[1][..3].join(" "), rows[3][..3].join(" ")), ("3 open 0".into(), "1 open 0".into()));
    assert!(listed.contains("not_an_object") && listed.contains("not_json: EOF"), "{listed}");
    assert_eq!(shell(&sink, "dlq --limit 1 --json").json()[0]["id"], 3);
    assert_eq!(shell(&sink, "dlq list --reason not_json --json").json().as_array().unwrap().len(), 2);
    assert!(shell(&sink, "dlq show 1").well().contains("attempts"));

    let groups = shell(&sink, "dlq groups").well();
    let rows = lines(&groups);
    assert_eq!((rows.len(), rows[1][1], rows[2][1]), (3, "2", "1"), "{groups}");
    let group = rows[1][0];

    let refused = shell(&sink, "dlq retry 1");
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.contains("EOF"), "{}", refused.err);
    let would = shell(&sink, "dlq retry 1 --dry-run").well();
    assert!(would.starts_with("dead letter 1 would fail: "), "{would}");

    let would = shell(&sink, &format!("dlq retry --group {group} --dry-run")).well();
    assert!(would.starts_with("2 dead letters: 0 would pass, 2 would fail\n"), "{would}");
    let unasked = shell(&sink, &format!("dlq retry --group {group}"));
    assert_eq!(unasked.code, 2, "{unasked:?}");
    let tried = shell(&sink, &format!("dlq retry --topic {LEADS} --yes"));
    assert_eq!(tried.code, 1, "some failed");
    assert!(tried.out.starts_with("3 dead letters tried: 0 journaled, 3 failed\n"), "{tried:?}");
    let nothing = shell(&sink, "dlq retry --topic nothing.of.it --yes");
    assert_eq!((nothing.code, nothing.err.contains("nothing was done")), (1, true), "{nothing:?}");

    let again = shell(&sink, "dlq retry 3 --republish").well();
    assert!(again.starts_with(&format!("dead letter 3 went to {LEADS} again: partition ")), "{again}");
    eventually("it came back as another dead letter", || sink.dead_letters() == 4);
}

#[test]
fn what_the_box_refused_is_journaled_once_it_may_be() {
    let (_broker, sender, sink) = sink_with_events(0, 0);
    assert!(sink.sql("ALTER TABLE event_journal ADD CONSTRAINT test_constraint CHECK (false)").status.success());
    for number in 1..=3 {
        sender.event(LEADS, "acme", number);
    }
    eventually("they are dead letters", || sink.dead_letters() == 3);
    assert!(sink.sql("ALTER TABLE event_journal DROP CONSTRAINT test_constraint").status.success());
    assert_eq!(shell(&sink, "dlq retry 1").well(), format!("dead letter 1 is event 1 of {LEADS} now\n"));
    assert_eq!(shell(&sink, "dlq retry 1").code, 1, "it is not open any more");
    let tried = shell(&sink, "dlq retry --error-reason constraint --yes --reason constraint-dropped").well();
    assert_eq!(tried, "2 dead letters tried: 2 journaled, 0 failed\n");
    sink.await_events(3);
    assert_eq!(shell(&sink, "dlq").well().lines().count(), 1);
    assert_eq!(shell(&sink, "dlq --state journaled").well().lines().count(), 4);
    assert_eq!(audited(&sink)["reason"], "constraint-dropped");
}

#[test]
fn those_are_tried_again_that_were_there_when_it_was_asked() {
    let (_broker, sender, sink) = sink_with_dead_letters(&["[]", "[1]"]);
    let tried = at_terminal(&sink, &format!("dlq retry --topic {LEADS}"), |keys| {
        eventually("the plan was asked for", || audited(&sink)["outcome"] == "dry_run");
        sender.send(&Record { topic: LEADS, value: Some(b"[2]"), ..Record::default() });
        eventually("another dead letter came", || sink.dead_letters() == 3);
        keys("y\n");
    });
    assert_eq!(tried.code, 1, "{}", tried.out);
    assert!(tried.out.contains("Retry 2 dead letters? [y/N]"), "{}", tried.out);
    assert!(tried.out.contains("2 dead letters tried: 0 journaled, 2 failed"), "{}", tried.out);
}

#[test]
fn an_edit_is_shown_before_it_is_done() {
    let (_broker, _sender, sink) = sink_with_dead_letters(&["[1]"]);
    let patch = r#"[{"op":"replace","path":"","value":{"tenant_id":"acme","name":"mended"}}]"#;
    let shown = shell_with(&sink.api, "dlq retry 1 --patch -", patch);
    assert_eq!(shown.code, 2, "{shown:?}");
    assert!(shown.err.contains("before      [1]\n") && shown.err.contains("mended"), "{}", shown.err);
    assert_eq!(sink.events(), 1, "nothing was done");

    let file = sink.folder.path().join("patch.json");
    std::fs::write(&file, patch).unwrap();
    let done = shell(&sink, &format!("dlq retry 1 --patch {} --yes", file.display())).well();
    assert_eq!(done, format!("dead letter 1 is event 2 of {LEADS} now\n"));
    assert_eq!(sink.value::<String>("SELECT payload->>'name' FROM event_journal WHERE id = 2"), "mended");

    let unreadable = shell(&sink, "dlq retry 1 --patch /nowhere/patch.json --yes");
    assert_eq!(unreadable.code, 2);
    assert!(unreadable.err.contains("/nowhere/patch.json"), "{}", unreadable.err);
}

#[test]
fn discarded_dead_letters_are_open_no_more_and_still_there() {
    let (_broker, _sender, sink) = sink_with_dead_letters(&["[]", "{\"a\":", "{\"bb\":"]);
    assert_eq!(shell(&sink, "dlq discard 1 --reason test-data").well(), "dead letter 1 is discarded\n");
    let groups = shell(&sink, "dlq groups --json").json();
    let group = groups[0]["group"].as_str().unwrap().to_owned();
    let unasked = shell(&sink, &format!("dlq discard --group {group} --reason test-data"));
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.err.contains("2 dead letters: not_json"), "{}", unasked.err);
    let done = shell(&sink, &format!("dlq discard --group {group} --reason test-data --yes")).well();
    assert_eq!(done, "2 dead letters discarded\n");
    assert_eq!(shell(&sink, &format!("dlq discard --group {group} --reason again --yes")).code, 1);
    assert_eq!(shell(&sink, "dlq --json").json(), json!([]));
    assert_eq!(shell(&sink, "dlq --state discarded").well().lines().count(), 4);
    assert_eq!(sink.dead_letters(), 3);
}

#[test]
fn the_audit_says_who_did_what() {
    let (_broker, _sender, sink) = sink_with_events(1, 0);
    shell(&sink, "replay 1 --reason drill").well();
    let listed = shell(&sink, "audit --action replay --limit 1").well();
    let rows = lines(&listed);
    assert_eq!(rows[0][..3], ["ID", "AT", "OPERATOR"]);
    assert_eq!(rows[1][2..4], ["anna", "replay"], "{listed}");
    assert!(listed.contains("drill"), "{listed}");
    assert_eq!(shell(&sink, "audit --json --limit 1").json(), sink.get("/audit?limit=1").json());
}

#[test]
fn an_api_that_is_not_there_is_exit_code_69_with_the_next_step() {
    let nobody = shell_with("127.0.0.1:1", "events", "");
    assert_eq!((nobody.code, nobody.out.as_str()), (69, ""));
    for said in ["http://127.0.0.1:1", "refused", "systemctl status crm-events-sink"] {
        assert!(nobody.err.contains(said), "{said:?} in {}", nobody.err);
    }
    assert_eq!(shell_with("127.0.0.1:1", "replay 1 2 --yes", "").code, 69);
    let config = ran(program().args(["events", "--config", "/nowhere/config.toml"]), "");
    assert_eq!(config.code, 78, "{config:?}");
}

#[test]
fn the_address_is_the_configurations_unless_it_is_given() {
    let (_broker, _sender, sink) = sink_with_events(1, 0);
    let port = sink.api.rsplit_once(':').unwrap().1;
    let file = sink.folder.path().join("client.toml");
    std::fs::write(&file, "api.allow_unauthenticated = true\n").unwrap();
    let mut everywhere = program();
    everywhere.arg("events").arg("--config").arg(&file).env("API_LISTEN", format!("0.0.0.0:{port}"));
    let found = ran(&mut everywhere, "");
    assert_eq!((found.code, found.out.lines().count()), (0, 2), "{found:?}");
    std::fs::write(&file, format!("api.listen = \"{}\"\n", sink.api)).unwrap();
    assert_eq!(ran(program().arg("events").arg("--config").arg(&file), "").code, 0);
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_asks_nothing() {
    for line in [
        "replay",
        "replay five",
        "replay 5 jobs",
        "replay range",
        "replay --dry-run range --topic a",
        "replay 5 --rate 0",
        "replay rate 1",
        "events --limit 3 show 5",
        "dlq retry",
        "dlq retry 7 --group a",
        "dlq retry --group a --republish",
        "dlq retry 7 --again",
        "dlq retry --group a --republish --again",
        "dlq retry 7 --republish --dry-run",
        "dlq retry --topic a --patch -",
        "dlq discard 7",
        "dlq discard --reason a",
    ] {
        // The port would give 69.
        let refused = shell_with("127.0.0.1:1", line, "");
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{line}: {}", refused.err);
    }
    for api in ["127.0.0.1:9106", "ftp://localhost:9106", "http://localhost:9106/events", "http://a@b"] {
        assert_eq!(ran(program().args(["events", "--api", api]), "").code, 2, "{api}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let (_broker, _sender, sink) = sink_with_events(300, 0);
    let line = format!("set -o pipefail; {PROGRAM} events --limit 300 --api http://{} 2>&1 | head -1", sink.api);
    let read = ran(Command::new("bash").args(["-c", &line]), "");
    assert_eq!((read.code, lines(&read.out)[0][0], read.out.lines().count()), (0, "ID", 1), "{read:?}");
    let closed = format!("{PROGRAM} events --limit 300 --api http://{} | true; echo ${{PIPESTATUS[0]}}", sink.api);
    let read = ran(Command::new("bash").args(["-c", &closed]), "");
    assert_eq!((read.out.as_str(), read.err.as_str()), ("0\n", ""));
}

#[test]
fn nothing_that_a_record_says_is_obeyed_by_the_terminal() {
    let (_broker, sender, sink) = sink_with_events(0, 0);
    let event = "{\"tenant_id\":\"\\u001b[2J\\r\u{9b}31m\u{202e}\",\"name\":\"\u{9b}31m\"}";
    sender.send(&Record { topic: LEADS, value: Some(event.as_bytes()), ..Record::default() });
    sender.send(&Record { topic: LEADS, value: Some(b"{\"\x1b[2J\":"), ..Record::default() });
    eventually("both are stored", || sink.events() == 1 && sink.dead_letters() == 1);
    for line in ["events", "events show 1", "events show 1 --json", "dlq", "dlq show 1", "dlq retry 1", "replay 1"] {
        let shown = at_terminal(&sink, line, |_| {}).out;
        let hostile = shown.chars().any(|c| c.is_control() && c != '\r' && c != '\n' || c == '\u{202e}');
        assert!(!hostile && !shown.replace("\r\n", "").contains('\r'), "{line}: {shown:?}");
    }
    let listed = shell(&sink, "events").well();
    assert!(listed.contains(r"\u{1b}[2J\r\u{9b}31m\u{202e}"), "{listed}");
}

/// Takes a connection for each answer, and gives back the requests. An empty answer hangs up.
fn stand_in(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = thread::spawn(move || {
        let serve = |answer: String| {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = vec![0; 65536];
            let mut read = 0;
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request).to_lowercase();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head
                    .split("content-length: ")
                    .nth(1)
                    .map_or(0, |rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
                (body.len() >= length).then_some(())
            };
            while whole(&request[..read]).is_none() {
                read += connection.read(&mut request[read..]).unwrap();
            }
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..read]).to_lowercase()
        };
        answers.into_iter().map(serve).collect()
    });
    (address, serving)
}

fn answer(status: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn plan(total: u64) -> Value {
    json!({"dry_run": true, "total": total, "bytes": 9, "superseded": 0, "replays": 0, "skipped": 0, "first_received_at": null,
        "last_received_at": null, "by_topic": {}, "by_tenant": {}, "rate_per_s": 200, "seconds": 0.0, "needs_confirm": false})
}

#[test]
fn who_agreed_to_a_number_agreed_to_fewer_and_not_to_more() {
    let changed = |total| answer("409 Conflict", &json!({"detail": "add confirm=…", "plan": plan(total)}));
    let started = answer("202 Accepted", &json!({"job_id": 3, "status": "running", "total": 4}));
    let (api, serving) = stand_in(vec![answer("200 OK", &plan(5)), changed(4), started]);
    let said = shell_with(&api, "replay range --topic a --skip-superseded --yes --no-wait", "");
    assert_eq!((said.code, said.out.contains("Job 3 sends 4 events.")), (0, true), "{said:?}");
    let requests = serving.join().unwrap();
    let key = |request: &str| request.split("idempotency-key: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert!(requests[1].contains("confirm=5") && requests[2].contains("confirm=4"), "{requests:?}");
    assert_ne!(key(&requests[1]), key(&requests[2]), "another request has another key");

    let (api, serving) = stand_in(vec![answer("200 OK", &plan(5)), changed(6)]);
    let said = shell_with(&api, "replay range --topic a --yes", "");
    assert_eq!((said.code, said.err.contains("add confirm")), (1, true), "{said:?}");
    assert_eq!(serving.join().unwrap().len(), 2);
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let started = answer("202 Accepted", &json!({"job_id": 3, "status": "running", "total": 2}));
    let (api, serving) = stand_in(vec![answer("200 OK", &plan(2)), String::new(), started]);
    let said = shell_with(&api, "replay 1 2 --yes --no-wait", "");
    assert_eq!((said.code, said.out.contains("Job 3 sends 2 events.")), (0, true), "{said:?}");
    let requests = serving.join().unwrap();
    assert!(requests[0].starts_with("post /replay/jobs?dry_run=true ") && !requests[0].contains("idempotency-key"));
    assert!(requests[1].starts_with("post /replay/jobs?confirm=2 ") && requests[1].contains("idempotency-key: "));
    assert_eq!(requests[1], requests[2]);
}

#[test]
fn what_may_have_been_done_is_not_called_undone_and_not_done_again() {
    let (api, serving) = stand_in(vec![String::new()]);
    let said = shell_with(&api, "replay 1", "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("is not known"), "{said:?}");
    assert_eq!(serving.join().unwrap().len(), 1);
}

#[test]
fn a_sink_that_restarts_is_waited_for() {
    let job = |status: &str, acknowledged: u32| {
        let job = json!({"job_id": 3, "status": status, "total": 2, "pending": 2 - acknowledged, "in_flight": 0,
            "acknowledged": acknowledged, "failed": 0, "uncertain": 0, "cancelled": 0, "rate": 1.0, "seconds_left": null,
            "waiting_for": null});
        answer("200 OK", &job)
    };
    let closed = answer("503 Service Unavailable", &json!({"detail": "the journal is locked"}));
    let (api, serving) = stand_in(vec![job("running", 1), String::new(), closed, job("finished", 2)]);
    assert_eq!(shell_with(&api, "replay watch 3", "").well(), "Job 3 is finished: 2 of 2 acknowledged\n");
    assert_eq!(serving.join().unwrap().len(), 4);
    let (api, serving) = stand_in(vec![answer("404 Not Found", &json!({"detail": "job 3 not found"}))]);
    let missing = shell_with(&api, "replay watch 3", "");
    assert_eq!((missing.code, missing.err.as_str()), (1, "crm-events-sink: job 3 not found\n"));
    assert_eq!(serving.join().unwrap().len(), 1);
}

#[test]
fn somebody_elses_answer_is_not_taken_for_the_apis() {
    let (api, serving) = stand_in(vec![answer("200 OK", &json!("hello\u{1b}[2J"))]);
    let said = shell_with(&api, "events", "");
    assert_eq!((said.code, said.out.as_str()), (69, ""), "{said:?}");
    assert!(said.err.contains("is not this API"), "{said:?}");
    let (api, page) = stand_in(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\n<p>\u{1b}[2J\r".to_owned()]);
    let said = shell_with(&api, "events", "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("answered 404: <p>\\u{1b}[2J\\r"), "{said:?}");
    drop((serving.join(), page.join()));
}
