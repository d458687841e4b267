//! What is an event, judged by two others: serde_json and the SQLite that must live with what gets into the journal.
//! The fuzz target (`fuzz/`) has the same judge.

use crm_events_sink::event::{DEPTH_MAX, DecodeError, UNKNOWN_TENANT, decode};
use rusqlite::Connection;
use serde_json::Value;
use serde_json::value::RawValue;

thread_local! {
    static SQLITE: Connection = Connection::open_in_memory().expect("a database in memory opens");
}

/// Fails if `decode` and the two judges disagree about these bytes.
pub fn check(bytes: &[u8]) {
    let decoded = decode(Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(matches!(decoded, Err(DecodeError::NotUtf8(_))), "{decoded:?}");
        return;
    };
    // Raw: no limit on depth and numbers, no look into strings.
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let is_object = is_json && text.trim_start().starts_with('{');
    match &decoded {
        Ok(tenant) => {
            assert!(is_object, "accepted, but serde_json says no: {text:?}");
            assert!(sqlite_accepts(text), "accepted, but SQLite cannot read it: {text:?}");
            assert_eq!(tenant_by_serde(text).unwrap_or(tenant.clone()), *tenant, "{text:?}");
        }
        Err(DecodeError::NotAnObject(_)) => assert!(is_json && !is_object, "{text:?}"),
        Err(DecodeError::NotJson(why)) if why.contains("levels deep") => {
            assert!(is_object && bytes.len() > DEPTH_MAX && !sqlite_accepts(text), "{text:?}");
        }
        Err(DecodeError::NotJson(_)) => assert!(!is_json, "refused, but it is JSON: {text:?}"),
        Err(other) => panic!("{other:?} for {text:?}"),
    }
}

fn sqlite_accepts(text: &str) -> bool {
    let sql = "SELECT json_valid(?1) AND json_type(?1) = 'object'";
    SQLITE.with(|sqlite| sqlite.query_row(sql, [text], |row| row.get(0)).unwrap_or(false))
}

/// None where serde_json's own tree cannot hold the text, or the tenant is a number: its text is not kept there.
fn tenant_by_serde(text: &str) -> Option<String> {
    match serde_json::from_str::<Value>(text).ok()?.get("tenant_id") {
        Some(Value::String(tenant)) => Some(tenant.clone()),
        Some(Value::Number(_)) => None,
        _ => Some(UNKNOWN_TENANT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check;

    const TOKENS: [&str; 28] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"tenant_id\"",
        "\"tenant\\u005fid\"",
        "\"a\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "1",
        "-0.5e3",
        "01",
        "1.",
        "1e999",
        "true",
        "fals",
        "null",
        " ",
        "\n",
        "\u{b}",
        "\0",
        "é",
        "\"\t\"",
        "NaN",
        "'a'",
    ];

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<f64>().prop_filter_map("JSON has no such number", |n| n.is_finite().then(|| n.to_string())),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        let member = |value: BoxedStrategy<String>| {
            let name = prop_oneof![Just("tenant_id".to_owned()), any::<String>()];
            (name, value).prop_map(|(name, value)| format!("{}:{value}", serde_json::to_string(&name).unwrap()))
        };
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(member(inner.boxed()), 0..6).prop_map(|m| format!("{{{}}}", m.join(", "))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

        #[test]
        fn any_bytes(bytes in any::<Vec<u8>>()) {
            check(&bytes);
        }

        #[test]
        fn pieces_of_json_in_any_order(tokens in prop::collection::vec(prop::sample::select(&TOKENS[..]), 0..20)) {
            check(tokens.concat().as_bytes());
            check(format!("{{{}}}", tokens.concat()).as_bytes());
        }

        #[test]
        fn json_and_json_with_one_byte_changed(json in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            check(json.as_bytes());
            let mut bytes = json.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            check(&bytes);
        }

        #[test]
        fn any_depth(levels in 900_usize..1100, object in any::<bool>()) {
            let (open, close) = if object { ("{\"a\":", "}") } else { ("[", "]") };
            check(format!("{{\"a\":{}1{}}}", open.repeat(levels), close.repeat(levels)).as_bytes());
        }
    }
}
