//! What a job would do, before it does it.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};
use serde::Deserialize;

use super::table::pairs;

/// Topics and tenants that are named; the others are counted.
const NAMES_MAX: usize = 10;

#[derive(Debug, Deserialize)]
pub struct Plan {
    /// Events that would be sent.
    pub total: u64,
    bytes: u64,
    superseded: u64,
    replays: u64,
    /// Superseded ones and replays that are left out already.
    skipped: u64,
    first_received_at: Option<String>,
    pub last_received_at: Option<String>,
    by_topic: BTreeMap<String, u64>,
    by_tenant: BTreeMap<String, u64>,
    rate_per_s: u64,
    seconds: f64,
}

impl Plan {
    pub fn text(&self) -> String {
        let mut lines = vec![
            ("events".to_owned(), format!("{}, {}", self.total, HumanBytes(self.bytes))),
            ("of these".to_owned(), format!("{} superseded, {} replays", self.superseded, self.replays)),
            ("left out".to_owned(), self.skipped.to_string()),
        ];
        if let (Some(first), Some(last)) = (&self.first_received_at, &self.last_received_at) {
            lines.push(("received".to_owned(), format!("{first} to {last}")));
        }
        lines.extend(shares("topics", &self.by_topic));
        lines.extend(shares("tenants", &self.by_tenant));
        let time = Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX);
        lines.push(("duration".to_owned(), format!("{:#} at {}/s", HumanDuration(time), self.rate_per_s)));
        pairs(lines)
    }
}

/// A line for each name, the largest first; the first line has the heading.
fn shares(heading: &str, counts: &BTreeMap<String, u64>) -> Vec<(String, String)> {
    let mut largest: Vec<(&String, &u64)> = counts.iter().collect();
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let mut lines: Vec<String> =
        largest.iter().take(NAMES_MAX).map(|(name, count)| format!("{count} of {name}")).collect();
    if largest.len() > NAMES_MAX {
        let others: u64 = largest[NAMES_MAX..].iter().map(|(_, count)| **count).sum();
        lines.push(format!("{others} of {} others", largest.len() - NAMES_MAX));
    }
    let headings = std::iter::once(heading).chain(std::iter::repeat(""));
    headings.zip(lines).map(|(heading, line)| (heading.to_owned(), line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_few_lines_however_many_tenants_there_are() {
        let tenants: BTreeMap<String, u64> = (1..=200).map(|number| (format!("tenant-{number:03}"), number)).collect();
        let plan = serde_json::json!({
            "dry_run": true, "total": 20100, "bytes": 2_097_152, "superseded": 3, "replays": 7, "skipped": 5,
            "first_received_at": "2025-11-03T20:03:58.586440+00:00", "last_received_at": "2025-11-03T21:00:00.000000+00:00",
            "by_topic": {"apexflow.leads.created": 20099, "evil\u{1b}[2J": 1}, "by_tenant": tenants,
            "rate_per_s": 200, "seconds": 100.5, "needs_confirm": true,
        });
        let text = serde_json::from_value::<Plan>(plan).unwrap().text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "events    20100, 2.00 MiB");
        assert_eq!(lines[1], "of these  3 superseded, 7 replays");
        assert_eq!(lines[2], "left out  5");
        assert_eq!(lines[4], "topics    20099 of apexflow.leads.created");
        assert_eq!(lines[5], "          1 of evil\\u{1b}[2J");
        assert_eq!(lines[6], "tenants   200 of tenant-200");
        assert_eq!(lines[16], "          18145 of 190 others");
        assert_eq!(lines[17], "duration  2m at 200/s");
        assert_eq!(lines.len(), 18);
    }
}
