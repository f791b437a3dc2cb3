//! Published ports: which port of the host leads to which container, and by which way.

use ipnet::IpNet;
use shoal_common::{
    LinkName, NetworkId, ServiceId, TaskId,
    assignment::{IngressAssignment, NetworkKind},
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
    nft::{Balanced, Publication, Transport},
};

#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) host: Vec<Publication>,
    /// From where a container is asked that would answer by another of its networks.
    pub(super) detours: BTreeSet<(IpNet, Transport, SocketAddr)>,
    /// Ports of the cluster.
    pub(super) ingress: Vec<Balanced>,
    /// Of containers that are on overlays: from the sandbox's end of the way out to the container.
    pub(super) sandboxes: BTreeMap<NetworkId, Vec<Publication>>,
    /// Links of the host by which what its own processes send to 127.0.0.1 comes to a container.
    pub(super) loopback: BTreeSet<LinkName>,
    pub(super) listeners: Listeners,
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
                ports.publish(cut, id, port, is_v4);
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

/// Where the host sends what is for a container here, and by which link.
struct Inwards {
    to: SocketAddr,
    link: LinkName,
}

impl Ports {
    fn publish(&mut self, cut: &Cut<'_>, id: TaskId, port: &PublishedPort, is_v4: bool) {
        let Some(host_ip) = host_ip(port, is_v4) else { return };
        let entry = Entry { transport: transport(port.protocol), port: port.host_port };
        let inwards = self.inwards(cut, id, port.container_port, is_v4, entry);
        let behind = match &inwards {
            Some(inwards) => Some(inwards.to),
            None => self.inwards(cut, id, port.container_port, !is_v4, entry).map(|other| other.to),
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

    fn inwards(&mut self, cut: &Cut<'_>, id: TaskId, port: u16, is_v4: bool, entry: Entry) -> Option<Inwards> {
        // By the network of the way out only: an answer must come back by where the question came from.
        let way = cut.way_out(cut.local.get(&id)?, is_v4)?;
        let to = SocketAddr::new(way.own, port);
        match &way.network.kind {
            NetworkKind::Overlay { vni } => {
                let pair = Transit::of(*vni);
                let transit = if is_v4 { pair.sandbox4.into() } else { pair.sandbox6.into() };
                let to = self.by_sandbox(way.endpoint.network, transit, entry, to)?;
                Some(Inwards { to, link: names::host_uplink(*vni) })
            }
            NetworkKind::Bridge(options) => Some(Inwards { to, link: bridge_name(way.endpoint.network, options) }),
            // Neighbours of the host's neighbours: they are reached as those are.
            NetworkKind::Macvlan { .. } => None,
        }
    }

    fn by_loopback(&mut self, link: LinkName, is_v4: bool) {
        if is_v4 {
            self.loopback.insert(link);
        }
    }

    /// Two translations: the host's leads to the sandbox, the sandbox's to the container.
    fn by_sandbox(&mut self, network: NetworkId, transit: IpAddr, entry: Entry, to: SocketAddr) -> Option<SocketAddr> {
        let inside = self.sandboxes.entry(network).or_default();
        let here = |p: &&Publication| p.host_ip == Some(transit) && p.transport == entry.transport;
        if let Some(same) = inside.iter().filter(here).find(|p| p.to == to) {
            return Some(SocketAddr::new(transit, same.port));
        }
        // The same port, unless it leads to two containers of one network.
        let mut candidates = (entry.port..=u16::MAX).chain(1..entry.port);
        let port = candidates.find(|port| !inside.iter().filter(here).any(|p| p.port == *port))?;
        inside.push(Publication { host_ip: Some(transit), transport: entry.transport, port, to });
        Some(SocketAddr::new(transit, port))
    }

    /// To the tasks that serve here, who see the client's own address; without any, to the hosts that have some, each
    /// as often as it has tasks. What comes by a family that no task here has is passed on by the listener.
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
            let here = [true, false].map(|is_v4| -> Vec<Inwards> {
                let here = serving.iter().filter_map(|id| self.inwards(cut, *id, port.target, is_v4, entry));
                here.collect()
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
