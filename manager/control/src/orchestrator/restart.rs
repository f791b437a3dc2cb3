//! When an empty slot is filled again.

use std::{collections::BTreeSet, time::Duration};

use shoal_common::{
    TaskId, Timestamp,
    service::{RestartCondition, RestartPolicy},
    task::{DesiredState, TaskState},
};
use shoal_state::Service;

use super::Place;

/// The longest wait between two tries of a task that cannot start, unless the service's own delay is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// What is doubled for a service without a delay.
const SHORTEST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refill {
    Now,
    /// The restart delay ends then.
    At(Timestamp),
    /// Stop first: its older version is still being stopped.
    AfterItsEnd,
    /// The policy says that it is done, or that it was tried often enough.
    Never,
}

/// For a slot without a live task. What we ended ourselves, what was lost with its node and what was of an older
/// version is replaced at once; what ended by itself as the service's policy says.
pub(super) fn refill(service: &Service, place: &Place<'_, '_>, now: Timestamp) -> Refill {
    let newest = place.newest();
    let ours = newest.task.desired == DesiredState::Shutdown;
    if newest.lost {
        return Refill::Now;
    }
    if newest.task.spec_version != service.spec_version {
        return if newest.task.status.state.is_terminal() { Refill::Now } else { Refill::AfterItsEnd };
    }
    let policy = &service.spec.restart;
    let retry = match newest.task.status.state {
        TaskState::Orphaned => return Refill::Now,
        TaskState::Pending
        | TaskState::Assigned
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Unhealthy => return Refill::Now,
        TaskState::Complete | TaskState::Shutdown | TaskState::Failed | TaskState::Rejected if ours => {
            return Refill::Now;
        }
        TaskState::Complete => policy.condition == RestartCondition::Any,
        TaskState::Shutdown | TaskState::Failed | TaskState::Rejected => policy.condition != RestartCondition::None,
    };
    if !retry || exhausted(service, policy, place) {
        return Refill::Never;
    }
    match due(newest.task.status.since, pause(policy.delay, place.unstarted(service).count()), now) {
        Some(at) => Refill::At(at),
        None => Refill::Now,
    }
}

/// How long a slot rests after so many tasks in a row that could not start. What keeps one from starting seldom passes
/// within seconds, and each try costs a pull and entries of the log.
fn pause(delay: Duration, unstarted: usize) -> Duration {
    let doublings = u32::try_from(unstarted.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    match doublings {
        0 => delay,
        _ => delay.max(SHORTEST).saturating_mul(1 << doublings).min(LONGEST).max(delay),
    }
}

/// How often it was restarted within the window before its last end: as many earlier ends are on record. The window
/// is that of the last end, not of `now`: what was given up stays given up, until the service is updated.
fn exhausted(service: &Service, policy: &RestartPolicy, place: &Place<'_, '_>) -> bool {
    if policy.max_attempts == 0 || policy.max_attempts > RestartPolicy::MOST_ATTEMPTS {
        return false;
    }
    let last = place.newest().task;
    // Their pauses grow beyond any window.
    let unstarted: BTreeSet<TaskId> = place.unstarted(service).map(|seen| seen.task.id).collect();
    let restarts = place
        .history()
        .iter()
        .filter(|seen| seen.task.id != last.id && counts(service, seen))
        .filter(|seen| {
            policy.window.is_zero()
                || unstarted.contains(&seen.task.id)
                || last.status.since.since(seen.task.status.since) < policy.window
        })
        .count();
    restarts >= policy.max_attempts as usize
}

/// Whether an ended task counts as an attempt: it ended by itself, at the present version.
pub(crate) fn counts(service: &Service, seen: &crate::board::Seen<'_>) -> bool {
    seen.ended_by_itself()
        && seen.task.status.state != TaskState::Orphaned
        && seen.task.spec_version == service.spec_version
}

/// When `delay` after `since` is over; `None` if it is. A time that lies further ahead than the delay was written by
/// a leader whose clock was ahead: it is not waited for.
pub(super) fn due(since: Timestamp, delay: Duration, now: Timestamp) -> Option<Timestamp> {
    let at = since + delay;
    (at > now && since <= now + delay).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_tasks_cannot_start_rests_longer_each_time() {
        let seconds = |delay, unstarted| pause(Duration::from_secs(delay), unstarted).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 99].map(|n| seconds(5, n)), [5, 5, 10, 20, 40, 60, 60]);
        assert_eq!([0, 1, 2, 3].map(|n| seconds(0, n)), [0, 0, 2, 4]);
        assert_eq!([1, 2, 9].map(|n| seconds(300, n)), [300, 300, 300]);
    }
}
