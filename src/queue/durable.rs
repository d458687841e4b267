//! What comes back from the writer.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::Partition;

/// The next offset of every partition, up to which the file holds everything, and
/// which partitions are halted. One entry a partition, so it is as bounded as the topics are; the writer never waits
/// for a reader of it.
#[derive(Debug, Default)]
pub struct Durable {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next_offsets: HashMap<Partition, i64>,
    halted: HashSet<Partition>,
    /// Their records are not taken until they begin again.
    interrupted: HashSet<Partition>,
    /// Given up by the group before their records were durable; the writer is to forget those.
    withdrawn: HashSet<Partition>,
}

impl Durable {
    /// The writer: everything before these offsets is in the file.
    pub fn publish(&self, next_offsets: impl IntoIterator<Item = (Partition, i64)>) {
        self.lock().next_offsets.extend(next_offsets);
        self.changed.notify_all();
    }

    pub fn next_offset(&self, partition: &Partition) -> Option<i64> {
        self.lock().next_offsets.get(partition).copied()
    }

    /// Waits until the file holds everything before the offsets of `sent`; whether it did before `deadline`.
    pub fn wait_for(&self, sent: &[(Partition, i64)], deadline: Instant) -> bool {
        let behind = |state: &mut State| sent.iter().any(|(p, next)| state.next_offsets.get(p) != Some(next));
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, behind);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The writer: takes nothing of `partition` until an operator resumes it.
    pub fn halt(&self, partition: Partition) {
        self.lock().halted.insert(partition.clone());
        self.interrupt([partition]);
    }

    /// The writer: records of `partitions` came that it did not take. Their reading is to begin again.
    pub fn interrupt(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.lock().interrupted.extend(partitions);
        self.changed.notify_all();
    }

    /// A consumer: those of its partitions that were interrupted since the last call.
    pub fn take_interrupted(&self, is_own: impl Fn(&Partition) -> bool) -> Vec<Partition> {
        self.lock().interrupted.extract_if(|partition| is_own(partition)).collect()
    }

    /// The writer: an operator has resumed `partition`.
    pub fn resume(&self, partition: &Partition) {
        self.lock().halted.remove(partition);
    }

    pub fn is_halted(&self, partition: &Partition) -> bool {
        self.lock().halted.contains(partition)
    }

    /// A consumer: what of `partitions` is still in the queue is no longer ours to store.
    pub fn withdraw(&self, partitions: &[Partition]) {
        self.lock().withdrawn.extend(partitions.iter().cloned());
    }

    /// The writer: the partitions that were withdrawn since the last call.
    pub fn take_withdrawn(&self) -> HashSet<Partition> {
        std::mem::take(&mut self.lock().withdrawn)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn waiting_for_durable_offsets_ends_with_them_or_with_the_deadline() {
        let durable = Arc::new(Durable::default());
        let partition: Partition = ("leads".into(), 2);
        let sent = [(partition.clone(), 41)];
        assert!(!durable.wait_for(&sent, Instant::now()));
        let writer = Arc::clone(&durable);
        let thread = std::thread::spawn(move || writer.publish([(partition, 41)]));
        assert!(durable.wait_for(&sent, Instant::now() + Duration::from_secs(10)));
        thread.join().unwrap();
    }
}
