//! Which offsets of a partition the file holds, and the closed list of reasons why it does not hold others.

use crate::event::Position;

/// Why a range of offsets is not in the file. The list is closed: these words stand in `kafka_range.kind`, in
/// `GET /integrity` and in the metrics' `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// Kafka's retention had removed them before this file first read the partition.
    BeforeFirstRead,
    /// Kafka's retention removed them while the sink was away.
    Expired,
    /// The topic was deleted and created again. The range is what is known to have been in the old topic, unread.
    Recreated,
    /// The broker lost the end of its log. The file holds records that the broker does not have any more.
    Truncated,
    /// Another member of the group took them: they are in its file.
    OtherMember,
    /// The stream jumped and nothing says why: a fault of the sink, of librdkafka or of the broker.
    Unexplained,
}

impl GapReason {
    pub const ALL: [GapReason; 6] = [
        GapReason::BeforeFirstRead,
        GapReason::Expired,
        GapReason::Recreated,
        GapReason::Truncated,
        GapReason::OtherMember,
        GapReason::Unexplained,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::BeforeFirstRead => "before_first_read",
            GapReason::Expired => "expired",
            GapReason::Recreated => "recreated",
            GapReason::Truncated => "truncated",
            GapReason::OtherMember => "other_member",
            GapReason::Unexplained => "unexplained",
        }
    }

    /// The reason that `word` stands for; an unknown word explains nothing.
    pub fn from_word(word: &str) -> GapReason {
        GapReason::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(GapReason::Unexplained)
    }

    /// Whether records in such a range were missed: they existed, and no file of the group holds them.
    pub fn is_loss(self) -> bool {
        matches!(self, GapReason::Expired | GapReason::Recreated | GapReason::Unexplained)
    }
}

/// Offsets `first..next` (the second excluded) of a partition that the file will not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub first_offset: i64,
    pub next_offset: i64,
    pub reason: GapReason,
    /// Who has them, for [`GapReason::OtherMember`].
    pub detail: Option<String>,
}

impl Gap {
    pub fn is_loss(&self) -> bool {
        self.reason.is_loss() && self.next_offset > self.first_offset
    }
}

/// Another log under the same name: offsets begin anew, so what follows is new although its offsets are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLog {
    /// [`GapReason::Recreated`] or [`GapReason::Truncated`].
    pub reason: GapReason,
    /// The old log's end as the broker last told it: what of it was not read is lost.
    pub old_end: i64,
    /// From this offset on, rows of the old log may be records of the new one: they were read after the old log was
    /// last known to stand. They are compared with what comes.
    pub compare_from: i64,
}

/// Reading a partition begins, or begins again. The writer takes nothing of a partition before this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The first offset that is read.
    pub at: Position,
    /// How many logs of this name there were before: 0 for the first.
    pub epoch: i64,
    /// Kafka's id of the topic; `None` where the broker gives none (before Apache Kafka 2.8).
    pub topic_id: Option<String>,
    pub new_log: Option<NewLog>,
    /// In order, up to `at`.
    pub gaps: Vec<Gap>,
}
