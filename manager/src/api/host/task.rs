//! Tasks of services among a host's containers, as Docker's users expect them there: they are listed, and may be ended.
//! What else is done to a container is its service's to do.

use shoal_common::{
    NodeId, TaskId,
    container::Phase,
    node::Liveness,
    task::{DesiredState, TaskState},
};
use shoal_proto::pb;
use shoal_state::{Command, State, Task, TaskChange, called};

use crate::{
    Manager,
    api::{
        status::Refusal,
        view,
        write::{new_request, write},
    },
};

/// `web.1.task-12`: a slot has had several tasks.
fn name(task: &Task) -> String {
    format!("{}.{}", task.name(), task.id)
}

/// By its name, or that of its slot (which is the task that is wanted, or else the last), or by its id.
pub(super) fn find<'a>(state: &'a State, typed: &str, on: NodeId) -> Option<&'a Task> {
    let of_slot = || {
        let same = state.tasks_of_node(on).filter(|task| task.name() == typed);
        same.max_by_key(|task| (task.desired == DesiredState::Running, task.id))
    };
    let named = || state.tasks_of_node(on).find(|task| name(task) == typed).or_else(of_slot);
    called(typed, named, |id: TaskId| state.tasks.get(&id).map(AsRef::as_ref))
}

/// Where a container of a task stands.
fn phase(state: TaskState) -> Phase {
    match state {
        TaskState::Pending | TaskState::Assigned | TaskState::Preparing | TaskState::Starting => Phase::Created,
        TaskState::Running | TaskState::Unhealthy => Phase::Running,
        TaskState::Complete | TaskState::Shutdown | TaskState::Failed | TaskState::Rejected | TaskState::Orphaned => {
            Phase::Exited
        }
    }
}

/// As a container.
pub(super) fn shown(state: &State, task: &Task) -> pb::Container {
    let networks = task.networks.iter().map(|wish| pb::Attachment {
        network: wish.network.0.to_string(),
        aliases: wish.aliases.iter().map(ToString::to_string).collect(),
        ..Default::default()
    });
    let spec = pb::RunSpec {
        name: name(task),
        container: Some(task.container.clone().into()),
        resources: Some(task.resources.into()),
        stack: if task.networks.is_empty() { "none" } else { "own" }.to_owned(),
        networks: networks.collect(),
        restart: "no".to_owned(),
        ..Default::default()
    };
    let health = if task.status.state == TaskState::Unhealthy { "unhealthy" } else { "" };
    let status = pb::RunStatus {
        phase: phase(task.status.state).to_string(),
        start: 1,
        since_ms: task.status.since.0,
        message: task.status.message.clone(),
        exit_code: task.status.exit_code,
        health: health.to_owned(),
        ..Default::default()
    };
    let node = task.node.unwrap_or(NodeId(0));
    pb::Container {
        id: task.id.0,
        node: node.0,
        node_name: view::host_name(state, task.node),
        spec: Some(spec),
        wanted: if task.desired == DesiredState::Running { "running" } else { "stopped" }.to_owned(),
        start: 1,
        status: Some(status),
        endpoints: task.endpoints.iter().cloned().map(Into::into).collect(),
        ports: task.ports.iter().copied().map(Into::into).collect(),
        created_ms: task.created.0,
        networks: task.endpoints.iter().map(|e| view::attached(state, e.network)).collect(),
        host_down: state.nodes.get(&node).is_some_and(|node| node.liveness == Liveness::Down),
        service: task.service.0,
    }
}

/// Ends it: its service makes another one in its place. Answered at once.
pub(super) async fn stop(manager: &Manager, task: TaskId) -> Result<pb::ContainerReply, Refusal> {
    change(manager, TaskChange::Shutdown { task, why: "stopped by hand on its host".to_owned() }).await?;
    Ok(pb::ContainerReply { id: task.0, start: 1 })
}

/// Forgets one that has ended; `force` ends it first, and waits for that.
pub(super) async fn remove(manager: &Manager, task: TaskId, force: bool) -> Result<pb::ContainerReply, Refusal> {
    let mut states = manager.consensus.state();
    let has_ended = |state: &State| state.tasks.get(&task).is_none_or(|t| t.status.state.is_terminal());
    if !has_ended(&*manager.consensus.read().await?) {
        if !force {
            return Err(Refusal::TaskRuns(task));
        }
        stop(manager, task).await?;
        states.wait_for(|state| has_ended(state)).await.map_err(|_| Refusal::Ending)?;
    }
    change(manager, TaskChange::Forget { task }).await?;
    Ok(pb::ContainerReply { id: task.0, start: 1 })
}

async fn change(manager: &Manager, change: TaskChange) -> Result<(), Refusal> {
    write(manager, new_request(), Command::Orchestrate { changes: vec![change] }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_stands_where_its_container_does() {
        for (state, expected) in [
            (TaskState::Pending, Phase::Created),
            (TaskState::Starting, Phase::Created),
            (TaskState::Running, Phase::Running),
            (TaskState::Unhealthy, Phase::Running),
            (TaskState::Shutdown, Phase::Exited),
            (TaskState::Orphaned, Phase::Exited),
        ] {
            assert_eq!(phase(state), expected, "{state}");
        }
    }
}
