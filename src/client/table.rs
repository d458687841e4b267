//! Text for people: aligned columns, and nothing in them that a terminal would obey.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A column, by the name of the API's member that it shows; `sample/id` is the member of a member.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// A heading, and a line for each row.
pub fn table(columns: &[Column], rows: &[Value]) -> String {
    let name = |column: &Column| match column {
        Column::Left(name) | Column::Right(name) => *name,
    };
    let heading = columns.iter().map(|column| name(column).to_uppercase().replace(['_', '/'], " ")).collect();
    let row = |row: &Value| columns.iter().map(|column| member(row, name(column))).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows.iter().map(row)).collect();
    aligned(&lines, |index| matches!(columns[index], Column::Right(_)))
}

/// A line for each name and its value.
pub fn pairs(pairs: Vec<(String, String)>) -> String {
    let lines: Vec<Vec<String>> = pairs.into_iter().map(|(name, value)| vec![name, escape(&value)]).collect();
    aligned(&lines, |_| false)
}

/// Each column as wide as its widest cell, two spaces between.
fn aligned(lines: &[Vec<String>], is_right: impl Fn(usize) -> bool) -> String {
    let mut widths = Vec::new();
    for line in lines {
        widths.resize(line.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let padded = line.iter().zip(&widths).enumerate().map(|(index, (cell, &width))| match is_right(index) {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn member(row: &Value, name: &str) -> String {
    match row.pointer(&format!("/{name}")) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => escape(text),
        Some(other) => escape(&other.to_string()),
    }
}

/// An object of the API in its own order. Its values stay the text that they are: a payload may nest deeper than a
/// parser goes, and its numbers are shown as they came.
pub struct Members(pub Vec<(String, Box<RawValue>)>);

impl Members {
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| (escape(name), plain(value))).collect()
    }
}

/// A string without its quotes, anything else as JSON writes it.
pub fn plain(value: &RawValue) -> String {
    match value.get() {
        "null" => "-".to_owned(),
        json => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(InOrder)
    }
}

/// What a terminal would obey, or what would turn a line's order around, as the escape that a programmer would write.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes text from elsewhere safe to print on one line.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The same JSON, safe to print: inside its strings an escape means what the character did, between them there is only
/// space.
pub fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\t' => safe.push(c),
            '\r' => safe.push(' '),
            _ if is_unsafe(c) => safe += &format!("\\u{:04x}", u32::from(c)),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_what_is_absent_is_a_dash() {
        let rows = [
            json!({"id": 7, "topic": "a", "sample": {"id": 1}}),
            json!({"id": 1200, "topic": "longer", "sample": {"id": null}}),
        ];
        let columns = [Column::Right("id"), Column::Left("topic"), Column::Right("sample/id"), Column::Left("error")];
        let expected = "  ID  TOPIC   SAMPLE ID  ERROR\n   7  a               1  -\n1200  longer          -  -\n";
        assert_eq!(table(&columns, &rows), expected);
        assert_eq!(table(&columns[..2], &[]), "ID  TOPIC\n");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let hostile = "a\x1b[2J\r\nb\u{9b}31m\u{202e}\x7f é ü 日本";
        assert_eq!(escape(hostile), "a\\u{1b}[2J\\r\\nb\\u{9b}31m\\u{202e}\\u{7f} é ü 日本");
        let json = "{\"a\":\r\n\"\u{9b}\u{202e}é\"}";
        let safe = escape_json(json);
        assert_eq!(safe, "{\"a\": \n\"\\u009b\\u202eé\"}");
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read(&safe), read(json));
    }

    #[test]
    fn members_keep_their_order_and_their_text() {
        let deep = format!("{}1.10{}", "[".repeat(1000), "]".repeat(1000));
        let json = format!(r#"{{"z":"text","a":null,"payload":{deep}}}"#);
        let members: Members = serde_json::from_str(&json).unwrap();
        let expected = [("z", "text"), ("a", "-"), ("payload", &deep)];
        assert_eq!(members.pairs(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
