//! When an empty slot is filled again.

use std::time::Duration;

use shoal_common::{
    Timestamp,
    service::{RestartCondition, RestartPolicy},
    task::{DesiredState, TaskState},
};
use shoal_state::Service;

use super::Place;
use crate::reaper::ATTEMPTS_REMEMBERED;

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
    match due(newest.task.status.since, policy.delay, now) {
        Some(at) => Refill::At(at),
        None => Refill::Now,
    }
}

/// How often it was restarted within the window before its last end: as many earlier ends are on record. The window
/// is that of the last end, not of `now`: what was given up stays given up, until the service is updated.
fn exhausted(service: &Service, policy: &RestartPolicy, place: &Place<'_, '_>) -> bool {
    if policy.max_attempts == 0 || policy.max_attempts > ATTEMPTS_REMEMBERED {
        return false;
    }
    let last = place.newest().task;
    let restarts = place
        .history()
        .iter()
        .filter(|seen| seen.task.id != last.id && counts(service, seen))
        .filter(|seen| policy.window.is_zero() || last.status.since.since(seen.task.status.since) < policy.window)
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
