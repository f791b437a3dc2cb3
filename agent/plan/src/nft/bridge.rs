//! The ports of bridges: a container sends from its own addresses only, and to its neighbours only if it may.

use shoal_common::MacAddr;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{Action, Hook, Interface, Match, at, rule, table};
use crate::world::{Flows, Table};

/// A container's port on a bridge of this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub link: String,
    pub mac: MacAddr,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// It reaches the bridge's own addresses and what is behind them, and none of its neighbours.
    pub alone: bool,
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
    let mut chains = vec![at(
        Hook::BridgePrerouting,
        "port",
        vec![
            rule([Match::NotIn(Interface::OneOf(all))], Action::Accept),
            drop_if(Match::NotOwnMac(macs)),
            drop_if(Match::NotOwnV4(v4)),
            drop_if(Match::NotOwnArp(arp)),
            drop_if(Match::NotOwnV6(v6.clone())),
            drop_if(Match::NotOwnNeighbour(v6)),
            drop_if(Match::ActsAsRouter),
        ],
    )];
    if !alone.is_empty() {
        chains.push(at(Hook::BridgeForward, "across", vec![drop_if(Match::In(Interface::OneOf(alone)))]));
    }
    Some(table(chains, Flows::default()))
}
