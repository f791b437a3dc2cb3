//! The namespace of a task, or of a container that was run by hand.

use shoal_common::{
    TaskId,
    assignment::{NetworkAssignment, NetworkKind},
    network::MacvlanMode,
    task::Endpoint,
};

use super::{Cut, address, default_route, sysctls};
use crate::{
    names, nft,
    ns::Ns,
    world::{Link, LinkKind, Namespace},
};

pub(super) fn namespace(cut: &Cut<'_>, id: TaskId, endpoints: &[Endpoint]) -> Namespace {
    let mut ns = Namespace { loopback_up: true, ..Namespace::default() };
    ns.sysctls = sysctls([
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        // As Docker: a process that is not root may listen on port 80 of its own namespace.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ]);
    for endpoint in endpoints {
        if let Some(network) = cut.network(endpoint.network) {
            ns.links.insert(names::eth(endpoint.link), link(cut, id, endpoint, network));
        }
    }
    let ways_out = [true, false].into_iter().filter_map(|is_v4| cut.way_out(endpoints, is_v4));
    ns.routes = ways_out.map(|way| default_route(way.gateway, names::eth(way.endpoint.link))).collect();
    if !endpoints.is_empty() {
        ns.tables.insert(nft::Family::Inet, nft::task());
    }
    ns
}

fn link(cut: &Cut<'_>, id: TaskId, endpoint: &Endpoint, network: &NetworkAssignment) -> Link {
    let kind = match &network.kind {
        NetworkKind::Overlay { .. } => LinkKind::Veth { peer: Some((Ns::Sandbox(endpoint.network), names::port(id))) },
        NetworkKind::Bridge(_) => LinkKind::Veth { peer: Some((Ns::Host, names::host_port(id, endpoint.link))) },
        NetworkKind::Macvlan { parent, mode } => LinkKind::Macvlan { parent: parent.clone(), mode: *mode },
    };
    let has_parents = matches!(kind, LinkKind::Macvlan { mode: MacvlanMode::Passthru, .. });
    let mut link = Link::new(kind, cut.mtu(network));
    // To set the address of such a link is to set its parent's, by which the host itself may be known.
    link.mac = Some(endpoint.mac).filter(|_| !has_parents);
    link.addresses = network.subnets.iter().filter_map(|subnet| address(endpoint, subnet)).collect();
    link
}
