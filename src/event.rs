//! What Kafka gave, and the one pure step that makes an event of it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// The tenant of an event whose payload names none.
pub const UNKNOWN_TENANT: &str = "unknown";

const TENANT_ID: &str = "tenant_id";

/// Levels of a payload at most. SQLite's JSON functions stop there (`JSON_MAX_DEPTH` in its json.c), and one deeper
/// payload in the journal would fail every query that looks into payloads.
pub const DEPTH_MAX: usize = 1000;

/// Header that names the journal row a replayed record came from.
pub const REPLAY_OF: &str = "crm-replay-of";
/// Header that names the journal (`journal_info.journal_id`) whose row `crm-replay-of` is.
pub const REPLAY_JOURNAL: &str = "crm-replay-journal";
/// The header with the place that row's record had in Kafka.
pub const REPLAY_POSITION: &str = "crm-replay-position";
/// The header with the job that sent a record: its id and its token, as `3-9f2c…`.
pub const REPLAY_JOB: &str = "crm-replay-job";
/// The header with the dead letter (of the journal `crm-replay-journal`) that was sent to its topic.
pub const REPLAY_LETTER: &str = "crm-replay-dlq";
/// What every header added by a replay begins with.
pub const REPLAY_PREFIX: &str = "crm-replay-";

/// The identity a producer gives a record: there is no other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    pub topic: Arc<str>,
    pub partition: i32,
    /// The record's own offset.
    pub offset: i64,
}

/// Bytes that are mostly text: written as a JSON string where they are UTF-8, else as `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.as_text() {
            Some(text) => to.serialize_str(text),
            None => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Text; bytes that are none (no UTF-8) in Base64.",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"base64": {"type": "string"}}, "required": ["base64"]},
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Binary { base64: String },
        }
        match Form::deserialize(from)? {
            Form::Text(text) => Ok(Bytes(text.into_bytes())),
            Form::Binary { base64 } => BASE64.decode(base64).map(Bytes).map_err(D::Error::custom),
        }
    }
}

/// A record's headers: in order, names may repeat, a value may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Headers(pub Vec<(Bytes, Option<Bytes>)>);

impl Headers {
    /// The row of `journal_id` that this record is a replay of. A replay made from another box's journal is
    /// not one of ours: its row number means nothing here.
    pub fn replay_of(&self, journal_id: &str) -> Option<i64> {
        self.ours(REPLAY_OF, journal_id)?.parse().ok()
    }

    fn ours(&self, name: &str, journal_id: &str) -> Option<&str> {
        self.last(name).filter(|_| self.last(REPLAY_JOURNAL) == Some(journal_id))
    }

    /// The job of `journal_id` that sent this record, and its token.
    pub fn replay_job(&self, journal_id: &str) -> Option<(i64, &str)> {
        let (id, token) = self.ours(REPLAY_JOB, journal_id)?.split_once('-')?;
        Some((id.parse().ok()?, token))
    }

    /// The dead letter of `journal_id` that this record is.
    pub fn replay_letter(&self, journal_id: &str) -> Option<i64> {
        self.ours(REPLAY_LETTER, journal_id)?.parse().ok()
    }

    /// Where the record stood that this one is a replay of: `topic/partition/offset`.
    pub fn replay_position(&self) -> Option<&str> {
        self.last(REPLAY_POSITION)
    }

    fn last(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rfind(|(n, _)| n.0 == name.as_bytes())?;
        value.as_ref()?.as_text()
    }
}

/// One record as Kafka gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    pub key: Option<Bytes>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// About what this record takes in memory, for the limits on batches and queue.
    pub fn bytes(&self) -> usize {
        let headers = &self.headers.0;
        let headers: usize =
            headers.iter().map(|(name, value)| name.0.len() + value.as_ref().map_or(0, |v| v.0.len())).sum();
        let key = self.key.as_ref().map_or(0, |k| k.0.len());
        let value = self.value.as_ref().map_or(0, Vec::len);
        std::mem::size_of::<Record>() + key + value + headers
    }
}

/// A record whose value is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub record: Record,
    pub tenant_id: String,
}

/// Why a record's value is no event. The message says where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    ValueAbsent,
    NotUtf8(String),
    NotJson(String),
    NotAnObject(String),
}

/// The tenant of a record's value, if the value is a JSON object.
///
/// The rules are those of RFC 8259, and at most [`DEPTH_MAX`] levels. A name that stands twice counts the
/// last time. A string is the tenant as it is, a number its text, everything else [`UNKNOWN_TENANT`].
///
/// # Errors
/// Says which of the four things an event's value must be it is not.
pub fn decode(value: Option<&[u8]>) -> Result<String, DecodeError> {
    let value = value.ok_or(DecodeError::ValueAbsent)?;
    let text = std::str::from_utf8(value)
        .map_err(|e| DecodeError::NotUtf8(format!("invalid byte at position {}", e.valid_up_to())))?;
    // Names that are text are read in half the time that any others take.
    match tenant_id::<TextName>(text).or_else(|_| tenant_id::<AnyName>(text)) {
        Ok(_) if is_too_deep(value) => Err(DecodeError::NotJson(format!("more than {DEPTH_MAX} levels deep"))),
        Ok(tenant_id) => Ok(tenant_id.map_or_else(|| UNKNOWN_TENANT.to_owned(), Cow::into_owned)),
        Err(error) => Err(undecodable(text, &error)),
    }
}

fn is_too_deep(json: &[u8]) -> bool {
    // `[` and `{` differ in one bit. What a byte can count, the compiler counts many at once.
    let openings = |piece: &[u8]| piece.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    let openings: usize = json.chunks(usize::from(u8::MAX)).map(|piece| usize::from(openings(piece))).sum();
    openings > DEPTH_MAX && depth(json) > DEPTH_MAX
}

/// Levels of a valid JSON text.
fn depth(json: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_string) = (0_usize, 0, false);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => level += 1,
            b'}' | b']' if !in_string => level -= 1,
            _ => {}
        }
        deepest = deepest.max(level);
    }
    deepest
}

fn undecodable(text: &str, error: &serde_json::Error) -> DecodeError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => DecodeError::NotAnObject(format!("the value is {}", kind(text))),
        Err(syntax) => {
            let precise = if error.is_data() { &syntax } else { error };
            DecodeError::NotJson(precise.to_string())
        }
    }
}

fn kind(json: &str) -> &'static str {
    match json.trim_start().bytes().next() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The one member of an event's payload that the journal needs, if `json` is an object.
fn tenant_id<'a, N: Name<'a>>(json: &'a str) -> serde_json::Result<Option<Cow<'a, str>>> {
    let mut from = serde_json::Deserializer::from_str(json);
    let tenant_id = from.deserialize_map(Object::<N>(PhantomData))?;
    from.end()?;
    Ok(tenant_id)
}

struct Object<N>(PhantomData<N>);

impl<'de, N: Name<'de>> Visitor<'de> for Object<N> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut tenant_id = None;
        while let Some(name) = map.next_key::<N>()? {
            if name.is_tenant_id() {
                tenant_id = tenant(map.next_value::<&RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(tenant_id)
    }
}

/// A member's name. Compared after its escapes are resolved, and never copied.
trait Name<'de>: Deserialize<'de> {
    fn is_tenant_id(&self) -> bool;
}

/// A name that is text.
struct TextName {
    is_tenant_id: bool,
}

impl Name<'_> for TextName {
    fn is_tenant_id(&self) -> bool {
        self.is_tenant_id
    }
}

impl<'de> Deserialize<'de> for TextName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TextName, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = TextName;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E>(self, name: &str) -> Result<TextName, E> {
                Ok(TextName { is_tenant_id: name == TENANT_ID })
            }
        }
        from.deserialize_str(Text)
    }
}

/// A name with a lone surrogate is odd JSON, and no text, but JSON; one with a control character is not.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct AnyName<'a> {
    #[serde(borrow)]
    raw: &'a RawValue,
}

impl<'de> Name<'de> for AnyName<'de> {
    fn is_tenant_id(&self) -> bool {
        serde_json::from_str::<String>(self.raw.get()).is_ok_and(|name| name == TENANT_ID)
    }
}

fn tenant(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.bytes().next()? {
        b'"' => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant_of(json: &str) -> String {
        decode(Some(json.as_bytes())).unwrap()
    }

    #[test]
    fn the_tenant_is_the_payloads_and_unknown_where_there_is_none() {
        assert_eq!(tenant_of(r#"{"tenant_id":"acme","id":7}"#), "acme");
        assert_eq!(tenant_of(r#"{"id":7,"tenant_id":"caf\u00e9"}"#), "café");
        assert_eq!(tenant_of(r#"{"tenant\u005fid":"escaped"}"#), "escaped");
        assert_eq!(tenant_of(r#"{"tenant_id":42}"#), "42");
        assert_eq!(tenant_of(r#"{"tenant_id":-1.50e3}"#), "-1.50e3");
        assert_eq!(tenant_of(r#"{"tenant_id":"first","tenant_id":"last"}"#), "last");
        for none in [r#"{}"#, r#"{"tenant_id":null}"#, r#"{"tenant_id":true}"#, r#"{"inner":{"tenant_id":"deep"}}"#] {
            assert_eq!(tenant_of(none), UNKNOWN_TENANT, "{none}");
        }
    }

    #[test]
    fn numbers_and_escapes_that_do_not_fit_a_type_are_still_json() {
        assert_eq!(tenant_of(r#"{"n":1e999,"big":123456789012345678901234567890,"tenant_id":"a"}"#), "a");
        assert_eq!(tenant_of(r#"{"s":"\ud800","\udfff":1,"tenant_id":"b"}"#), "b");
    }

    #[test]
    fn what_is_no_event_says_why_and_where() {
        let error = |bytes: &[u8]| decode(Some(bytes)).unwrap_err();
        assert_eq!(decode(None), Err(DecodeError::ValueAbsent));
        assert_eq!(error(b"{\"a\":\xff}"), DecodeError::NotUtf8("invalid byte at position 5".into()));
        assert_eq!(error(b"[1,2]"), DecodeError::NotAnObject("the value is an array".into()));
        assert_eq!(error(b" null"), DecodeError::NotAnObject("the value is null".into()));
        for (json, place) in [
            (&b"{\"a\":1,}"[..], "line 1 column 8"),
            (b"{\"a\":\n tru}", "line 2 column 5"),
            (b"", "line 1 column 0"),
            (b"{} {}", "line 1 column 4"),
            (b"[1,", "line 1 column 3"),
            (b"{\"a\":NaN}", "line 1 column 6"),
            (b"{\"a\n\":1}", "line 1 column 3"),
        ] {
            match error(json) {
                DecodeError::NotJson(message) => assert!(message.contains(place), "{message} lacks {place}"),
                other => panic!("{json:?} gave {other:?}"),
            }
        }
        let nested = |levels: usize| [b"{\"[\\\"\":".repeat(levels), b"1".to_vec(), b"}".repeat(levels)].concat();
        assert_eq!(decode(Some(&nested(DEPTH_MAX))), Ok(UNKNOWN_TENANT.to_owned()));
        assert_eq!(error(&nested(DEPTH_MAX + 1)), DecodeError::NotJson("more than 1000 levels deep".into()));
    }

    #[test]
    fn headers_keep_order_repeats_absent_values_and_bytes() {
        let text = |s: &str| Bytes(s.as_bytes().to_vec());
        let headers = Headers(vec![
            (text("trace"), Some(text("1"))),
            (text("trace"), Some(text("2"))),
            (text("none"), None),
            (text("raw"), Some(Bytes(vec![0xff, 0]))),
        ]);
        let json = serde_json::to_string(&headers).unwrap();
        assert_eq!(json, r#"[["trace","1"],["trace","2"],["none",null],["raw",{"base64":"/wA="}]]"#);
        assert_eq!(serde_json::from_str::<Headers>(&json).unwrap(), headers);
    }

    #[test]
    fn only_a_replay_from_this_journal_names_a_row() {
        let text = |s: &str| Bytes(s.as_bytes().to_vec());
        let headers = Headers(vec![(text(REPLAY_OF), Some(text("17"))), (text(REPLAY_JOURNAL), Some(text("here")))]);
        assert_eq!(headers.replay_of("here"), Some(17));
        assert_eq!(headers.replay_of("elsewhere"), None);
        assert_eq!(Headers::default().replay_of("here"), None);
    }
}
