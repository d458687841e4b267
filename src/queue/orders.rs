//! What the writer is asked to do beside storing batches: nobody else may write to the file.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Batch, Partition};
use crate::audit::Act;
use crate::dead_letter::work::{Claim, LetterRefusal, Republished, Retried, Retry};
use crate::job::{Change, JobRefusal, Made, NewJob, Step};

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

/// An order, and until when its giver waits for the writer to begin with it.
#[derive(Debug)]
pub(super) struct Ordered {
    order: Order,
    begin_by: Instant,
}

impl Ordered {
    pub(super) fn in_time(self) -> Option<Order> {
        (Instant::now() <= self.begin_by).then_some(self.order)
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
        let ordered = Ordered { order: order(Answer(answer)), begin_by };
        self.orders.send_timeout(ordered, patience).map_err(|_| OrderError::NotNow)?;
        match answered.recv_deadline(begin_by + CARRY_OUT) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(OrderError::NotNow),
            Err(RecvTimeoutError::Timeout) => Err(OrderError::Unknown),
        }
    }

    /// Batches of records that wait for the writer: while there are many, replays stand back.
    pub fn batches_waiting(&self) -> usize {
        self.batches.len()
    }
}
