//! Nodes: joining, changing, leaving.

use shoal_common::{
    Invalid, NodeId, TaskId,
    name::Labels,
    node::{Availability, Liveness, NodeDescription, Role},
    task::TaskState,
};

use super::{Entry, not_found};
use crate::{
    reply::{Outcome, Rejection, Reply},
    state::{Node, State},
};

impl State {
    pub(super) fn register_node(
        &mut self,
        entry: Entry,
        role: Role,
        description: &NodeDescription,
        public_key_sha256: &str,
    ) -> Outcome {
        if public_key_sha256.is_empty() {
            return Err(Invalid::new("public key", public_key_sha256, "the SHA-256 of the node's public key").into());
        }
        let same_key = |n: &&Node| n.public_key_sha256 == public_key_sha256;
        if let Some(id) = self.nodes.values().find(same_key).map(|n| n.id) {
            self.describe_node(entry, id, description)?;
            return Ok(Reply::Node(id));
        }
        if role == Role::Manager {
            self.may_manage(description)?;
        }
        let id = NodeId(self.next_id());
        self.insert_node(entry, id, role, description, public_key_sha256);
        Ok(Reply::Node(id))
    }

    pub(super) fn insert_node(
        &mut self,
        entry: Entry,
        id: NodeId,
        role: Role,
        description: &NodeDescription,
        public_key_sha256: &str,
    ) {
        let node = Node {
            id,
            role,
            availability: Availability::Active,
            liveness: Liveness::Unknown,
            liveness_since: entry.at,
            description: description.clone(),
            public_key_sha256: public_key_sha256.to_owned(),
            labels: Labels::new(),
            left: false,
            joined: entry.at,
        };
        self.nodes.insert(id, node);
        self.settle_default_bridge(entry, id);
    }

    /// A host without a default bridge is better than no host: why it has none is told where somebody asks for it.
    fn settle_default_bridge(&mut self, entry: Entry, id: NodeId) {
        let before = self.clone();
        if self.ensure_default_bridge(entry, id).is_err() {
            *self = before;
        }
    }

    pub(super) fn describe_node(&mut self, entry: Entry, id: NodeId, description: &NodeDescription) -> Outcome {
        let node = self.nodes.get_mut(&id).ok_or_else(|| not_found("node", id))?;
        node.description = description.clone();
        self.settle_default_bridge(entry, id);
        Ok(Reply::Done)
    }

    pub(super) fn update_node(
        &mut self,
        id: NodeId,
        availability: Option<Availability>,
        role: Option<Role>,
        labels_add: &Labels,
        labels_remove: &[String],
    ) -> Outcome {
        let is_last_manager = self.managers().all(|n| n.id == id);
        let node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        if role == Some(Role::Worker) && node.role == Role::Manager && is_last_manager {
            return Err(Rejection::LastManager { node: id.to_string() });
        }
        if role == Some(Role::Manager) && node.role == Role::Worker {
            let description = node.description.clone();
            self.may_manage(&description)?;
        }
        let node = self.nodes.get_mut(&id).ok_or_else(|| not_found("node", id))?;
        node.role = role.unwrap_or(node.role);
        node.availability = availability.unwrap_or(node.availability);
        for label in labels_remove {
            node.labels.remove(label);
        }
        node.labels.extend(labels_add.clone());
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(&mut self, entry: Entry, id: NodeId, force: bool) -> Outcome {
        let node = self.nodes.get(&id).ok_or_else(|| not_found("node", id))?;
        if node.role == Role::Manager {
            return Err(Rejection::NodeIsManager { node: id.to_string() });
        }
        if node.liveness == Liveness::Ready && !force {
            return Err(Rejection::NodeIsReady { node: id.to_string() });
        }
        let tasks: Vec<TaskId> =
            self.tasks_of_node(id).filter(|t| !t.status.state.is_terminal()).map(|t| t.id).collect();
        for task in tasks {
            self.change_task(task, |task| {
                task.status.state = TaskState::Orphaned;
                task.status.since = entry.at;
                task.status.message = format!("{id} was removed from the cluster");
            });
        }
        let containers: Vec<TaskId> = self.containers_of_node(id).map(|c| c.id).collect();
        for container in containers {
            self.forget_container(container);
        }
        self.forget_networks_of(id);
        self.checkpoints.remove(&id);
        self.nodes.remove(&id);
        Ok(Reply::Done)
    }

    /// The host has left by its own will: it is down at once and for good, whatever was heard of it before.
    pub(super) fn leave_cluster(&mut self, entry: Entry, id: NodeId) -> Outcome {
        let node = self.nodes.get_mut(&id).ok_or_else(|| not_found("node", id))?;
        if !node.left {
            (node.left, node.liveness, node.liveness_since) = (true, Liveness::Down, entry.at);
        }
        Ok(Reply::Done)
    }

    /// Of nodes that left or were removed meanwhile nothing is kept.
    pub(super) fn set_liveness(&mut self, entry: Entry, nodes: &[(NodeId, Liveness)]) -> Outcome {
        let mut made = 0;
        for (id, liveness) in nodes {
            if self.nodes.get(id).is_some_and(|n| n.liveness != *liveness && !n.left)
                && let Some(node) = self.nodes.get_mut(id)
            {
                node.liveness = *liveness;
                node.liveness_since = entry.at;
                made += 1;
            }
        }
        Ok(Reply::Made(made))
    }
}
