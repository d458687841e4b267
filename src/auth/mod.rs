//! Who asks, and what that person or program may do.

mod gate;
mod tokens;
pub mod users;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fmt, fs};

pub use self::gate::{AuthError, Gate};

/// What somebody may do. Each may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See.
    Viewer,
    /// Replay, and work on dead letters.
    Operator,
    /// Take data out of the journal for good.
    Admin,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `None`: nobody had to say.
    pub name: Option<String>,
    pub role: Role,
    /// The only tenant whose data this one may see and touch; `None`: every tenant's, and what is the whole box's.
    pub tenant: Option<String>,
}

/// # Errors
/// If every user of the box may read the file at `path`.
fn refuse_readable_by_others(path: &Path) -> Result<(), String> {
    let mode = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.mode();
    if mode & 0o007 == 0 {
        return Ok(());
    }
    let at = path.display();
    Err(format!("{at}: every user of this box may read it; make it the service's alone: chmod 0640 {at}"))
}
