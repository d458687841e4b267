//! What the package brings for Prometheus and Grafana asks for what the sink really has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use crate::harness::{Embedded, Record, Sender, Setup, curl, eventually, promtool};

const LEADS: &str = "apexflow.leads.created";
/// Those that only a fault or much time makes appear, each shown by a test of its own elsewhere.
const SELDOM: [&str; 4] = [
    "crm_events_duplicates_skipped_total",
    "crm_events_gaps",
    "crm_events_pruned_total",
    "crm_events_log_restarts_total",
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

fn run_promtool(arguments: &[&str]) {
    let mut promtool = Command::new(promtool());
    let ran = promtool.current_dir(file("")).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "promtool {arguments:?}\n{out}\n{err}");
}

/// Each `expr` of the dashboard, as Grafana sends it.
fn dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap());
    expressions.map(|e| e.replace("$job", "crm-events-sink").replace("$instance", ".*")).collect()
}

fn alerts() -> Vec<String> {
    let names = Regex::new(r"- alert: (\w+)").unwrap();
    names.captures_iter(&read("alerts.yml")).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_alert_speaks_when_it_should_and_keeps_quiet_when_it_should_not() {
    run_promtool(&["check", "rules", "alerts.yml"]);
    run_promtool(&["check", "config", "--syntax-only", "prometheus.yml"]);
    run_promtool(&["test", "rules", "alerts.test.yml", "alerts.slow.test.yml"]);
    let cases = read("alerts.test.yml") + &read("alerts.slow.test.yml");
    for alert in alerts() {
        for kind in ["speaks", "keeps quiet"] {
            assert!(cases.contains(&format!("- name: {alert} {kind}\n")), "no case in which {alert} {kind}");
        }
    }
}

#[test]
fn every_expression_of_dashboard_and_alerts_is_of_metrics_and_labels_that_the_sink_has() {
    let expressions = dashboard();
    let rules =
        expressions.iter().enumerate().map(|(number, e)| format!("  - record: panel:{number}\n    expr: {e:?}\n"));
    let folder = tempfile::tempdir().unwrap();
    let rules_file = folder.path().join("rules.yml");
    fs::write(&rules_file, rules.fold("groups:\n- name: dashboard\n  rules:\n".to_owned(), |all, rule| all + &rule))
        .unwrap();
    run_promtool(&["check", "rules", rules_file.to_str().unwrap()]);

    let text = everything_that_a_quiet_box_shows();
    let declared = declarations();
    let metric = Regex::new(r"crm_events_\w+").unwrap();
    let by = Regex::new(r"by \(([a-z_, ]+)\)").unwrap();
    let rules: Vec<String> = read("alerts.yml").split("- alert:").skip(1).map(str::to_owned).collect();
    let of_rule = |rule: &String| rule.split("labels: {").next().unwrap().to_owned();
    for expression in expressions.into_iter().chain(rules.iter().map(of_rule)) {
        let mut labels = BTreeSet::from(["job".to_owned(), "instance".to_owned(), "le".to_owned()]);
        for name in metric.find_iter(&expression).map(|found| found.as_str()) {
            let name = name.trim_end_matches("_bucket");
            let is_shown = text.contains(&format!("\n# TYPE {name} "));
            assert!(is_shown != SELDOM.contains(&name), "{name} in {expression}: is the sink's: {is_shown}");
            labels.extend(
                declared.iter().filter(|(declared, _)| declared == name).flat_map(|(_, labels)| labels.clone()),
            );
        }
        for used in
            by.captures_iter(&expression).flat_map(|found| found[1].split(", ").map(str::to_owned).collect::<Vec<_>>())
        {
            assert!(labels.contains(&used), "{used} is no label in {expression}");
        }
    }
}

/// An event, its replay, a dead letter that halts its partition, and a request that the edge refuses.
fn everything_that_a_quiet_box_shows() -> String {
    let broker = Embedded::start(&[(LEADS, 1)]);
    let sink = Setup::with(&broker.bootstrap()).toml("dlq.max_consecutive = 1\n").start();
    let sender = Sender::to(&broker.bootstrap());
    sender.event(LEADS, "acme", 1);
    sink.await_events(1);
    assert_eq!(sink.post("/replay/1").status, 200);
    sink.await_events(2);
    sender.send(&Record { topic: LEADS, value: Some(b"no JSON"), ..Record::default() });
    eventually("the dead letter halts its partition", || sink.metrics_text().contains("crm_events_partition_halted{"));
    curl(&["-H", "Content-Length: x", &format!("http://{}/health", sink.api)]);
    eventually("the edge has refused", || sink.metrics_text().contains("crm_events_http_refused_total{"));
    eventually("the lag is known", || sink.metrics_text().contains("crm_events_consumer_lag{"));
    sink.metrics_text()
}

/// Names and labels, as src/metrics has them.
fn declarations() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics");
    let source: String =
        fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let call = Regex::new(r#"(?s)\(\s*r,\s*"(crm_events_\w+)",\s*"[^"]*",?\s*(?:&\[([^\]]*)\])?"#).unwrap();
    let word = Regex::new(r#""(\w+)""#).unwrap();
    let labels = |list: &str| word.captures_iter(list).map(|found| found[1].to_owned()).collect();
    let all = call.captures_iter(&source);
    all.map(|found| (found[1].to_owned(), labels(found.get(2).map_or("", |list| list.as_str())))).collect()
}
