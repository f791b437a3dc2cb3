//! Whose logs are read: a service, or one task.

use shoal_common::{
    Name, NodeId, ServiceId, TaskId,
    task::{Slot, TaskState},
};
use shoal_state::{Rejection, State, Task};
use std::net::SocketAddr;

use crate::api::{find, view};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Service(ServiceId),
    /// Every task that is or was in the slot, such as `web.1`.
    Slot {
        service: ServiceId,
        name: Name,
        slot: Slot,
    },
    Task(TaskId),
}

/// A task that may have written something, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) task: TaskId,
    pub(super) name: String,
    pub(super) node: NodeId,
    pub(super) host_name: String,
    /// `None`: the node has left the cluster.
    pub(super) addr: Option<SocketAddr>,
}

impl Subject {
    pub(super) fn find(state: &State, name: &str) -> Result<Self, Rejection> {
        if let Some(service) = state.find_service(name) {
            return Ok(Subject::Service(service.id));
        }
        if let Some(task) = name.parse().ok().and_then(|id: TaskId| state.tasks.get(&id)) {
            return Ok(Subject::Task(task.id));
        }
        // The newest: a service of the same name may have been removed before.
        let bearer = state.tasks.values().rfind(|t| t.name() == name);
        let bearer = bearer.ok_or_else(|| find::unknown("service or task", name))?;
        Ok(Subject::Slot { service: bearer.service, name: bearer.service_name.clone(), slot: bearer.slot })
    }

    fn tasks<'a>(&self, state: &'a State) -> Vec<&'a Task> {
        match self {
            Subject::Service(id) => state.tasks_of_service(*id).collect(),
            Subject::Slot { service, slot, .. } => {
                state.tasks_of_service(*service).filter(|t| t.slot == *slot).collect()
            }
            Subject::Task(id) => state.tasks.get(id).map(AsRef::as_ref).into_iter().collect(),
        }
    }

    /// In order of id, so the older first.
    pub(super) fn sources(&self, state: &State) -> Vec<Source> {
        self.tasks(state).into_iter().filter_map(|t| source(state, t)).collect()
    }

    /// More may come than is there now.
    pub(super) fn may_grow(&self, state: &State) -> bool {
        match self {
            Subject::Service(service) | Subject::Slot { service, .. } => state.services.contains_key(service),
            Subject::Task(id) => state.tasks.get(id).is_some_and(|t| !has_started(t) && t.is_live()),
        }
    }
}

fn source(state: &State, task: &Task) -> Option<Source> {
    let node = task.node.filter(|_| has_started(task))?;
    Some(Source {
        task: task.id,
        name: task.name(),
        node,
        host_name: view::host_name(state, Some(node)),
        addr: state.nodes.get(&node).map(|n| n.description.control_addr),
    })
}

/// Its host has said that the process runs, or ran; before that there may be no container to read from.
fn has_started(task: &Task) -> bool {
    match task.status.state {
        TaskState::Pending | TaskState::Assigned | TaskState::Preparing | TaskState::Starting | TaskState::Rejected => {
            false
        }
        TaskState::Running
        | TaskState::Unhealthy
        | TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Orphaned => true,
    }
}
