//! The host's own table: its bridges kept apart, the ways out, and VXLAN from the kernels of a network's hosts only.

use ipnet::{IpNet, Ipv4Net};
use shoal_common::Vni;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Action, Addresses, Balanced, Hook, Interface, Match, Publication, Rule, Transport, at, backend, balance, publish,
    rule, table,
};
use crate::{
    names,
    world::{Backend, Flows, Table},
};

/// What the host's table is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub vxlan: Option<Vxlan>,
    /// By the name of the link.
    pub bridges: BTreeMap<String, Bridge>,
    pub ports: Vec<Publication>,
    /// Where published ports lead to containers that answer somebody past this host: by another network, which they
    /// share.
    pub detours: BTreeSet<(IpNet, Transport, SocketAddr)>,
    /// Of the cluster.
    pub ingress: Vec<Balanced>,
    /// Links by which what the host's processes send to 127.0.0.1 comes to a container.
    pub loopback: BTreeSet<String>,
    /// The addresses of ways to sandboxes.
    pub transits: BTreeSet<IpNet>,
    /// Whether this kernel keeps connections for as long as we say ([`super::idle`]).
    pub keeps_idle: bool,
    /// Backends with which connections to published ports may go on: also ending containers, and hosts that have some.
    pub alive: BTreeSet<Backend>,
}

/// Who may send VXLAN at the cluster's port, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    pub port: u16,
    /// Of each overlay on this host: its other hosts.
    pub peers: BTreeSet<(IpAddr, Vni)>,
    /// Whether there is an overlay on this host. Without one its port may be somebody else's.
    pub overlays: bool,
}

/// A bridge of the host, as far as its packets are let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub subnets: BTreeSet<IpNet>,
    /// Nothing goes out or comes in.
    pub internal: bool,
    /// Its containers reach one another.
    pub icc: bool,
    /// What leaves by another link bears the host's address.
    pub masquerade: bool,
}

pub fn host(of: &Host) -> Table {
    let mut chains = Vec::new();
    if of.publishes() {
        let rules = |local| {
            let mut rules = [publish(&of.ports, local), balance(&of.ingress, local)].concat();
            // All of them translate.
            rules.iter_mut().filter(|_| of.keeps_idle).for_each(|rule| rule.matches.push(Match::Tag));
            rules
        };
        chains.push(at(Hook::NatPrerouting, "pre", rules(false)));
        chains.push(at(Hook::NatOutput, "out", rules(true)));
    }
    chains.extend([
        at(Hook::FilterForward, "forward", forward(of)),
        at(Hook::NatPostrouting, "post", post(of)),
        at(Hook::FilterInput, "in", input(of)),
    ]);
    // Nor does a process of the host encapsulate, to others or to this host itself: who may not configure links could
    // write into every network.
    let mut sent = tags(of, Direction::Out);
    if let Some(vxlan) = &of.vxlan {
        sent.push(rule([vxlan.port(), Match::FromProcess], Action::Drop));
    }
    if !sent.is_empty() {
        chains.push(at(Hook::FilterOutput, "send", sent));
    }
    let pools = of.bridges.values().flat_map(|bridge| &bridge.subnets).chain(&of.transits).copied().collect();
    let backends = of.ports.iter().map(|p| p.to).chain(of.ingress.iter().flat_map(|p| p.to.iter().copied()));
    let open = of.ports.iter().map(|p| (p.transport, p.port)).chain(of.ingress.iter().map(|p| (p.transport, p.port)));
    table(chains, backends.map(backend).collect(), Flows { alive: of.alive.clone(), pools, open: open.collect() })
}

fn uplinks() -> Interface {
    Interface::Prefixed(names::HOST_LINK_PREFIX.to_owned())
}

impl Vxlan {
    fn port(&self) -> Match {
        Match::Port(Transport::Udp, self.port)
    }
}

impl Host {
    fn has_overlays(&self) -> bool {
        self.vxlan.as_ref().is_some_and(|vxlan| vxlan.overlays)
    }

    fn publishes(&self) -> bool {
        !self.ports.is_empty() || !self.ingress.is_empty()
    }

    /// What is published, as far as it is on this host.
    pub fn here(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let balanced = self.ingress.iter().filter(|port| !port.elsewhere);
        let balanced = balanced.flat_map(|port| port.to.iter().map(|to| (port.transport, *to)));
        self.ports.iter().map(|port| (port.transport, port.to)).chain(balanced)
    }

    /// The names of the bridges for which this holds.
    fn which(&self, holds: impl Fn(&Bridge) -> bool) -> BTreeSet<String> {
        self.bridges.iter().filter(|(_, bridge)| holds(bridge)).map(|(name, _)| name.clone()).collect()
    }
}

/// The rule, unless it is about no bridge.
fn about(these: BTreeSet<String>, made: impl FnOnce(BTreeSet<String>) -> Rule) -> Option<Rule> {
    (!these.is_empty()).then(|| made(these))
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// Connections by ways of ours are kept: forgotten, their answers would find nobody, or be dropped as something new.
fn tags(of: &Host, direction: Direction) -> Vec<Rule> {
    let tag = |by: Interface| {
        let by = match direction {
            Direction::In => Match::In(by),
            Direction::Out => Match::Out(by),
        };
        rule([by, Match::Fresh, Match::Tcp], Action::Tag)
    };
    let bridges = about(of.which(|_| true), |these| tag(Interface::OneOf(these)));
    let all = bridges.into_iter().chain(of.has_overlays().then(|| tag(uplinks())));
    all.filter(|_| of.keeps_idle).collect()
}

/// A frame that only crosses a bridge comes by here too if somebody has br_netfilter ask for it.
fn forward(of: &Host) -> Vec<Rule> {
    let bridges = || of.which(|_| true);
    let into = |these| rule([Match::Out(Interface::OneOf(these))], Action::Drop);
    let mut rules = [tags(of, Direction::In), tags(of, Direction::Out)].concat();
    rules.extend(about(of.which(|b| b.icc), |these| rule([Match::Within(these)], Action::Accept)));
    // Only kernels encapsulate: a container that sends VXLAN by way of this host is masqueraded to the host's address,
    // which the other hosts believe (CVE-2023-28840). Before what is under way, which such a flow soon is.
    if let Some(vxlan) = &of.vxlan {
        let forged = |from| rule([Match::In(from), vxlan.port()], Action::Drop);
        rules.extend(about(bridges(), |these| forged(Interface::OneOf(these))));
        rules.extend(vxlan.overlays.then(|| forged(uplinks())));
    }
    if !of.bridges.is_empty() || of.publishes() {
        rules.push(rule([Match::UnderWay], Action::Accept));
        let internal = || of.which(|b| b.internal);
        rules.extend(about(internal(), |these| rule([Match::In(Interface::OneOf(these))], Action::Drop)));
        rules.extend(about(internal(), into));
        // Published, and so for everybody.
        rules.push(rule([Match::Translated], Action::Accept));
        rules.extend(about(bridges(), into));
    }
    if of.has_overlays() {
        let out = |these| rule([Match::In(Interface::OneOf(these)), Match::Out(uplinks())], Action::Drop);
        rules.extend(about(bridges(), out));
        rules.push(rule([Match::In(uplinks()), Match::Out(uplinks())], Action::Drop));
    }
    rules
}

fn post(of: &Host) -> Vec<Rule> {
    let mut rules = Vec::new();
    // The other host's answer must come by here.
    let elsewhere = of.ingress.iter().filter(|port| port.elsewhere).flat_map(|port| &port.to).map(SocketAddr::ip);
    let (v4, v6): (Addresses, Addresses) = elsewhere.partition(IpAddr::is_ipv4);
    let hosts = [v4, v6].into_iter().filter(|hosts| !hosts.is_empty());
    rules.extend(hosts.map(|hosts| rule([Match::Translated, Match::To(hosts)], Action::Masquerade)));
    rules.extend(of.detours.iter().map(|(asker, transport, to)| {
        let to = [Match::To([to.ip()].into()), Match::Port(*transport, to.port())];
        rule([vec![Match::Translated, Match::FromNet(*asker)], to.into()].concat(), Action::Masquerade)
    }));
    // A container that is sent to itself or to its neighbour by the host's address would be answered past the
    // translation. Itself it cannot take for a stranger, nor find a neighbour that it may not meet; the answer to another
    // neighbour is led here (`nft::ports`). By addresses: with br_netfilter, such a packet does not say by which link it
    // came in.
    if of.publishes() {
        let (v4, v6): (Addresses, Addresses) = of.here().map(|(_, to)| to.ip()).partition(IpAddr::is_ipv4);
        let themselves = [v4, v6].into_iter().filter(|these| !these.is_empty());
        rules.extend(themselves.map(|all| rule([Match::Translated, Match::ToItself(all)], Action::Masquerade)));
        let within = of.bridges.iter().filter(|(_, bridge)| !bridge.internal);
        let hairpin = |name: &String, subnet: &IpNet, icc: bool| {
            let within = [Match::FromNet(*subnet), Match::Out(Interface::Named(name.clone()))];
            let (first, action) = match icc {
                true => (vec![Match::Translated, Match::HasPorts], Action::MarkByPort),
                false => (vec![Match::Translated], Action::Masquerade),
            };
            rule([first, within.into()].concat(), action)
        };
        rules.extend(within.flat_map(|(name, b)| b.subnets.iter().map(|net| hairpin(name, net, b.icc))));
    }
    rules.extend(about(of.which(|b| b.masquerade), |these| rule([Match::Within(these)], Action::Accept)));
    // What is published on another network answers by way of this host, so it sees who asks.
    if of.publishes() {
        let open = || of.which(|b| !b.internal);
        let elsewhere = [Some(Interface::OneOf(open())), of.has_overlays().then(uplinks)];
        rules.extend(elsewhere.into_iter().flatten().filter_map(|out| {
            let shown =
                |these| rule([Match::Translated, Match::In(Interface::OneOf(these)), Match::Out(out)], Action::Accept);
            about(open(), shown)
        }));
    }
    let out = |these| rule([Match::In(Interface::OneOf(these))], Action::Masquerade);
    rules.extend(about(of.which(|b| b.masquerade), out));
    if of.has_overlays() && of.publishes() {
        // Likewise, from an overlay by the host's address to itself or another.
        rules.push(rule([Match::Translated, Match::In(uplinks())], Action::Masquerade));
    }
    if of.has_overlays() {
        rules.push(rule([Match::In(uplinks()), Match::NotOut(uplinks())], Action::Masquerade));
    }
    // Nobody could answer 127.0.0.1.
    let itself = |these| rule([Match::FromNet(loopback()), Match::Out(Interface::OneOf(these))], Action::Masquerade);
    rules.extend(about(of.loopback.clone(), itself));
    rules
}

fn loopback() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert([127, 0, 0, 0].into(), 8))
}

fn input(of: &Host) -> Vec<Rule> {
    let mut rules = Vec::new();
    // These links take packets for 127.0.0.0/8, so that answers to it come back. Nothing else comes to it from there.
    let to_loopback =
        |these| rule([Match::In(Interface::OneOf(these)), Match::ToNet(loopback()), Match::Fresh], Action::Drop);
    rules.extend(about(of.loopback.clone(), to_loopback));
    // Each network's VXLAN comes from the hosts that are on that network. This host's own address is none of theirs: it
    // sends itself nothing.
    if let Some(vxlan) = of.vxlan.as_ref().filter(|vxlan| vxlan.overlays) {
        let (v4, v6): (BTreeSet<_>, BTreeSet<_>) = vxlan.peers.iter().copied().partition(|(ip, _)| ip.is_ipv4());
        let known = [v4, v6].into_iter().filter(|these| !these.is_empty());
        rules.extend(known.map(|these| rule([vxlan.port(), Match::VxlanFrom(these)], Action::Accept)));
        rules.push(rule([vxlan.port()], Action::Drop));
    }
    // What is on an internal network gets no answer from this host's services, by whichever of its addresses: the
    // managers' port, say. It may find its gateway and answer what this host asks it.
    let internal = || of.which(|bridge| bridge.internal);
    for needed in [Match::UnderWay, Match::FindsNeighbours] {
        rules.extend(about(internal(), |these| {
            rule([Match::In(Interface::OneOf(these)), needed.clone()], Action::Accept)
        }));
    }
    rules.extend(about(internal(), |these| rule([Match::In(Interface::OneOf(these))], Action::Drop)));
    rules
}
