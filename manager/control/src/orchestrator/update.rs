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
    let all_at_once = policy.parallelism == 0;
    let mut wait: Option<Timestamp> = None;
    let (mut displaced, mut gained) = (0usize, 0usize);
    for place in places {
        match progress(service, place, now) {
            Progress::Old | Progress::New => {}
            Progress::Failing => return BTreeSet::new(),
            Progress::Steadying(until) => wait = wait.max(Some(until)),
            Progress::UnderWay if all_at_once => {}
            Progress::UnderWay => return BTreeSet::new(),
            Progress::Displaced => displaced += 1,
            Progress::Gained => gained += 1,
            Progress::Done { .. } if all_at_once => {}
            Progress::Done { started } => wait = wait.max(restart::due(started, policy.delay, now)),
        }
    }
    // Where there is room for some of the slots only, they may have changed places: then no fewer run than before.
    if displaced > gained && !all_at_once {
        return BTreeSet::new();
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
    /// Not begun.
    Old,
    /// The old one was told to end, or the new one does not run yet.
    UnderWay,
    Failing,
    /// Runs again after a failure; trusted at this time.
    Steadying(Timestamp),
    /// Took the place of one that had a node, and waits for one.
    Displaced,
    /// Took the place of one that waited for a node, and runs.
    Gained,
    /// Took the place of one that had a node, and runs.
    Done {
        started: Timestamp,
    },
    /// No business of the update: the slot is new and runs, or waits as it did before, or was finished.
    New,
}

fn progress(service: &Service, place: &Place<'_, '_>, now: Timestamp) -> Progress {
    let newest = place.newest();
    let task = newest.task;
    let is_old = |seen: &&Seen<'_>| seen.task.spec_version != service.spec_version;
    if is_old(&&newest) {
        let stopped = task.desired == DesiredState::Shutdown && task.node.is_some();
        return if stopped { Progress::UnderWay } else { Progress::Old };
    }
    let before = place.history().iter().rev().find(is_old);
    let had_node = before.map(|seen| seen.task.node.is_some());
    let failed_before = place.history().iter().any(|seen| failed(service, seen));
    match task.status.state {
        TaskState::Running if newest.is_live() => {
            let started = task.started.unwrap_or(task.status.since);
            match (restart::due(started, STEADY, now), had_node) {
                (Some(until), _) if failed_before => Progress::Steadying(until),
                (Some(_) | None, Some(true)) => Progress::Done { started },
                (Some(_) | None, Some(false)) => Progress::Gained,
                (Some(_) | None, None) => Progress::New,
            }
        }
        TaskState::Complete | TaskState::Shutdown | TaskState::Failed | TaskState::Rejected => {
            if failed(service, &newest) { Progress::Failing } else { Progress::New }
        }
        TaskState::Pending
        | TaskState::Assigned
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Unhealthy
        | TaskState::Orphaned => match (had_node, task.status.state) {
            (Some(_) | None, _) if failed_before => Progress::Failing,
            (None | Some(false), TaskState::Pending) => Progress::New,
            (Some(true), TaskState::Pending) => Progress::Displaced,
            (Some(_) | None, _) => Progress::UnderWay,
        },
    }
}

/// A task of the new version did not stay. Exit code 0 is no failure where the policy takes it for an end.
fn failed(service: &Service, seen: &Seen<'_>) -> bool {
    let done = seen.task.status.state == TaskState::Complete && service.spec.restart.condition != RestartCondition::Any;
    restart::counts(service, seen) && !done
}
