//! Who is connected to a port, and who gives way when no seat is free.
//!
//! A connection that waits for its client holds a seat that nobody misses; one whose request is being answered is never
//! ended here: what was asked for is done once, and its answer delivered if the client takes it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A client that took nothing of its answer for so long may lose its seat to a new one.
const STALLED: Duration = Duration::from_millis(250);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its client has not sent a whole request.
    Waiting,
    /// A whole request is here and has no answer yet.
    Working,
    /// Its client is taking the answer.
    Writing,
}

struct Occupant {
    client: IpAddr,
    phase: Phase,
    /// Of [`Phase::Waiting`]: the last answer's end; of [`Phase::Writing`]: when the client last took something.
    since: Instant,
    shed: Arc<Notify>,
}

#[derive(Default)]
struct Table {
    next: u64,
    occupants: HashMap<u64, Occupant>,
}

pub struct Seats {
    table: Mutex<Table>,
    max: usize,
    per_client_max: usize,
}

impl Seats {
    pub fn new(max: usize, per_client_max: usize) -> Arc<Seats> {
        Arc::new(Seats { table: Mutex::default(), max, per_client_max })
    }

    /// A seat for a new connection, and whether another had to give way: it ends when its task runs next.
    pub fn admit(self: &Arc<Seats>, client: IpAddr, now: Instant) -> Option<(Seat, bool)> {
        let client = counted_as(client);
        let mut table = self.lock();
        let is_own = |occupant: &Occupant| occupant.client == client;
        let own = table.occupants.values().filter(|occupant| is_own(occupant)).count();
        let mut shed = false;
        if own >= self.per_client_max {
            shed = table.shed(now, is_own);
        } else if table.occupants.len() >= self.max {
            shed = table.shed(now, |_| true);
        }
        if !shed && (own >= self.per_client_max || table.occupants.len() >= self.max) {
            return None;
        }
        let (id, notify) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.occupants.insert(id, Occupant { client, phase: Phase::Waiting, since: now, shed: Arc::clone(&notify) });
        Some((Seat { seats: Arc::clone(self), id, shed: notify }, shed))
    }

    /// Ends the connection that can best be spared; whether there was one.
    pub fn shed_one(&self, now: Instant) -> bool {
        self.lock().shed(now, |_| true)
    }

    /// Ends all that are in `phase`.
    pub fn shed_all(&self, phase: Phase) {
        self.lock().occupants.retain(|_, occupant| {
            let goes = occupant.phase == phase;
            if goes {
                occupant.shed.notify_one();
            }
            !goes
        });
    }

    pub fn taken(&self) -> usize {
        self.lock().occupants.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The longest waiting, else the longest stalled.
    fn shed(&mut self, now: Instant, among: impl Fn(&Occupant) -> bool) -> bool {
        let can_go = |occupant: &Occupant| match occupant.phase {
            Phase::Waiting => true,
            Phase::Working => false,
            Phase::Writing => now.duration_since(occupant.since) >= STALLED,
        };
        let spare = self.occupants.iter().filter(|(_, occupant)| among(occupant) && can_go(occupant));
        let longest = spare.min_by_key(|(_, occupant)| (occupant.phase == Phase::Writing, occupant.since));
        let Some(id) = longest.map(|(id, _)| *id) else { return false };
        if let Some(occupant) = self.occupants.remove(&id) {
            occupant.shed.notify_one();
        }
        true
    }
}

/// A network of 64 bits is one customer's in IPv6, who may use any address in it.
fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

/// One connection's place; given up when it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    id: u64,
    shed: Arc<Notify>,
}

impl Seat {
    /// Waits until this connection has to give way.
    pub async fn given_away(&self) {
        self.shed.notified().await;
    }

    /// Of a connection that has been shed nothing is kept, so nothing happens.
    pub fn enter(&self, phase: Phase) {
        if let Some(occupant) = self.seats.lock().occupants.get_mut(&self.id) {
            (occupant.phase, occupant.since) = (phase, Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().occupants.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Whether the seat was given to another.
    fn is_gone(seat: &Seat) -> bool {
        !seat.seats.lock().occupants.contains_key(&seat.id)
    }

    #[test]
    fn the_longest_waiting_gives_way_and_a_working_one_never_does() {
        let (seats, start) = (Seats::new(3, 3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let seat = |last, seconds| seats.admit(client(last), at(seconds)).map(|(seat, _)| seat);
        let (first, second, third) = (seat(1, 0).unwrap(), seat(2, 1).unwrap(), seat(3, 2).unwrap());
        first.enter(Phase::Working);
        let fourth = seat(4, 3).unwrap();
        assert_eq!([&first, &second, &third].map(is_gone), [false, true, false]);
        third.enter(Phase::Working);
        fourth.enter(Phase::Working);
        assert!(seat(5, 4).is_none(), "nobody can give way");
        drop(first);
        assert!(seat(6, 5).is_some());
    }

    #[test]
    fn a_client_at_its_limit_gives_way_to_itself_alone() {
        let (seats, start) = (Seats::new(10, 2), Instant::now());
        let other = seats.admit(client(1), start).unwrap().0;
        let later = start + Duration::from_secs(1);
        let own: Vec<Seat> = (0..2).map(|_| seats.admit(client(2), later).unwrap().0).collect();
        let (_new, shed) = seats.admit(client(2), later).unwrap();
        assert!(shed && !is_gone(&other));
        assert_eq!(own.iter().filter(|seat| is_gone(seat)).count(), 1);
    }

    #[test]
    fn one_who_takes_nothing_of_its_answer_gives_way_when_nobody_waits() {
        let (seats, start) = (Seats::new(1, 1), Instant::now());
        let slow = seats.admit(client(1), start).unwrap().0;
        slow.enter(Phase::Writing);
        assert!(seats.admit(client(1), Instant::now()).is_none());
        assert!(seats.admit(client(1), Instant::now() + STALLED).is_some() && is_gone(&slow));
    }

    #[test]
    fn addresses_that_one_client_can_choose_from_count_as_one() {
        let address = |text: &str| counted_as(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:3::4"), address("2001:db8:1:2:5::6"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
