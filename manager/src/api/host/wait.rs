//! Waiting for a container to come so far.

use shoal_common::{
    Invalid, TaskId,
    container::{Phase, Wanted},
};
use shoal_proto::pb;
use shoal_state::{Container, State};
use std::time::Duration;

use super::Asker;
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
    fn is_reached(self, container: Option<&Container>) -> bool {
        let Some(container) = container else { return true };
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
    if let Some(container) = state.containers.get(&id) {
        asker.may(container.node)?;
    }
    let mut states = manager.consensus.state();
    let is_reached = |state: &State| goal.is_reached(state.containers.get(&id).map(AsRef::as_ref));
    let lost = |state: &State| state.containers.get(&id).map_or(Ok(()), |c| state.refuse_down(c.node));
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
    Ok(pb::AwaitContainerReply { container: state.containers.get(&id).map(|c| view::container(&state, c)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_has_reached_every_goal() {
        for goal in [Goal::Running(3), Goal::Ended(3), Goal::Gone] {
            assert!(goal.is_reached(None));
        }
    }
}
