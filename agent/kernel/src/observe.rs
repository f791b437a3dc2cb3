//! Reading what is true: dumps of whole tables, put together into a [`World`].

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoVlan, InfoVxlan, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage, MacVlanMode,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use shoal_common::{LinkName, MacAddr, Mtu, network::MacvlanMode};
use shoal_plan::{
    Fdb, Flow, Flows, Link, LinkKind, Namespace as Seen, Neighbour, Ns, PortFlags, Route, Table, World, names,
    nft::Family,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    sync::{Arc, PoisonError},
};

use crate::{
    kernel::{Error, Inner, is_ours},
    namespace::{Namespace, SeenFlows},
    netlink::{Refusal, conntrack, route},
    nft, sysctl,
};

/// Tunnels that the kernel puts into every new namespace once their modules are loaded (unless
/// net.core.fb_tunnels_only_for_init_net), and that nobody can delete.
const FALLBACK_TUNNELS: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

/// Reads these namespaces. One that is not there, or goes while it is read, is left out.
pub(crate) fn world(kernel: &Inner, namespaces: &BTreeSet<Ns>) -> Result<World, Error> {
    let mut read = BTreeMap::new();
    for ns in namespaces {
        if let Some(namespace) = kernel.namespace(*ns)? {
            read.insert(*ns, Reading::take(namespace, kernel)?);
        }
    }
    let world = read.iter().map(|(ns, reading)| (*ns, reading.seen(&read))).collect();
    Ok(World { namespaces: world })
}

/// One namespace, before its veth links are told their other ends.
struct Reading {
    namespace: Arc<Namespace>,
    seen: Seen,
    veths: BTreeMap<u32, Veth>,
    macvlans: Vec<Macvlan>,
}

/// A macvlan link before its parent, which is in the host's namespace, has a name.
struct Macvlan {
    name: LinkName,
    parent: u32,
    parent_ns: Option<i32>,
    mode: MacvlanMode,
}

/// One end of a veth pair, by the kernel's numbers.
struct Veth {
    name: LinkName,
    peer: u32,
    /// By which id this namespace knows the other end's; none if it is the same.
    peer_ns: Option<i32>,
}

impl Reading {
    fn take(namespace: Arc<Namespace>, kernel: &Inner) -> Result<Self, Error> {
        let ns = namespace.ns;
        let failed = |what| move |source: Refusal| Error::Observe { ns, what, source };
        let mut reading =
            Self { namespace: namespace.clone(), seen: Seen::default(), veths: BTreeMap::new(), macvlans: Vec::new() };
        let mut socket = namespace.route();
        let links = route::links(&mut socket).map_err(failed("links"))?;
        let (mut named, others) = reading.links(&links);
        for address in route::addresses(&mut socket).map_err(failed("addresses"))? {
            let (index, Some(ip)) = (address.header.index, address_of(ns, &address)) else { continue };
            if let Some(link) = named.get_mut(&index) {
                link.1.addresses.insert(ip);
            } else if let Some(foreign) = others.get(&index).and_then(|name| reading.seen.foreign.get_mut(name)) {
                foreign.insert(ip);
            }
        }
        let families: [(AddressFamily, &'static str); 3] = [
            (AddressFamily::Bridge, "forwarding entries"),
            (AddressFamily::Inet, "IPv4 neighbours"),
            (AddressFamily::Inet6, "IPv6 neighbours"),
        ];
        for (family, what) in families {
            // Without links of ours there are no entries of ours.
            for entry in if named.is_empty() {
                Vec::new()
            } else {
                route::neighbours(&mut socket, family).map_err(failed(what))?
            } {
                if let Some((_, link)) = named.get_mut(&entry.header.ifindex) {
                    note(&entry, link);
                }
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            // The host's routes are its own.
            for route in if named.is_empty() || ns == Ns::Host {
                Vec::new()
            } else {
                route::routes(&mut socket, family).map_err(failed("routes"))?
            } {
                reading.seen.routes.extend(route_of(&route, |index| named.get(&index).map(|(name, _)| name.clone())));
            }
        }
        drop(socket);
        reading.seen.links = named.into_values().collect();
        reading.parents(kernel).map_err(failed("parents of macvlan links"))?;
        for (key, seen) in nft::observe(&namespace).map_err(failed("nftables tables"))? {
            if let Some(family) = nft::family(&key) {
                let (digest, leads) = (seen.comment.unwrap_or_default(), seen.leads);
                let table = Table { chains: Vec::new(), digest, leads, flows: Flows::default() };
                reading.seen.tables.insert(family, table);
            }
        }
        reading.flows().map_err(failed("tracked connections"))?;
        reading.sysctls()?;
        Ok(reading)
    }

    /// Our links by index, and the names of those in the host's namespace that are not ours; what else is to be known of
    /// links is noted aside.
    fn links(&mut self, links: &[LinkMessage]) -> (BTreeMap<u32, (LinkName, Link)>, BTreeMap<u32, LinkName>) {
        let by_index: BTreeMap<u32, &LinkMessage> = links.iter().map(|link| (link.header.index, link)).collect();
        let index_name = |index: u32| by_index.get(&index).and_then(|l| route::name(l)).and_then(|n| n.parse().ok());
        let (mut named, mut others) = (BTreeMap::new(), BTreeMap::new());
        for message in links {
            let Some(name) = route::name(message) else { continue };
            let is_loopback = message.header.flags.contains(LinkFlags::Loopback);
            if is_loopback {
                self.seen.loopback_up |= message.header.flags.contains(LinkFlags::Up);
            }
            let mine = match self.namespace.ns {
                Ns::Host => is_ours(message),
                Ns::Sandbox(_) | Ns::Task(_) => !FALLBACK_TUNNELS.contains(&name),
            };
            // A name that is no name to us (with a space, say) cannot be asked for either.
            let Ok(name) = name.parse::<LinkName>() else { continue };
            if !mine || is_loopback {
                if self.namespace.ns == Ns::Host {
                    self.seen.foreign.insert(name.clone(), BTreeSet::new());
                    others.insert(message.header.index, name);
                }
                continue;
            }
            let link = link_of(message, index_name);
            if let (LinkKind::Veth { .. }, Some(peer)) = (&link.kind, number(message)) {
                let veth = Veth { name: name.clone(), peer: peer.0, peer_ns: peer.1 };
                self.veths.insert(message.header.index, veth);
            }
            if let (Some(mode), Some((parent, parent_ns))) = (macvlan_mode(message), number(message)) {
                self.macvlans.push(Macvlan { name: name.clone(), parent, parent_ns, mode });
            }
            named.insert(message.header.index, (name, link));
        }
        self.seen.loopback_up |= self.namespace.ns == Ns::Host;
        (named, others)
    }

    /// A macvlan link whose parent is not the host's stays of another kind: we did not make it.
    fn parents(&mut self, kernel: &Inner) -> Result<(), Refusal> {
        for link in std::mem::take(&mut self.macvlans) {
            let host = kernel.host();
            let id = route::namespace_id(&mut self.namespace.route(), host.as_fd())?;
            if self.namespace.ns == Ns::Host || id.is_none() || id != link.parent_ns {
                continue;
            }
            let parent = route::name_of(&mut host.route(), link.parent)?.and_then(|name| name.parse().ok());
            if let (Some(parent), Some(seen)) = (parent, self.seen.links.get_mut(&link.name)) {
                seen.kind = LinkKind::Macvlan { parent, mode: link.mode };
            }
        }
        Ok(())
    }

    /// Where connections go that a table of ours may have led there. Looking for them walks the conntrack table of all
    /// namespaces together, which takes 7 ms with the kernel's defaults; so it is done once for each table. While one is
    /// there unchanged, it leads what is new where it says.
    fn flows(&mut self) -> Result<(), Refusal> {
        let Some(table) = self.seen.tables.get(&Family::Inet) else { return Ok(()) };
        let own: BTreeSet<IpAddr> = match self.namespace.ns {
            Ns::Task(_) => return Ok(()),
            Ns::Sandbox(_) => BTreeSet::new(),
            Ns::Host => {
                let ours = self.seen.links.values().map(|link| &link.addresses);
                let all = ours.chain(self.seen.foreign.values()).flatten().map(IpNet::addr);
                all.filter(|ip| !ip.is_loopback()).collect()
            }
        };
        let mut kept = self.namespace.flows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.digest == table.digest) {
            self.seen.flows.clone_from(&kept.flows);
            return Ok(());
        }
        // An untranslated connection matters only if it came to this host.
        let matters = |flow: &Flow| flow.answers != flow.to || own.contains(&flow.to.ip());
        self.seen.flows = conntrack::flows(&mut self.namespace.filter(), matters)?;
        let digest = Some(&table.digest).filter(|digest| !digest.is_empty());
        *kept = digest.map(|digest| SeenFlows { digest: digest.clone(), flows: self.seen.flows.clone() });
        Ok(())
    }

    fn sysctls(&mut self) -> Result<(), Error> {
        let ns = self.namespace.ns;
        // Finding a file below /proc/sys/net takes longer the more links and namespaces there are.
        let links = self.seen.links.keys().filter(|name| ns == Ns::Host && !names::is_host_port(name));
        let of_links = links
            .flat_map(|name| names::LINK_SYSCTLS.iter().map(move |(before, after)| format!("{before}{name}{after}")));
        let wanted: Vec<String> = names::sysctls(ns).iter().map(|path| (*path).to_owned()).chain(of_links).collect();
        let failed = |source| Error::Sysctl { ns, source };
        let mut kept = self.namespace.sysctls.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen.sysctls = kept.read().map_err(failed)?;
        if !wanted.iter().all(|path| self.seen.sysctls.contains_key(path)) {
            let open = self.namespace.enter(|| sysctl::Open::find(&wanted)).and_then(|open| open).map_err(failed)?;
            self.seen.sysctls = open.read().map_err(failed)?;
            // The host and sandboxes are few and looked at whenever an endpoint moves; of tasks there are many.
            if !matches!(ns, Ns::Task(_)) && open.has(&wanted) {
                *kept = open;
            }
        }
        Ok(())
    }

    /// The namespace, with the other end of each veth link that lies in one of `all`.
    fn seen(&self, all: &BTreeMap<Ns, Reading>) -> Seen {
        let mut seen = self.seen.clone();
        for (index, veth) in &self.veths {
            let other = all.iter().find_map(|(ns, reading)| {
                let end = reading.veths.get(&veth.peer).filter(|end| end.peer == *index)?;
                self.knows(&reading.namespace, veth.peer_ns).then(|| (*ns, end.name.clone()))
            });
            if let Some(Link { kind: LinkKind::Veth { peer }, .. }) = seen.links.get_mut(&veth.name) {
                *peer = other;
            }
        }
        seen
    }

    /// Whether the kernel calls `other` by this id in this namespace. Indices alone do not tell: each namespace counts
    /// its links from 1.
    fn knows(&self, other: &Arc<Namespace>, id: Option<i32>) -> bool {
        match id {
            None => Arc::ptr_eq(&self.namespace, other),
            Some(id) => route::namespace_id(&mut self.namespace.route(), other.as_fd()).is_ok_and(|i| i == Some(id)),
        }
    }
}

/// The index of a link's other end, and the id of the namespace that it is in.
fn number(message: &LinkMessage) -> Option<(u32, Option<i32>)> {
    let (mut peer, mut ns) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => ns = Some(*id),
            _ => {}
        }
    }
    peer.map(|peer| (peer, ns))
}

fn macvlan_mode(message: &LinkMessage) -> Option<MacvlanMode> {
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::MacVlan(data)) => Some(data),
        _ => None,
    })?;
    data.iter().find_map(|datum| match datum {
        InfoMacVlan::Mode(MacVlanMode::Bridge) => Some(MacvlanMode::Bridge),
        InfoMacVlan::Mode(MacVlanMode::Private) => Some(MacvlanMode::Private),
        InfoMacVlan::Mode(MacVlanMode::Vepa) => Some(MacvlanMode::Vepa),
        InfoMacVlan::Mode(MacVlanMode::Passthrough) => Some(MacvlanMode::Passthru),
        _ => None,
    })
}

fn link_of(message: &LinkMessage, name: impl Fn(u32) -> Option<LinkName>) -> Link {
    // An MTU that no link of ours can have reads as one that none is meant to have.
    let mut link = Link::new(LinkKind::Other("physical".to_owned()), Mtu::try_from(65_535).unwrap_or(Mtu::MIN));
    link.up = message.header.flags.contains(LinkFlags::Up);
    link.marked = route::is_marked(message);
    let parent = number(message).filter(|(_, ns)| ns.is_none()).and_then(|(index, _)| name(index));
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = Mtu::try_from(*mtu).unwrap_or(link.mtu),
            LinkAttribute::Controller(index) => link.master = name(*index),
            LinkAttribute::LinkInfo(infos) => info(infos, parent.clone(), &mut link),
            _ => {}
        }
    }
    link
}

/// `parent`: the link below, where that is in the same namespace.
fn info(infos: &[LinkInfo], parent: Option<LinkName>, link: &mut Link) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
            LinkInfo::Kind(InfoKind::Veth) => link.kind = LinkKind::Veth { peer: None },
            LinkInfo::Kind(kind) => link.kind = LinkKind::Other(kind.to_string()),
            LinkInfo::Data(InfoData::Vxlan(data)) => link.kind = vxlan(data),
            LinkInfo::Data(InfoData::Vlan(data)) => {
                let id = data.iter().find_map(|d| if let InfoVlan::Id(id) = d { Some(*id) } else { None });
                if let (Some(id), Some(parent)) = (id, parent.clone()) {
                    link.kind = LinkKind::Vlan { parent, id };
                }
            }
            LinkInfo::PortData(InfoPortData::BridgePort(data)) => link.port = port(data),
            _ => {}
        }
    }
}

/// A vxlan link that is not as we make them is not one of ours.
fn vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut vni, mut local, mut at, mut told) = (None, None, 0, [false; 2]);
    for datum in data {
        match datum {
            InfoVxlan::Id(id) => vni = (*id).try_into().ok(),
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Port(port) => at = *port,
            InfoVxlan::Learning(learning) => told[0] = !learning,
            InfoVxlan::Proxy(proxy) => told[1] = *proxy,
            _ => {}
        }
    }
    match (vni, local, told) {
        (Some(vni), Some(local), [true, true]) => LinkKind::Vxlan { vni, local, port: at },
        (_, _, _) => LinkKind::Other(InfoKind::Vxlan.to_string()),
    }
}

fn port(data: &[InfoBridgePort]) -> PortFlags {
    let mut flags = PortFlags::default();
    for datum in data {
        match datum {
            InfoBridgePort::HairpinMode(on) => flags.hairpin = *on,
            InfoBridgePort::Learning(on) => flags.learning = *on,
            InfoBridgePort::UnicastFlood(on) => flags.flood = *on,
            InfoBridgePort::MulticastFlood(on) => flags.mcast_flood = *on,
            _ => {}
        }
    }
    flags
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

/// An address, unless it is a link-local one of the kernel's.
fn address_of(ns: Ns, message: &AddressMessage) -> Option<IpNet> {
    let (mut local, mut either) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => either = Some(*ip),
            _ => {}
        }
    }
    let ip = local.or(either)?;
    IpNet::new(ip, message.header.prefix_len).ok().filter(|_| !is_kernels(ns, ip))
}

/// Whether an address is a link-local one that the kernel gives each link by itself: we make one such only.
pub(crate) fn is_kernels(ns: Ns, ip: IpAddr) -> bool {
    let ours = ns == Ns::Host && ip == names::link_local_gateway().addr();
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) && !ours
}

/// Notes a forwarding entry or neighbour that was told, not learnt.
fn note(entry: &NeighbourMessage, link: &mut Link) {
    let (mut to, mut at, mut bridge) = (None, None, false);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => to = Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => to = Some(IpAddr::V6(*ip)),
            // The family of forwarding entries does not say that of the address.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => to = ip(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => at = mac(bytes),
            NeighbourAttribute::Controller(_) => bridge = true,
            _ => {}
        }
    }
    let Some(mac) = at else { return };
    let permanent = entry.header.state == NeighbourState::Permanent;
    match (entry.header.family, to) {
        (AddressFamily::Bridge, Some(dst)) if !bridge => drop(link.fdb.insert(Fdb { mac, dst })),
        // NOARP is how the kernel tells `static`; PERMANENT entries are the ports' own addresses.
        (AddressFamily::Bridge, None) if bridge && entry.header.state == NeighbourState::Noarp => {
            link.bridge_fdb.insert(mac);
        }
        (AddressFamily::Inet | AddressFamily::Inet6, Some(ip)) if permanent => {
            link.neighbours.insert(Neighbour { ip, mac });
        }
        (_, _) => {}
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// A unicast route of the main table over a link of ours, unless the kernel made it from an address.
fn route_of(message: &RouteMessage, name: impl Fn(u32) -> Option<LinkName>) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
        || matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra | RouteProtocol::IcmpRedirect)
    {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (mut to, mut via, mut link) = (any, None, None);
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => to = address(ip)?,
            RouteAttribute::Gateway(ip) => via = address(ip),
            RouteAttribute::Oif(index) => link = name(*index),
            _ => {}
        }
    }
    Some(Route { to: IpNet::new(to, header.destination_prefix_length).ok()?, via, link: link? })
}
