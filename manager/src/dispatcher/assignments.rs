//! One agent's stream: everything once, then what changed.

use shoal_common::{LogIndex, NodeId};
use shoal_proto::pb::{self, assignments_reply::Kind};
use shoal_state::{State, View, view};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::removed;

/// Messages that an agent has not read yet. While it is full, changes gather into the next one.
pub(super) const UNREAD: usize = 4;

/// What was sent last, which is what the agent holds.
#[derive(Debug, Default)]
pub(super) struct Sent {
    last: Option<View>,
    /// The state that was looked at last.
    looked: LogIndex,
}

impl Sent {
    /// The next message that this state asks for, if any.
    pub(super) fn next(&mut self, state: &State, node: NodeId) -> Result<Option<Kind>, Status> {
        if let Some(last) = &self.last
            && state.nodes.contains_key(&node)
            && state.changed_at(node, last.networks()) <= self.looked
        {
            // Most of what happens in a cluster does not concern most of its hosts.
            self.looked = state.applied;
            return Ok(None);
        }
        let Some(now) = view(state, node) else {
            return Err(removed(node));
        };
        self.looked = state.applied;
        let kind = match &self.last {
            None => Kind::Complete(now.whole().into()),
            Some(before) => {
                let delta = now.since(before);
                if !before.is_changed_by(&delta) {
                    return Ok(None);
                }
                Kind::Incremental(delta.into())
            }
        };
        self.last = Some(now);
        Ok(Some(kind))
    }
}

/// Which host of that name this stream goes to. A copy of a host has its identity, but not its address.
#[derive(Debug)]
pub(super) struct Place {
    vtep: IpAddr,
    /// The managers' record has said so: this manager may be behind when the stream begins.
    recorded: bool,
}

impl Place {
    pub(super) fn new(vtep: IpAddr) -> Self {
        Self { vtep, recorded: false }
    }

    /// Fails once the record names another address: a host with this identity has connected since, to any manager.
    fn check(&mut self, state: &State, node: NodeId) -> Result<(), Status> {
        let Some(now) = state.nodes.get(&node).map(|n| n.description.vtep) else { return Ok(()) };
        if now == self.vtep {
            self.recorded = true;
        } else if self.recorded {
            tracing::warn!(%node, was = %self.vtep, %now, "a node connects from another address while it is connected: was its host copied?");
            return Err(Status::aborted(format!(
                "{node} has connected as {now}, which takes the place of {}: if these are two hosts, one is a copy of the \
                 other and must leave with 'shoal leave --force'",
                self.vtep
            )));
        }
        Ok(())
    }
}

/// Sends until the agent hangs up, the node is removed or is elsewhere, or `ended`: with what to tell the agent, if
/// anything.
pub(super) async fn send(
    node: NodeId,
    mut place: Place,
    mut states: watch::Receiver<Arc<State>>,
    ended: impl Future<Output = Option<Status>>,
    agent: mpsc::Sender<Result<pb::AssignmentsReply, Status>>,
) {
    tokio::pin!(ended);
    let mut sent = Sent::default();
    loop {
        // First room, then the state: what is sent is never older than it must be.
        let room = tokio::select! {
            room = agent.reserve() => room,
            told = &mut ended => return end(&agent, told),
        };
        let Ok(room) = room else { return };
        let state = states.borrow_and_update().clone();
        match place.check(&state, node).and_then(|()| sent.next(&state, node)) {
            Ok(Some(kind)) => room.send(Ok(pb::AssignmentsReply { kind: Some(kind) })),
            Ok(None) => drop(room),
            Err(status) => return room.send(Err(status)),
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = agent.closed() => return,
            told = &mut ended => return end(&agent, told),
        }
    }
}

fn end(agent: &mpsc::Sender<Result<pb::AssignmentsReply, Status>>, told: Option<Status>) {
    if let Some(status) = told {
        // An agent that reads nothing sees the end of the stream all the same.
        let _ = agent.try_send(Err(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{
        Mtu, Timestamp,
        node::{Liveness, NodeDescription},
        service::Amount,
    };
    use shoal_state::{ClusterSettings, Command, Proposal};
    use tonic::Code;

    const NODE: NodeId = NodeId(1);

    fn description(addr: &str) -> Box<NodeDescription> {
        Box::new(NodeDescription {
            hostname: "m1".to_owned(),
            control_addr: addr.parse().unwrap(),
            vtep: "192.0.2.1".parse().unwrap(),
            underlay_mtu: Mtu::ETHERNET,
            underlay: vec!["192.0.2.0/24".parse().unwrap()],
            capacity: Amount { nano_cpus: 1, memory_bytes: 1 },
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            version: "0.1.0".to_owned(),
            level: Default::default(),
            addresses: vec![],
            default_bridge: None,
        })
    }

    struct Log(State, u64);

    impl Log {
        fn begun() -> Self {
            let settings = ClusterSettings {
                id: "c1".to_owned(),
                ca_certificate_pem: String::new(),
                ca_key_pem: String::new(),
                worker_join_secret: "w".to_owned(),
                manager_join_secret: "m".to_owned(),
                address_pools: vec!["10.0.0.0/16".parse().unwrap()],
                subnet_prefix_len: 24,
                ula_prefix: "fd00::/48".parse().unwrap(),
                data_path_port: 4789,
            };
            let mut log = Self(State::default(), 0);
            log.add(Command::InitCluster { cluster: Box::new(settings), node: *description("192.0.2.1:2377") });
            log
        }

        fn add(&mut self, command: Command) {
            self.1 += 1;
            let proposal = Proposal { at: Timestamp(1), request: None, command };
            self.0.apply(shoal_common::LogIndex(self.1), &proposal).unwrap();
        }
    }

    #[test]
    fn what_does_not_concern_the_host_is_not_sent_and_leaves_no_gap() {
        let mut log = Log::begun();
        let mut sent = Sent::default();
        let Some(Kind::Complete(whole)) = sent.next(&log.0, NODE).unwrap() else { panic!("first the whole") };
        assert_eq!(whole.generation, log.1);

        log.add(Command::SetLiveness { nodes: vec![(NODE, Liveness::Ready)] });
        assert_eq!(sent.next(&log.0, NODE).unwrap(), None);

        // The next that concerns it follows on what the host holds, not on what was skipped.
        log.add(Command::DescribeNode { node: NODE, description: *description("192.0.2.1:9999") });
        let Some(Kind::Incremental(delta)) = sent.next(&log.0, NODE).unwrap() else { panic!("then what changed") };
        assert_eq!((delta.from, delta.to), (whole.generation, log.1));
        assert_eq!(delta.node.unwrap().managers, [(NODE.0, "192.0.2.1:9999".to_owned())].into());
        assert_eq!(sent.next(&log.0, NODE).unwrap(), None);
    }

    #[test]
    fn a_copy_of_a_host_takes_the_stream_wherever_it_connects() {
        let mut log = Log::begun();
        let of = |vtep: &str| NodeDescription { vtep: vtep.parse().unwrap(), ..*description("192.0.2.1:1") };
        let mut place = Place::new("192.0.2.7".parse().unwrap());
        // This manager does not have the record yet.
        assert!(place.check(&log.0, NODE).is_ok());
        log.add(Command::DescribeNode { node: NODE, description: of("192.0.2.7") });
        assert!(place.check(&log.0, NODE).is_ok());
        log.add(Command::DescribeNode { node: NODE, description: of("192.0.2.8") });
        let told = place.check(&log.0, NODE).unwrap_err();
        assert!(told.message().contains("192.0.2.7") && told.message().contains("192.0.2.8"), "{told}");
    }

    #[test]
    fn a_host_that_is_no_member_is_told_so() {
        let refused = Sent::default().next(&Log::begun().0, NodeId(9)).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}
