//! The state itself: what there is, and how to look at it.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{Ipv4Net, Ipv6Net};
use shoal_common::{
    Level, LogIndex, Name, NetworkId, NodeId, ServiceId, Subnet, TaskId, Timestamp, Vni,
    container::{Phase, PublishedPort, RunSpec, RunStatus, Wanted},
    name::Labels,
    network::NetworkSpec,
    node::{Availability, Liveness, NodeDescription, Role},
    service::{ContainerSpec, IngressPort, NetworkAttachment, Publish, Resources, ServiceSpec},
    task::{DesiredState, Endpoint, Slot, TaskState, TaskStatus},
};

use crate::{
    changes::Changes,
    checkpoint::{Boundary, Checkpoint},
    command::{ClusterSettings, RequestId},
    reply::Outcome,
    table::{Index, Table},
    visible::Made,
};

/// Everything that the managers agree on. Cloning it is cheap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The last entry that was applied.
    pub applied: LogIndex,
    /// Behaviour of `apply` branches on this logged level, never on the version of the binary.
    pub level: Level,
    pub cluster: Option<Cluster>,
    pub nodes: Table<NodeId, Node>,
    pub networks: Table<NetworkId, Network>,
    pub services: Table<ServiceId, Service>,
    /// Behind an `Arc`, so that changing one of thousands does not copy its neighbours in the tree.
    pub tasks: Table<TaskId, Arc<Task>>,
    /// Run by hand. Their ids and those of tasks are of one sequence.
    #[serde(default)]
    pub containers: Table<TaskId, Arc<Container>>,
    /// The last id that was given out, over all kinds.
    pub(crate) last_id: u64,
    /// Where the next VNI, IPv4 subnet and IPv6 subnet are searched from.
    pub(crate) last_vni: Option<Vni>,
    pub(crate) last_subnet_v4: Option<Ipv4Net>,
    pub(crate) last_subnet_v6: Option<Ipv6Net>,
    pub(crate) tasks_by_node: Index<(NodeId, TaskId)>,
    pub(crate) tasks_by_service: Index<(ServiceId, TaskId)>,
    #[serde(default)]
    pub(crate) containers_by_node: Index<(NodeId, TaskId)>,
    /// Tasks and containers that hold an address of the network.
    pub(crate) tasks_by_network: Index<(NetworkId, TaskId)>,
    /// Services whose spec names the network.
    pub(crate) services_by_network: Index<(NetworkId, ServiceId)>,
    /// Services that have ports on every host.
    #[serde(default)]
    pub(crate) publishing: Index<ServiceId>,
    /// The live task of each slot.
    pub(crate) slots: Table<(ServiceId, Slot), TaskId>,
    /// How many places (an endpoint or a VIP) of a network each service and container holds; by name (`service web`),
    /// for it outlives services.
    pub(crate) holders: Table<(NetworkId, String), u64>,
    #[serde(default, skip_serializing, deserialize_with = "Changes::unknown")]
    pub(crate) changes: Changes,
    #[serde(skip)]
    pub(crate) visible: Made,
    /// What each manager said last that its state is.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub(crate) checkpoints: Table<NodeId, Checkpoint>,
    #[serde(skip)]
    pub(crate) boundary: Boundary,
    /// Answers to recent requests, and the order in which to forget them.
    pub(crate) answers: Table<RequestId, Outcome>,
    pub(crate) answer_order: imbl::Vector<RequestId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub settings: ClusterSettings,
    pub created: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub id: NodeId,
    /// Desired. The leader brings Raft's membership in line with it.
    pub role: Role,
    pub availability: Availability,
    pub liveness: Liveness,
    pub liveness_since: Timestamp,
    /// It left the cluster, and stays down until it is removed.
    pub left: bool,
    pub description: NodeDescription,
    pub public_key_sha256: String,
    pub labels: Labels,
    pub joined: Timestamp,
}

impl Node {
    /// May get new tasks.
    pub fn is_schedulable(&self) -> bool {
        self.availability == Availability::Active && self.liveness == Liveness::Ready
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub id: NetworkId,
    pub spec: NetworkSpec,
    /// Of an overlay.
    pub vni: Option<Vni>,
    /// Settled subnets, IPv4 first, with the addresses that are in use.
    pub pools: Vec<crate::ipam::Pool>,
    pub created: Timestamp,
}

impl Network {
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.pools.iter().map(|p| p.subnet())
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub id: ServiceId,
    pub spec: ServiceSpec,
    /// Rises with every change; what `UpdateService` must name.
    pub version: LogIndex,
    /// When the part of the spec that tasks are made from last changed.
    pub spec_version: LogIndex,
    /// What it was before the last update.
    pub previous: Option<Box<ServiceSpec>>,
    /// Empty in endpoint mode `dnsrr`.
    pub vips: BTreeMap<NetworkId, Vip>,
    /// On every host of the cluster.
    #[serde(default)]
    pub ingress: Vec<IngressPort>,
    pub created: Timestamp,
    pub updated: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub id: TaskId,
    pub service: ServiceId,
    /// Outlives the service.
    pub service_name: Name,
    pub slot: Slot,
    pub node: Option<NodeId>,
    /// Copies of the service's spec at `spec_version`: an update makes new tasks, it does not change old ones.
    pub container: ContainerSpec,
    pub resources: Resources,
    pub networks: Vec<NetworkAttachment>,
    /// On its own host.
    #[serde(default)]
    pub publish: Vec<Publish>,
    pub spec_version: LogIndex,
    pub desired: DesiredState,
    pub status: TaskStatus,
    /// Empty before it is assigned and after it has ended.
    pub endpoints: Vec<Endpoint>,
    /// Of its host, for as long as it has endpoints.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    pub created: Timestamp,
    /// When it was first reported running.
    pub started: Option<Timestamp>,
}

impl Task {
    /// `web.1`, or `web.node-3` of a global service.
    pub fn name(&self) -> String {
        format!("{}.{}", self.service_name, self.slot)
    }

    /// Wanted, and not ended: it holds its slot.
    pub fn is_live(&self) -> bool {
        self.desired == DesiredState::Running && !self.status.state.is_terminal()
    }

    /// Stands in names and VIPs.
    pub fn is_serving(&self) -> bool {
        self.desired == DesiredState::Running && self.status.state == TaskState::Running
    }

    /// The host by which connections to its published ports go, and whether new ones do: an ending task finishes the
    /// connections that it has. A task of a host that is down is orphaned and has none.
    pub(crate) fn ingress_place(&self) -> Option<(NodeId, bool)> {
        let is_up = self.status.state >= TaskState::Running && !self.status.state.is_terminal();
        self.node.filter(|_| is_up).map(|node| (node, self.is_serving()))
    }
}

/// A container that a user runs by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub id: TaskId,
    pub node: NodeId,
    /// With the networks that it is on now.
    pub spec: RunSpec,
    pub wanted: Wanted,
    /// Counts its user's starts.
    pub start: u64,
    /// Of the last `stop`, if it said so.
    pub stop_grace: Option<std::time::Duration>,
    pub status: RunStatus,
    /// One for each of its networks, in the same order, for as long as it is on them.
    pub endpoints: Vec<Endpoint>,
    /// While it is to run.
    pub ports: Vec<PublishedPort>,
    pub created: Timestamp,
}

impl Container {
    /// Stands in names.
    pub fn is_serving(&self) -> bool {
        self.wanted == Wanted::Running && self.status.phase == Phase::Running && self.status.start == self.start
    }
}

/// By name first, then by id: what a user typed.
pub fn called<T, Id: FromStr>(
    typed: &str,
    named: impl FnOnce() -> Option<T>,
    with_id: impl FnOnce(Id) -> Option<T>,
) -> Option<T> {
    named().or_else(|| with_id(typed.parse().ok()?))
}

impl State {
    pub fn containers_of_node(&self, node: NodeId) -> impl Iterator<Item = &Container> {
        self.containers_by_node
            .range((node, TaskId(0))..=(node, TaskId(u64::MAX)))
            .filter_map(|(_, id)| self.containers.get(id).map(Arc::as_ref))
    }

    /// One of that node by its name, else any by its id.
    pub fn find_container(&self, name: &str, on: NodeId) -> Option<&Container> {
        let named = || self.containers_of_node(on).find(|c| c.spec.name.as_str() == name);
        called(name, named, |id: TaskId| self.containers.get(&id).map(Arc::as_ref))
    }

    pub fn tasks_of_node(&self, node: NodeId) -> impl Iterator<Item = &Task> {
        self.tasks_by_node
            .range((node, TaskId(0))..=(node, TaskId(u64::MAX)))
            .filter_map(|(_, task)| self.tasks.get(task).map(Arc::as_ref))
    }

    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Task> {
        self.tasks_by_service
            .range((service, TaskId(0))..=(service, TaskId(u64::MAX)))
            .filter_map(|(_, task)| self.tasks.get(task).map(Arc::as_ref))
    }

    pub fn find_service(&self, name: &str) -> Option<&Service> {
        let named = || self.services.values().find(|s| s.spec.name.as_str() == name);
        called(name, named, |id: ServiceId| self.services.get(&id))
    }

    /// One of the cluster's, or of that node, by name; else any by its id.
    pub fn find_network(&self, name: &str, on: Option<NodeId>) -> Option<&Network> {
        let is_seen = |n: &Network| n.spec.driver.node().is_none_or(|node| Some(node) == on);
        let named = || self.networks.values().find(|n| n.name().as_str() == name && is_seen(n));
        called(name, named, |id: NetworkId| self.networks.get(&id))
    }

    /// By id, or by host name if only one node bears it.
    pub fn find_node(&self, name: &str) -> Option<&Node> {
        let mut named = self.nodes.values().filter(|n| n.description.hostname == name);
        match (named.next(), named.next()) {
            (Some(only), None) => Some(only),
            (Some(_) | None, _) => name.parse().ok().and_then(|id: NodeId| self.nodes.get(&id)),
        }
    }

    /// It was in the cluster once. Ids are not given out again, so what is true stays true.
    pub fn was_removed(&self, node: NodeId) -> bool {
        node.0 <= self.last_id && !self.nodes.contains_key(&node)
    }

    pub fn is_manager(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.role == Role::Manager)
    }

    pub fn managers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|n| n.role == Role::Manager)
    }
}
