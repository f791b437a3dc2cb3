//! Tasks: what the orchestrator decided. Each change is made if its ground still holds, and skipped if not.

use shoal_common::{
    LogIndex, NodeId, ServiceId, TaskId,
    node::Liveness,
    service::{Mode, NetworkAttachment, PublishMode},
    task::{Actor, DesiredState, Slot, TaskState, TaskStatus},
};
use std::sync::Arc;

use super::Entry;
use crate::{
    command::TaskChange,
    reply::{Outcome, Reply},
    state::{Node, State, Task},
};

impl State {
    pub(super) fn orchestrate(&mut self, entry: Entry, changes: &[TaskChange]) -> Outcome {
        let mut made = 0;
        for change in changes {
            made += usize::from(self.make(entry, change));
        }
        Ok(Reply::Made(made))
    }

    /// Whether the change was made.
    fn make(&mut self, entry: Entry, change: &TaskChange) -> bool {
        match change {
            TaskChange::Create { service, spec_version, slot, node, why_pending } => {
                self.create_task(entry, *service, *spec_version, *slot, *node, why_pending)
            }
            TaskChange::Assign { task, node } => self.assign_task(entry, *task, *node),
            TaskChange::Pend { task, why } => {
                let pending = self.tasks.get(task).filter(|t| t.status.state == TaskState::Pending && t.is_live());
                pending.is_some_and(|t| t.status.message != *why)
                    && self.change_task(*task, |t| t.status.message.clone_from(why))
            }
            TaskChange::Shutdown { task, why } => self.shut_down(entry, *task, why),
            TaskChange::Orphan { task } => self.orphan_task(entry, *task),
            TaskChange::Forget { task } => self.forget_task(*task),
        }
    }

    fn create_task(
        &mut self,
        entry: Entry,
        service: ServiceId,
        spec_version: LogIndex,
        slot: Slot,
        node: Option<NodeId>,
        why_pending: &str,
    ) -> bool {
        let Some(of) = self.services.get(&service).filter(|s| s.spec_version == spec_version) else { return false };
        let fits = match (of.spec.mode, slot) {
            (Mode::Replicated { replicas }, Slot::Replica(n)) => (1..=replicas).contains(&n),
            (Mode::Global, Slot::Node(n)) => self.nodes.contains_key(&n),
            (Mode::Replicated { .. }, Slot::Node(_)) | (Mode::Global, Slot::Replica(_)) => false,
        };
        let stale_node = node.is_some_and(|node| !self.may_place(slot, node));
        if !fits || stale_node || self.slots.contains_key(&(service, slot)) {
            return false;
        }
        let mut task = Task {
            id: TaskId(0),
            service,
            service_name: of.spec.name.clone(),
            slot,
            node: None,
            container: of.spec.container.clone(),
            resources: of.spec.resources,
            networks: of.spec.networks.clone(),
            publish: of.spec.published(PublishMode::Host).copied().collect(),
            spec_version,
            desired: DesiredState::Running,
            status: TaskStatus {
                state: TaskState::Pending,
                since: entry.at,
                message: why_pending.to_owned(),
                exit_code: None,
            },
            endpoints: Vec::new(),
            ports: Vec::new(),
            created: entry.at,
            started: None,
        };
        task.id = TaskId(self.next_id());
        if let Some(node) = node {
            self.place(entry, &mut task, node);
        }
        self.slots.insert((service, slot), task.id);
        self.tasks_by_service.insert((service, task.id));
        self.tasks.insert(task.id, Arc::new(task));
        true
    }

    fn assign_task(&mut self, entry: Entry, id: TaskId, node: NodeId) -> bool {
        let Some(old) = self.tasks.get(&id).cloned() else { return false };
        let may = old.status.state.may_become(TaskState::Assigned, Actor::Manager);
        if !may || !old.is_live() || !self.may_place(old.slot, node) {
            return false;
        }
        let mut task = Task::clone(&old);
        self.place(entry, &mut task, node);
        if task == *old {
            return false;
        }
        self.tasks.insert(id, Arc::new(task));
        true
    }

    /// A node that takes new tasks, and the one that the slot names if it names one.
    fn may_place(&self, slot: Slot, node: NodeId) -> bool {
        let fits = match slot {
            Slot::Replica(_) => true,
            Slot::Node(named) => named == node,
        };
        fits && self.nodes.get(&node).is_some_and(Node::is_schedulable)
    }

    /// Gives a pending task its node, addresses and ports; where there are none left, it says so and stays pending.
    fn place(&mut self, entry: Entry, task: &mut Task, node: NodeId) {
        // As a container that is run by hand, one without a network is on its host's default bridge.
        let default = self.default_bridge(node).filter(|_| task.networks.is_empty());
        let default = default.map(|network| NetworkAttachment { network, aliases: Vec::new() });
        let taken = self.task_ports(task, node).and_then(|ports| {
            task.networks.extend(default.clone());
            task.networks.iter().try_for_each(|a| self.refuse_without_parent(a.network, node))?;
            self.take_endpoints(task).map(|()| ports)
        });
        match taken {
            Ok(ports) => {
                task.ports = ports;
                task.node = Some(node);
                task.status.state = TaskState::Assigned;
                task.status.since = entry.at;
                task.status.message.clear();
                self.tasks_by_node.insert((node, task.id));
            }
            Err(why) => {
                task.networks.retain(|network| Some(network) != default.as_ref());
                task.status.message = why.to_string();
            }
        }
    }

    /// Whether there was anything to end.
    pub(super) fn shut_down(&mut self, entry: Entry, id: TaskId, why: &str) -> bool {
        let wanted = |t: &Arc<Task>| t.desired == DesiredState::Running && !t.status.state.is_terminal();
        if !self.tasks.get(&id).is_some_and(wanted) {
            return false;
        }
        self.change_task(id, |task| {
            task.desired = DesiredState::Shutdown;
            why.clone_into(&mut task.status.message);
            // Without a node there is no agent to say that it ended.
            if task.status.state.may_become(TaskState::Shutdown, Actor::Manager) {
                task.status.state = TaskState::Shutdown;
                task.status.since = entry.at;
            }
        })
    }

    fn orphan_task(&mut self, entry: Entry, id: TaskId) -> bool {
        let Some(task) = self.tasks.get(&id) else { return false };
        let ready = task.node.and_then(|n| self.nodes.get(&n)).filter(|n| n.liveness == Liveness::Ready);
        if ready.is_some() || !task.status.state.may_become(TaskState::Orphaned, Actor::Manager) {
            return false;
        }
        self.change_task(id, |task| {
            task.status.state = TaskState::Orphaned;
            task.status.since = entry.at;
            task.status.message = match task.node {
                Some(node) => format!("{node} was down when this was given up"),
                None => String::new(),
            };
        })
    }

    fn forget_task(&mut self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get(&id).filter(|t| t.status.state.is_terminal()).cloned() else { return false };
        self.tasks.remove(&id);
        self.tasks_by_service.remove(&(task.service, id));
        if let Some(node) = task.node {
            self.tasks_by_node.remove(&(node, id));
        }
        true
    }

    /// Changes a task's status, and lets go of what it holds no longer: its slot when it is not live, its addresses
    /// when it has ended. False if there is no such task.
    pub(super) fn change_task(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) -> bool {
        let Some(row) = self.tasks.get(&id) else { return false };
        let mut task = Task::clone(row);
        change(&mut task);
        let slot = (task.service, task.slot);
        if !task.is_live() && self.slots.get(&slot) == Some(&id) {
            self.slots.remove(&slot);
        }
        if task.status.state.is_terminal() {
            self.release_endpoints(&mut task);
        }
        self.tasks.insert(id, Arc::new(task));
        true
    }
}
