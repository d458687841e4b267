//! Where a search goes on, as text for the client.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Order, Search};

/// How far a search came: to this id, whether there is such an event or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub(super) id: i64,
}

impl Position {
    /// Whether a search in this order has passed the event `id`, when ids grow.
    pub fn is_behind(&self, id: i64, order: Order) -> bool {
        order == Order::OldestFirst && self.id >= id
    }
}

/// `position` of `search`, as text.
pub fn next_cursor(search: &Search, position: &Position) -> String {
    URL_SAFE_NO_PAD.encode(format!("{:016x} {}", digest(search), position.id))
}

/// What [`next_cursor`] wrote for the same search.
///
/// # Errors
/// Says what is wrong with it.
pub fn position(search: &Search, cursor: &str) -> Result<Position, String> {
    let foreign = || "is none that a page of events gave; take next_cursor as it is, or leave it out".to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| foreign())?;
    let text = String::from_utf8(bytes).map_err(|_| foreign())?;
    let (of, id) = text.split_once(' ').ok_or_else(foreign)?;
    let of = u64::from_str_radix(of, 16).map_err(|_| foreign())?;
    let id = id.parse().map_err(|_| foreign())?;
    if of != digest(search) {
        let problem = "belongs to another search; go on with the same conditions and order, or leave it out";
        return Err(problem.to_owned());
    }
    Ok(Position { id })
}

fn digest(search: &Search) -> u64 {
    let mut hasher = DefaultHasher::new();
    search.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_with_its_own_search_alone() {
        let search = Search { tenant_id: Some("acme".to_owned()), ..Search::default() };
        let at = Position { id: 17 };
        let cursor = next_cursor(&search, &at);
        assert!(cursor.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{cursor}");
        assert_eq!(position(&search, &cursor), Ok(at));
        assert!(position(&Search::default(), &cursor).unwrap_err().contains("another search"));
        for wrong in ["", "17", "a b c", "MTcgMTcgMTc=", &cursor[1..]] {
            assert!(position(&search, wrong).is_err(), "{wrong}");
        }
    }
}
