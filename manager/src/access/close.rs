//! The connections of nodes that left, or are no managers any more, are closed with all that goes on over them.

use shoal_common::node::Role;
use shoal_rt::{Connections, PeerIdentity};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

use super::{Known, Standing};

/// How long a stream may outlive its node's membership. A node that was removed has as long once more: to be told so,
/// rather than to lose its connection.
const CHECK: Duration = Duration::from_secs(1);

/// Never ends.
pub async fn close_departed(known: Known, connections: Connections) {
    let mut check = interval(CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        check.tick().await;
        let peers = connections.peers().into_iter().filter_map(|(id, peer)| Some((id, peer.identity?)));
        let now = peers.map(|(id, identity)| {
            let standing = known.standing(identity.node);
            let manages = standing == Standing::Manager || known.is_member(identity.node);
            (id, identity, Now { removed: standing == Standing::Removed, manages })
        });
        for (id, identity) in seen.departed(now) {
            tracing::info!(node = %identity.node, role = %identity.role, "a connection is closed: its node is not what its certificate says any more");
            connections.close(id);
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Now {
    removed: bool,
    manages: bool,
}

/// What the nodes of the connections were when they were checked last.
#[derive(Debug, Default)]
struct Seen(BTreeMap<u64, Now>);

impl Seen {
    /// The connections to close. A manager that was demoted connects again with the certificate that it has until it is
    /// given another; what it opens then is no manager's from the beginning, and stays.
    fn departed(&mut self, now: impl Iterator<Item = (u64, PeerIdentity, Now)>) -> Vec<(u64, PeerIdentity)> {
        let mut seen = BTreeMap::new();
        let mut departed = Vec::new();
        for (id, identity, now) in now {
            let before = self.0.get(&id).copied().unwrap_or_default();
            let demoted = identity.role == Role::Manager && before.manages && !now.manages && !now.removed;
            if demoted || (before.removed && now.removed) {
                departed.push((id, identity));
            } else {
                seen.insert(id, now);
            }
        }
        self.0 = seen;
        departed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::NodeId;

    #[test]
    fn connections_end_with_the_membership_that_opened_them() {
        let mut seen = Seen::default();
        let mut look = |connections: &[(u64, u64, Role, bool, bool)]| {
            let now = connections.iter().map(|&(id, node, role, removed, manages)| {
                (id, PeerIdentity { node: NodeId(node), role }, Now { removed, manages })
            });
            seen.departed(now).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        let (worker, manager) = (Role::Worker, Role::Manager);
        assert_eq!(look(&[(1, 1, manager, false, true), (2, 2, worker, false, false)]), [0; 0]);
        // Node 1 is demoted: what it had open ends, once.
        assert_eq!(look(&[(1, 1, manager, false, false), (2, 2, worker, false, false)]), [1]);
        assert_eq!(look(&[(3, 1, manager, false, false), (2, 2, worker, false, false)]), [0; 0]);
        // Removed nodes are told so, and keep nothing.
        assert_eq!(look(&[(3, 1, manager, true, false), (2, 2, worker, true, false)]), [0; 0]);
        assert_eq!(look(&[(3, 1, manager, true, false), (2, 2, worker, true, false)]), [3, 2]);
    }
}
