//! Published ports: which port of the host leads to which container, and by which way.

use ipnet::IpNet;
use shoal_common::{
    LinkName, NetworkId, ServiceId, TaskId,
    assignment::{IngressAssignment, NetworkKind, TaskAssignment},
    container::{PublishedPort, Wanted},
    service::Protocol,
    task::{DesiredState, TaskState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Cut, host::bridge_name, transit::Transit};
use crate::{
    listen::{Behind, Holder, Listener, Listeners},
    names,
    nft::{Balanced, Publication, Transport, backend},
    world::Backend,
};

#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) host: Vec<Publication>,
    /// From where a container is asked that would answer by another of its networks.
    pub(super) detours: BTreeSet<(IpNet, Transport, SocketAddr)>,
    /// Ports of the cluster.
    pub(super) ingress: Vec<Balanced>,
    /// Of containers that are on overlays: from the sandbox's end of the way out to the container. For as long as there is
    /// a container, published or not: so the way is there before anything leads to it, and after.
    pub(super) sandboxes: BTreeMap<NetworkId, Vec<Publication>>,
    /// Links of the host by which what its own processes send to 127.0.0.1 comes to a container.
    pub(super) loopback: BTreeSet<LinkName>,
    pub(super) listeners: Listeners,
    /// Backends with which connections may go on.
    pub(super) alive: BTreeSet<Backend>,
}

pub(super) fn of(cut: &Cut<'_>) -> Ports {
    let mut ports = Ports::default();
    let containers = cut.assignment.containers.iter().map(|(id, c)| (*id, &c.ports, c.wanted == Wanted::Running));
    let tasks = cut.assignment.tasks.iter().map(|(id, t)| (*id, &t.ports, t.desired == DesiredState::Running));
    for (id, published, is_wanted) in containers.chain(tasks) {
        for is_v4 in [true, false] {
            for port in published {
                if is_wanted {
                    ports.publish(cut, id, port, is_v4);
                } else {
                    ports.inwards(cut, id, port.container_port, is_v4, transport(port.protocol));
                }
            }
        }
    }
    for (service, ingress) in &cut.assignment.ingress {
        ports.ingress(cut, *service, ingress);
    }
    ports
}

/// Odd, so that the ports of 65,536 tasks in a row differ, and far from 1, so that tasks with neighbouring numbers and
/// services with neighbouring ports do.
const HOP_STRIDE: u16 = 40_503;

/// By which port of the host something is reached.
#[derive(Clone, Copy)]
struct Entry {
    transport: Transport,
    port: u16,
}

/// Where the host sends what is for a container here, and by which link.
struct Inwards {
    to: SocketAddr,
    link: LinkName,
}

impl Ports {
    fn publish(&mut self, cut: &Cut<'_>, id: TaskId, port: &PublishedPort, is_v4: bool) {
        let Some(host_ip) = host_ip(port, is_v4) else { return };
        let entry = Entry { transport: transport(port.protocol), port: port.host_port };
        let inwards = self.inwards(cut, id, port.container_port, is_v4, entry.transport);
        let behind = match &inwards {
            Some(inwards) => Some(inwards.to),
            None => self.inwards(cut, id, port.container_port, !is_v4, entry.transport).map(|other| other.to),
        };
        let Some(behind) = behind else { return };
        let at = SocketAddr::new(host_ip.unwrap_or(unspecified(is_v4)), entry.port);
        let listener = Listener { transport: entry.transport, at };
        self.listeners.insert(listener, Behind { holder: Holder::Container(id), to: vec![behind] });
        // What is sent from ::1 would be answered by a link, where the kernel takes nothing for ::1.
        let is_led = !(cut.host.closed.contains(&listener) || (at.is_ipv6() && at.ip().is_loopback()));
        if let Some(Inwards { to, link }) = inwards.filter(|_| is_led) {
            self.host.push(Publication { host_ip, transport: entry.transport, port: entry.port, to });
            self.detours.extend(cut.beside_way_out(id, is_v4).map(|neighbours| (neighbours, entry.transport, to)));
            self.by_loopback(link, is_v4);
        }
    }

    fn inwards(&mut self, cut: &Cut<'_>, id: TaskId, port: u16, is_v4: bool, transport: Transport) -> Option<Inwards> {
        // By the network of the way out only: an answer must come back by where the question came from.
        let way = cut.way_out(cut.local.get(&id)?, is_v4)?;
        let to = SocketAddr::new(way.own, port);
        let inwards = match &way.network.kind {
            NetworkKind::Overlay { vni } => {
                let pair = Transit::of(*vni);
                let transit = if is_v4 { pair.sandbox4.into() } else { pair.sandbox6.into() };
                let to = self.by_sandbox(way.endpoint.network, transit, id, transport, to)?;
                Inwards { to, link: names::host_uplink(*vni) }
            }
            NetworkKind::Bridge(options) => Inwards { to, link: bridge_name(way.endpoint.network, options) },
            // Neighbours of the host's neighbours: they are reached as those are.
            NetworkKind::Macvlan { .. } => return None,
        };
        self.alive.insert(backend(inwards.to));
        Some(inwards)
    }

    fn by_loopback(&mut self, link: LinkName, is_v4: bool) {
        if is_v4 {
            self.loopback.insert(link);
        }
    }

    /// Two translations: the host's leads to the sandbox, the sandbox's to the container.
    fn by_sandbox(
        &mut self,
        network: NetworkId,
        transit: IpAddr,
        id: TaskId,
        transport: Transport,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let inside = self.sandboxes.entry(network).or_default();
        let here = |p: &&Publication| p.host_ip == Some(transit) && p.transport == transport;
        if let Some(same) = inside.iter().filter(here).find(|p| p.to == to) {
            return Some(SocketAddr::new(transit, same.port));
        }
        // A function of the container and its port alone: when another container goes, connections to this one keep their
        // way. Two meet at one port about once in 65,000 times; the second takes the next.
        let first = to.port().wrapping_add((id.0 as u16).wrapping_mul(HOP_STRIDE)).max(1);
        let mut candidates = (first..=u16::MAX).chain(1..first);
        let port = candidates.find(|port| !inside.iter().filter(here).any(|p| p.port == *port))?;
        inside.push(Publication { host_ip: Some(transit), transport, port, to });
        Some(SocketAddr::new(transit, port))
    }

    /// To the tasks that serve here, who see the client's own address; without any, to the hosts that have some, each
    /// as often as it has tasks. What comes by a family that no task here has is passed on by the listener.
    fn ingress(&mut self, cut: &Cut<'_>, service: ServiceId, ingress: &IngressAssignment) {
        let own = || cut.assignment.tasks.iter().filter(|(_, t)| t.service == service);
        let serves = |t: &TaskAssignment| t.desired == DesiredState::Running && t.known == TaskState::Running;
        for port in &ingress.ports {
            let entry = Entry { transport: transport(port.protocol), port: port.port };
            let others = ingress.hosts.iter().filter(|(node, _)| **node != cut.node.id);
            let addresses = others.flat_map(|(_, h)| [h.v4.map(IpAddr::V4), h.v6.map(IpAddr::V6)]).flatten();
            self.alive.extend(addresses.map(|ip| backend(SocketAddr::new(ip, port.port))));
            let here = [true, false].map(|is_v4| -> Vec<Inwards> {
                let all = own().filter_map(|(id, task)| {
                    let inwards = self.inwards(cut, *id, port.target, is_v4, entry.transport);
                    inwards.filter(|_| serves(task))
                });
                all.collect()
            });
            // Of either family: hosts whose tasks lack one would send one another what comes by it, round and round.
            let elsewhere = here.iter().all(Vec::is_empty);
            let there = |is_v4| {
                let others = ingress.hosts.iter().filter(|(node, _)| elsewhere && **node != cut.node.id);
                others.flat_map(move |(_, host)| {
                    let ip = if is_v4 { host.v4.map(IpAddr::V4) } else { host.v6.map(IpAddr::V6) };
                    let times = usize::try_from(host.tasks).unwrap_or(usize::MAX);
                    ip.into_iter().flat_map(move |ip| std::iter::repeat_n(SocketAddr::new(ip, port.port), times))
                })
            };
            let [v4, v6] = [(true, &here[0]), (false, &here[1])].map(|(is_v4, here)| {
                let to: Vec<SocketAddr> = here.iter().map(|inwards| inwards.to).chain(there(is_v4)).collect();
                (Balanced { transport: entry.transport, port: entry.port, to, elsewhere }, here)
            });
            for (is_v4, own, other) in [(true, &v4, &v6), (false, &v6, &v4)] {
                let to = if own.0.to.is_empty() { &other.0.to } else { &own.0.to };
                if to.is_empty() {
                    continue;
                }
                let at = SocketAddr::new(unspecified(is_v4), entry.port);
                let listener = Listener { transport: entry.transport, at };
                self.listeners.insert(listener, Behind { holder: Holder::Service(service), to: to.clone() });
                if !own.0.to.is_empty() && !cut.host.closed.contains(&listener) {
                    self.ingress.push(own.0.clone());
                    own.1.iter().for_each(|inwards| self.by_loopback(inwards.link.clone(), is_v4));
                }
            }
        }
    }
}

fn unspecified(is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// At which addresses of one family; the outer `None`: at none.
fn host_ip(port: &PublishedPort, is_v4: bool) -> Option<Option<IpAddr>> {
    match port.host_ip {
        None => Some(None),
        Some(ip) if ip.is_ipv4() != is_v4 => None,
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
