//! Waiting for a container to come so far.

use shoal_common::{
    Invalid, TaskId,
    container::{Phase, Wanted},
    task::TaskState,
};
use shoal_proto::pb;
use shoal_state::{Container, State};
use std::time::Duration;

use super::{Asker, task};
use crate::{
    Manager,
    api::{status::Refusal, view},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// That start of it runs, or came to an end.
    Running(u64),
    /// It does not run, and its host does not start it by itself.
    Ended(u64),
    Gone,
}

impl Goal {
    /// By a container or a task; what is neither is gone.
    fn is_reached(self, state: &State, id: TaskId) -> bool {
        match (state.containers.get(&id), state.tasks.get(&id)) {
            (Some(container), _) => self.is_reached_by(container),
            (None, Some(task)) => match self {
                Goal::Running(_) => task.status.state >= TaskState::Running,
                Goal::Ended(_) => task.status.state.is_terminal(),
                Goal::Gone => false,
            },
            (None, None) => true,
        }
    }

    fn is_reached_by(self, container: &Container) -> bool {
        let status = &container.status;
        match self {
            Goal::Running(start) => {
                status.start >= start && matches!(status.phase, Phase::Running | Phase::Restarting | Phase::Exited)
            }
            Goal::Ended(start) => match status.phase {
                Phase::Exited | Phase::Removed => status.start >= start,
                Phase::Created => container.wanted != Wanted::Running,
                Phase::Running | Phase::Restarting => false,
            },
            Goal::Gone => false,
        }
    }
}

pub(super) async fn until(
    manager: &Manager,
    asker: Asker,
    asked: pb::AwaitContainerRequest,
) -> Result<pb::AwaitContainerReply, Refusal> {
    let goal = match asked.until.as_str() {
        "running" => Goal::Running(asked.start),
        "ended" => Goal::Ended(asked.start),
        "gone" => Goal::Gone,
        other => return Err(Invalid::new("until", other, "running, ended or gone").into()),
    };
    let id = TaskId(asked.id);
    // What was acknowledged before is seen here.
    let state = manager.consensus.read().await?;
    let host = |state: &State| {
        let of_task = || state.tasks.get(&id).and_then(|task| task.node);
        state.containers.get(&id).map(|container| container.node).or_else(of_task)
    };
    if let Some(node) = host(&state) {
        asker.may(node)?;
    }
    let mut states = manager.consensus.state();
    let is_reached = |state: &State| goal.is_reached(state, id);
    let lost = |state: &State| host(state).map_or(Ok(()), |node| state.refuse_down(node));
    let reached = states.wait_for(|state| is_reached(state) || lost(state).is_err());
    let limit = match asked.limit_ms {
        0 => Duration::MAX,
        ms => Duration::from_millis(ms),
    };
    let state = tokio::time::timeout(limit, reached).await.map_err(|_| Refusal::TooLate(limit))?;
    // The manager has ended.
    let state = state.map_err(|_| Refusal::Ending)?.clone();
    if !is_reached(&state) {
        lost(&state)?;
    }
    let container = state.containers.get(&id).map(|container| view::container(&state, container));
    let or_task = || state.tasks.get(&id).map(|task| task::shown(&state, task));
    Ok(pb::AwaitContainerReply { container: container.or_else(or_task) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_has_reached_every_goal() {
        for goal in [Goal::Running(3), Goal::Ended(3), Goal::Gone] {
            assert!(goal.is_reached(&State::default(), TaskId(7)));
        }
    }
}
