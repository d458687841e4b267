//! What prunings and erasures are answered with.

use schemars::JsonSchema;
use serde::Serialize;

use crate::removal::{Erasure, ErasurePlan, PrunePlan};

/// A dry run of an erasure.
#[derive(Serialize, JsonSchema)]
pub struct ErasureRehearsal {
    #[serde(flatten)]
    pub plan: ErasurePlan,
    pub dry_run: bool,
    /// What to confirm it with.
    pub confirm: String,
    /// Why it could not be done now.
    pub blocked_by: Option<String>,
}

/// An erasure at its end.
#[derive(Serialize, JsonSchema)]
pub struct Erased {
    #[serde(flatten)]
    pub erasure: Erasure,
    pub status: &'static str,
    pub tenant_id: String,
    /// Files of the archive that may hold events of the key, or that hold later events of the tenant too: 1000 at the
    /// most.
    pub archive_files_left: Vec<String>,
    pub detail: &'static str,
}

/// An erasure whose time was up.
#[derive(Serialize, JsonSchema)]
pub struct Erasing {
    pub status: &'static str,
    pub certificate: i64,
    pub left: ErasurePlan,
    pub detail: &'static str,
}

/// A dry run of a pruning.
#[derive(Serialize, JsonSchema)]
pub struct PruneRehearsal {
    #[serde(flatten)]
    pub plan: PrunePlan,
    pub dry_run: bool,
}

/// How far a pruning came.
#[derive(Serialize, JsonSchema)]
pub struct Pruned {
    /// `pruned`, or `partly pruned`: send the same again with what is left.
    pub status: &'static str,
    pub events: u64,
    pub last_event_id: i64,
    pub left: i64,
    /// Why events stay that are old enough.
    pub stops_before: Option<String>,
}
