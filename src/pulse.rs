//! Whether the threads that everything depends on still move: systemd's watchdog is fed only while they do.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// All that beat, by name.
#[derive(Default)]
pub struct Pulses(Mutex<Vec<Pulse>>);

struct Pulse {
    name: String,
    /// The thread's number, where what it computes and has the system read and write counts as moving as well.
    thread: Option<u32>,
    beats: Arc<AtomicU64>,
    seen_beats: u64,
    seen_work: String,
    moved_at: Instant,
    beaten_at: Instant,
}

/// What takes longer between two beats goes round in a circle, however busy it is.
const BEAT_WITHIN: Duration = Duration::from_secs(3600);

/// One thread's own end of its pulse. A thread that ended is not waited for.
pub struct Heart {
    pulses: Arc<Pulses>,
    beats: Arc<AtomicU64>,
}

impl Pulses {
    /// A pulse that must be beaten. Called in the thread that beats: one statement on a slow card may take minutes, and
    /// while it reads, writes and computes it is not stuck, for up to an hour.
    pub fn heart(self: &Arc<Pulses>, name: &str) -> Heart {
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        self.add(name, Some(thread))
    }

    /// A pulse of answers: however much its thread reads and writes, only a beat counts.
    pub fn answer(self: &Arc<Pulses>, name: &str) -> Heart {
        self.add(name, None)
    }

    fn add(self: &Arc<Pulses>, name: &str, thread: Option<u32>) -> Heart {
        let (beats, now) = (Arc::new(AtomicU64::new(0)), Instant::now());
        self.lock().push(Pulse {
            name: name.to_owned(),
            thread,
            beats: Arc::clone(&beats),
            seen_beats: 0,
            seen_work: String::new(),
            moved_at: now,
            beaten_at: now,
        });
        Heart { pulses: Arc::clone(self), beats }
    }

    /// Those that have not moved for `patience`.
    pub fn stuck(&self, patience: Duration, now: Instant) -> Vec<String> {
        let mut pulses = self.lock();
        for pulse in pulses.iter_mut() {
            let (beats, work) = (pulse.beats.load(Ordering::Relaxed), pulse.thread.map_or_else(String::new, work_of));
            if beats != pulse.seen_beats {
                (pulse.moved_at, pulse.beaten_at) = (now, now);
            }
            if work != pulse.seen_work {
                pulse.moved_at = now;
            }
            (pulse.seen_beats, pulse.seen_work) = (beats, work);
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let stuck = pulses
            .iter()
            .filter(|pulse| since(pulse.moved_at) >= patience || since(pulse.beaten_at) >= patience.max(BEAT_WITHIN));
        stuck.map(|pulse| pulse.name.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Pulse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heart {
    /// Once for each record, perhaps: it only counts. When it was is for the one who looks.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.pulses.lock().retain(|pulse| !Arc::ptr_eq(&pulse.beats, &self.beats));
    }
}

/// What the kernel has counted of a thread: its reads and writes, and first in `schedstat` its time on a processor.
fn work_of(thread: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).unwrap_or_default();
    let ran = read("schedstat");
    format!("{} {}", ran.split(' ').next().unwrap_or_default(), read("io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_stuck_that_neither_beats_nor_works() {
        let pulses = Arc::new(Pulses::default());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let still = Arc::clone(&pulses);
        let thread = std::thread::spawn(move || {
            let heart = still.heart("write");
            heart.beat();
            ready.send(()).unwrap();
            may_go_on.recv().unwrap();
        });
        is_ready.recv().unwrap();
        let patience = Duration::from_secs(60);
        let begun = Instant::now();
        assert_eq!(pulses.stuck(patience, begun), Vec::<String>::new());
        assert_eq!(pulses.stuck(patience, begun + patience / 2), Vec::<String>::new());
        assert_eq!(pulses.stuck(patience, begun + 2 * patience), ["write"]);
        go_on.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(pulses.stuck(patience, begun + 4 * patience), Vec::<String>::new(), "it has ended");
    }
}
