//! A time in a request: the form, as a pattern for the API's description, and what it means.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

/// Every text that [`parse`] takes, and no other (ECMA 262, as JSON Schema wants it): a day of the years 1000 to 2999; or
/// a day, `T` or a space, hours and minutes, maybe seconds with up to nine places, maybe a zone.
pub const PATTERN: &str = concat!(
    "^(?:[12][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))",
    "|(?:[12][0-9](?:0[48]|[2468][048]|[13579][26])|(?:1[26]|2[048])00)-02-29)",
    "(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\\.[0-9]{1,9})?)?",
    "(?:Z|[+ -](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$",
);

/// Without a zone it is UTC. In a query an unescaped `+` is a space: the one before a zone is meant as it was written.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (day, rest) = text.split_at_checked(10)?;
    let day = date(day)?;
    if rest.is_empty() {
        return Offset::UTC.to_timestamp(day.to_datetime(Time::midnight())).ok();
    }
    let rest = rest.strip_prefix(['T', ' '])?;
    let (clock, zone) = rest.split_at(rest.find(['Z', '+', ' ', '-']).unwrap_or(rest.len()));
    offset(zone)?.to_timestamp(day.to_datetime(time(clock)?)).ok()
}

fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (digits::<4>(parts.next()?)?, digits::<2>(parts.next()?)?, digits::<2>(parts.next()?)?);
    let is_whole = parts.next().is_none() && (1000..3000).contains(&year);
    is_whole.then(|| Date::new(year as i16, month as i8, day as i8).ok()).flatten()
}

fn time(text: &str) -> Option<Time> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':');
    let (hour, minute) = (digits::<2>(parts.next()?)?, digits::<2>(parts.next()?)?);
    let second = match (parts.next(), fraction) {
        (Some(second), _) => digits::<2>(second)?,
        (None, None) => 0,
        // A fraction is of a second.
        (None, Some(_)) => return None,
    };
    let nanosecond = fraction.map_or(Some(0), nanoseconds)?;
    let is_whole = parts.next().is_none() && second < 60;
    is_whole.then(|| Time::new(hour as i8, minute as i8, second as i8, nanosecond as i32).ok()).flatten()
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    let is_right = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    is_right.then(|| format!("{fraction:0<9}").parse().ok()).flatten()
}

fn offset(zone: &str) -> Option<Offset> {
    let (sign, zone) = match zone {
        "" | "Z" => return Some(Offset::UTC),
        zone => (if zone.starts_with('-') { -1 } else { 1 }, zone.strip_prefix(['+', ' ', '-'])?),
    };
    let (hours, minutes) = zone.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { digits::<2>(minutes.strip_prefix(':').unwrap_or(minutes))? };
    let hours = digits::<2>(hours)?;
    let seconds = (hours * 3600 + minutes * 60) as i32;
    (hours < 24 && minutes < 60).then(|| Offset::from_seconds(sign * seconds).ok()).flatten()
}

/// The number that exactly `N` digits are, at most four.
fn digits<const N: usize>(text: &str) -> Option<u32> {
    (text.len() == N && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn what_is_nearly_a_time_is_none() {
        for text in [
            "2025-02-29",
            "1900-02-29",
            "2025-04-31",
            "0999-01-01",
            "3000-01-01",
            "2025-1-01",
            "2025-11-03 20",
            "2025-11-03 20:03.5",
            "2025-11-03 20:03:60",
            "2025-11-03t20:03",
            "2025-11-03 20:03z",
            "2025-11-03Z",
            "2025-11-03 20:03:58.",
            "2025-11-03 20:03:58.1234567890",
            "2025-11-03 20:03+24:00",
            "2025-11-03 20:03+1",
            "2025-11-03 20:03 UTC",
            "2025-11-03\n",
            "2025-11-03 20:03:00+01:",
            "2025-11-03 20:03:00,5",
            "",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert!(parse("2024-02-29").is_some() && parse("2000-02-29T23:59:59.123456789-2359").is_some());
    }

    fn pattern() -> Regex {
        Regex::new(PATTERN).unwrap()
    }

    proptest! {
        #[test]
        fn every_text_of_the_pattern_is_a_time(text in PATTERN.trim_matches(['^', '$'])) {
            prop_assert!(parse(&text).is_some());
        }

        #[test]
        fn what_is_nearly_a_time_is_one_exactly_where_it_is_of_the_pattern(
            text in "[0-3][0-9]{3}-[01][0-9]-[0-3][0-9]([T t][0-2][0-9]:[0-6][0-9](:[0-6][0-9])?([.,][0-9]{0,10})?(Z|z|[+ -][0-9]{2}:?[0-9]{0,2})?)?",
        ) {
            prop_assert_eq!(parse(&text).is_some(), pattern().is_match(&text));
        }

        #[test]
        fn a_time_with_one_character_changed_is_one_exactly_where_it_is_of_the_pattern(
            text in PATTERN.trim_matches(['^', '$']),
            at in any::<prop::sample::Index>(),
            other in "[-0-9:. TZ+\n\u{663}]?",
        ) {
            let mut text: Vec<String> = text.chars().map(String::from).collect();
            let at = at.index(text.len());
            text[at] = other;
            let text = text.concat();
            prop_assert_eq!(parse(&text).is_some(), pattern().is_match(&text), "{:?}", text);
        }
    }
}
