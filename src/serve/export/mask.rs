//! Takes personal data out of payloads: the values of named members, at any depth. The rest stays byte for byte.

use std::fmt;

use serde_json::value::RawValue;

use crate::event::Bytes;
use crate::store::{EventDetail, Payload};

const MASKED: &str = r#""***""#;
/// The name that means the record's key.
const KEY: &str = "kafka_key";
const NAMES_MAX: usize = 50;

/// Names of members: `email`, or with those that it is in, `contact.email`. Lists have no part in a name.
#[derive(Debug, Default)]
pub struct Mask(Vec<String>);

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Mask {
    /// # Errors
    /// If a name is empty, or there are too many.
    pub fn new(texts: impl Iterator<Item = String>) -> Result<Mask, String> {
        let mut names = Vec::new();
        for text in texts {
            names.extend(text.split(',').map(|name| name.trim_matches(' ').to_owned()));
        }
        if names.iter().any(String::is_empty) {
            return Err("has an empty name; give names of the payload's members, as email,phone".to_owned());
        }
        if names.len() > NAMES_MAX {
            return Err(format!("has more than {NAMES_MAX} names"));
        }
        Ok(Mask(names))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Masks the payload's members, the headers of these names, and the key if it is named.
    pub fn apply(&self, event: &mut EventDetail) {
        if self.is_empty() {
            return;
        }
        event.payload = Payload(self.masked(&event.payload.0));
        let stars = || Bytes(b"***".to_vec());
        for (name, value) in &mut event.kafka_headers.0 {
            if value.is_some() && name.as_text().is_some_and(|name| self.0.iter().any(|own| own == name)) {
                *value = Some(stars());
            }
        }
        if self.0.iter().any(|name| name == KEY) {
            event.kafka_key = event.kafka_key.take().map(|_| stars());
        }
    }

    /// What is not JSON, which only an operator's own INSERT can have made, is masked as a whole.
    fn masked(&self, json: &str) -> String {
        if serde_json::from_str::<&RawValue>(json).is_err() {
            return MASKED.to_owned();
        }
        let mut walk = Walk { json, at: 0, objects: Vec::new(), path: Vec::new() };
        let (mut masked, mut copied) = (String::with_capacity(json.len()), 0);
        while let Some(start) = walk.next_value() {
            if !self.means(&walk.path) {
                continue;
            }
            walk.skip_value();
            if &json[start..walk.at] != "null" {
                masked.push_str(&json[copied..start]);
                masked.push_str(MASKED);
                copied = walk.at;
            }
        }
        masked.push_str(&json[copied..]);
        masked
    }

    fn means(&self, path: &[String]) -> bool {
        let path = path.join(".");
        let ends_with = |name: &str| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.0.iter().any(|name| ends_with(name))
    }
}

/// Goes through the members of valid JSON, however deep, without a stack of its own to overflow.
struct Walk<'a> {
    json: &'a str,
    at: usize,
    /// For each object or list that is open: the length of the path to it, and whether it is an object.
    objects: Vec<(usize, bool)>,
    /// The names of the members that `at` is in.
    path: Vec<String>,
}

impl Walk<'_> {
    /// Goes to the next member's value; where it begins.
    fn next_value(&mut self) -> Option<usize> {
        let bytes = self.json.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'{' => self.objects.push((self.path.len(), true)),
                b'[' => self.objects.push((self.path.len(), false)),
                b'}' | b']' => {
                    let (length, _) = self.objects.pop().unwrap_or_default();
                    self.path.truncate(length);
                }
                b'"' if self.objects.last().is_some_and(|(_, is_object)| *is_object) => return Some(self.enter()),
                b'"' => {
                    self.skip_string();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        None
    }

    /// From a member's name to its value.
    fn enter(&mut self) -> usize {
        let start = self.at;
        self.skip_string();
        let raw = &self.json[start..self.at];
        let name = serde_json::from_str(raw).unwrap_or_else(|_| raw.trim_matches('"').to_owned());
        let length = self.objects.last().map_or(0, |(length, _)| *length);
        self.path.truncate(length);
        self.path.push(name);
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
        self.at += self.json.as_bytes()[self.at..].iter().take_while(|byte| is_between(byte)).count();
        // A string that is the value is not taken for a name.
        if self.json.as_bytes().get(self.at) == Some(&b'"') {
            let value = self.at;
            self.skip_string();
            return value;
        }
        self.at
    }

    fn skip_string(&mut self) {
        let bytes = self.json.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += match byte {
                b'\\' => 2,
                b'"' => break,
                _ => 1,
            };
        }
        self.at += 1;
    }

    /// Past the value that begins at `at`, or that `next_value` has passed because it is a string.
    fn skip_value(&mut self) {
        let bytes = self.json.as_bytes();
        let mut depth = 0;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 1 => depth -= 1,
                b'}' | b']' if depth == 1 => {
                    self.at += 1;
                    return;
                }
                b',' | b'}' | b']' if depth == 0 => return,
                byte if byte.is_ascii_whitespace() && depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(names: &str, json: &str) -> String {
        Mask::new(std::iter::once(names.to_owned())).unwrap().masked(json)
    }

    #[test]
    fn values_of_named_members_are_masked_at_any_depth_and_nothing_else_changes() {
        for (names, json, expected) in [
            ("email", r#"{ "email" : "a@b" , "n":1.10 }"#, r#"{ "email" : "***" , "n":1.10 }"#),
            (
                "email",
                r#"{"a":{"email":["x",{"y":"}"}]},"b":[{"email":17},{"email":null}]}"#,
                r#"{"a":{"email":"***"},"b":[{"email":"***"},{"email":null}]}"#,
            ),
            (
                "a.email",
                r#"{"email":1,"a":[{"email":2}],"b":{"a":{"email":3}}}"#,
                r#"{"email":1,"a":[{"email":"***"}],"b":{"a":{"email":"***"}}}"#,
            ),
            ("a.b", r#"{"a.b":"x","a":{"b":true}}"#, r#"{"a.b":"***","a":{"b":"***"}}"#),
            (
                "email",
                r#"{"em\u0061il":"x","email":"y","note":"email","e":"\"email\":\"z\""}"#,
                r#"{"em\u0061il":"***","email":"***","note":"email","e":"\"email\":\"z\""}"#,
            ),
            ("email,phone", r#"{"email":{},"phone":[],"x":"phone"}"#, r#"{"email":"***","phone":"***","x":"phone"}"#),
            ("x", r#"{"email":"email","y":{"email":"x"}}"#, r#"{"email":"email","y":{"email":"x"}}"#),
            ("é", r#"{"é":"ü","b":"é"}"#, r#"{"é":"***","b":"é"}"#),
            ("a", r#"{"a":-1e5}"#, r#"{"a":"***"}"#),
            ("email", r#"not json {"email":"a@b"}"#, r#""***""#),
        ] {
            assert_eq!(masked(names, json), expected, "{names}: {json}");
        }
    }

    #[test]
    fn a_payload_of_a_thousand_levels_is_masked_too() {
        let deep = format!(r#"{}{{"email":"a@b"}}{}"#, r#"{"a":["#.repeat(500), "]}".repeat(500));
        assert_eq!(masked("email", &deep), deep.replace("a@b", "***"));
        assert!(Mask::new(std::iter::once("a,,b".to_owned())).is_err());
    }
}
