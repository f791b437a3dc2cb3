//! What an assignment means for this host's kernel.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use shoal_common::{
    LinkName, MacAddr, Mtu, NetworkId, NodeId, TaskId, Vni, Vtep,
    assignment::{Assignment, NetworkAssignment, NetworkKind, Stack},
    service::EndpointMode,
    task::Endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    names, nft,
    ns::Ns,
    world::{Fdb, Link, LinkKind, Namespace, Neighbour, PortFlags, Route, World},
};

/// What the plan must know of the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub vtep: Vtep,
    pub underlay_mtu: Mtu,
}

/// The world in which every task and container of `tasks` (those that shall have a namespace now) is on its networks.
/// An overlay exists on this host for as long as one of them is on it.
pub fn desired(assignment: &Assignment, host: &HostFacts, tasks: &BTreeSet<TaskId>) -> World {
    let mut world = World::default();
    world.namespaces.insert(Ns::Host, Namespace { loopback_up: true, ..Namespace::default() });
    let Some(node) = &assignment.node else { return world };
    let local = local(assignment, tasks);

    for (id, network) in &assignment.networks {
        let NetworkKind::Overlay { vni } = network.kind else { continue };
        let ports: Vec<(TaskId, &Endpoint)> = local
            .iter()
            .flat_map(|(task, endpoints)| endpoints.iter().map(|e| (*task, e)))
            .filter(|(_, e)| e.network == *id)
            .collect();
        if !ports.is_empty() {
            let mtu = network.mtu.unwrap_or_else(|| host.underlay_mtu.inside_vxlan(host.vtep));
            let sandbox = sandbox(assignment, *id, network, vni, node.id, node.data_path_port, host.vtep, mtu, &ports);
            world.namespaces.insert(Ns::Sandbox(*id), sandbox);
        }
    }
    for (id, endpoints) in &local {
        world.namespaces.insert(Ns::Task(*id), task_namespace(assignment, *id, endpoints, host));
    }
    host_namespace(assignment, node.data_path_port, host, &mut world);
    world
}

/// What has a namespace of its own here, and where that is connected to.
fn local<'a>(assignment: &'a Assignment, wanted: &BTreeSet<TaskId>) -> BTreeMap<TaskId, &'a [Endpoint]> {
    let tasks = assignment.tasks.iter().map(|(id, task)| (*id, task.endpoints.as_slice()));
    let containers = assignment.containers.iter().filter_map(|(id, container)| match &container.stack {
        Stack::Own(endpoints) => Some((*id, endpoints.as_slice())),
        Stack::Loopback => Some((*id, &[] as &[Endpoint])),
        Stack::Host => None,
    });
    tasks.chain(containers).filter(|(id, _)| wanted.contains(id)).collect()
}

#[allow(clippy::too_many_arguments, reason = "one caller, and each is a different thing")]
fn sandbox(
    assignment: &Assignment,
    id: NetworkId,
    network: &NetworkAssignment,
    vni: Vni,
    node: NodeId,
    data_path_port: u16,
    vtep: Vtep,
    mtu: Mtu,
    ports: &[(TaskId, &Endpoint)],
) -> Namespace {
    let mut ns = Namespace { loopback_up: true, ..Namespace::default() };
    for (path, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // So that VIPs are translated, and answers translated back, for frames that only cross the bridge.
        ("net/bridge/bridge-nf-call-iptables", "1"),
        ("net/bridge/bridge-nf-call-ip6tables", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        // A new namespace may take after a host that has it off.
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        // Addresses come from the log: nobody else has them, and waiting to find that out makes IPv6 late.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ] {
        ns.sysctls.insert(path.to_owned(), value.to_owned());
    }

    let services: Vec<nft::VirtualService> = assignment
        .services
        .range((id, shoal_common::ServiceId(0))..=(id, shoal_common::ServiceId(u64::MAX)))
        .filter(|(_, s)| s.mode == EndpointMode::Vip)
        .map(|((_, service), s)| {
            let serving = endpoints(assignment, id).filter(|(_, e)| e.service == Some(*service) && e.serving);
            let serving: Vec<&Endpoint> = serving.map(|(_, e)| &e.endpoint).collect();
            nft::VirtualService {
                vip4: s.vip4,
                vip6: s.vip6,
                backends4: serving.iter().filter_map(|e| e.v4).collect(),
                backends6: serving.iter().filter_map(|e| e.v6).collect(),
            }
        })
        .collect();

    let mut bridge = Link::new(LinkKind::Bridge, mtu);
    bridge.mac = network.subnets.first().map(|s| mac_of(s.gateway));
    bridge.addresses = network
        .subnets
        .iter()
        .filter_map(|s| IpNet::new(s.gateway, s.net.prefix_len()).ok())
        .chain(services.iter().filter_map(|s| s.vip4).map(|ip| IpNet::from(IpAddr::V4(ip))))
        .chain(services.iter().filter_map(|s| s.vip6).map(|ip| IpNet::from(IpAddr::V6(ip))))
        .collect();
    ns.links.insert(names::bridge(), bridge);

    let mut vxlan = Link::new(LinkKind::Vxlan { vni, local: vtep, port: data_path_port }, mtu);
    vxlan.master = Some(names::bridge());
    // Everything is told, so nothing is learnt. Broadcast and multicast still go to the link, because it answers ARP
    // and ND from its neighbours itself; it has no entry by which they could leave the host.
    vxlan.port = PortFlags { learning: false, flood: false, ..PortFlags::default() };
    for (_, elsewhere) in endpoints(assignment, id).filter(|(_, e)| e.node != node) {
        let mac = elsewhere.endpoint.mac;
        vxlan.fdb.insert(Fdb { mac, dst: elsewhere.vtep });
        vxlan.bridge_fdb.insert(mac);
        vxlan.neighbours.extend(elsewhere.endpoint.addresses().map(|ip| Neighbour { ip, mac }));
    }
    ns.links.insert(names::vxlan(), vxlan);

    for (task, endpoint) in ports {
        let mut port = Link::new(LinkKind::Veth { peer: Some((Ns::Task(*task), names::eth(endpoint.link))) }, mtu);
        port.master = Some(names::bridge());
        // Hairpin: a backend that is sent to itself by a VIP. No learning: a container that sends from its
        // neighbour's MAC address does not attract the neighbour's traffic.
        port.port = PortFlags { hairpin: true, learning: false, ..PortFlags::default() };
        port.bridge_fdb.insert(endpoint.mac);
        ns.links.insert(names::port(*task), port);
    }

    if !network.internal {
        let pair = Transit::of(vni);
        let mut uplink = Link::new(LinkKind::Veth { peer: Some((Ns::Host, names::host_uplink(vni))) }, mtu);
        uplink.addresses = pair.sandbox_addresses();
        ns.links.insert(names::uplink(), uplink);
        ns.routes = [default_route(IpAddr::V4(pair.host4), names::uplink())].into();
        if network.subnets.iter().any(|s| s.net.addr().is_ipv6()) {
            ns.routes.insert(default_route(IpAddr::V6(pair.host6), names::uplink()));
        }
    }
    ns.tables.insert(names::TABLE.to_owned(), nft::sandbox(&services, !network.internal));
    ns
}

fn task_namespace(assignment: &Assignment, id: TaskId, endpoints: &[Endpoint], host: &HostFacts) -> Namespace {
    let mut ns = Namespace { loopback_up: true, ..Namespace::default() };
    for (path, value) in [
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        // As Docker: a process that is not root may listen on port 80 of its own namespace.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        ns.sysctls.insert(path.to_owned(), value.to_owned());
    }
    let mut way_out4 = None;
    let mut way_out6 = None;
    for endpoint in endpoints {
        let Some(network) = assignment.networks.get(&endpoint.network) else { continue };
        match network.kind {
            NetworkKind::Overlay { .. } => {}
            NetworkKind::Bridge(_) | NetworkKind::Macvlan { .. } => continue,
        }
        let name = names::eth(endpoint.link);
        let mtu = network.mtu.unwrap_or_else(|| host.underlay_mtu.inside_vxlan(host.vtep));
        let peer = Some((Ns::Sandbox(endpoint.network), names::port(id)));
        let mut eth = Link::new(LinkKind::Veth { peer }, mtu);
        eth.mac = Some(endpoint.mac);
        for subnet in &network.subnets {
            let ip = match subnet.net {
                IpNet::V4(_) => endpoint.v4.map(IpAddr::V4),
                IpNet::V6(_) => endpoint.v6.map(IpAddr::V6),
            };
            eth.addresses.extend(ip.and_then(|ip| IpNet::new(ip, subnet.net.prefix_len()).ok()));
            let way_out = if subnet.net.addr().is_ipv4() { &mut way_out4 } else { &mut way_out6 };
            if !network.internal && ip.is_some() && way_out.is_none() {
                *way_out = Some(default_route(subnet.gateway, name.clone()));
            }
        }
        ns.links.insert(name, eth);
    }
    ns.routes.extend(way_out4.into_iter().chain(way_out6));
    if !endpoints.is_empty() {
        ns.tables.insert(names::TABLE.to_owned(), nft::task());
    }
    ns
}

/// The host's ends of the ways out, and its table.
fn host_namespace(assignment: &Assignment, data_path_port: u16, facts: &HostFacts, world: &mut World) {
    let networks: Vec<&NetworkAssignment> = assignment
        .networks
        .iter()
        .filter(|(id, _)| world.namespaces.contains_key(&Ns::Sandbox(**id)))
        .map(|(_, n)| n)
        .collect();
    let mut links = BTreeMap::new();
    for (id, network) in &assignment.networks {
        let NetworkKind::Overlay { vni } = network.kind else { continue };
        if network.internal || !world.namespaces.contains_key(&Ns::Sandbox(*id)) {
            continue;
        }
        let mtu = network.mtu.unwrap_or_else(|| facts.underlay_mtu.inside_vxlan(facts.vtep));
        let mut link = Link::new(LinkKind::Veth { peer: Some((Ns::Sandbox(*id), names::uplink())) }, mtu);
        link.addresses = Transit::of(vni).host_addresses();
        links.insert(names::host_uplink(vni), link);
    }
    let Some(host) = world.namespaces.get_mut(&Ns::Host) else { return };
    if networks.is_empty() {
        return;
    }
    if !links.is_empty() {
        host.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    }
    // Only where it is needed: a host that forwards IPv6 no longer believes router advertisements, by which it may
    // have its own address and way out.
    let is_v6 = |network: &&NetworkAssignment| network.subnets.iter().any(|s| s.net.addr().is_ipv6());
    if networks.iter().filter(|network| !network.internal).any(is_v6) {
        host.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
    host.links = links;
    let peers: BTreeSet<IpAddr> = assignment.endpoints.values().map(|e| e.vtep).chain([facts.vtep]).collect();
    host.tables.insert(names::TABLE.to_owned(), nft::host(&peers, data_path_port));
}

fn endpoints(
    assignment: &Assignment,
    network: NetworkId,
) -> impl Iterator<Item = (TaskId, &shoal_common::assignment::EndpointAssignment)> {
    assignment
        .endpoints
        .range((network, TaskId(0))..=(network, TaskId(u64::MAX)))
        .map(|((_, task), endpoint)| (*task, endpoint))
}

fn mac_of(ip: IpAddr) -> MacAddr {
    match ip {
        IpAddr::V4(ip) => MacAddr::of_v4(ip),
        IpAddr::V6(ip) => MacAddr::of_v6(ip),
    }
}

fn default_route(via: IpAddr, link: LinkName) -> Route {
    let to = match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    Route { to, via: Some(via), link }
}

/// The pair of addresses between a sandbox and its host. They never leave the host, so they come from a block that
/// nobody's network can be in: 240.0.0.0/4 (RFC 1112 §4, reserved; Linux routes it), and a ULA prefix of our own.
/// Unique per network because the VNI is.
struct Transit {
    host4: Ipv4Addr,
    sandbox4: Ipv4Addr,
    host6: Ipv6Addr,
    sandbox6: Ipv6Addr,
}

/// fd73:686f:616c::/48: "shoal" in ASCII, less its first byte.
const TRANSIT6: u128 = 0xfd73_686f_616c_0000_0000_0000_0000_0000;

impl Transit {
    fn of(vni: Vni) -> Self {
        let offset = vni.get() * 2;
        let v4 = 0xf000_0000 | offset;
        let v6 = TRANSIT6 | u128::from(offset);
        Self { host4: v4.into(), sandbox4: (v4 + 1).into(), host6: v6.into(), sandbox6: (v6 + 1).into() }
    }

    fn both(v4: Ipv4Addr, v6: Ipv6Addr) -> BTreeSet<IpNet> {
        let nets = [IpNet::new(v4.into(), 31), IpNet::new(v6.into(), 127)];
        nets.into_iter().filter_map(Result::ok).collect()
    }

    fn host_addresses(&self) -> BTreeSet<IpNet> {
        Self::both(self.host4, self.host6)
    }

    fn sandbox_addresses(&self) -> BTreeSet<IpNet> {
        Self::both(self.sandbox4, self.sandbox6)
    }
}
