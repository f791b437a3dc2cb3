//! Published ports: which port of the host leads to which container, and by which way.

use shoal_common::{
    LinkName, NetworkId,
    assignment::NetworkKind,
    container::{PublishedPort, Wanted},
    service::Protocol,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{Cut, host::bridge_name, transit::Transit};
use crate::{
    names,
    nft::{Publication, Transport},
};

#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) host: Vec<Publication>,
    /// Of containers that are on overlays: from the sandbox's end of the way out to the container.
    pub(super) sandboxes: BTreeMap<NetworkId, Vec<Publication>>,
    /// Links of the host by which what its own processes send to 127.0.0.1 comes to a container.
    pub(super) loopback: BTreeSet<LinkName>,
}

pub(super) fn of(cut: &Cut<'_>) -> Ports {
    let mut ports = Ports::default();
    let running = cut.assignment.containers.iter().filter(|(_, container)| container.wanted == Wanted::Running);
    for (id, container) in running {
        let Some(endpoints) = cut.local.get(id) else { continue };
        for is_v4 in [true, false] {
            // By the network of the way out only: an answer must come back by where the question came from.
            let Some(way) = cut.way_out(endpoints, is_v4) else { continue };
            for port in &container.ports {
                let Some(host_ip) = host_ip(port, is_v4) else { continue };
                let (transport, to) = (transport(port.protocol), SocketAddr::new(way.own, port.container_port));
                let published = Publication { host_ip, transport, port: port.host_port, to };
                match &way.network.kind {
                    NetworkKind::Overlay { vni } => {
                        let pair = Transit::of(*vni);
                        let transit = if is_v4 { pair.sandbox4.into() } else { pair.sandbox6.into() };
                        ports.by_sandbox(way.endpoint.network, transit, published);
                        if is_v4 {
                            ports.loopback.insert(names::host_uplink(*vni));
                        }
                    }
                    NetworkKind::Bridge(options) => {
                        ports.host.push(published);
                        if is_v4 {
                            ports.loopback.insert(bridge_name(way.endpoint.network, options));
                        }
                    }
                    // Neighbours of the host's neighbours: they are reached as those are.
                    NetworkKind::Macvlan { .. } => {}
                }
            }
        }
    }
    ports
}

impl Ports {
    /// Two translations: the host's leads to the sandbox, the sandbox's to the container.
    fn by_sandbox(&mut self, network: NetworkId, transit: IpAddr, published: Publication) {
        let inside = self.sandboxes.entry(network).or_default();
        let is_taken = |port: u16| {
            inside.iter().any(|p| (p.host_ip, p.transport, p.port) == (Some(transit), published.transport, port))
        };
        // The same, unless two addresses of the host have this port for two containers of one network.
        let mut candidates = (published.port..=u16::MAX).chain(1..published.port);
        let Some(port) = candidates.find(|port| !is_taken(*port)) else { return };
        inside.push(Publication { host_ip: Some(transit), port, ..published });
        self.host.push(Publication { to: SocketAddr::new(transit, port), ..published });
    }
}

/// At which addresses of one family; the outer `None`: at none. What is sent to `[::1]` cannot leave by another link.
fn host_ip(port: &PublishedPort, is_v4: bool) -> Option<Option<IpAddr>> {
    match port.host_ip {
        None => Some(None),
        Some(ip) if ip.is_ipv4() != is_v4 || (ip.is_ipv6() && ip.is_loopback()) => None,
        Some(ip) if ip.is_unspecified() => Some(None),
        Some(ip) => Some(Some(ip)),
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}
