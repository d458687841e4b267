//! What the writer is asked to do beside storing batches: nobody else may write to the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Batch, Partition};
use crate::audit::Act;
use crate::dead_letter::work::{Claim, LetterRefusal, Republished, Retried, Retry};
use crate::job::{Change, JobRefusal, Made, NewJob, Step};
use crate::removal::{ArchivedFile, Erasure, Outdated, Pruned, RemovalRefusal, Retired, Rows, Scope};

/// Where an order's answer goes. One that is dropped says that nothing was done.
#[derive(Debug)]
pub struct Answer<T>(Sender<Result<T, OrderError>>);

impl<T> Answer<T> {
    /// Whoever asked may have given up.
    pub fn give(self, answer: T) {
        self.0.send(Ok(answer)).ok();
    }

    /// The box failed in the middle of it.
    pub fn unknown(self) {
        self.0.send(Err(OrderError::Unknown)).ok();
    }
}

/// Each is one transaction, its act's row in the audit included.
#[derive(Debug)]
pub enum Order {
    /// Go on with the partitions that were halted: all, or those of a topic, or one.
    Resume {
        topic: Option<String>,
        partition: Option<i32>,
        act: Act,
        answer: Answer<Vec<Partition>>,
    },
    /// Only the row in the audit; its id.
    Note {
        act: Act,
        answer: Answer<i64>,
    },
    Job(Box<JobOrder>),
    Letter(Box<LetterOrder>),
    Removal(Box<RemovalOrder>),
}

impl Order {
    /// Whether it takes rows off or pages away: on a full disk the reserve was given up for such.
    pub fn makes_room(&self) -> bool {
        let Order::Removal(order) = self else { return false };
        matches!(**order, RemovalOrder::Prune { .. } | RemovalOrder::Retire { .. } | RemovalOrder::Vacuum { .. })
    }
}

/// About replay jobs.
#[derive(Debug)]
pub enum JobOrder {
    Make { job: Box<NewJob>, act: Act, answer: Answer<Result<Made, JobRefusal>> },
    Change { id: i64, change: Change, act: Act, answer: Answer<Result<(), JobRefusal>> },
    Step { step: Step, answer: Answer<()> },
}

/// About dead letters.
#[derive(Debug)]
pub enum LetterOrder {
    /// Through ingestion again, each by itself.
    Retry { retry: Retry, act: Act, answer: Answer<Vec<(i64, Retried)>> },
    /// Nobody else is to send it. The id of the act's row.
    Claim { claim: Claim, act: Act, answer: Answer<Result<i64, LetterRefusal>> },
    /// What became of one that was claimed.
    Release { id: i64, republished: Republished, act: Act, answer: Answer<()> },
    /// Those that are open; how many these were.
    Discard { ids: Vec<i64>, note: String, act: Act, answer: Answer<usize> },
}

/// About what goes for good.
#[derive(Debug)]
pub enum RemovalOrder {
    /// Begins an erasure, or finds it.
    Begin { scope: Scope, act: Act, answer: Answer<Erasure> },
    /// Erases these rows of the erasure's.
    Erase { erasure: i64, scope: Scope, rows: Rows, answer: Answer<Result<(), RemovalRefusal>> },
    /// Zeroes the unused parts of these pages.
    Scrub { pages: Vec<u32>, answer: Answer<()> },
    /// Nothing of it is left.
    Finish { erasure: i64, scope: Scope, act: Act, answer: Answer<Result<Erasure, RemovalRefusal>> },
    /// Prunes the next events up to `last_id`; `act` is the audit's row of it.
    Prune { last_id: i64, act: i64, answer: Answer<Pruned> },
    /// Takes these rows off, but for what must stay.
    Retire { outdated: Outdated, answer: Answer<Retired> },
    /// Gives at most so many free pages back to the disk; how many.
    Vacuum { pages: u32, answer: Answer<u32> },
    /// Lists files of the archive, all or none.
    ListArchived { files: Vec<ArchivedFile>, answer: Answer<()> },
    /// These files of the archive were removed for the erasure.
    EraseArchived { erasure: i64, ids: Vec<i64>, answer: Answer<()> },
}

/// An order, and whether its giver still waits for the writer to begin with it.
#[derive(Debug)]
pub struct Ordered {
    order: Order,
    fate: Arc<AtomicU8>,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Whether the order was still waiting, and is no more.
fn decide(fate: &AtomicU8, how: u8) -> bool {
    fate.compare_exchange(WAITING, how, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl Ordered {
    /// The order, unless its giver has given up: then nobody must carry it out.
    pub fn begin(self) -> Option<Order> {
        decide(&self.fate, BEGUN).then_some(self.order)
    }
}

/// The other end of the writer's ear.
#[derive(Debug, Clone)]
pub struct Orders {
    orders: Sender<Ordered>,
    /// Only to see how many wait.
    batches: Receiver<Batch>,
}

/// How long the writer may take for an order that it has begun: a large one, on a slow disk.
const CARRY_OUT: Duration = Duration::from_secs(60);

/// Why an order was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("the journal cannot be written just now, so nothing was done; see GET /health, then try again")]
    NotNow,
    #[error("the journal did not answer in time, so it is not known whether this was done; look before you try again")]
    Unknown,
}

impl Orders {
    pub(super) fn new(orders: Sender<Ordered>, batches: Receiver<Batch>) -> Orders {
        Orders { orders, batches }
    }

    /// Has the writer carry out the order that `order` makes, and waits for what it answers. It must begin with it
    /// within `patience`.
    ///
    /// # Errors
    /// [`OrderError`]; nothing was done unless it says so.
    pub fn give<T>(&self, patience: Duration, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, OrderError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let begin_by = Instant::now() + patience;
        let fate = Arc::new(AtomicU8::new(WAITING));
        let ordered = Ordered { order: order(Answer(answer)), fate: Arc::clone(&fate) };
        self.orders.send_timeout(ordered, patience).map_err(|_| OrderError::NotNow)?;
        let answered = match answered.recv_deadline(begin_by) {
            Err(RecvTimeoutError::Timeout) if decide(&fate, GIVEN_UP) => return Err(OrderError::NotNow),
            Err(RecvTimeoutError::Timeout) => answered.recv_timeout(CARRY_OUT),
            answered => answered,
        };
        answered.unwrap_or_else(|error| match error {
            RecvTimeoutError::Disconnected => Err(OrderError::NotNow),
            RecvTimeoutError::Timeout => Err(OrderError::Unknown),
        })
    }

    /// Batches of records that wait for the writer: while there are many, replays stand back.
    pub fn batches_waiting(&self) -> usize {
        self.batches.len()
    }
}
