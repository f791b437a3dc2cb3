//! The only way to change the state. One noun a file; each function here is given a command that was committed.

mod cluster;
mod container;
mod network;
mod node;
mod ports;
mod report;
mod service;
mod task;

use shoal_common::{LogIndex, Timestamp};

use crate::{
    command::{Command, Proposal, RequestId},
    reply::{Outcome, Rejection},
    state::State,
};

/// The entry that is being applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) index: LogIndex,
    pub(crate) at: Timestamp,
}

impl State {
    /// Applies one entry of the log. A [`Rejection`] changes nothing but `applied` and the remembered answers.
    ///
    /// # Panics
    /// If `index` is not after [`State::applied`], or an invariant is broken: a manager stops rather than diverge.
    pub fn apply(&mut self, index: LogIndex, proposal: &Proposal) -> Outcome {
        assert!(index > self.applied, "entry {index} is applied after entry {}", self.applied);
        self.keep_boundary(index);
        if let Some(first) = proposal.request.and_then(|id| self.answers.get(&id)).cloned() {
            self.applied = index;
            return first;
        }
        let before = self.clone();
        let outcome = self.execute(Entry { index, at: proposal.at }, &proposal.command);
        if outcome.is_err() {
            *self = before;
        } else {
            self.note_changes(&before, index);
        }
        self.applied = index;
        if let Some(id) = proposal.request {
            self.remember(id, outcome.clone());
        }
        outcome
    }

    fn execute(&mut self, entry: Entry, command: &Command) -> Outcome {
        match (command, &self.cluster) {
            (Command::InitCluster { cluster, node }, _) => return self.init_cluster(entry, cluster, node),
            (_, None) => return Err(Rejection::NotInitialised),
            (_, Some(_)) => {}
        }
        match command {
            Command::InitCluster { .. } => Err(Rejection::AlreadyInitialised),
            Command::RegisterNode { role, description, public_key_sha256 } => {
                self.register_node(entry, *role, description, public_key_sha256)
            }
            Command::DescribeNode { node, description } => self.describe_node(entry, *node, description),
            Command::UpdateNode { node, availability, role, labels_add, labels_remove } => {
                self.update_node(*node, *availability, *role, labels_add, labels_remove)
            }
            Command::RemoveNode { node, force } => self.remove_node(entry, *node, *force),
            Command::LeaveCluster { node } => self.leave_cluster(entry, *node),
            Command::SetLiveness { nodes } => self.set_liveness(entry, nodes),
            Command::RotateJoinToken { role, secret } => self.rotate_join_token(*role, secret),
            Command::CreateNetwork { spec } => self.create_network(entry, spec),
            Command::RemoveNetwork { network } => self.remove_network(*network),
            Command::CreateService { spec } => self.create_service(entry, spec),
            Command::UpdateService { service, version, spec } => self.update_service(entry, *service, *version, spec),
            Command::RemoveService { service } => self.remove_service(entry, *service),
            Command::Orchestrate { changes } => self.orchestrate(entry, changes),
            Command::ReportStatus { reports } => self.report_status(entry, reports),
            Command::CreateContainer { node, spec } => self.create_container(entry, *node, spec),
            Command::StartContainer { container, again } => self.start_container(*container, *again),
            Command::StopContainer { container, grace } => self.stop_container(*container, *grace),
            Command::RemoveContainer { container, force, volumes } => {
                self.remove_container(*container, *force, *volumes)
            }
            Command::RenameContainer { container, name } => self.rename_container(*container, name),
            Command::ConnectContainer { container, attachment } => self.connect_container(*container, attachment),
            Command::DisconnectContainer { container, network } => self.disconnect_container(*container, *network),
            Command::RaiseLevel { level } => self.raise_level(*level),
            Command::Checkpoint { node, checkpoint } => self.checkpoint(*node, checkpoint),
            Command::ReportContainers { reports } => self.report_containers(entry, reports),
        }
    }

    fn remember(&mut self, id: RequestId, outcome: Outcome) {
        self.answers.insert(id, outcome);
        self.answer_order.push_back(id);
        if self.answer_order.len() > RequestId::REMEMBERED
            && let Some(oldest) = self.answer_order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

fn not_found(kind: &str, id: impl ToString) -> Rejection {
    Rejection::NotFound { kind: kind.to_owned(), name: id.to_string() }
}
