//! All that the rest of the manager sees of Raft.

use shoal_common::{LogIndex, NodeId};
use shoal_state::{Outcome, Proposal, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

use crate::{Connector, Settings};

/// One member of the group. Clones are the same member.
#[derive(Debug, Clone)]
pub struct Consensus {}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<NodeId>,
    /// This member leads.
    pub is_self: bool,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store at {dir}: {why}")]
    Store { dir: std::path::PathBuf, why: String },
    #[error("Raft does not start: {0}")]
    Raft(String),
}

/// Why no answer came. The change may nevertheless have been made, unless it says `NotInitialised`: retry with the
/// same request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("this manager has no cluster yet")]
    NotInitialised,
    #[error("the managers have no leader: {reachable}")]
    NoLeader { reachable: String },
    #[error("the managers have no quorum: no answer within {0:?}")]
    NoQuorum(Duration),
    #[error("this manager has stopped: {0}")]
    Stopped(String),
}

impl Consensus {
    pub async fn open(settings: Settings, connector: Arc<dyn Connector>) -> Result<Self, OpenError> {
        let _ = (settings, connector);
        unimplemented!()
    }
    /// Whether there is a group that this member is or was part of.
    pub fn is_initialised(&self) -> bool {
        unimplemented!()
    }
    /// A group of one, reached at `addr`. Once in the life of a cluster.
    pub async fn bootstrap(&self, addr: SocketAddr) -> Result<(), ProposeError> {
        let _ = addr;
        unimplemented!()
    }
    /// Applied on a majority when it returns. Any member takes it; a follower forwards to the leader.
    pub async fn propose(&self, proposal: Proposal) -> Result<(LogIndex, Outcome), ProposeError> {
        let _ = proposal;
        unimplemented!()
    }
    /// The state with everything in it that was acknowledged before the call (a linearizable read).
    pub async fn read(&self) -> Result<Arc<State>, ProposeError> {
        unimplemented!()
    }
    /// The state as this member has it, and each later one.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        unimplemented!()
    }
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        unimplemented!()
    }
    /// One step (if any is needed) towards exactly these members; leader only. `true`: membership is as wanted.
    pub async fn align_membership(&self, wanted: &BTreeMap<NodeId, SocketAddr>) -> Result<bool, ProposeError> {
        let _ = wanted;
        unimplemented!()
    }
    /// Resolves when this member cannot go on (its disk failed); the daemon ends then.
    pub async fn fatal(&self) -> String {
        unimplemented!()
    }
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
