//! What stands under a link, byte for byte; docs/integrity-chain.md has it for those who compute it themselves.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// A list of values that is hashed. Each says its type and its length, so no two lists are the same bytes.
pub struct Values(Sha256);

impl Values {
    /// `kind` keeps a hash of one kind from being taken for one of another.
    pub fn of(kind: &str) -> Values {
        Values(Sha256::new()).text(kind)
    }

    pub fn text(self, text: &str) -> Values {
        self.value(ValueRef::Text(text.as_bytes()))
    }

    pub fn blob(self, blob: &[u8]) -> Values {
        self.value(ValueRef::Blob(blob))
    }

    pub fn integer(self, integer: i64) -> Values {
        self.value(ValueRef::Integer(integer))
    }

    pub fn values<'a>(self, values: impl IntoIterator<Item = ValueRef<'a>>) -> Values {
        values.into_iter().fold(self, Values::value)
    }

    /// One letter for the type; then nothing for NULL, eight bytes for a number, and for text and blob the length in
    /// eight bytes and the bytes. Numbers are big-endian.
    pub fn value(mut self, value: ValueRef) -> Values {
        match value {
            ValueRef::Null => self.0.update(b"n"),
            ValueRef::Integer(integer) => self.fixed(b'i', integer.to_be_bytes()),
            ValueRef::Real(real) => self.fixed(b'r', real.to_bits().to_be_bytes()),
            ValueRef::Text(bytes) => self.sized(b't', bytes),
            ValueRef::Blob(bytes) => self.sized(b'b', bytes),
        }
        self
    }

    fn fixed(&mut self, kind: u8, bytes: [u8; 8]) {
        let mut all = [kind; 9];
        all[1..].copy_from_slice(&bytes);
        self.0.update(all);
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) {
        self.fixed(kind, (bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    pub fn hash(self) -> Hash {
        self.0.finalize().into()
    }
}

/// The hash in a column; zeros, which no row has, where somebody has put something else.
pub fn stored(row: &Row, column: usize) -> rusqlite::Result<Hash> {
    let blob = row.get_ref(column)?.as_blob_or_null().ok().flatten();
    Ok(blob.and_then(|blob| blob.try_into().ok()).unwrap_or_default())
}

/// Two hexadecimal digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_is_what_the_document_says() {
        // printf 't\0\0\0\0\0\0\0\1xi\xff\xff\xff\xff\xff\xff\xff\xfenb\0\0\0\0\0\0\0\2\1\2' | sha256sum
        let hash = Values::of("x").integer(-2).value(ValueRef::Null).blob(&[1, 2]).hash();
        assert_eq!(hex(&hash), "b6b1250979c5ebdb7f3168e52ce56945836ce49b31042910217209143291c4a9");
    }

    #[test]
    fn no_two_lists_are_the_same_bytes() {
        let lists = [
            Values::of("a").text("bc").hash(),
            Values::of("ab").text("c").hash(),
            Values::of("a").blob(b"bc").hash(),
            Values::of("a").text("bc").value(ValueRef::Null).hash(),
            Values::of("a").text("b").text("c").hash(),
        ];
        let different: std::collections::HashSet<_> = lists.iter().collect();
        assert_eq!(different.len(), lists.len());
    }
}
