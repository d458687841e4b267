//! What a member of the payload must be: `payload.status:qualified`.

use std::str::FromStr;

/// A member of the payload and its value. They are compared as text: strings by what they say, everything else as
/// JSON writes it (`17`, `true`, `null`, `["a"]`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// As SQLite reads it: `$."status"`.
    pub(super) path: String,
    pub(super) value: String,
}

impl Condition {
    /// That `payload.event_type` is `value`.
    pub fn event_type(value: String) -> Condition {
        Condition { path: r#"$."event_type""#.to_owned(), value }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let example = "give payload., the member's name, a colon and its value, as payload.status:qualified or \
                       payload.address.city:Graz";
        let (path, value) = text.split_once(':').ok_or_else(|| format!("{text:.60?} has no colon; {example}"))?;
        let names = path.strip_prefix("payload.");
        let names = names.ok_or_else(|| format!("{path:.60?} does not begin with payload.; {example}"))?;
        if names.split('.').any(str::is_empty) {
            return Err(format!("{path:.60?} has an empty name; {example}"));
        }
        // They would end a name in SQLite's paths.
        if names.contains(['"', '\\']) || names.contains(char::is_control) {
            return Err(format!(
                "{path:.60?} has a quote, a backslash or a control character in a name; use q instead"
            ));
        }
        let path = names.split('.').map(|name| format!(".\"{name}\"")).collect::<String>();
        Ok(Condition { path: format!("${path}"), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_a_dotted_path_and_a_value() {
        let read = |text: &str| text.parse::<Condition>();
        let condition = read("payload.address.city:Graz: west").unwrap();
        assert_eq!((condition.path.as_str(), condition.value.as_str()), (r#"$."address"."city""#, "Graz: west"));
        assert_eq!(read("payload.note:").unwrap().value, "");
        for wrong in
            ["payload.status", "status:won", "payload.:x", "payload.a..b:x", r#"payload.a":x"#, r"payload.a\:x"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
