//! Rolling updates: which tasks of an older spec make way next. Stop first, then start.
//!
//! Nothing of an update is stored: how far it is shows in the slots. A slot is *under way* from the moment its old
//! task is told to end until its new one runs. The next batch begins when none is under way, the last one to start
//! has run for the policy's delay, and no new task is failing. A failing update stands still: what is left of the
//! old version goes on serving, and a further update (or going back to the former spec) gets it moving.

use std::{collections::BTreeSet, time::Duration};

use shoal_common::{
    TaskId, Timestamp,
    service::RestartCondition,
    task::{DesiredState, TaskState},
};
use shoal_state::Service;

use super::{Place, restart};
use crate::{board::Seen, draft::Draft};

/// A new task that follows a failed one in its slot must run for so long until the update trusts it again.
const STEADY: Duration = Duration::from_secs(30);

/// The tasks to end now. Those that wait for a node are not among them: they serve nobody and are replaced anyway.
pub(super) fn next_batch(
    service: &Service,
    places: &[Place<'_, '_>],
    now: Timestamp,
    draft: &mut Draft,
) -> BTreeSet<TaskId> {
    let stale = || {
        places
            .iter()
            .filter_map(|place| place.current())
            .filter(|seen| seen.task.spec_version != service.spec_version && !seen.is_pending())
            .map(|seen| seen.task.id)
    };
    if stale().next().is_none() {
        return BTreeSet::new();
    }
    let policy = &service.spec.update;
    let mut wait: Option<Timestamp> = None;
    for place in places {
        match progress(service, place, now) {
            Progress::Old => {}
            Progress::Failing => return BTreeSet::new(),
            Progress::Steadying(until) => wait = wait.max(Some(until)),
            Progress::UnderWay => {
                if policy.parallelism != 0 {
                    return BTreeSet::new();
                }
            }
            Progress::Done(started) => {
                if policy.parallelism != 0 {
                    wait = wait
                        .max(started.and_then(|started| restart::due(started, policy.delay, now)));
                }
            }
        }
    }
    if let Some(until) = wait {
        draft.wake(until);
        return BTreeSet::new();
    }
    match policy.parallelism {
        0 => stale().collect(),
        n => stale().take(n as usize).collect(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Old,
    UnderWay,
    /// Runs again after a failure; trusted at this time.
    Steadying(Timestamp),
    Failing,
    /// Since when it runs, if it took the place of an older one.
    Done(Option<Timestamp>),
}

fn progress(service: &Service, place: &Place<'_, '_>, now: Timestamp) -> Progress {
    let newest = place.newest();
    let task = newest.task;
    if task.spec_version != service.spec_version {
        let stopped = task.desired == DesiredState::Shutdown && task.node.is_some();
        return if stopped {
            Progress::UnderWay
        } else {
            Progress::Old
        };
    }
    let replaced_one = place
        .history()
        .iter()
        .any(|seen| seen.task.spec_version != service.spec_version && seen.task.node.is_some());
    let failed_before = place.history().iter().any(|seen| failed(service, seen));
    match task.status.state {
        TaskState::Running if newest.is_live() => {
            let started = task.started.unwrap_or(task.status.since);
            match restart::due(started, STEADY, now) {
                Some(until) if failed_before => Progress::Steadying(until),
                Some(_) | None => Progress::Done(replaced_one.then_some(started)),
            }
        }
        TaskState::Pending
        | TaskState::Assigned
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running => match (failed_before, replaced_one) {
            (true, _) => Progress::Failing,
            (false, true) => Progress::UnderWay,
            (false, false) => Progress::Done(None),
        },
        TaskState::Complete | TaskState::Shutdown | TaskState::Failed | TaskState::Rejected => {
            if failed(service, &newest) {
                Progress::Failing
            } else {
                Progress::Done(None)
            }
        }
        TaskState::Orphaned => {
            if replaced_one {
                Progress::UnderWay
            } else {
                Progress::Done(None)
            }
        }
    }
}

/// A task of the new version did not stay. Exit code 0 is no failure where the policy takes it for an end.
fn failed(service: &Service, seen: &Seen<'_>) -> bool {
    let done = seen.task.status.state == TaskState::Complete
        && service.spec.restart.condition != RestartCondition::Any;
    restart::counts(service, seen) && !done
}
