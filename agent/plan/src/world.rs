//! What a host's network is, or should be: one type for both.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_common::{LinkName, MacAddr, Mtu, Vni, Vtep, network::MacvlanMode};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    nft::{Family, Transport},
    ns::Ns,
};

/// Some of a host's network namespaces. A plan speaks of those namespaces only that both sides were asked about, so
/// that after one task moved only its namespaces need a look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    pub namespaces: BTreeMap<Ns, Namespace>,
}

impl World {
    /// The part of it that lies in these namespaces.
    pub fn restrict(&self, to: &BTreeSet<Ns>) -> World {
        let namespaces = self.namespaces.iter().filter(|(ns, _)| to.contains(ns));
        World { namespaces: namespaces.map(|(ns, n)| (*ns, n.clone())).collect() }
    }

    /// The namespaces that are connected by this link of the host's namespace: the other end of a pair, everybody on a
    /// bridge, everybody on a VLAN.
    pub fn who_needs(&self, link: &str) -> BTreeSet<Ns> {
        let host = self.namespaces.get(&Ns::Host).into_iter().flat_map(|host| &host.links);
        let is_it = |name: &LinkName| name.as_str() == link;
        let ends = host.filter(|(name, l)| is_it(name) || l.master.as_ref().is_some_and(is_it));
        let pairs = ends.filter_map(|(_, l)| match &l.kind {
            LinkKind::Veth { peer: Some((ns, _)) } => Some(*ns),
            _ => None,
        });
        let is_on_it = |l: &Link| matches!(&l.kind, LinkKind::Macvlan { parent, .. } if is_it(parent));
        let on_it = self.namespaces.iter().filter(|(_, n)| n.links.values().any(is_on_it)).map(|(ns, _)| *ns);
        pairs.chain(on_it).collect()
    }
}

/// One network namespace: what we manage of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Without `lo`, which is always there. In the host's namespace only links that are ours by name or mark.
    pub links: BTreeMap<LinkName, Link>,
    /// Observed, in the host's namespace: the other links there, `lo` too, and their addresses. None of ours can have
    /// such a name.
    pub foreign: BTreeMap<LinkName, BTreeSet<IpNet>>,
    /// Whether `lo` is up. Always true of the host's.
    pub loopback_up: bool,
    /// Unicast routes of the main table that are not made by the kernel from an address (`proto kernel`).
    pub routes: BTreeSet<Route>,
    /// nftables tables with our name ([`crate::names::TABLE`]).
    pub tables: BTreeMap<Family, Table>,
    /// Path below `/proc/sys` to value, of the sysctls that we set: an observer reads those in [`crate::names::sysctls`]
    /// (and [`crate::names::LINK_SYSCTLS`]), and leaves out those that do not exist.
    pub sysctls: BTreeMap<String, String>,
    /// Observed, in the host's namespace and in sandboxes: where connections go that the kernel tracks. Those that are
    /// alike are one.
    pub flows: BTreeSet<Flow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub kind: LinkKind,
    /// Desired: `None` leaves it as the kernel made it. Observed: always present.
    pub mac: Option<MacAddr>,
    pub mtu: Mtu,
    pub up: bool,
    /// Bears our alias ([`crate::names::MARK`]): by this we know a link in the host's namespace that users name.
    pub marked: bool,
    pub master: Option<LinkName>,
    /// Of a bridge port; all default for any other link.
    pub port: PortFlags,
    /// Without the link-local ones that the kernel makes.
    pub addresses: BTreeSet<IpNet>,
    /// Of a vxlan link: where frames to this address are sent (`bridge fdb … dst`).
    pub fdb: BTreeSet<Fdb>,
    /// Of a bridge port: static entries of its bridge (`bridge fdb … master static`).
    pub bridge_fdb: BTreeSet<MacAddr>,
    /// Permanent ones only: those that were learnt are the kernel's.
    pub neighbours: BTreeSet<Neighbour>,
}

impl Link {
    /// An empty link of this kind, up.
    pub fn new(kind: LinkKind, mtu: Mtu) -> Self {
        Self {
            kind,
            mac: None,
            mtu,
            up: true,
            marked: false,
            master: None,
            port: PortFlags::default(),
            addresses: BTreeSet::new(),
            fdb: BTreeSet::new(),
            bridge_fdb: BTreeSet::new(),
            neighbours: BTreeSet::new(),
        }
    }

    /// A container's port on a bridge.
    pub fn port(kind: LinkKind, mtu: Mtu, bridge: LinkName, mac: MacAddr) -> Self {
        // Hairpin: a backend that is sent to itself by a VIP. No learning: a container that sends from its
        // neighbour's MAC address does not attract the neighbour's traffic.
        let port = PortFlags { hairpin: true, learning: false, ..PortFlags::default() };
        Self { master: Some(bridge), port, bridge_fdb: [mac].into(), ..Self::new(kind, mtu) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    Bridge,
    /// `nolearning proxy`, made in the host's namespace (where its socket stays) and moved here.
    Vxlan {
        vni: Vni,
        local: Vtep,
        port: u16,
    },
    /// One end of a pair. An observer that did not look at the other end's namespace, or cannot tell, gives `None`.
    Veth {
        peer: Option<(Ns, LinkName)>,
    },
    /// Made in the host's namespace, on a link that is there, and moved here.
    Macvlan {
        parent: LinkName,
        mode: MacvlanMode,
    },
    /// Frames of one VLAN (IEEE 802.1Q) on a link of the same namespace.
    Vlan {
        parent: LinkName,
        id: u16,
    },
    /// Something that bears our name and is not ours.
    Other(String),
}

/// Flags of a bridge port, as the kernel calls them; the defaults are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFlags {
    /// Sends a frame back through the port that it came in by.
    pub hairpin: bool,
    pub learning: bool,
    /// Sends out frames whose destination is not known.
    pub flood: bool,
    pub mcast_flood: bool,
}

impl Default for PortFlags {
    fn default() -> Self {
        Self { hairpin: false, learning: true, flood: true, mcast_flood: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fdb {
    pub mac: MacAddr,
    pub dst: Vtep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    pub ip: IpAddr,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// `0.0.0.0/0` and `::/0` are the default routes.
    pub to: IpNet,
    pub via: Option<IpAddr>,
    pub link: LinkName,
}

/// One nftables table. It is replaced as a whole, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Observed: empty.
    pub chains: Vec<crate::nft::Chain>,
    /// Of the chains' text, hex; stands in the table's comment. Observed: what the comment says, or the empty string when the
    /// table was changed since we made it, or when that cannot be told: then it is replaced.
    pub digest: String,
    /// Where it leads. Observed: `None` when that is unknown, because an earlier process made the table.
    pub leads: Option<BTreeSet<Backend>>,
    /// Which flows there may be under it. Observed: empty.
    pub flows: Flows,
}

/// Which tracked connections agree with a table. The kernel asks the table about a connection's first packet only, so an
/// older connection goes on to where it was led then, also when nobody is there any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Backends with which an established connection may go on: also those that get no new connections while they finish
    /// the ones they have.
    pub alive: BTreeSet<Backend>,
    /// What backends' addresses are taken from: flows to elsewhere are not this table's, unless they came to a port of
    /// `open`.
    pub pools: BTreeSet<IpNet>,
    /// Ports that it leads somewhere else: a UDP flow that stays at one of these began before it did.
    pub open: BTreeSet<(Transport, u16)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    pub ip: IpAddr,
    /// `None`: all of them.
    pub port: Option<u16>,
}

/// Tracked connections that are alike: sent to the same place, and answered from the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Flow {
    pub transport: Transport,
    pub to: SocketAddr,
    /// Another than it was sent to, if it was translated.
    pub answers: SocketAddr,
    /// TCP that was not answered so far (SYN_SENT).
    pub opening: bool,
}

fn holds(these: &BTreeSet<Backend>, at: SocketAddr) -> bool {
    [None, Some(at.port())].iter().any(|port| these.contains(&Backend { ip: at.ip(), port: *port }))
}

impl Table {
    /// Whether a flow goes where the table does not lead, or to a backend that is gone. A UDP flow lives while its client
    /// sends. An unanswered TCP flow lives 120 s (`nf_conntrack_tcp_timeout_syn_sent`), and every connection that reuses
    /// its source port meanwhile goes the same way. Once the flow is forgotten, the table decides about the next packet;
    /// a packet of an established connection is answered with a reset by the backend that gets it.
    pub fn is_stray(&self, flow: &Flow) -> bool {
        let came_to = (flow.transport, flow.to.port());
        if flow.answers == flow.to {
            return flow.transport == Transport::Udp && self.flows.open.contains(&came_to);
        }
        let is_ours = self.flows.pools.iter().any(|pool| pool.contains(&flow.answers.ip()));
        if !is_ours && !self.flows.open.contains(&came_to) {
            return false;
        }
        let is_led = self.leads.as_ref().is_some_and(|leads| holds(leads, flow.answers));
        let may_finish = match flow.transport {
            Transport::Udp => false,
            Transport::Tcp | Transport::Sctp => !flow.opening && holds(&self.flows.alive, flow.answers),
        };
        !is_led && !may_finish
    }
}
