//! The containers of this host by the task that each belongs to.

use shoal_common::name::Labels;
use shoal_common::{
    TaskId,
    assignment::Assignment,
    container::{Networking, Wanted},
    task::DesiredState,
};
use shoal_runtime::{ContainerState, Runtime};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Containers = BTreeMap<TaskId, ContainerState>;

/// The container of a task is called as the task.
pub(crate) fn id(task: TaskId) -> String {
    task.to_string()
}

/// Containers that are no task's are somebody else's.
pub(crate) fn of(runtime: &Runtime) -> Containers {
    runtime.pick(|id, state, _| Some((id.parse().ok()?, state.clone()))).into_iter().collect()
}

/// The label that says for which of its user's starts a container was started.
pub(crate) const START_LABEL: &str = "shoal.start";

/// Of containers that were run by hand: the user's start that each was started for.
pub(crate) fn starts(runtime: &Runtime) -> BTreeMap<TaskId, u64> {
    let start = |labels: &Labels| labels.get(START_LABEL)?.parse().ok();
    runtime.pick(|id, _, labels| Some((id.parse().ok()?, start(labels)?))).into_iter().collect()
}

fn is_alive(state: &ContainerState) -> bool {
    match state {
        ContainerState::Created | ContainerState::Running { .. } => true,
        ContainerState::Exited(_) => false,
    }
}

/// Whose network namespaces there shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// On their networks: tasks that run or are to run.
    pub(crate) wanted: BTreeSet<TaskId>,
    /// Left as they are: the managers have given the task up and its addresses away, but its container still runs.
    pub(crate) held: BTreeSet<TaskId>,
}

impl Namespaces {
    pub(crate) fn of(assignment: &Assignment, containers: &Containers) -> Self {
        let wanted = assignment.tasks.iter().filter(|(id, task)| match containers.get(id) {
            Some(container) => is_alive(container),
            None => task.desired == DesiredState::Running,
        });
        // One that was run by hand and has ended may be started again.
        let by_hand = assignment.containers.iter().filter(|(id, c)| {
            c.spec.networking != Networking::Host
                && (c.wanted == Wanted::Running || containers.get(id).is_some_and(is_alive))
        });
        let known = |id: &TaskId| assignment.tasks.contains_key(id) || assignment.containers.contains_key(id);
        let held = containers.iter().filter(|(id, c)| is_alive(c) && !known(id));
        let wanted = wanted.map(|(id, _)| *id).chain(by_hand.map(|(id, _)| *id));
        Self { wanted: wanted.collect(), held: held.map(|(id, _)| *id).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use shoal_runtime::Exit;
    use std::sync::Arc;

    #[test]
    fn a_namespace_lives_until_its_container_has_ended() {
        let mut assignment = fixture::assignment(1, &[1, 2, 3, 4, 5]);
        for ending in [4, 5] {
            Arc::make_mut(assignment.tasks.get_mut(&TaskId(ending)).unwrap()).desired = DesiredState::Shutdown;
        }
        let running = ContainerState::Running { pid: 1, started_at_ms: 1 };
        let exited = ContainerState::Exited(Exit { code: 0, oom: false, finished_at_ms: 1, reason: None });
        let containers = [
            (TaskId(2), running.clone()),
            (TaskId(3), exited.clone()),
            (TaskId(4), running.clone()),
            (TaskId(8), ContainerState::Created),
            (TaskId(9), exited),
        ];
        let got = Namespaces::of(&assignment, &containers.into());
        // 1 is to start, 2 runs, 3 has ended, 4 is ending, 5 never began; of 8 and 9 nobody knows any more.
        assert_eq!(got.wanted, [1, 2, 4].map(TaskId).into());
        assert_eq!(got.held, [TaskId(8)].into());
    }
}
