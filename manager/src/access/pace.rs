//! How often a worker may call. Most calls of its users are an entry of the log, synced on every manager.

use shoal_common::{NodeId, node::Role};
use shoal_rt::{Buckets, Peer, Rate};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A burst, as of a script that runs containers, and then a hundred in a second: several times what one host can start.
const CALLS: Rate = Rate { at_once: 300, period: Duration::from_millis(10) };

#[derive(Debug, Clone)]
pub(super) struct Pace(Arc<Mutex<Buckets<NodeId>>>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Buckets::new(CALLS))))
    }
}

impl Pace {
    /// How long this call has to wait.
    pub(super) fn take(&self, node: NodeId) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(node)
    }
}

/// The node whose calls are counted: managers carry the calls of others.
pub(super) fn is_paced(peer: &Peer) -> Option<NodeId> {
    peer.identity.filter(|i| i.role == Role::Worker).map(|i| i.node)
}
