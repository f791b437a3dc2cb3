//! An overlay's sandbox: its bridge, its VXLAN link, its VIPs, a port for each container here.

use ipnet::IpNet;
use shoal_common::{NetworkId, ServiceId, Vni, assignment::NetworkAssignment, service::EndpointMode, task::Endpoint};
use std::net::IpAddr;

use super::{Cut, default_route, gateway_mac, gateways, guarded_port, has_v6, ports::Ports, sysctls, transit::Transit};
use crate::{
    names, nft,
    ns::Ns,
    world::{Fdb, Link, LinkKind, Namespace, Neighbour, PortFlags},
};

pub(super) fn namespace(
    cut: &Cut<'_>,
    id: NetworkId,
    network: &NetworkAssignment,
    vni: Vni,
    ports: &Ports,
) -> Namespace {
    let mtu = cut.mtu(network);
    let mut ns = Namespace { loopback_up: true, ..Namespace::default() };
    let idle = nft::IDLE.as_secs().to_string();
    ns.sysctls = sysctls([
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
        // Half-closed connections by a VIP are kept as open ones are: 5 days, not 60 s.
        (names::CLOSE_WAIT, idle.as_str()),
        // Addresses come from the log: nobody else has them, and waiting to find that out makes IPv6 late.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ]);
    let services = services(cut, id);

    let mut bridge = Link::new(LinkKind::Bridge, mtu);
    bridge.mac = gateway_mac(network);
    bridge.addresses = gateways(network)
        .chain(services.iter().filter_map(|s| s.vip4).map(|ip| IpNet::from(IpAddr::V4(ip))))
        .chain(services.iter().filter_map(|s| s.vip6).map(|ip| IpNet::from(IpAddr::V6(ip))))
        .collect();
    ns.links.insert(names::bridge(), bridge);

    let kind = LinkKind::Vxlan { vni, local: cut.host.vtep, port: cut.node.data_path_port };
    let mut vxlan = Link::new(kind, mtu);
    vxlan.master = Some(names::bridge());
    // Everything is told, so nothing is learnt. Broadcast and multicast still go to the link, because it answers ARP
    // and ND from its neighbours itself; it has no entry by which they could leave the host.
    vxlan.port = PortFlags { learning: false, flood: false, ..PortFlags::default() };
    for elsewhere in cut.endpoints(id).filter(|e| e.node != cut.node.id) {
        let mac = elsewhere.endpoint.mac;
        vxlan.fdb.insert(Fdb { mac, dst: elsewhere.vtep });
        vxlan.bridge_fdb.insert(mac);
        vxlan.neighbours.extend(elsewhere.endpoint.addresses().map(|ip| Neighbour { ip, mac }));
    }
    ns.links.insert(names::vxlan(), vxlan);

    let mut guarded = Vec::new();
    for (task, endpoint) in cut.on(id) {
        guarded.push(guarded_port(names::port(task), endpoint, network));
        let kind = LinkKind::Veth { peer: Some((Ns::Task(task), names::eth(endpoint.link))) };
        ns.links.insert(names::port(task), Link::port(kind, mtu, names::bridge(), endpoint.mac));
    }

    if !network.internal {
        let pair = Transit::of(vni);
        let mut uplink = Link::new(LinkKind::Veth { peer: Some((Ns::Host, names::host_uplink(vni))) }, mtu);
        uplink.addresses = pair.sandbox_addresses();
        ns.links.insert(names::uplink(), uplink);
        ns.routes = [default_route(IpAddr::V4(pair.host4), names::uplink())].into();
        if has_v6(network) {
            ns.routes.insert(default_route(IpAddr::V6(pair.host6), names::uplink()));
        }
    }
    let pools = network.subnets.iter().map(|s| s.net).collect();
    let ports = ports.sandboxes.get(&id).cloned().unwrap_or_default();
    let endpoints = cut.endpoints(id).flat_map(|e| e.endpoint.addresses()).collect();
    let sandbox = nft::Sandbox { services, ports, masquerade: !network.internal, pools, endpoints };
    let table = nft::sandbox(&sandbox);
    ns.tables.insert(nft::Family::Inet, table);
    ns.tables.extend(nft::ports(&guarded).map(|table| (nft::Family::Bridge, table)));
    ns
}

fn services(cut: &Cut<'_>, id: NetworkId) -> Vec<nft::VirtualService> {
    let of_network = cut.assignment.services.range((id, ServiceId(0))..=(id, ServiceId(u64::MAX)));
    let vips = of_network.filter(|(_, s)| s.mode == EndpointMode::Vip);
    vips.map(|((_, service), s)| {
        let serving = cut.endpoints(id).filter(|e| e.service == Some(*service) && e.serving);
        let serving: Vec<&Endpoint> = serving.map(|e| &e.endpoint).collect();
        nft::VirtualService {
            vip4: s.vip4,
            vip6: s.vip6,
            backends4: serving.iter().filter_map(|e| e.v4).collect(),
            backends6: serving.iter().filter_map(|e| e.v6).collect(),
        }
    })
    .collect()
}
