//! The ports of bridges: a container sends from its own addresses only, and to its neighbours only if it may.

use shoal_common::MacAddr;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{Action, Hook, Interface, Ip, Match, Receiver, Rule, Transport, at, guard, rule};
use crate::world::Table;

/// A container's port on a bridge of this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub link: String,
    pub mac: MacAddr,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// It reaches the bridge's own addresses and what is behind them, and none of its neighbours.
    pub alone: bool,
    /// The bridge's own address.
    pub bridge: Option<MacAddr>,
    /// Ports of the container at which its neighbours ask it by an address of their host, if they may meet.
    pub published: BTreeSet<(Transport, u16)>,
}

/// The table of family `bridge`; `None` without ports.
pub fn ports(of: &[Port]) -> Option<Table> {
    if of.is_empty() {
        return None;
    }
    let (mut macs, mut v4, mut v6, mut arp) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in of {
        let link = || port.link.clone();
        macs.insert((link(), port.mac));
        // Who has no address yet asks with none whether somebody else has it (RFC 5227, RFC 4862).
        for ip in [Some(Ipv4Addr::UNSPECIFIED), port.v4].into_iter().flatten() {
            v4.insert((link(), ip));
            arp.insert((link(), port.mac, ip));
        }
        v6.extend([Some(Ipv6Addr::UNSPECIFIED), port.v6].into_iter().flatten().map(|ip| (link(), ip)));
    }
    let drop_if = |matched| rule([matched], Action::Drop);
    let all = of.iter().map(|port| port.link.clone()).collect();
    let alone: BTreeSet<String> = of.iter().filter(|port| port.alone).map(|port| port.link.clone()).collect();
    let mut own = vec![
        rule([Match::NotIn(Interface::OneOf(all))], Action::Accept),
        drop_if(Match::NotOwnMac(macs)),
        drop_if(Match::NotOwnV4(v4)),
        drop_if(Match::NotOwnArp(arp)),
        drop_if(Match::NotOwnV6(v6.clone())),
        drop_if(Match::NotOwnNeighbour(v6)),
        drop_if(Match::ActsAsRouter),
    ];
    own.extend(answers(of));
    let mut chains = vec![at(Hook::BridgePrerouting, "port", own)];
    if !alone.is_empty() {
        let past_the_host = rule([Match::In(Interface::OneOf(alone)), Match::NotTo(Receiver::Host)], Action::Drop);
        chains.push(at(Hook::BridgeForward, "across", vec![past_the_host]));
    }
    Some(guard(chains))
}

/// A neighbour that asked by an address of the host, and kept its own, must be answered by way of the host. Also with a
/// refusal, and with the parts of a packet, which but for the first do not say whose they are; the host sends on
/// whatever else comes so.
fn answers(of: &[Port]) -> Vec<Rule> {
    let mut by_bridge: BTreeMap<MacAddr, BTreeSet<(String, Transport, u16)>> = BTreeMap::new();
    for port in of.iter().filter(|port| !port.published.is_empty()) {
        let Some(bridge) = port.bridge else { continue };
        let published = port.published.iter().map(|(transport, number)| (port.link.clone(), *transport, *number));
        by_bridge.entry(bridge).or_default().extend(published);
    }
    let of_bridge = |(bridge, ports): (MacAddr, BTreeSet<(String, Transport, u16)>)| {
        let links: BTreeSet<String> = ports.iter().map(|(link, ..)| link.clone()).collect();
        let other = [Ip::V4, Ip::V6].into_iter().flat_map(|ip| [Match::Unreachable(ip), Match::Fragment(ip)]);
        let other = other.map(|matched| vec![Match::In(Interface::OneOf(links.clone())), matched]);
        let all: Vec<_> = [vec![Match::Answers(ports)]].into_iter().chain(other).collect();
        all.into_iter().map(move |matches| rule(matches, Action::TakeIn(bridge)))
    };
    let to_several = (!by_bridge.is_empty()).then(|| rule([Match::NotTo(Receiver::Other)], Action::Accept));
    to_several.into_iter().chain(by_bridge.into_iter().flat_map(of_bridge)).collect()
}
