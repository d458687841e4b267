//! The hash chains over the rows of the journal and of the audit: each row's link is made of the link before it and of
//! what stands in the row, so that a row that is changed, removed or put in between breaks it.
//!
//! A row of the journal is hashed in two steps: its content (value, key, headers) with a salt, and the link of that and
//! of the rest. Erasing a row destroys content and salt and keeps the hash of the two, which nobody can guess back from
//! the few values that a name or a key may have; the link still covers the rest.

mod hash;
mod row;
mod segment;
mod walk;

pub use hash::hex;
pub(super) use row::{EventRow, Head, add_audit_row, add_event, seal};
pub(super) use segment::{obey, pruned};
pub use walk::{ChainReport, NotedHead, check_chains};
