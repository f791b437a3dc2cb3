//! The assignment of one node, as a projection of the state. Rows that many nodes share are made once, in `visible`.

use shoal_common::{
    Mtu, Name, NetworkId, NodeId, ServiceId, TaskId,
    assignment::{
        Assignment, AssignmentDelta, ContainerAssignment, EndpointAssignment, IngressAssignment, IngressHost,
        LinkAssignment, MapDelta, NetworkAssignment, NetworkKind, NodeAssignment, ServiceAssignment, TaskAssignment,
    },
    container::{ContainerLink, ExposedPort},
    network::Driver,
    service::ContainerSpec,
    task::Endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use crate::{
    state::{Container, Network, Node, Service, State, Task},
    visible::Endpoints,
};

/// The assignment of one node. It shares its rows of endpoints with every other node on the same network.
#[derive(Debug, Clone)]
pub struct View {
    /// All but the endpoints.
    rest: Assignment,
    endpoints: BTreeMap<NetworkId, Endpoints>,
}

impl View {
    pub fn networks(&self) -> impl Iterator<Item = NetworkId> {
        self.endpoints.keys().copied()
    }

    pub fn whole(&self) -> Assignment {
        let of_network = |(network, rows): (&NetworkId, &Endpoints)| {
            let network = *network;
            rows.iter().map(move |(id, row)| ((network, *id), Arc::clone(row))).collect::<Vec<_>>()
        };
        Assignment { endpoints: self.endpoints.iter().flat_map(of_network).collect(), ..self.rest.clone() }
    }

    /// The delta that turns `before` into this view. Endpoints that did not change cost nothing.
    pub fn since(&self, before: &View) -> AssignmentDelta {
        let mut endpoints = MapDelta::default();
        let none = Endpoints::default();
        let all: BTreeSet<NetworkId> = before.networks().chain(self.networks()).collect();
        for network in all {
            let of = |view: &View| view.endpoints.get(&network).unwrap_or(&none).clone();
            for row in of(before).diff(&of(self)) {
                match row {
                    DiffItem::Add(id, row) | DiffItem::Update { new: (id, row), .. } => {
                        endpoints.upsert.insert((network, *id), Arc::clone(row));
                    }
                    DiffItem::Remove(id, _) => endpoints.remove.push((network, *id)),
                }
            }
        }
        AssignmentDelta { endpoints, ..AssignmentDelta::between(&before.rest, &self.rest) }
    }

    /// Nothing in `since` but a new generation.
    pub fn is_changed_by(&self, since: &AssignmentDelta) -> bool {
        !since.changes_nothing(&self.rest)
    }
}

/// `None` for a node that is not, or no longer, of the cluster.
pub fn assignment(state: &State, node: NodeId) -> Option<Assignment> {
    Some(view(state, node)?.whole())
}

/// The same assignment, as a view. `None` for a node that is not, or no longer, of the cluster.
pub fn view(state: &State, node: NodeId) -> Option<View> {
    let cluster = state.cluster.as_ref()?;
    let of = state.nodes.get(&node)?;
    let visible = state.visible();
    let tasks: BTreeMap<TaskId, Arc<TaskAssignment>> = state
        .tasks_of_node(node)
        .filter(|t| !t.status.state.is_terminal())
        .map(|t| (t.id, Arc::new(task_assignment(t))))
        .collect();
    let containers: BTreeMap<TaskId, Arc<ContainerAssignment>> =
        state.containers_of_node(node).map(|c| (c.id, Arc::new(container_assignment(state, c)))).collect();
    // A bridge is there also while nobody is on it.
    let local = visible.networks_of(node);
    let by_tasks = tasks.values().flat_map(|t| t.endpoints.iter().map(|e| e.network));
    let by_containers = containers.values().flat_map(|c| c.endpoints.iter().map(|e| e.network));
    let on: BTreeSet<NetworkId> = by_tasks.chain(by_containers).chain(local).collect();
    let networks = || on.iter().filter_map(|id| state.networks.get(id));
    let endpoints = networks().map(|n| (n.id, visible.endpoints(n.id))).collect();
    let rest = Assignment {
        generation: state.applied.into(),
        node: Some(NodeAssignment {
            id: of.id,
            role: of.role,
            data_path_port: cluster.settings.data_path_port,
            managers: state.managers().map(|m| (m.id, m.description.control_addr)).collect(),
        }),
        networks: networks().filter_map(|n| Some((n.id, network_assignment(state, n, node)?))).collect(),
        endpoints: BTreeMap::new(),
        services: networks().flat_map(|n| services(state, n.id)).collect(),
        tasks,
        containers,
        ingress: visible.ingress().map(|(id, row)| (*id, Arc::clone(row))).collect(),
    };
    Some(View { rest, endpoints })
}

/// What the links of a network carry. Of one without hosts: what they would, if every host were on it.
pub fn network_mtu(state: &State, network: &Network) -> Option<Mtu> {
    let nodes = || state.nodes.values().map(|node| &node.description);
    let of_driver = || match &network.spec.driver {
        Driver::Overlay => {
            let least = state.visible().underlay(network.id).or_else(|| nodes().map(|d| d.underlay_mtu).min())?;
            nodes().map(|d| least.inside_vxlan(d.vtep)).min()
        }
        Driver::Bridge(_) => {
            let node = network.spec.driver.node().and_then(|id| state.nodes.get(&id))?;
            Some(node.description.underlay_mtu.min(Mtu::ETHERNET))
        }
        Driver::Macvlan(_) => nodes().map(|d| d.underlay_mtu.min(Mtu::ETHERNET)).min(),
    };
    network.spec.mtu.or_else(of_driver)
}

fn network_assignment(state: &State, network: &Network, node: NodeId) -> Option<NetworkAssignment> {
    let kind = match &network.spec.driver {
        Driver::Overlay => NetworkKind::Overlay { vni: network.vni? },
        Driver::Bridge(bridge) => NetworkKind::Bridge(bridge.clone()),
        Driver::Macvlan(macvlan) => {
            NetworkKind::Macvlan { parent: macvlan.parent_on(node)?.clone(), mode: macvlan.mode }
        }
    };
    let is_overlay = matches!(kind, NetworkKind::Overlay { .. });
    Some(NetworkAssignment {
        name: network.name().clone(),
        kind,
        subnets: network.subnets().cloned().collect(),
        internal: network.spec.internal,
        mtu: network.spec.mtu,
        underlay: state.visible().underlay(network.id).filter(|_| is_overlay),
    })
}

pub(crate) fn container_assignment(state: &State, container: &Container) -> ContainerAssignment {
    let default_bridge = state.default_bridge(container.node).and_then(|id| state.networks.get(&id));
    let priority: BTreeMap<NetworkId, i32> =
        container.spec.attachments().iter().map(|a| (a.network, a.gw_priority)).collect();
    let mut endpoints = container.endpoints.clone();
    endpoints.sort_by_key(|e| std::cmp::Reverse(priority.get(&e.network).copied().unwrap_or(0)));
    ContainerAssignment {
        spec: container.spec.clone(),
        created: container.created,
        endpoints,
        ports: container.ports.clone(),
        links: container.spec.links.iter().filter_map(|link| link_assignment(state, container, link)).collect(),
        gateways: default_bridge.into_iter().flat_map(Network::subnets).map(|subnet| subnet.gateway).collect(),
        stop_grace: container.stop_grace.unwrap_or(container.spec.container.stop_grace),
        wanted: container.wanted,
        start: container.start,
        known: container.status.clone(),
    }
}

/// By the first network that both are on; another container of that name may have taken its place.
fn link_assignment(state: &State, of: &Container, link: &ContainerLink) -> Option<LinkAssignment> {
    let other = state.linked(of.node, link).ok()?;
    let shared = |e: &&Endpoint| of.endpoints.iter().any(|own| own.network == e.network);
    let endpoint = other.endpoints.iter().find(shared)?;
    let published = other.spec.ports.iter().map(|p| ExposedPort { number: p.container_port, protocol: p.protocol });
    Some(LinkAssignment {
        alias: link.alias.clone(),
        name: other.spec.name.clone(),
        hostname: other.spec.container.hostname.clone(),
        v4: endpoint.v4,
        v6: endpoint.v6,
        env: other.spec.container.env.clone(),
        exposed: other.spec.exposed.iter().copied().chain(published).collect(),
        image: other.spec.container.image.clone(),
    })
}

/// The row of one task or container, for every node on the network.
pub(crate) fn endpoint(state: &State, network: NetworkId, id: TaskId) -> Option<EndpointAssignment> {
    match (state.tasks.get(&id), state.containers.get(&id)) {
        (Some(task), _) => task_endpoint(state, network, task),
        (None, Some(container)) => container_endpoint(state, network, container),
        (None, None) => None,
    }
}

fn task_endpoint(state: &State, network: NetworkId, task: &Task) -> Option<EndpointAssignment> {
    let on: &Node = state.nodes.get(&task.node?)?;
    let endpoint = task.endpoints.iter().find(|e| e.network == network)?;
    Some(EndpointAssignment {
        endpoint: endpoint.clone(),
        node: on.id,
        vtep: on.description.vtep,
        service: Some(task.service),
        task_name: task.name(),
        aliases: hostname_alias(&task.container).into_iter().collect(),
        serving: task.is_serving(),
    })
}

fn container_endpoint(state: &State, network: NetworkId, container: &Container) -> Option<EndpointAssignment> {
    let on = state.nodes.get(&container.node)?;
    let endpoint = container.endpoints.iter().find(|e| e.network == network)?;
    let wish = container.spec.attachments().iter().find(|a| a.network == network)?;
    let aliases = wish.aliases.iter().map(Name::to_string).chain(hostname_alias(&container.spec.container));
    Some(EndpointAssignment {
        endpoint: endpoint.clone(),
        node: on.id,
        vtep: on.description.vtep,
        service: None,
        task_name: container.spec.name.to_string(),
        aliases: aliases.collect(),
        serving: container.is_serving(),
    })
}

/// Names compare without case. One of several labels is known as a whole.
fn hostname_alias(container: &ContainerSpec) -> Option<String> {
    let hostname = container.hostname.as_ref()?.to_ascii_lowercase();
    hostname.split('.').all(|label| label.parse::<Name>().is_ok()).then_some(hostname)
}

fn services(state: &State, network: NetworkId) -> impl Iterator<Item = ((NetworkId, ServiceId), ServiceAssignment)> {
    state.services_of_network(network).map(move |service| ((network, service.id), on_network(service, network)))
}

/// The row of one service, for every node on the network.
pub(crate) fn on_network(service: &Service, network: NetworkId) -> ServiceAssignment {
    let vip = service.vips.get(&network).copied().unwrap_or_default();
    let attachment = service.spec.networks.iter().find(|a| a.network == network);
    ServiceAssignment {
        name: service.spec.name.clone(),
        aliases: attachment.map(|a| a.aliases.clone()).unwrap_or_default(),
        mode: service.spec.endpoint_mode,
        vip4: vip.v4,
        vip6: vip.v6,
        ports: service.spec.container.ports.clone(),
    }
}

pub(crate) fn ingress(state: &State, service: &Service) -> IngressAssignment {
    let mut hosts: BTreeMap<NodeId, IngressHost> = BTreeMap::new();
    for (node, serves) in state.tasks_of_service(service.id).filter_map(Task::ingress_place) {
        let Some(node) = state.nodes.get(&node) else { continue };
        let host = hosts.entry(node.id).or_insert_with(|| ingress_host(node));
        host.tasks += u32::from(serves);
    }
    IngressAssignment { ports: service.ingress.clone(), hosts }
}

/// By which addresses other hosts reach it.
pub(crate) fn ingress_host(node: &Node) -> IngressHost {
    let addresses = &node.description.addresses;
    IngressHost {
        v4: addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
        v6: addresses.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
        tasks: 0,
    }
}

pub(crate) fn task_assignment(task: &Task) -> TaskAssignment {
    TaskAssignment {
        service: task.service,
        service_name: task.service_name.clone(),
        slot: task.slot,
        name: task.name(),
        container: task.container.clone(),
        resources: task.resources,
        endpoints: task.endpoints.clone(),
        desired: task.desired,
        known: task.status.state,
        spec_version: task.spec_version,
        ports: task.ports.clone(),
    }
}
