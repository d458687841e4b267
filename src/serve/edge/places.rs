//! How many requests are with the threads behind the edge, and how many may wait for that.
//!
//! There are never more than there are threads: what is handed over is answered at once. Some threads answer the probe's
//! question alone (`/health`, `/metrics`), so that it is answered while slow requests hold all the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refusal;

/// One request with a thread.
pub type Place = OwnedSemaphorePermit;

pub struct Places {
    probe: Lane,
    others: Lane,
    patience: Duration,
}

impl Places {
    /// `threads` in all, of which the probe has `probe` to itself; of the others `waiting_max` may wait for `patience`.
    pub fn new(threads: usize, probe: usize, waiting_max: usize, patience: Duration) -> Places {
        let others = Lane::new(threads.saturating_sub(probe).max(1), waiting_max);
        // Every connection may: the probe's answers are in memory, so the wait is short.
        Places { probe: Lane::new(probe, Semaphore::MAX_PERMITS), others, patience }
    }

    /// # Errors
    /// [`Refusal::Busy`] if none becomes free, or too many wait already.
    pub async fn take(&self, is_probe: bool) -> Result<Place, Refusal> {
        let lane = if is_probe { &self.probe } else { &self.others };
        if let Ok(place) = Arc::clone(&lane.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Arc::clone(&lane.waiting).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        match timeout(self.patience, Arc::clone(&lane.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Refusal::Busy),
        }
    }
}

struct Lane {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Lane {
    fn new(places: usize, waiting_max: usize) -> Lane {
        Lane { places: Arc::new(Semaphore::new(places)), waiting: Arc::new(Semaphore::new(waiting_max)) }
    }
}

/// Bytes that all connections of a port hold together.
pub struct Memory(Arc<Semaphore>);

impl Memory {
    pub fn new(bytes_max: usize) -> Memory {
        Memory(Arc::new(Semaphore::new(bytes_max)))
    }

    pub fn nothing(&self) -> Held {
        Held { all: Arc::clone(&self.0), permit: None }
    }
}

/// Some of them, given back when dropped.
pub struct Held {
    all: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// # Errors
    /// [`Refusal::Memory`] if others hold too many.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::Memory)?;
        let more = Arc::clone(&self.all).try_acquire_many_owned(bytes).map_err(|_| Refusal::Memory)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_probe_finds_a_place_when_all_others_are_taken_and_waited_for() {
        let places = Arc::new(Places::new(3, 1, 1, Duration::from_secs(60)));
        let _taken = (places.take(false).await.unwrap(), places.take(false).await.unwrap());
        let waits = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take(false).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(places.take(false).await.unwrap_err(), Refusal::Busy, "one waits already");
        assert!(places.take(true).await.is_ok());
        drop(_taken);
        assert!(waits.await.unwrap().is_ok());
    }

    #[test]
    fn what_is_held_is_given_back() {
        let memory = Memory::new(100);
        let mut held = memory.nothing();
        held.grow(60).unwrap();
        assert_eq!(memory.nothing().grow(60), Err(Refusal::Memory));
        held.grow(40).unwrap();
        drop(held);
        memory.nothing().grow(100).unwrap();
    }
}
