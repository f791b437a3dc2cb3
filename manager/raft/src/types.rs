//! What openraft is told of us.

use serde::{Deserialize, Serialize};
use shoal_state::{Outcome, Proposal};
use std::{fmt, sync::Arc};

/// A proposal as an entry of the log. Shared, for it passes through cache, replication and apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Logged(pub(crate) Arc<Proposal>);

impl fmt::Display for Logged {
    /// Without what the command carries: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal of {}", self.0.at.0)
    }
}

/// What apply answered; entries of Raft's own have no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Outcome>);

openraft::declare_raft_types!(
    /// Node ids are those of [`shoal_common::NodeId`]; a member's `addr` is where its daemon listens.
    pub(crate) TypeConfig:
        D = Logged,
        R = Answer,
        AsyncRuntime = crate::rt::Runtime,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::machine::Machine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, crate::snapshot::Data>;
