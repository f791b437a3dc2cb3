//! The host's own namespace: the bridges of its bridge networks, the host's ends of the ways out, and its table.

use shoal_common::{
    LinkName, NetworkId,
    assignment::{NetworkAssignment, NetworkKind},
    network::BridgeOptions,
};

use super::{Cut, gateway_mac, gateways, has_v6, transit::Transit};
use crate::{
    names, nft,
    ns::Ns,
    world::{Link, LinkKind, Namespace},
};

pub(super) fn namespace(cut: &Cut<'_>) -> Namespace {
    let mut host = Namespace { loopback_up: true, ..Namespace::default() };
    let mut table = nft::Host::default();
    let mut set = |path: String, value: &str| drop(host.sysctls.insert(path, value.to_owned()));
    for (id, network) in &cut.assignment.networks {
        let is_used = cut.on(*id).next().is_some();
        match &network.kind {
            NetworkKind::Overlay { vni } => {
                if !is_used {
                    continue;
                }
                let peers = cut.assignment.endpoints.values().map(|e| e.vtep).chain([cut.host.vtep]);
                table.vxlan.get_or_insert_with(|| (peers.collect(), cut.node.data_path_port));
                if !network.internal {
                    let kind = LinkKind::Veth { peer: Some((Ns::Sandbox(*id), names::uplink())) };
                    let mut link = Link::new(kind, cut.mtu(network));
                    link.addresses = Transit::of(*vni).host_addresses();
                    host.links.insert(names::host_uplink(*vni), link);
                }
            }
            NetworkKind::Bridge(options) => {
                let name = bridge_name(*id, options);
                // Or a container would be its host's router.
                set(format!("net/ipv6/conf/{name}/accept_ra"), "0");
                if has_v6(network) {
                    set(format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
                }
                table.bridges.insert(
                    name.to_string(),
                    nft::Bridge { internal: network.internal, icc: options.icc, masquerade: options.masquerade },
                );
                for (task, endpoint) in cut.on(*id) {
                    let kind = LinkKind::Veth { peer: Some((Ns::Task(task), names::eth(endpoint.link))) };
                    let port = Link::port(kind, cut.mtu(network), name.clone(), endpoint.mac);
                    host.links.insert(names::host_port(task, endpoint.link), port);
                }
                host.links.insert(name, bridge(cut, network, options));
            }
            NetworkKind::Macvlan { .. } => continue,
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
    if table != nft::Host::default() {
        host.tables.insert(names::TABLE.to_owned(), nft::host(&table));
    }
    host
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
