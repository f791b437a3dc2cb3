//! The host's own namespace: the bridges of its bridge networks, the host's ends of the ways out, and its table.

use shoal_common::{
    LinkName, NetworkId,
    assignment::{NetworkAssignment, NetworkKind},
    network::BridgeOptions,
    task::Endpoint,
};
use std::{collections::BTreeSet, net::IpAddr};

use super::{Cut, gateway_mac, gateways, guarded_port, has_v6, ports::Ports, transit::Transit};
use crate::{
    names, nft,
    ns::Ns,
    world::{Backend, Link, LinkKind, Namespace},
};

pub(super) fn namespace(cut: &Cut<'_>, ports: &Ports) -> Namespace {
    let mut host = Namespace { loopback_up: true, ..Namespace::default() };
    let mut table = nft::Host {
        ports: ports.host.clone(),
        detours: ports.detours.clone(),
        ingress: ports.ingress.clone(),
        alive: ports.alive.clone(),
        ..nft::Host::default()
    };
    table.loopback.extend(ports.loopback.iter().map(ToString::to_string));
    let (mut guarded, mut peers, mut overlays) = (Vec::new(), BTreeSet::new(), false);
    let mut set = |path: String, value: &str| drop(host.sysctls.insert(path, value.to_owned()));
    for (id, network) in &cut.assignment.networks {
        let is_used = cut.on(*id).next().is_some();
        match &network.kind {
            NetworkKind::Overlay { vni } => {
                if !is_used {
                    continue;
                }
                overlays = true;
                let elsewhere = cut.endpoints(*id).filter(|e| e.node != cut.node.id);
                peers.extend(elsewhere.map(|e| (e.vtep, *vni)));
                if !network.internal {
                    let kind = LinkKind::Veth { peer: Some((Ns::Sandbox(*id), names::uplink())) };
                    let mut link = Link::new(kind, cut.mtu(network));
                    link.addresses = Transit::of(*vni).host_addresses();
                    let name = names::host_uplink(*vni);
                    if ports.loopback.contains(&name) {
                        set(format!("net/ipv4/conf/{name}/route_localnet"), "1");
                    }
                    if ports.sandboxes.contains_key(id) {
                        set(format!("net/ipv6/conf/{name}/accept_dad"), "0");
                    }
                    if !cut.assignment.containers.is_empty() || ports.sandboxes.contains_key(id) {
                        table.transits.extend(Transit::pools());
                    }
                    host.links.insert(name, link);
                }
            }
            NetworkKind::Bridge(options) => {
                let name = bridge_name(*id, options);
                // Or a container would be its host's router.
                set(format!("net/ipv6/conf/{name}/accept_ra"), "0");
                if has_v6(network) {
                    set(format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
                    // Who waits for its link-local address asks for no neighbour meanwhile.
                    set(format!("net/ipv6/conf/{name}/accept_dad"), "0");
                }
                // With it, a container could send to 127.0.0.1 of its host; the table sees to that.
                let loopback = if ports.loopback.contains(&name) { "1" } else { "0" };
                set(format!("net/ipv4/conf/{name}/route_localnet"), loopback);
                table.bridges.insert(
                    name.to_string(),
                    nft::Bridge {
                        subnets: network.subnets.iter().map(|s| s.net).collect(),
                        internal: network.internal,
                        icc: options.icc,
                        masquerade: options.masquerade,
                    },
                );
                for (task, endpoint) in cut.on(*id) {
                    // Somebody else may lead to a container, too.
                    let ips = endpoint.addresses();
                    table.alive.extend(ips.map(|ip| Backend { ip, port: None }));
                    let guard = guarded_port(names::host_port(task, endpoint.link), endpoint, network);
                    let published = if options.icc { published(&table, endpoint) } else { BTreeSet::new() };
                    guarded.push(nft::Port { alone: !options.icc, published, ..guard });
                    let kind = LinkKind::Veth { peer: Some((Ns::Task(task), names::eth(endpoint.link))) };
                    let port = Link::port(kind, cut.mtu(network), name.clone(), endpoint.mac);
                    host.links.insert(names::host_port(task, endpoint.link), port);
                }
                host.links.insert(name, bridge(cut, network, options));
            }
            NetworkKind::Macvlan { parent, .. } => {
                if let Some((on, id)) = parent.vlan().ok().flatten().filter(|_| is_used) {
                    let mut link = Link::new(LinkKind::Vlan { parent: on, id }, cut.mtu(network));
                    link.marked = true;
                    // Its containers are on that VLAN, and not the host.
                    set(format!("net/ipv6/conf/{parent}/accept_ra"), "0");
                    let others = host.links.get(parent).map_or(link.mtu, |other| other.mtu);
                    link.mtu = link.mtu.max(others);
                    host.links.insert(parent.clone(), link);
                }
                continue;
            }
        }
        // Only where it is needed: a host that forwards IPv6 no longer believes router advertisements, by which it may
        // have its own address and way out.
        if is_used && !network.internal {
            set("net/ipv4/ip_forward".to_owned(), "1");
            if has_v6(network) {
                set("net/ipv6/conf/all/forwarding".to_owned(), "1");
            }
        }
    }
    for to in ports.ingress.iter().filter(|port| port.elsewhere).flat_map(|port| &port.to) {
        let path = if to.is_ipv4() { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
        set(path.to_owned(), "1");
    }
    if overlays || table != nft::Host::default() {
        table.keeps_idle = cut.host.keeps_idle;
        if table.keeps_idle {
            host.tables.insert(nft::Family::Idle, nft::idle());
        }
        table.vxlan = Some(nft::Vxlan { port: cut.node.data_path_port, peers, overlays });
        host.tables.insert(nft::Family::Inet, nft::host(&table));
    }
    host.tables.extend(nft::ports(&guarded).map(|table| (nft::Family::Bridge, table)));
    host
}

/// The ports of a container to which the host leads.
fn published(table: &nft::Host, endpoint: &Endpoint) -> BTreeSet<(nft::Transport, u16)> {
    let own = [endpoint.v4.map(IpAddr::V4), endpoint.v6.map(IpAddr::V6)];
    let to_it = table.here().filter(|(_, to)| own.contains(&Some(to.ip())));
    to_it.map(|(transport, to)| (transport, to.port())).collect()
}

pub(super) fn bridge_name(id: NetworkId, options: &BridgeOptions) -> LinkName {
    match &options.link {
        Some(link) => link.clone(),
        None if options.is_default => names::default_bridge(),
        None => names::host_bridge(id),
    }
}

fn bridge(cut: &Cut<'_>, network: &NetworkAssignment, options: &BridgeOptions) -> Link {
    let mut bridge = Link::new(LinkKind::Bridge, cut.mtu(network));
    bridge.marked = true;
    bridge.mac = gateway_mac(network);
    bridge.addresses = gateways(network).collect();
    if options.is_default && has_v6(network) {
        bridge.addresses.insert(names::link_local_gateway());
    }
    bridge
}
