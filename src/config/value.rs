//! How a value is read and checked, whatever setting it is of.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::ConfigError;

pub(super) fn list(commas: &str) -> Vec<String> {
    commas.split(',').map(|item| item.trim().to_owned()).collect()
}

pub(super) fn address(name: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError(format!("{name}: {text:?} is no address; give ADDRESS:PORT, as {name}=127.0.0.1:9106"))
    })
}

pub(super) fn within<T: PartialOrd + std::fmt::Debug>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!("{key}: {value:?} is out of range; give {:?} to {:?}", range.start(), range.end())))
}

pub(super) fn not_empty(key: &str, value: &str, example: &str) -> Result<(), ConfigError> {
    if value.trim().is_empty() {
        return Err(ConfigError(format!("{key}: is empty; give it a value, as {example:?}")));
    }
    Ok(())
}

/// A span of time as people write it: `"20ms"`, `"10s"`, `"1m30s"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let example = "give a time with its unit, as \"20ms\" or \"10s\"";
    let span: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no time span; {example}"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative; {example}"))
}

pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match (span.as_millis() % 1000, span.as_secs()) {
            (0, seconds) => to.serialize_str(&format!("{seconds}s")),
            _ => to.serialize_str(&format!("{}ms", span.as_millis())),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// As `duration`, and in days of 24 hours: `"90d"`.
pub(super) mod age {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const DAY: u64 = 86_400;

    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        match span.as_secs() {
            seconds if seconds > 0 && seconds % DAY == 0 => to.serialize_str(&format!("{}d", seconds / DAY)),
            _ => super::duration::serialize(span, to),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        if let Some(days) = text.strip_suffix('d') {
            let days = days.trim().parse::<u32>().map_err(|_| {
                D::Error::custom(format!(
                    "{text:?} is no number of days; give a time with its unit, as \"90d\" or \"36h\""
                ))
            })?;
            return Ok(Duration::from_secs(u64::from(days) * DAY));
        }
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}
