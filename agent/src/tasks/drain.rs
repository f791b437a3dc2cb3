//! The time between a task's leaving its VIPs and names and its stop signal, so that nobody is sent to a container
//! that is ending.
//!
//! It begins once this host leads nobody there any more; the other hosts, which hear of it when this one does, have
//! [`DRAIN`] for the same.

use shoal_common::Generation;
use std::time::Duration;
use tokio::time::Instant;

/// For the other hosts, and for requests that are on their way.
const DRAIN: Duration = Duration::from_millis(300);
/// A kernel that takes no change must not keep a task from ending.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// With this assignment the task is led to no more.
    left_with: Generation,
    asked: Instant,
    since: Option<Instant>,
}

impl Drain {
    pub(super) fn begin(left_with: Generation, now: Instant) -> Self {
        Self { left_with, asked: now, since: None }
    }

    /// Whether nobody is led to the task in this assignment.
    pub(super) fn is_left(&self, seen: Generation) -> bool {
        seen >= self.left_with
    }

    /// Whether the task may be told to end. `is_applied`: this host's kernel is as an assignment in which it is left.
    pub(super) fn is_over(&mut self, is_applied: bool, now: Instant) -> bool {
        if is_applied || now >= self.asked + PATIENCE {
            self.since.get_or_insert(now);
        }
        self.since.is_some_and(|since| now >= since + DRAIN)
    }

    /// When to look again, if nothing happens before.
    pub(super) fn due(&self) -> Instant {
        self.since.map_or(self.asked + PATIENCE, |since| since + DRAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_after_its_host_has_stopped_leading_to_it() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut drain = Drain::begin(Generation(7), begun);
        assert!(!drain.is_left(Generation(6)) && drain.is_left(Generation(7)));
        assert!(!drain.is_over(false, at(400)), "this host still leads there");
        assert_eq!(drain.due(), at(5_000));
        assert!(!drain.is_over(true, at(500)));
        assert_eq!(drain.due(), at(800));
        // What is newer may be under way by now.
        assert!(!drain.is_over(false, at(799)) && drain.is_over(false, at(800)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_takes_no_change_keeps_no_task() {
        let begun = Instant::now();
        let mut drain = Drain::begin(Generation(7), begun);
        assert!(!drain.is_over(false, begun + PATIENCE));
        assert!(drain.is_over(false, begun + PATIENCE + DRAIN));
    }
}
