//! Kafka: whether it answers, has the topics, and still has what the journal has not read.

use std::collections::BTreeSet;

use regex::Regex;

use super::{Finding, Level, Patient};
use crate::config::{Config, with_credentials};
use crate::consume::{BrokerPartition, BrokerView, broker_view};
use crate::store::{self, NextOffset};

pub fn look(patient: &Patient) -> Vec<Finding> {
    let check = "broker";
    let brokers = &patient.config.kafka.brokers;
    let config = match with_credentials(patient.config.clone()) {
        Ok(config) => config,
        Err(error) => {
            let fix = "look at the running service instead: GET /health says whether the broker answers";
            return vec![Finding::warn(check, format!("cannot be asked from here: {error}"), fix)];
        }
    };
    let asked = broker_view(&config).and_then(|view| view.topics().map(|topics| (view, topics)));
    let (view, topics) = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let fix = "see that the address is right and reachable (nc -zv HOST PORT), and that TLS and SASL in kafka.properties are the broker's";
            return vec![Finding::fail(check, format!("{brokers}: {error}"), fix)];
        }
    };
    let mut findings = vec![Finding::ok(check, format!("{brokers} answers"))];
    let matched = matched(patient.config, &topics);
    if matched.is_empty() {
        let what =
            format!("none of its {} topics is meant by kafka.topics {:?}", topics.len(), patient.config.kafka.topics);
        findings.push(Finding::fail("topics", what, "set kafka.topics, or let the broker's ACLs show the topics"));
        return findings;
    }
    findings.push(Finding::ok("topics", format!("kafka.topics means {}: {}", matched.len(), shown(&matched))));
    findings.push(unread(patient, &view, &matched));
    findings
}

/// Up to ten.
fn shown(topics: &BTreeSet<String>) -> String {
    let first: Vec<&str> = topics.iter().take(10).map(String::as_str).collect();
    first.join(", ") + if topics.len() > 10 { ", …" } else { "" }
}

fn matched(config: &Config, topics: &[String]) -> BTreeSet<String> {
    let mut matched = BTreeSet::new();
    for wanted in &config.kafka.topics {
        // What librdkafka takes for a pattern; it uses the system's expressions, of which names need the common part only.
        let pattern = wanted.starts_with('^').then(|| Regex::new(wanted).ok());
        let is_meant = |topic: &&String| match &pattern {
            None => *topic == wanted,
            Some(pattern) => pattern.as_ref().is_some_and(|pattern| pattern.is_match(topic)),
        };
        matched.extend(topics.iter().filter(is_meant).cloned());
    }
    matched
}

/// How far the journal is behind, and whether the broker still has what it needs next.
fn unread(patient: &Patient, view: &BrokerView, topics: &BTreeSet<String>) -> Finding {
    let check = "unread records";
    let journal = &patient.config.journal.path;
    if !journal.exists() {
        return Finding::ok(check, "there is no journal to compare with");
    }
    let compared = store::journal_contents(journal).map_err(|error| error.to_string()).and_then(|contents| {
        let partitions = view.partitions(topics).map_err(|error| error.to_string())?;
        Ok((contents.offsets, partitions))
    });
    let (offsets, partitions) = match compared {
        Ok(both) => both,
        Err(what) => return Finding { check, level: Level::Fail, what, fix: None },
    };
    let next = |partition: &BrokerPartition| next_offset(&offsets, partition);
    if let Some(lost) = partitions.iter().find(|partition| next(partition).is_some_and(|next| next < partition.low)) {
        let needed = next(lost).unwrap_or_default();
        let what = format!(
            "{}/{}: the broker begins at {}, and the journal needs {needed} next",
            lost.topic, lost.partition, lost.low
        );
        // A file whose partition another member has now is not behind.
        let committed = view.committed(&lost.topic, lost.partition).ok().flatten();
        if committed.is_some_and(|committed| committed >= lost.low) {
            let what = format!("{what}; the group has read further: another member, or a journal before this one");
            return Finding::warn(check, what, "crm-events-sink verify with the journals of all members of the group");
        }
        let what = format!("{what}: its retention passed the sink by");
        return Finding::fail(
            check,
            what,
            "start the sink now, and have the topic kept for longer than it is ever stopped",
        );
    }
    let unread: i64 = partitions.iter().map(|at| (at.high - next(at).unwrap_or(at.low)).max(0)).sum();
    Finding::ok(check, format!("{unread} offsets in {} partitions", partitions.len()))
}

fn next_offset(offsets: &[NextOffset], partition: &BrokerPartition) -> Option<i64> {
    let known = offsets.iter().find(|known| (&known.topic, known.partition) == (&partition.topic, partition.partition));
    known.map(|known| known.next_offset)
}
