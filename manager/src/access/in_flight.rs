//! Calls under way, counted by who makes them.

use shoal_common::{NodeId, node::Role};
use shoal_rt::Peer;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tonic::Status;

/// Calls from one address without a certificate: a host joins by one. Each may hold 64 KiB.
const STRANGER: usize = 4;
/// Calls of one worker. Its users may wait for as many containers. Each may hold 1 MiB while it is received.
const WORKER: usize = 256;
/// Calls of one manager: proposals of all its users, and the logs that they follow.
const MANAGER: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Address(IpAddr),
    Node(NodeId),
}

#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<BTreeMap<Caller, usize>>>);

/// One call, until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    caller: Caller,
    all: InFlight,
}

impl InFlight {
    pub(super) fn begin(&self, peer: &Peer) -> Result<Permit, Status> {
        let (caller, limit, name) = match peer.identity {
            None => (Caller::Address(peer.addr.ip()), STRANGER, peer.addr.ip().to_string()),
            Some(i) => {
                let limit = match i.role {
                    Role::Worker => WORKER,
                    Role::Manager => MANAGER,
                };
                (Caller::Node(i.node), limit, i.node.to_string())
            }
        };
        let mut calls = self.calls();
        let count = calls.entry(caller).or_default();
        if *count >= limit {
            return Err(Status::resource_exhausted(format!(
                "{name} has {limit} calls under way, and may have no more"
            )));
        }
        *count += 1;
        Ok(Permit { caller, all: self.clone() })
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<Caller, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut calls = self.all.calls();
        if let Some(count) = calls.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                calls.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_rt::PeerIdentity;

    #[test]
    fn each_caller_has_its_own_number_of_calls() {
        let all = InFlight::default();
        let peer = |last: u8, node: Option<u64>| Peer {
            addr: ([192, 0, 2, last], 1).into(),
            identity: node.map(|n| PeerIdentity { node: NodeId(n), role: Role::Worker }),
        };
        let strangers: Vec<_> = (0..10).filter_map(|_| all.begin(&peer(1, None)).ok()).collect();
        let workers: Vec<_> = (0..1000).filter_map(|_| all.begin(&peer(1, Some(1))).ok()).collect();
        assert_eq!((strangers.len(), workers.len()), (STRANGER, WORKER));
        assert!(all.begin(&peer(2, None)).is_ok() && all.begin(&peer(1, Some(2))).is_ok());
        let refused = all.begin(&peer(1, Some(1))).unwrap_err();
        assert_eq!(refused.message(), "node-1 has 256 calls under way, and may have no more");
        drop((strangers, workers));
        assert!(all.calls().is_empty());
    }
}
