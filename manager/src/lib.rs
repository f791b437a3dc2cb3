//! The shell of the control plane: it serves users and agents, and carries values between Raft and the pure crates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use shoal_common::NodeId;
use shoal_raft::Consensus;
use shoal_rt::Credentials;

/// What every part of a manager works with. Clones are the same manager.
#[derive(Debug, Clone)]
pub struct Manager {
    pub node: NodeId,
    pub consensus: Consensus,
    pub credentials: Credentials,
}
