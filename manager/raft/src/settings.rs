//! What a member of the Raft group is told when it is opened.

use shoal_common::{LogIndex, NodeId};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tonic::transport::Channel;

use crate::store::Owner;

/// Times are chosen for hosts in one data centre: a lost leader is replaced in about a second.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who this member is, and of which cluster. No other host ever has its node's id.
    pub owner: Owner,
    /// Where log, vote and snapshots are kept.
    pub dir: PathBuf,
    /// It stands for no election before its log has come so far. One that left the group and is a member again begins
    /// with an empty log, and the membership that it comes by first may be one in which it was alone.
    pub stands_from: LogIndex,
    pub heartbeat: Duration,
    /// A follower asks for an election after it has heard nothing for the longer of these (the leader's lease) and a
    /// time drawn from between them, so for 0.8 to 1 s by default. That is at least eight heartbeats, none of which
    /// waits for a disk; and pre-vote keeps a follower that was late itself from disturbing the others.
    pub election: (Duration, Duration),
    /// A snapshot is made each time the log has grown by this many entries.
    pub snapshot_every: u64,
    /// How long a proposal or a linearizable read may take, leader changes included.
    pub deadline: Duration,
}

impl Settings {
    pub fn new(owner: Owner, dir: PathBuf) -> Self {
        Self {
            owner,
            dir,
            stands_from: LogIndex(0),
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(500)),
            snapshot_every: 5000,
            deadline: Duration::from_secs(5),
        }
    }

    pub fn node(&self) -> NodeId {
        NodeId(self.owner.node)
    }
}

/// How one member reaches another. The channel must lead to that very node: mutual TLS sees to it.
#[async_trait::async_trait]
pub trait Connector: Send + Sync + 'static {
    async fn connect(
        &self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>>;
}
