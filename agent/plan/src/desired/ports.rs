//! Published ports: which port of the host leads to which container, and by which way.

use shoal_common::{
    LinkName, NetworkId, ServiceId, TaskId,
    assignment::{IngressAssignment, NetworkKind},
    container::{PublishedPort, Wanted},
    service::Protocol,
    task::{DesiredState, TaskState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{Cut, host::bridge_name, transit::Transit};
use crate::{
    names,
    nft::{Balanced, Publication, Transport},
};

#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) host: Vec<Publication>,
    /// Ports of the cluster.
    pub(super) ingress: Vec<Balanced>,
    /// Of containers that are on overlays: from the sandbox's end of the way out to the container.
    pub(super) sandboxes: BTreeMap<NetworkId, Vec<Publication>>,
    /// Links of the host by which what its own processes send to 127.0.0.1 comes to a container.
    pub(super) loopback: BTreeSet<LinkName>,
}

pub(super) fn of(cut: &Cut<'_>) -> Ports {
    let mut ports = Ports::default();
    let running = cut.assignment.containers.iter().filter(|(_, container)| container.wanted == Wanted::Running);
    let containers = running.map(|(id, container)| (*id, &container.ports));
    let wanted = cut.assignment.tasks.iter().filter(|(_, task)| task.desired == DesiredState::Running);
    let tasks = wanted.map(|(id, task)| (*id, &task.ports));
    for (id, published) in containers.chain(tasks) {
        for is_v4 in [true, false] {
            for port in published {
                let Some(host_ip) = host_ip(port, is_v4) else { continue };
                let entry = Entry { transport: transport(port.protocol), port: port.host_port };
                if let Some(to) = ports.way_to(cut, id, port.container_port, is_v4, entry) {
                    ports.host.push(Publication { host_ip, transport: entry.transport, port: entry.port, to });
                }
            }
        }
    }
    for (service, ingress) in &cut.assignment.ingress {
        ports.ingress(cut, *service, ingress);
    }
    ports
}

/// By which port of the host something is reached.
#[derive(Clone, Copy)]
struct Entry {
    transport: Transport,
    port: u16,
}

impl Ports {
    /// Where the host sends what is for a port of a container here.
    fn way_to(&mut self, cut: &Cut<'_>, id: TaskId, port: u16, is_v4: bool, entry: Entry) -> Option<SocketAddr> {
        // By the network of the way out only: an answer must come back by where the question came from.
        let way = cut.way_out(cut.local.get(&id)?, is_v4)?;
        let to = SocketAddr::new(way.own, port);
        let (link, to) = match &way.network.kind {
            NetworkKind::Overlay { vni } => {
                let pair = Transit::of(*vni);
                let transit = if is_v4 { pair.sandbox4.into() } else { pair.sandbox6.into() };
                (names::host_uplink(*vni), self.by_sandbox(way.endpoint.network, transit, entry, to)?)
            }
            NetworkKind::Bridge(options) => (bridge_name(way.endpoint.network, options), to),
            // Neighbours of the host's neighbours: they are reached as those are.
            NetworkKind::Macvlan { .. } => return None,
        };
        if is_v4 {
            self.loopback.insert(link);
        }
        Some(to)
    }

    /// Two translations: the host's leads to the sandbox, the sandbox's to the container.
    fn by_sandbox(&mut self, network: NetworkId, transit: IpAddr, entry: Entry, to: SocketAddr) -> Option<SocketAddr> {
        let inside = self.sandboxes.entry(network).or_default();
        let is_taken = |port: u16| {
            inside.iter().any(|p| (p.host_ip, p.transport, p.port) == (Some(transit), entry.transport, port))
        };
        // The same, unless it leads to two containers of one network.
        let mut candidates = (entry.port..=u16::MAX).chain(1..entry.port);
        let port = candidates.find(|port| !is_taken(*port))?;
        inside.push(Publication { host_ip: Some(transit), transport: entry.transport, port, to });
        Some(SocketAddr::new(transit, port))
    }

    /// To the tasks that serve here, who see the client's own address; without any, to the hosts that have some, each
    /// as often as it has tasks.
    fn ingress(&mut self, cut: &Cut<'_>, service: ServiceId, ingress: &IngressAssignment) {
        let serving: Vec<TaskId> = cut
            .assignment
            .tasks
            .iter()
            .filter(|(_, t)| t.service == service && t.desired == DesiredState::Running)
            .filter(|(_, t)| t.known == TaskState::Running)
            .map(|(id, _)| *id)
            .collect();
        for port in &ingress.ports {
            let entry = Entry { transport: transport(port.protocol), port: port.port };
            for is_v4 in [true, false] {
                let here = serving.iter().filter_map(|id| self.way_to(cut, *id, port.target, is_v4, entry));
                let here: Vec<SocketAddr> = here.collect();
                let elsewhere = here.is_empty();
                let there = ingress.hosts.iter().filter(|(node, _)| elsewhere && **node != cut.node.id);
                let there = there.flat_map(|(_, host)| {
                    let ip = if is_v4 { host.v4.map(IpAddr::V4) } else { host.v6.map(IpAddr::V6) };
                    let times = usize::try_from(host.tasks).unwrap_or(usize::MAX);
                    ip.into_iter().flat_map(move |ip| std::iter::repeat_n(SocketAddr::new(ip, port.port), times))
                });
                let to: Vec<SocketAddr> = here.into_iter().chain(there).collect();
                if !to.is_empty() {
                    self.ingress.push(Balanced { transport: entry.transport, port: entry.port, to, elsewhere });
                }
            }
        }
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
