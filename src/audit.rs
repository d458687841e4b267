//! What an operator does or tries to do, as the audit keeps it.

use std::fmt;

/// How far an act came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It reaches outside this process, and its end gets a row of its own.
    Started,
    Done,
    /// Only asked what would happen.
    DryRun,
    /// Not done, because of what was asked.
    Refused,
    /// Not done, because of the box or the broker.
    Failed,
    /// It may have been done.
    Unknown,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Started => "started",
            Outcome::Done => "done",
            Outcome::DryRun => "dry_run",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// One row of the audit.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who says to be asking.
    pub operator: String,
    /// The address that asked.
    pub origin: String,
    /// `replay`, `replay.job`, `dlq.retry`, …
    pub action: &'static str,
    /// Which event, job or dead letter; or the filter.
    pub target: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// How many events or dead letters it is about.
    pub count: Option<i64>,
    pub outcome: Outcome,
    pub detail: Option<String>,
    /// The row that says `started` of the same act.
    pub started_id: Option<i64>,
    /// The only tenant that it is about; `None`: not only one.
    pub tenant_id: Option<String>,
}

impl Act {
    /// An act that is done, of which nothing more is known.
    pub fn new(
        operator: impl Into<String>,
        origin: impl Into<String>,
        action: &'static str,
        target: impl Into<String>,
    ) -> Act {
        Act {
            operator: operator.into(),
            origin: origin.into(),
            action,
            target: target.into(),
            reason: None,
            count: None,
            outcome: Outcome::Done,
            detail: None,
            started_id: None,
            tenant_id: None,
        }
    }

    pub fn with(&self, outcome: Outcome, detail: impl fmt::Display) -> Act {
        let detail = Some(detail.to_string()).filter(|detail| !detail.is_empty());
        Act { outcome, detail, ..self.clone() }
    }

    pub fn counting(&self, count: usize) -> Act {
        Act { count: i64::try_from(count).ok(), ..self.clone() }
    }

    pub fn about(self, tenant_id: Option<&str>) -> Act {
        Act { tenant_id: tenant_id.map(str::to_owned), ..self }
    }

    pub fn after(&self, started_id: i64) -> Act {
        Act { started_id: Some(started_id), ..self.clone() }
    }
}
