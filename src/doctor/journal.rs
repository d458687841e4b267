//! What is in the file.

use super::{Finding, Level, Patient};
use crate::store::{self, JournalContents, LogCoverage, Readers};

/// A clock that is behind by less is no harm: rows then share a time.
const CLOCK_BEHIND_S: i64 = 5;

/// The file, its newest event beside the clock, and what it records of losses.
pub fn look(patient: &Patient) -> Vec<Finding> {
    let journal = &patient.config.journal.path;
    let at = journal.display();
    if !journal.exists() {
        let what = format!("{at} is not there; the sink makes it at its first start");
        return vec![Finding::warn("journal", what, "systemctl start crm-events-sink")];
    }
    let contents = store::look_quickly(journal).and_then(|()| store::journal_contents(journal));
    let contents = match contents {
        Ok(contents) => contents,
        Err(error) => {
            return vec![Finding { check: "journal", level: Level::Fail, what: error.to_string(), fix: None }];
        }
    };
    let what = format!("{at} holds {} events and {} dead letters", contents.events, contents.dead_letters);
    let mut findings = vec![Finding::ok("journal", what), clock(patient, &contents), letters(&contents)];
    match Readers::open(journal).coverage(None) {
        Ok(logs) => findings.extend([halts(&logs), losses(&logs)]),
        Err(error) => findings.push(Finding::of::<(), _>("coverage", &Err(error), |()| String::new())),
    }
    findings
}

fn clock(patient: &Patient, contents: &JournalContents) -> Finding {
    let check = "clock";
    let newest = contents.newest_received_at.as_ref();
    let newest = newest.and_then(|at| format!("{}Z", at.replacen(' ', "T", 1)).parse::<jiff::Timestamp>().ok());
    let Some(newest) = newest else { return Finding::ok(check, "there is no event to compare it with") };
    let ahead = newest.as_second() - patient.now.as_second();
    if ahead > CLOCK_BEHIND_S {
        let what =
            format!("it is {ahead} s behind the newest event: it was set back, and new rows get that event's time");
        return Finding::fail(check, what, "set the clock right: timedatectl set-ntp true");
    }
    Finding::ok(check, format!("the newest event is {} s old", -ahead))
}

fn letters(contents: &JournalContents) -> Finding {
    match contents.open_letters {
        0 => Finding::ok("dead letters", "none is open"),
        open => Finding::warn("dead letters", format!("{open} are open"), "crm-events-sink dlq"),
    }
}

fn halts(logs: &[LogCoverage]) -> Finding {
    let halted = logs.iter().find_map(|log| log.halted.as_ref().map(|why| (log, why)));
    let Some((log, why)) = halted else { return Finding::ok("partitions", "none is halted") };
    let what = format!("{}/{} is halted: {why}", log.topic, log.partition);
    Finding::fail("partitions", what, "see the cause, then: curl -X POST http://localhost:9106/consumer/resume")
}

fn losses(logs: &[LogCoverage]) -> Finding {
    let lost: Vec<String> =
        logs.iter().filter(|log| !log.is_complete()).map(|log| format!("{}/{}", log.topic, log.partition)).collect();
    if lost.is_empty() {
        return Finding::ok("completeness", "no record is known to be lost");
    }
    let fix = "crm-events-sink verify says which offsets, and why";
    Finding::warn("completeness", format!("records of {} are lost", lost.join(", ")), fix)
}
