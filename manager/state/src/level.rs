//! Feature levels: what keeps managers of two versions from reading one log in two ways.
//!
//! Every manager says in its description which [`Level`] it knows. Once all of them know a higher one the leader
//! proposes [`Command::RaiseLevel`], and from that entry on the level is part of the state. So:
//!
//! - A command (or a value in one) that is newer than the logged level is never logged: [`Command::level`] says which
//!   level it needs, and the proposer refuses it. An older manager could not decode it, and would neither apply nor
//!   skip it; everything behind it would wait.
//! - A new field of an old command is left out of its encoding while it has its default (`skip_serializing_if`), and
//!   counts as new when it has not. Old managers refuse fields that they do not know (`deny_unknown_fields`) rather
//!   than ignore them and diverge. A test mutates every value of every command to prove it.
//! - Behaviour of `apply` and of [`crate::assignment`] that is new branches on [`State::level`], never on the version
//!   of the binary.
//! - A level is never lowered, and no manager that does not know it may join.

use shoal_common::{Level, node::NodeDescription};

use crate::{
    command::Command,
    reply::{Outcome, Rejection, Reply},
    state::State,
};

impl Command {
    /// The lowest level whose managers all understand it.
    pub fn level(&self) -> Level {
        match self {
            // Managers that know it are asked for by `apply`: the level itself cannot be its condition.
            Command::InitCluster { .. } | Command::RaiseLevel { .. } => Level(0),
            Command::RegisterNode { .. }
            | Command::DescribeNode { .. }
            | Command::UpdateNode { .. }
            | Command::RemoveNode { .. }
            | Command::SetLiveness { .. }
            | Command::LeaveCluster { .. }
            | Command::RotateJoinToken { .. }
            | Command::CreateNetwork { .. }
            | Command::RemoveNetwork { .. }
            | Command::CreateService { .. }
            | Command::UpdateService { .. }
            | Command::RemoveService { .. }
            | Command::Orchestrate { .. }
            | Command::CreateContainer { .. }
            | Command::StartContainer { .. }
            | Command::StopContainer { .. }
            | Command::RemoveContainer { .. }
            | Command::RenameContainer { .. }
            | Command::ConnectContainer { .. }
            | Command::DisconnectContainer { .. }
            | Command::ReportContainers { .. }
            | Command::ReportStatus { .. } => Level(0),
            Command::Checkpoint { .. } => Level(1),
        }
    }

    /// For messages. Without what the command carries: it may be a secret.
    pub fn name(&self) -> &'static str {
        match self {
            Command::InitCluster { .. } => "InitCluster",
            Command::RaiseLevel { .. } => "RaiseLevel",
            Command::Checkpoint { .. } => "Checkpoint",
            Command::RegisterNode { .. } => "RegisterNode",
            Command::DescribeNode { .. } => "DescribeNode",
            Command::UpdateNode { .. } => "UpdateNode",
            Command::RemoveNode { .. } => "RemoveNode",
            Command::SetLiveness { .. } => "SetLiveness",
            Command::LeaveCluster { .. } => "LeaveCluster",
            Command::RotateJoinToken { .. } => "RotateJoinToken",
            Command::CreateNetwork { .. } => "CreateNetwork",
            Command::RemoveNetwork { .. } => "RemoveNetwork",
            Command::CreateService { .. } => "CreateService",
            Command::UpdateService { .. } => "UpdateService",
            Command::RemoveService { .. } => "RemoveService",
            Command::Orchestrate { .. } => "Orchestrate",
            Command::CreateContainer { .. } => "CreateContainer",
            Command::StartContainer { .. } => "StartContainer",
            Command::StopContainer { .. } => "StopContainer",
            Command::RemoveContainer { .. } => "RemoveContainer",
            Command::RenameContainer { .. } => "RenameContainer",
            Command::ConnectContainer { .. } => "ConnectContainer",
            Command::DisconnectContainer { .. } => "DisconnectContainer",
            Command::ReportContainers { .. } => "ReportContainers",
            Command::ReportStatus { .. } => "ReportStatus",
        }
    }
}

impl State {
    /// The highest level that every manager knows, whether it is heard from or not.
    pub fn known_by_all(&self) -> Level {
        self.managers().map(|m| m.description.level).min().unwrap_or_default()
    }

    /// A manager that does not know the cluster's level could not read its log.
    pub(crate) fn may_manage(&self, description: &NodeDescription) -> Result<(), Rejection> {
        if description.level >= self.level {
            return Ok(());
        }
        Err(Rejection::LevelUnknown {
            node: description.hostname.clone(),
            version: description.version.clone(),
            knows: description.level,
            level: self.level,
        })
    }

    /// # Panics
    /// If this version of Shoal does not know the level: it cannot apply what follows.
    pub(crate) fn raise_level(&mut self, to: Level) -> Outcome {
        if to <= self.level {
            return Ok(Reply::Done);
        }
        let raised = State { level: to, ..self.clone() };
        for manager in self.managers() {
            raised.may_manage(&manager.description)?;
        }
        assert!(
            to <= Level::KNOWN,
            "feature level {to} needs a newer version of Shoal: this one knows {}",
            Level::KNOWN
        );
        self.level = to;
        Ok(Reply::Done)
    }
}
