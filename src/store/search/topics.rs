//! Which topics a pattern means.

use rusqlite::Connection;

/// Topics that are looked at, in the order of their names.
const TOPICS_MAX: u32 = 10_000;

/// Every topic that was ever read.
const KNOWN: &str = "SELECT topic FROM kafka_position UNION SELECT topic FROM kafka_range ORDER BY topic LIMIT ?1";

/// The topics of the journal that `pattern` means: the one of that name, else all that it matches, else the one of that
/// name after all, of which there may be rows that did not come from Kafka.
pub(super) fn meant(connection: &Connection, pattern: &str) -> rusqlite::Result<Vec<String>> {
    let mut known = connection.prepare_cached(KNOWN)?;
    let mut topics = known.query_map([TOPICS_MAX], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    match topics.iter().any(|topic| topic == pattern) {
        true => topics.retain(|topic| topic == pattern),
        false => topics.retain(|topic| matches(pattern, topic)),
    }
    if topics.is_empty() && !is_glob(pattern) {
        topics.push(pattern.to_owned());
    }
    Ok(topics)
}

/// `*` stands for any characters, dots among them, `?` for one that is no dot. Without either, the pattern's dotted
/// segments stand one after the other somewhere in the name.
fn matches(pattern: &str, topic: &str) -> bool {
    if is_glob(pattern) {
        return glob(pattern.as_bytes(), topic.as_bytes());
    }
    let words: Vec<&str> = pattern.split('.').collect();
    let segments: Vec<&str> = topic.split('.').collect();
    segments.windows(words.len()).any(|window| window == words)
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// Goes back to the last `*` alone, so it takes a time of pattern times name at most.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(b'?') if name[n] != b'.' => (p, n) = (p + 1, n + 1),
            Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_segments_and_globs_match_names() {
        let topic = "apexflow.leads.status_changed";
        for pattern in [
            "leads",
            "leads.status_changed",
            "apexflow",
            "apexflow.leads.*",
            "apexflow.*",
            "*",
            "*status?changed",
            "ap*.l*d",
        ] {
            assert!(matches(pattern, topic), "{pattern}");
        }
        for pattern in
            ["lead", "status", "leads.", "apexflow.status_changed", "apexflow?leads*", "leads.*", "ap*.x*", ""]
        {
            assert!(!matches(pattern, topic), "{pattern}");
        }
        assert!(glob(b"*a*a*a*b", &[b"a".repeat(200).as_slice(), b"b"].concat()));
        assert!(!glob(&b"*a".repeat(100), &b"b".repeat(10_000)));
    }
}
