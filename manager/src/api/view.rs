//! The state as users see it. Pure.

use ipnet::IpNet;
use shoal_common::{
    Mtu, NetworkId, NodeId, Vni,
    node::{Availability, Liveness},
    service::{Mode, PublishMode, ServiceSpec},
    task::{DesiredState, Endpoint, Slot},
};
use shoal_control::meets_constraints;
use shoal_proto::pb;
use shoal_raft::Leadership;
use shoal_state::{Container, Network, Node, Service, State, Task, ipam::Pool, network_mtu};
use std::collections::{BTreeMap, BTreeSet};

/// `fault`: why it does not answer the leader as a manager.
pub(super) fn node(
    state: &State,
    node: &Node,
    leadership: &Leadership,
    fault: Option<&String>,
    this: NodeId,
) -> pb::Node {
    let tasks = state.tasks_of_node(node.id).filter(|t| !t.status.state.is_terminal()).count();
    pb::Node {
        id: node.id.0,
        description: Some(node.description.clone().into()),
        role: pb::Role::from(node.role).into(),
        availability: pb::Availability::from(node.availability).into(),
        liveness: pb::Liveness::from(node.liveness).into(),
        liveness_since_ms: node.liveness_since.0,
        labels: node.labels.clone(),
        joined_ms: node.joined.0,
        raft: part_in_raft(node.id, leadership).to_owned(),
        is_self: node.id == this,
        tasks: count(tasks),
        raft_fault: fault.cloned().unwrap_or_default(),
        // Of all nodes together: see `overlapped`.
        overlapped: Vec::new(),
    }
}

/// The links of a node that networks may overlap.
pub(super) fn overlapped(links: &[(NodeId, IpNet)], node: u64) -> Vec<String> {
    links.iter().filter(|(of, _)| of.0 == node).map(|(_, link)| link.to_string()).collect()
}

fn part_in_raft(node: NodeId, leadership: &Leadership) -> &'static str {
    if leadership.leader == Some(node) {
        "leader"
    } else if leadership.voters.contains(&node) {
        "voter"
    } else if leadership.learners.contains(&node) {
        "learner"
    } else {
        ""
    }
}

pub(super) fn network(state: &State, network: &Network, users: Vec<pb::NetworkUser>) -> pb::Network {
    pb::Network {
        id: network.id.0,
        spec: Some(network.spec.clone().into()),
        scope: network.spec.driver.scope().to_owned(),
        node_name: host_name(state, network.spec.driver.node()),
        vni: network.vni.map_or(0, Vni::get),
        subnets: subnets(network),
        created_ms: network.created.0,
        users,
        hosts: hosts(state, network),
        mtu: network_mtu(state, network).map_or(0, Mtu::get),
    }
}

/// Those of its tasks and containers; a local one is its host's, also without any.
fn hosts(state: &State, network: &Network) -> Vec<pb::NetworkHost> {
    let is_on = |endpoints: &[Endpoint]| endpoints.iter().any(|e| e.network == network.id);
    let tasks = state.tasks.values().filter(|t| is_on(&t.endpoints)).filter_map(|t| t.node);
    let containers = state.containers.values().filter(|c| is_on(&c.endpoints)).map(|c| c.node);
    let nodes: BTreeSet<NodeId> = tasks.chain(containers).chain(network.spec.driver.node()).collect();
    let host = |node: NodeId| pb::NetworkHost { node: node.0, name: host_name(state, Some(node)) };
    nodes.into_iter().map(host).collect()
}

fn subnets(network: &Network) -> Vec<pb::Subnet> {
    let subnet =
        |p: &Pool| pb::Subnet { addresses: p.total().to_string(), used: p.used(), ..p.subnet().clone().into() };
    network.pools.iter().map(subnet).collect()
}

/// Who holds addresses of these networks: VIPs first, then tasks, then containers.
pub(super) fn users(state: &State, networks: &BTreeSet<NetworkId>) -> BTreeMap<NetworkId, Vec<pb::NetworkUser>> {
    let mut users: BTreeMap<NetworkId, Vec<pb::NetworkUser>> = BTreeMap::new();
    for service in state.services.values() {
        for (network, vip) in service.vips.iter().filter(|(network, _)| networks.contains(network)) {
            users.entry(*network).or_default().push(pb::NetworkUser {
                name: service.spec.name.to_string(),
                kind: "vip".to_owned(),
                node: String::new(),
                mac: String::new(),
                v4: text(vip.v4),
                v6: text(vip.v6),
                id: service.id.0,
            });
        }
    }
    for task in state.tasks.values() {
        for endpoint in task.endpoints.iter().filter(|e| networks.contains(&e.network)) {
            users.entry(endpoint.network).or_default().push(pb::NetworkUser {
                name: task.name(),
                kind: "task".to_owned(),
                node: host_name(state, task.node),
                mac: endpoint.mac.to_string(),
                v4: text(endpoint.v4),
                v6: text(endpoint.v6),
                id: task.id.0,
            });
        }
    }
    for container in state.containers.values() {
        for endpoint in container.endpoints.iter().filter(|e| networks.contains(&e.network)) {
            users.entry(endpoint.network).or_default().push(pb::NetworkUser {
                name: container.spec.name.to_string(),
                kind: "container".to_owned(),
                node: host_name(state, Some(container.node)),
                mac: endpoint.mac.to_string(),
                v4: text(endpoint.v4),
                v6: text(endpoint.v6),
                id: container.id.0,
            });
        }
    }
    users
}

pub(super) fn container(state: &State, container: &Container) -> pb::Container {
    pb::Container {
        id: container.id.0,
        node: container.node.0,
        node_name: host_name(state, Some(container.node)),
        spec: Some(container.spec.clone().into()),
        wanted: container.wanted.to_string(),
        start: container.start,
        status: Some(container.status.clone().into()),
        endpoints: container.endpoints.iter().cloned().map(Into::into).collect(),
        ports: container.ports.iter().copied().map(Into::into).collect(),
        created_ms: container.created.0,
        networks: container.endpoints.iter().map(|e| attached(state, e.network)).collect(),
        host_down: state.nodes.get(&container.node).is_some_and(|node| node.liveness == Liveness::Down),
        service: 0,
    }
}

/// What an endpoint is on.
pub(super) fn attached(state: &State, network: NetworkId) -> pb::Attached {
    match state.networks.get(&network) {
        Some(network) => pb::Attached { name: network.name().to_string(), subnets: subnets(network) },
        None => pb::Attached::default(),
    }
}

pub(super) fn service(state: &State, service: &Service) -> pb::Service {
    let vip = |(network, vip): (&NetworkId, &shoal_state::state::Vip)| pb::Vip {
        network: network.0,
        network_name: state.networks.get(network).map_or_else(String::new, |n| n.name().to_string()),
        v4: text(vip.v4),
        v6: text(vip.v6),
    };
    pb::Service {
        id: service.id.0,
        spec: Some(service.spec.clone().into()),
        version: service.version.0,
        spec_version: service.spec_version.0,
        vips: service.vips.iter().map(vip).collect(),
        created_ms: service.created.0,
        updated_ms: service.updated.0,
        running: count(state.tasks_of_service(service.id).filter(|t| t.is_serving()).count()),
        wanted: wanted(state, service),
        ports: ports(service),
    }
}

/// How many tasks there should be. Of a global service: one on each node that gets one now, or that keeps one while it
/// is paused or not heard from yet.
fn wanted(state: &State, service: &Service) -> u32 {
    match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => {
            let live: BTreeSet<Slot> =
                state.tasks_of_service(service.id).filter(|t| t.is_live()).map(|t| t.slot).collect();
            count(state.nodes.values().filter(|n| has_place(n, &service.spec, &live)).count())
        }
    }
}

fn has_place(node: &Node, spec: &ServiceSpec, live: &BTreeSet<Slot>) -> bool {
    let keeps = node.availability != Availability::Drain
        && node.liveness != Liveness::Down
        && live.contains(&Slot::Node(node.id));
    (node.is_schedulable() || keeps) && meets_constraints(node, &spec.placement)
}

pub(super) fn task(state: &State, task: &Task) -> pb::Task {
    pb::Task {
        id: task.id.0,
        name: task.name(),
        service: task.service.0,
        service_name: task.service_name.to_string(),
        slot: Some(task.slot.into()),
        node: task.node.map_or(0, |n| n.0),
        node_name: host_name(state, task.node),
        image: task.container.image.clone(),
        desired: pb::DesiredState::from(task.desired).into(),
        status: Some(task.status.clone().into()),
        endpoints: task.endpoints.iter().cloned().map(Into::into).collect(),
        created_ms: task.created.0,
        spec_version: task.spec_version.0,
        ports: task.ports.iter().copied().map(Into::into).collect(),
    }
}

/// As they are on every host, then those of each task's own host as they are asked for.
fn ports(service: &Service) -> Vec<pb::Publish> {
    let on_hosts = service.spec.published(PublishMode::Host).copied().map(Into::into);
    service.ingress.iter().copied().map(Into::into).chain(on_hosts).collect()
}

/// By slot, and in each slot the newest first: what is wanted stands above its history.
pub(super) fn tasks<'a>(state: &State, tasks: impl Iterator<Item = &'a Task>) -> Vec<pb::Task> {
    let mut tasks: Vec<&Task> = tasks.collect();
    tasks.sort_by_key(|t| {
        (&t.service_name, t.service, t.slot, t.desired == DesiredState::Shutdown, std::cmp::Reverse(t.id))
    });
    tasks.into_iter().map(|t| task(state, t)).collect()
}

/// Empty for no node, the id for one that left.
pub(super) fn host_name(state: &State, node: Option<NodeId>) -> String {
    node.map_or_else(String::new, |id| {
        state.nodes.get(&id).map_or_else(|| id.to_string(), |n| n.description.hostname.clone())
    })
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
