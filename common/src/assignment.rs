//! All that one host must know, cut from the cluster's state at one [`Generation`].
//!
//! An assignment is flat: ordered maps. So a change to it is a difference of maps, and what crosses the wire
//! after one task moved is one task and one endpoint, not a network of thousands.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use crate::{
    Generation, LinkName, LogIndex, Mtu, Name, NetworkId, NodeId, ServiceId, Subnet, TaskId, Timestamp, Vni, Vtep,
    container::{ExposedPort, PublishedPort, RunSpec, RunStatus, Wanted},
    network::{BridgeOptions, MacvlanMode},
    node::Role,
    service::{ContainerSpec, EndpointMode, IngressPort, NamedPort, Resources},
    task::{DesiredState, Endpoint, Slot, TaskState},
};

/// What one node must make true. Rows of which there are many are shared: an assignment that differs in one of them is
/// made and compared without a look at the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub generation: Generation,
    /// The node itself; `None` only in the empty assignment of a host that was never told anything.
    pub node: Option<NodeAssignment>,
    /// The networks that a task of this node is on.
    pub networks: BTreeMap<NetworkId, NetworkAssignment>,
    /// Every endpoint of those networks, on this node and elsewhere.
    pub endpoints: BTreeMap<(NetworkId, TaskId), Arc<EndpointAssignment>>,
    /// Every service of those networks.
    pub services: BTreeMap<(NetworkId, ServiceId), ServiceAssignment>,
    /// The tasks of this node that have not ended.
    pub tasks: BTreeMap<TaskId, Arc<TaskAssignment>>,
    /// The containers that were run on this node by hand. Their ids and those of tasks are of one sequence.
    #[serde(default)]
    pub containers: BTreeMap<TaskId, Arc<ContainerAssignment>>,
    /// The services that every host of the cluster publishes ports for.
    #[serde(default)]
    pub ingress: BTreeMap<ServiceId, Arc<IngressAssignment>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAssignment {
    pub id: NodeId,
    /// The role its certificate should bear; the daemon renews it and becomes or ceases to be a manager.
    pub role: Role,
    /// UDP port of VXLAN, the same on every host of the cluster.
    pub data_path_port: u16,
    /// Where managers listen, so that the agent finds another one.
    pub managers: BTreeMap<NodeId, std::net::SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAssignment {
    pub name: Name,
    /// With the host's own part of the options.
    pub kind: NetworkKind,
    pub subnets: Vec<Subnet>,
    pub internal: bool,
    /// Of the links in the network; `None`: the underlay's, less VXLAN's overhead in an overlay.
    pub mtu: Option<Mtu>,
    /// The least of the underlays of the hosts that are on it; `None` of any but an overlay. A host that sent larger packets
    /// than another's link carries would send them for nothing: nobody tells it.
    #[serde(default)]
    pub underlay: Option<Mtu>,
}

/// How a network is realised on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum NetworkKind {
    Overlay { vni: Vni },
    Bridge(BridgeOptions),
    Macvlan { parent: LinkName, mode: MacvlanMode },
}

/// One endpoint of a network: what forwarding, neighbours, VIPs and names are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointAssignment {
    pub endpoint: Endpoint,
    pub node: NodeId,
    pub vtep: Vtep,
    /// `None` of a container that was run by hand.
    pub service: Option<ServiceId>,
    /// `web.1`: by which name the container is found. Unique among live tasks of the network.
    pub task_name: String,
    /// Further names: hostname, if the user gave one, and aliases of this network.
    pub aliases: Vec<String>,
    /// Running, and wanted so: in names and VIPs. An endpoint that is not serving is still forwarded to, so that
    /// what is under way can finish.
    pub serving: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAssignment {
    pub name: Name,
    pub aliases: Vec<Name>,
    pub mode: EndpointMode,
    /// Present in mode `vip`, one per address family of the network.
    pub vip4: Option<Ipv4Addr>,
    pub vip6: Option<Ipv6Addr>,
    pub ports: Vec<NamedPort>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskAssignment {
    pub service: ServiceId,
    pub service_name: Name,
    pub slot: Slot,
    /// `web.1`.
    pub name: String,
    pub container: ContainerSpec,
    pub resources: Resources,
    /// In the order in which the user named the networks: eth0, eth1, …
    pub endpoints: Vec<Endpoint>,
    pub desired: DesiredState,
    /// The state that the managers have on record; what the agent reports moves on from here.
    pub known: TaskState,
    /// The log index at which the service's spec took this shape.
    pub spec_version: LogIndex,
    /// Of its host.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
}

/// Where the ports of the cluster lead that a service has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressAssignment {
    pub ports: Vec<IngressPort>,
    /// The hosts that have tasks of it which serve, or finish what they have begun.
    pub hosts: BTreeMap<NodeId, IngressHost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressHost {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// How many tasks that serve.
    pub tasks: u32,
}

/// A container that was run by hand: all that its host needs to run it, and to say what it is without any manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerAssignment {
    /// As its user wished it, with the networks that it is on now.
    pub spec: RunSpec,
    pub created: Timestamp,
    /// One for each of its networks, in the order in which these are chosen for the way out.
    pub endpoints: Vec<Endpoint>,
    /// While it is to run.
    pub ports: Vec<PublishedPort>,
    pub links: Vec<LinkAssignment>,
    /// What `host-gateway` means.
    pub gateways: Vec<IpAddr>,
    /// Between its stop signal and SIGKILL: as its last `stop` said, else its own.
    pub stop_grace: Duration,
    pub wanted: Wanted,
    /// Counts the user's starts: another number than the one that runs means that it is to be started anew.
    pub start: u64,
    /// What the managers have on record.
    pub known: RunStatus,
}

/// `--link`, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkAssignment {
    pub alias: Name,
    /// The other's name and hostname.
    pub name: Name,
    pub hostname: Option<String>,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// What the other was told of its environment and its ports; its host knows what its image adds.
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub exposed: BTreeSet<ExposedPort>,
    #[serde(default)]
    pub image: String,
}

/// One map's difference: what is new or changed, and what is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapDelta<K: Ord, V> {
    pub upsert: BTreeMap<K, V>,
    pub remove: Vec<K>,
}

impl<K: Ord, V> Default for MapDelta<K, V> {
    fn default() -> Self {
        Self { upsert: BTreeMap::new(), remove: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> MapDelta<K, V> {
    pub fn between(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Self {
        Self {
            upsert: new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            remove: old.keys().filter(|k| !new.contains_key(k)).cloned().collect(),
        }
    }

    pub fn apply_to(self, map: &mut BTreeMap<K, V>) {
        for k in self.remove {
            map.remove(&k);
        }
        map.extend(self.upsert);
    }

    pub fn is_empty(&self) -> bool {
        self.upsert.is_empty() && self.remove.is_empty()
    }
}

/// What turns the assignment at `from` into the one at `to`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignmentDelta {
    pub from: Generation,
    pub to: Generation,
    pub node: Option<NodeAssignment>,
    pub networks: MapDelta<NetworkId, NetworkAssignment>,
    pub endpoints: MapDelta<(NetworkId, TaskId), Arc<EndpointAssignment>>,
    pub services: MapDelta<(NetworkId, ServiceId), ServiceAssignment>,
    pub tasks: MapDelta<TaskId, Arc<TaskAssignment>>,
    #[serde(default)]
    pub containers: MapDelta<TaskId, Arc<ContainerAssignment>>,
    #[serde(default)]
    pub ingress: MapDelta<ServiceId, Arc<IngressAssignment>>,
}

impl AssignmentDelta {
    pub fn between(old: &Assignment, new: &Assignment) -> Self {
        Self {
            from: old.generation,
            to: new.generation,
            node: new.node.clone(),
            networks: MapDelta::between(&old.networks, &new.networks),
            endpoints: MapDelta::between(&old.endpoints, &new.endpoints),
            services: MapDelta::between(&old.services, &new.services),
            tasks: MapDelta::between(&old.tasks, &new.tasks),
            containers: MapDelta::between(&old.containers, &new.containers),
            ingress: MapDelta::between(&old.ingress, &new.ingress),
        }
    }

    /// Nothing in it but a new generation.
    pub fn changes_nothing(&self, old: &Assignment) -> bool {
        self.node == old.node
            && self.networks.is_empty()
            && self.endpoints.is_empty()
            && self.services.is_empty()
            && self.tasks.is_empty()
            && self.containers.is_empty()
            && self.ingress.is_empty()
    }
}

/// News that does not fit what the host holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("an assignment of generation {got} came after one of {have}")]
    Older { have: Generation, got: Generation },
    /// Two managers hold different states, or one of them is of a version whose projection is another at the same
    /// level.
    #[error("another assignment of generation {have} came than the one that is held")]
    Other { have: Generation },
    #[error("a change from generation {from} came while {have} is held: some changes were missed")]
    Gap { have: Generation, from: Generation },
}

impl Assignment {
    /// The endpoints of a task or container of this node.
    pub fn local_endpoints(&self, id: TaskId) -> &[Endpoint] {
        match (self.tasks.get(&id), self.containers.get(&id)) {
            (Some(task), _) => &task.endpoints,
            (None, Some(container)) => &container.endpoints,
            (None, None) => &[],
        }
    }

    /// Takes the whole of a newer assignment. The same generation again is fine if it is the same: a reconnect sends it.
    pub fn replace(&mut self, next: Assignment) -> Result<(), Refused> {
        if next.generation < self.generation {
            return Err(Refused::Older { have: self.generation, got: next.generation });
        }
        if next.generation == self.generation && self.node.is_some() && *self != next {
            return Err(Refused::Other { have: self.generation });
        }
        *self = next;
        Ok(())
    }

    /// Folds in a change. On [`Refused::Gap`] the caller asks for the whole.
    pub fn fold(&mut self, delta: AssignmentDelta) -> Result<(), Refused> {
        if delta.to < self.generation {
            return Err(Refused::Older { have: self.generation, got: delta.to });
        }
        if delta.from != self.generation {
            return Err(Refused::Gap { have: self.generation, from: delta.from });
        }
        self.generation = delta.to;
        self.node = delta.node;
        delta.networks.apply_to(&mut self.networks);
        delta.endpoints.apply_to(&mut self.endpoints);
        delta.services.apply_to(&mut self.services);
        delta.tasks.apply_to(&mut self.tasks);
        delta.containers.apply_to(&mut self.containers);
        delta.ingress.apply_to(&mut self.ingress);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64, networks: &[(u64, u32)]) -> Assignment {
        let net = |vni: u32| NetworkAssignment {
            name: "n".parse().expect("a name"),
            kind: NetworkKind::Overlay { vni: vni.try_into().expect("a vni") },
            subnets: vec![],
            internal: false,
            mtu: None,
            underlay: None,
        };
        Assignment {
            generation: Generation(generation),
            networks: networks.iter().map(|(k, v)| (NetworkId(*k), net(*v))).collect(),
            ..Assignment::default()
        }
    }

    fn node() -> NodeAssignment {
        NodeAssignment { id: NodeId(1), role: Role::Worker, data_path_port: 4789, managers: BTreeMap::new() }
    }

    #[test]
    fn a_delta_turns_the_old_into_the_new() {
        let (old, new) = (at(3, &[(1, 10), (2, 20)]), at(7, &[(2, 21), (3, 30)]));
        let delta = AssignmentDelta::between(&old, &new);
        assert_eq!(delta.networks.remove, [NetworkId(1)]);
        let mut got = old;
        assert_eq!(got.fold(delta), Ok(()));
        assert_eq!(got, new);
    }

    #[test]
    fn a_host_never_moves_backwards_nor_over_a_gap() {
        let mut have = at(5, &[]);
        assert!(matches!(have.replace(at(4, &[])), Err(Refused::Older { .. })));
        // A host that has lost its memory knows the generation only, and takes what it is sent.
        assert_eq!(have.clone().replace(at(5, &[(1, 10)])), Ok(()));
        have.node = Some(node());
        assert!(matches!(have.replace(at(5, &[(1, 10)])), Err(Refused::Other { .. })));
        assert_eq!(have.replace(have.clone()), Ok(()));
        let gap = AssignmentDelta::between(&at(6, &[]), &at(8, &[]));
        assert!(matches!(have.fold(gap), Err(Refused::Gap { .. })));
        let old = AssignmentDelta::between(&at(2, &[]), &at(4, &[]));
        assert!(matches!(have.fold(old), Err(Refused::Older { .. })));
        assert_eq!(have, Assignment { node: Some(node()), ..at(5, &[]) });
    }
}
