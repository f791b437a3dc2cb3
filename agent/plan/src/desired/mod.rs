//! What an assignment means for this host's kernel.

mod container;
mod host;
mod ports;
mod sandbox;
mod transit;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shoal_common::{
    LinkName, MacAddr, Mtu, NetworkId, Subnet, TaskId, Vtep,
    assignment::{Assignment, EndpointAssignment, NetworkAssignment, NetworkKind, NodeAssignment},
    container::Networking,
    task::Endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    listen::{Listener, Listeners},
    names, nft,
    ns::Ns,
    world::{Namespace, Route, World},
};

/// What the plan must know of the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub vtep: Vtep,
    pub underlay_mtu: Mtu,
    /// Whether its kernel keeps connections for as long as we say (CONFIG_NF_CONNTRACK_TIMEOUT).
    pub keeps_idle: bool,
    /// At which nobody can listen: those of the published ports that others of this host have.
    pub closed: BTreeSet<Listener>,
}

/// The world in which every task and container of `tasks` (those that shall have a namespace now) is on its networks.
/// An overlay exists on this host for as long as one of them is on it; a bridge for as long as it is assigned.
pub fn desired(assignment: &Assignment, host: &HostFacts, tasks: &BTreeSet<TaskId>) -> World {
    let mut world = World::default();
    world.namespaces.insert(Ns::Host, Namespace { loopback_up: true, ..Namespace::default() });
    let Some(cut) = Cut::of(assignment, host, tasks) else { return world };
    let ports = ports::of(&cut);
    for (id, network) in &assignment.networks {
        if let NetworkKind::Overlay { vni } = network.kind
            && cut.on(*id).next().is_some()
        {
            world.namespaces.insert(Ns::Sandbox(*id), sandbox::namespace(&cut, *id, network, vni, &ports));
        }
    }
    for (id, endpoints) in &cut.local {
        world.namespaces.insert(Ns::Task(*id), container::namespace(&cut, *id, endpoints));
    }
    world.namespaces.insert(Ns::Host, host::namespace(&cut, &ports));
    world
}

/// Where the host is to listen in that world; those that are closed too.
pub fn listeners(assignment: &Assignment, host: &HostFacts, tasks: &BTreeSet<TaskId>) -> Listeners {
    Cut::of(assignment, host, tasks).map(|cut| ports::of(&cut).listeners).unwrap_or_default()
}

/// The link of the host's namespace by which a network is there.
pub fn link_of(id: NetworkId, network: &NetworkAssignment) -> LinkName {
    match &network.kind {
        NetworkKind::Overlay { vni } => names::host_uplink(*vni),
        NetworkKind::Bridge(options) => host::bridge_name(id, options),
        NetworkKind::Macvlan { parent, .. } => parent.clone(),
    }
}

/// What has a namespace of its own here, and where that is connected to.
fn local<'a>(assignment: &'a Assignment, wanted: &BTreeSet<TaskId>) -> BTreeMap<TaskId, &'a [Endpoint]> {
    let tasks = assignment.tasks.iter().map(|(id, task)| (*id, task.endpoints.as_slice()));
    let containers = assignment.containers.iter().filter(|(_, c)| c.spec.networking != Networking::Host);
    let containers = containers.map(|(id, container)| (*id, container.endpoints.as_slice()));
    tasks.chain(containers).filter(|(id, _)| wanted.contains(id)).collect()
}

/// All that one world is made from.
struct Cut<'a> {
    assignment: &'a Assignment,
    node: &'a NodeAssignment,
    host: &'a HostFacts,
    local: BTreeMap<TaskId, &'a [Endpoint]>,
}

impl<'a> Cut<'a> {
    /// None: nobody told this host anything.
    fn of(assignment: &'a Assignment, host: &'a HostFacts, tasks: &BTreeSet<TaskId>) -> Option<Self> {
        let node = assignment.node.as_ref()?;
        Some(Self { assignment, node, host, local: local(assignment, tasks) })
    }

    fn network(&self, id: NetworkId) -> Option<&'a NetworkAssignment> {
        self.assignment.networks.get(&id)
    }

    /// Who is on a network, here.
    fn on(&self, network: NetworkId) -> impl Iterator<Item = (TaskId, &'a Endpoint)> {
        let all = self.local.iter().flat_map(|(id, endpoints)| endpoints.iter().map(|e| (*id, e)));
        all.filter(move |(_, e)| e.network == network)
    }

    /// Who is on a network, here and elsewhere.
    fn endpoints(&self, network: NetworkId) -> impl Iterator<Item = &'a EndpointAssignment> {
        let range = (network, TaskId(0))..=(network, TaskId(u64::MAX));
        self.assignment.endpoints.range(range).map(|(_, endpoint)| &**endpoint)
    }

    fn mtu(&self, network: &NetworkAssignment) -> Mtu {
        let underlay = self.host.underlay_mtu;
        let default = match network.kind {
            NetworkKind::Overlay { .. } => {
                network.underlay.unwrap_or(underlay).min(underlay).inside_vxlan(self.host.vtep)
            }
            NetworkKind::Bridge(_) | NetworkKind::Macvlan { .. } => underlay.min(Mtu::ETHERNET),
        };
        network.mtu.unwrap_or(default)
    }

    /// By which of its networks packets of one family leave a container: the first that has a way out.
    fn way_out(&self, endpoints: &'a [Endpoint], is_v4: bool) -> Option<WayOut<'a>> {
        endpoints.iter().find_map(|endpoint| {
            let network = self.network(endpoint.network).filter(|n| !n.internal)?;
            let subnet = network.subnets.iter().find(|s| s.net.addr().is_ipv4() == is_v4)?;
            let own = address(endpoint, subnet)?.addr();
            Some(WayOut { endpoint, network, own, gateway: subnet.gateway })
        })
    }
}

impl Cut<'_> {
    /// Who of one family is met by a container on its other networks.
    fn beside_way_out(&self, id: TaskId, is_v4: bool) -> impl Iterator<Item = IpNet> {
        let endpoints = self.local.get(&id).copied().unwrap_or_default();
        let way = self.way_out(endpoints, is_v4).map(|way| way.endpoint.network);
        let others = endpoints.iter().map(|e| e.network).filter(move |network| Some(*network) != way);
        let subnets = others.filter_map(|network| self.network(network)).flat_map(|network| &network.subnets);
        subnets.map(|subnet| subnet.net).filter(move |net| net.addr().is_ipv4() == is_v4)
    }
}

/// A container's place in the network by which it reaches the world.
struct WayOut<'a> {
    endpoint: &'a Endpoint,
    network: &'a NetworkAssignment,
    own: IpAddr,
    gateway: IpAddr,
}

/// An endpoint's address in a subnet of its network.
fn address(endpoint: &Endpoint, subnet: &Subnet) -> Option<IpNet> {
    let ip = match subnet.net {
        IpNet::V4(_) => endpoint.v4.map(IpAddr::V4),
        IpNet::V6(_) => endpoint.v6.map(IpAddr::V6),
    };
    ip.and_then(|ip| IpNet::new(ip, subnet.net.prefix_len()).ok())
}

/// A bridge's port by which only this endpoint sends.
fn guarded_port(link: LinkName, endpoint: &Endpoint, network: &NetworkAssignment) -> nft::Port {
    nft::Port {
        link: link.to_string(),
        mac: endpoint.mac,
        v4: endpoint.v4,
        v6: endpoint.v6,
        alone: false,
        bridge: gateway_mac(network),
        published: BTreeSet::new(),
    }
}

fn has_v6(network: &NetworkAssignment) -> bool {
    network.subnets.iter().any(|s| s.net.addr().is_ipv6())
}

/// What a bridge is called on its network: the first gateway, and all of them as its addresses.
fn gateway_mac(network: &NetworkAssignment) -> Option<MacAddr> {
    network.subnets.first().map(|s| match s.gateway {
        IpAddr::V4(ip) => MacAddr::of_v4(ip),
        IpAddr::V6(ip) => MacAddr::of_v6(ip),
    })
}

fn gateways(network: &NetworkAssignment) -> impl Iterator<Item = IpNet> {
    network.subnets.iter().filter_map(|s| IpNet::new(s.gateway, s.net.prefix_len()).ok())
}

fn sysctls<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    settings.into_iter().map(|(path, value)| (path.to_owned(), value.to_owned())).collect()
}

fn default_route(via: IpAddr, link: LinkName) -> Route {
    let to = match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    Route { to, via: Some(via), link }
}
