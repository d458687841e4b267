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
    let sqlite_accepts = sqlite_accepts(text);
    match &decoded {
        Ok(tenant) => {
            assert!(is_object, "accepted, but serde_json says no: {text:?}");
            assert!(sqlite_accepts, "accepted, but SQLite cannot read it: {text:?}");
            assert_eq!(tenant_by_serde(text).unwrap_or(tenant.clone()), *tenant, "{text:?}");
        }
        Err(DecodeError::NotAnObject(_)) => {
            assert!(is_json && !is_object && (sqlite_accepts || may_be_too_deep(text)), "{text:?}");
        }
        Err(DecodeError::NotJson(why)) if why.contains("levels deep") => {
            assert!(is_object && may_be_too_deep(text) && !sqlite_accepts, "{text:?}");
        }
        Err(DecodeError::NotJson(_)) => assert!(!is_json && !sqlite_accepts, "refused, but it is JSON: {text:?}"),
        Err(other) => panic!("{other:?} for {text:?}"),
    }
}

fn may_be_too_deep(text: &str) -> bool {
    text.bytes().filter(|byte| b"[{".contains(byte)).count() > DEPTH_MAX
}

/// SQLite reads JSON up to the first NUL, which no JSON has.
fn sqlite_accepts(text: &str) -> bool {
    let sql = "SELECT json_valid(?1) AND instr(?1, char(0)) = 0";
    SQLITE.with(|sqlite| sqlite.query_row(sql, [text], |row| row.get(0)).expect("it says 0 or 1"))
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

    use super::{DEPTH_MAX, check};

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

    /// JSON at its edges.
    const ODD: &[&str] = &[
        "0",
        "-0",
        "1E+5",
        "-0.10e-07",
        "1e999",
        "true",
        "false",
        "null",
        r#""""#,
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud83d\ude00""#,
        r#""\"\\\/\b\f\n\r\t\u0000""#,
        r#""[{]},:""#,
        r#""tenant_id""#,
        "\"\u{7f}é\u{feff}\"",
    ];

    /// What only looks like JSON.
    const WRONG: &[&str] = &[
        "",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "1_0",
        "NaN",
        "-Infinity",
        "nul",
        "truex",
        "'a'",
        "\"\u{1}\"",
        "\"\n\"",
        "\"\0\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\""#,
        "\"",
        "a",
        "/**/1",
        "\u{feff}1",
        "\u{a0}1",
    ];

    fn odd_value() -> impl Strategy<Value = String> + Clone {
        prop_oneof![40 => prop::sample::select(ODD), 1 => prop::sample::select(WRONG)].prop_map(str::to_owned)
    }

    fn mostly(good: &'static str, bad: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
        prop_oneof![60 => Just(good), 1 => prop::sample::select(bad)]
    }

    /// An object as it comes from a producer with bugs: one thing or another about it may be wrong.
    fn nearly_json() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            prop::sample::select(&[r#""tenant_id""#, r#""tenant\u005fid""#, r#""tenant_id\ud800""#, r#""a""#][..])
                .prop_map(str::to_owned),
            odd_value().prop_map(|value| if value.starts_with('"') { value } else { format!("\"{value}\"") }),
        ];
        let colon = mostly(":", &["", "::", " : ", "=", ","]);
        let comma = || mostly(",", &["", ",,", "\n,\t", ";", ",]"]);
        let end = || mostly("", &[",", "]", "}", "\u{c}", ":"]);
        let members = move |value: BoxedStrategy<String>| {
            let member =
                (name.clone(), colon.clone(), value).prop_map(|(name, colon, value)| format!("{name}{colon}{value}"));
            (prop::collection::vec(member, 0..6), comma(), end())
                .prop_map(|(members, comma, end)| format!("{{{}{end}}}", members.join(comma)))
        };
        let value = odd_value().prop_recursive(4, 24, 6, {
            let members = members.clone();
            move |inner| {
                let items = (prop::collection::vec(inner.clone(), 0..6), comma(), end())
                    .prop_map(|(items, comma, end)| format!("[{}{end}]", items.join(comma)));
                prop_oneof![items, members(inner.boxed())]
            }
        });
        let before = mostly("", &["\u{feff}", " \t\r\n", "\u{b}", "//\n", ","]);
        let after = mostly("", &[" \t\r\n", "\0", "\0}", "{}", ",", "\u{2028}", "x"]);
        (before, members(value.boxed()), after).prop_map(|(before, object, after)| format!("{before}{object}{after}"))
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
        fn nearly_json_and_the_same_cut_short(json in nearly_json(), at in any::<prop::sample::Index>()) {
            check(json.as_bytes());
            check(&json.as_bytes()[..at.index(json.len() + 1)]);
        }

        #[test]
        fn depths_about_the_limit(objects in prop::collection::vec(any::<bool>(), DEPTH_MAX - 3..DEPTH_MAX + 3), is_whole in prop::bool::weighted(0.9)) {
            let open: String = objects.iter().map(|object| if *object { r#"{"[{\"":"# } else { "[0," }).collect();
            let close: String = objects.iter().rev().map(|object| if *object { "}" } else { "]" }).collect();
            let close = if is_whole { &close } else { &close[1..] };
            check(format!("{open}[]{close}").as_bytes());
            check(format!(r#"{{"a":{open}1{close},"tenant_id":[[]]}}"#).as_bytes());
        }

        #[test]
        fn any_depth(levels in 1_usize..1100, object in any::<bool>()) {
            let (open, close) = if object { ("{\"a\":", "}") } else { ("[", "]") };
            check(format!("{{\"a\":{}1{}}}", open.repeat(levels), close.repeat(levels)).as_bytes());
        }
    }
}
