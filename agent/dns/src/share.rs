//! How much of the host's resolver one container may take: questions under way to upstream servers, and answers in a
//! second. A container that takes more waits or is refused; the others notice nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Questions under way for all containers of the host: each holds a socket, so a descriptor.
pub(crate) const IN_FLIGHT: usize = 1024;

/// Answers of one container in a second, from names of ours. A build that resolves as fast as it can stays far below;
/// a loop that does nothing else is held to about a tenth of a core.
const ANSWERS_PER_SECOND: u32 = 20_000;

/// Answers of one container in a row, before that rate holds.
const ANSWERS_AT_ONCE: u32 = 4_000;

/// What all containers of the host share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    in_flight: Arc<AtomicUsize>,
}

/// One container's part of it.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Pool,
    own: AtomicUsize,
    pace: Mutex<Pace>,
}

/// One question that is under way.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Share);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::Relaxed);
        self.0.pool.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    pub(crate) fn of(pool: &Pool) -> Self {
        Self { pool: pool.clone(), own: AtomicUsize::new(0), pace: Mutex::new(Pace::full(Instant::now())) }
    }

    /// For one more question, if this container may have one under way.
    pub(crate) fn forward(&self) -> Option<Permit<'_>> {
        // Counted first, so that two at once cannot both take the last place.
        let own = self.own.fetch_add(1, Ordering::Relaxed);
        let all = self.pool.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self);
        may_forward(own, all).then_some(permit)
    }

    /// Accounts for `answers`. Until when the container is to wait before the next, if it was too fast.
    pub(crate) fn answered(&self, answers: u32, now: Instant) -> Option<Instant> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).spend(answers, now)
    }
}

/// Whether a container with `own` questions under way may have one more while there are `all` on the host: no more than
/// are free. So `n` greedy containers leave `1/(n+1)` of the places to the others, however many they are (dynamic
/// thresholds, Choudhury and Hahne 1998); with a fixed limit eight containers took all.
fn may_forward(own: usize, all: usize) -> bool {
    own < IN_FLIGHT.saturating_sub(all)
}

/// A bucket of answers that fills with time.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// At which it would be full again.
    full_at: Instant,
}

impl Pace {
    fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    fn spend(&mut self, answers: u32, now: Instant) -> Option<Instant> {
        self.full_at = self.full_at.max(now) + Duration::from_secs(1) / ANSWERS_PER_SECOND * answers;
        let free_at = self.full_at.checked_sub(Duration::from_secs(1) / ANSWERS_PER_SECOND * ANSWERS_AT_ONCE)?;
        (free_at > now).then_some(free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_greedy_containers_leave_room_for_the_others() {
        let pool = Pool::default();
        let greedy: Vec<Share> = (0..8).map(|_| Share::of(&pool)).collect();
        let mut held = Vec::new();
        let mut refused = 0;
        // Each in turn takes what it gets, until none gets any more.
        while refused < greedy.len() {
            refused = 0;
            for share in &greedy {
                match share.forward() {
                    Some(permit) => held.push(permit),
                    None => refused += 1,
                }
            }
        }
        let modest = Share::of(&pool);
        let got: Vec<_> = std::iter::from_fn(|| modest.forward()).take(IN_FLIGHT).collect();
        assert!(got.len() >= 50 && held.len() > IN_FLIGHT * 3 / 4, "{} of {} held", got.len(), held.len());
        drop((got, held));
        assert_eq!(pool.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_container_alone_gets_half_of_the_places() {
        let share = Share::of(&Pool::default());
        let held: Vec<_> = std::iter::from_fn(|| share.forward()).take(IN_FLIGHT).collect();
        assert_eq!(held.len(), IN_FLIGHT / 2);
    }

    #[test]
    fn a_container_that_asks_too_fast_waits_and_one_that_rested_does_not() {
        let begun = Instant::now();
        let mut pace = Pace::full(begun);
        assert_eq!(pace.spend(ANSWERS_AT_ONCE, begun), None);
        let until = pace.spend(ANSWERS_PER_SECOND, begun).unwrap();
        let waits = until - begun;
        assert!(waits > Duration::from_millis(990) && waits <= Duration::from_secs(1), "{waits:?}");
        assert_eq!(pace.spend(ANSWERS_AT_ONCE, until + Duration::from_secs(1)), None);
        assert!(pace.spend(ANSWERS_AT_ONCE, until + Duration::from_secs(1)).is_some());
    }
}
