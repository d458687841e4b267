//! What may go, and when: whole days, then whole hours. Pure: the time is passed in.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Retention;
use crate::store::{Aged, time_text};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The beginning of the hour or day that `at` is in.
fn floor(at: Timestamp, unit: i64) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(unit) * unit).unwrap_or(Timestamp::MIN)
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(at.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX)
}

/// Before when events of this age were received, on a day that is over. `None`: none has such an age.
fn day_before(now: Timestamp, age: Duration) -> Option<String> {
    let seconds = i64::try_from(age.as_secs()).ok().filter(|seconds| *seconds > 0)?;
    Some(time_text(floor(later(now, -seconds), DAY)))
}

/// Until when everything goes that is before what is youngest under the rules: further no look is needed.
pub fn ages_end(rules: &Retention, now: Timestamp) -> Option<String> {
    let others = rules.topics.values().chain(rules.tenants.values()).map(|other| other.age_max);
    others.chain([rules.age_max]).filter_map(|age| day_before(now, age)).max()
}

/// Whether the row is older than its rules let it become. The rules of its topic and of its tenant stand instead of
/// `retention.age_max`; of the two the longer counts, and zero is the longest.
pub fn is_outdated(rules: &Retention, row: &Aged, now: Timestamp) -> bool {
    let tenant = row.tenant_id.as_ref().and_then(|tenant| rules.tenants.get(tenant));
    let own = [rules.topics.get(&row.topic), tenant].into_iter().flatten().map(|other| other.age_max);
    let age = own.max_by_key(|age| (age.is_zero(), *age)).unwrap_or(rules.age_max);
    day_before(now, age).is_some_and(|until| row.received_at < until)
}

/// Until when everything may go next of what was received from `oldest` on: to the end of that day, or of that hour where
/// the day is not over. The last whole hour and what came after it stay.
pub fn next_end(oldest: &str, now: Timestamp) -> Option<String> {
    let oldest: Timestamp = format!("{oldest}Z").parse().ok()?;
    let newest = floor(later(now, -HOUR), HOUR);
    let ends = [DAY, HOUR].map(|unit| later(floor(oldest, unit), unit));
    ends.into_iter().find(|end| *end <= newest).map(time_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn rules(toml: &str) -> Retention {
        toml::from_str(toml).unwrap()
    }

    fn row(tenant: &str, topic: &str, received_at: &str) -> Aged {
        Aged { id: 1, tenant_id: Some(tenant.into()), topic: topic.into(), received_at: received_at.into() }
    }

    #[test]
    fn days_go_whole_and_the_longer_of_two_rules_counts() {
        let now = at("2026-03-10T12:00:00Z");
        let rules = rules(
            "age_max = '2d'\n[topics.'a.long']\nage_max = '5d'\n[topics.'a.short']\nage_max = '1d'\n\
             [tenants.kept]\nage_max = '0s'\n[tenants.some]\nage_max = '4d'\n",
        );
        for (tenant, topic, received_at, outdated) in [
            ("t", "t", "2026-03-07 23:59:59.999999", true),
            ("t", "t", "2026-03-08 00:00:00.000000", false), // the day is not older as a whole
            ("t", "a.short", "2026-03-08 23:00:00.000000", true),
            ("t", "a.short", "2026-03-09 00:00:00.000000", false),
            ("some", "a.short", "2026-03-06 00:00:00.000000", false),
            ("some", "a.short", "2026-03-05 23:00:00.000000", true),
            ("some", "a.long", "2026-03-05 00:00:00.000000", false),
            ("some", "a.long", "2026-03-04 23:00:00.000000", true),
            ("kept", "a.short", "2020-01-01 00:00:00.000000", false),
        ] {
            assert_eq!(is_outdated(&rules, &row(tenant, topic, received_at), now), outdated, "{tenant} {topic}");
        }
        assert_eq!(ages_end(&rules, now).unwrap(), "2026-03-09 00:00:00.000000");
        assert_eq!(ages_end(&Retention::default(), now), None);
    }

    #[test]
    fn where_room_is_short_days_go_before_hours_and_the_last_hour_stays() {
        let now = at("2026-03-10T12:34:00Z");
        for (oldest, end) in [
            ("2026-03-08 22:10:00.000000", Some("2026-03-09 00:00:00.000000")),
            ("2026-03-10 03:10:00.000000", Some("2026-03-10 04:00:00.000000")),
            ("2026-03-10 10:59:00.000000", Some("2026-03-10 11:00:00.000000")),
            ("2026-03-10 11:00:00.000000", None),
            ("2026-03-10 12:30:00.000000", None),
        ] {
            assert_eq!(next_end(oldest, now).as_deref(), end, "{oldest}");
        }
        // Just after midnight yesterday's last hour is the last one.
        assert_eq!(next_end("2026-03-09 23:10:00.000000", at("2026-03-10T00:20:00Z")), None);
        assert_eq!(
            next_end("2026-03-09 22:10:00.000000", at("2026-03-10T00:20:00Z")).as_deref(),
            Some("2026-03-09 23:00:00.000000")
        );
    }
}
