//! The requests that change links, addresses, neighbours and routes, as bytes for [`super::Socket::ask`].

use ipnet::IpNet;
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan,
    packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage, MacVlanMode},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use shoal_common::{LinkName, MacAddr, Mtu, Vni, network::MacvlanMode};
use shoal_plan::PortFlags;
use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::route::encode;

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn create(link: LinkMessage) -> Vec<u8> {
    encode(&RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Changes a link that is there. NEWLINK without CREATE, because SETLINK ignores what belongs to the link's kind.
pub(crate) fn set(link: LinkMessage) -> Vec<u8> {
    encode(&RouteNetlinkMessage::NewLink(link), 0)
}

/// What is asked of a link by its name.
pub(crate) fn named(name: &LinkName) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_name(name.as_str())
}

pub(crate) fn set_up(index: u32, up: bool) -> Vec<u8> {
    let link = LinkUnspec::new_with_index(index);
    set(if up { link.up() } else { link.down() }.build())
}

pub(crate) fn delete_link(name: &LinkName) -> Vec<u8> {
    encode(&RouteNetlinkMessage::DelLink(named(name).build()), 0)
}

/// A link of kind vxlan that learns nothing and answers for the neighbours it was told. Created where its UDP socket
/// is to be; see [`move_to`].
pub(crate) fn vxlan(name: &LinkName, vni: Vni, local: IpAddr, port: u16, mtu: Mtu) -> Vec<u8> {
    let link = LinkVxlan::new(name.as_str(), vni.get()).port(port).learning(false).proxy(true).mtu(mtu.get());
    let link = match local {
        IpAddr::V4(ip) => link.local(ip),
        IpAddr::V6(ip) => link.local6(ip),
    };
    create(link.build())
}

/// A link of kind macvlan. Created where its parent is; see [`move_to`].
pub(crate) fn macvlan(name: &LinkName, parent: u32, mode: MacvlanMode, mac: Option<MacAddr>, mtu: Mtu) -> Vec<u8> {
    let mode = match mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
    };
    let link = LinkMacVlan::new(name.as_str(), parent, mode).mtu(mtu.get());
    let link = match mac {
        Some(mac) => link.address(mac.0.to_vec()),
        None => link,
    };
    create(link.build())
}

pub(crate) fn vlan(name: &LinkName, parent: u32, id: u16, mtu: Mtu) -> Vec<u8> {
    create(LinkVlan::new(name.as_str(), parent, id).mtu(mtu.get()).build())
}

/// Moves a link into a namespace, under a new name there.
pub(crate) fn move_to(index: u32, name: &LinkName, ns: BorrowedFd<'_>) -> Vec<u8> {
    let link = LinkUnspec::new_with_index(index).setns_by_fd(ns.as_raw_fd()).name(name.as_str());
    set(link.build())
}

pub(crate) fn bridge(name: &LinkName, mac: Option<MacAddr>, mtu: Mtu) -> Vec<u8> {
    let link = LinkBridge::new(name.as_str()).mtu(mtu.get());
    let link = match mac {
        Some(mac) => link.address(mac.0.to_vec()),
        None => link,
    };
    create(link.build())
}

/// Puts our mark on a link.
pub(crate) fn mark(name: &LinkName) -> Vec<u8> {
    let mut link = named(name).build();
    link.attributes.push(LinkAttribute::IfAlias(shoal_plan::names::MARK.to_owned()));
    set(link)
}

/// The flags of a bridge port.
pub(crate) fn port(index: u32, flags: PortFlags) -> Vec<u8> {
    let port = LinkBridgePort::new(index).hairpin(flags.hairpin).learning(flags.learning);
    set(port.flood(flags.flood).mcast_flood(flags.mcast_flood).build())
}

/// One end of a veth pair, as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a LinkName,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: Mtu,
}

impl VethEnd<'_> {
    fn message(&self) -> LinkMessageBuilder<LinkUnspec> {
        let link = named(self.name).mtu(self.mtu.get());
        match self.mac {
            Some(mac) => link.address(mac.0.to_vec()),
            None => link,
        }
    }
}

/// Both ends of a veth pair, the peer in its namespace, in one request. The peer cannot be up at once (ENOTCONN): its
/// other end is not there yet.
pub(crate) fn veth(end: &VethEnd<'_>, peer: &VethEnd<'_>, peer_ns: BorrowedFd<'_>) -> Vec<u8> {
    let peer = peer.message().setns_by_fd(peer_ns.as_raw_fd()).build();
    let mut link = end.message().build();
    let kind = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth);
    link.attributes.extend(kind.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build().attributes);
    create(link)
}

/// Adds an address. An IPv6 one is usable at once: nobody else has it, the managers saw to that.
pub(crate) fn add_address(link: u32, address: IpNet) -> Vec<u8> {
    let mut message = address_message(link, address);
    message.header.flags = AddressHeaderFlags::Permanent;
    if let IpNet::V6(_) = address {
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent));
    }
    encode(&RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

pub(crate) fn delete_address(link: u32, address: IpNet) -> Vec<u8> {
    encode(&RouteNetlinkMessage::DelAddress(address_message(link, address)), 0)
}

fn address_message(link: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = link;
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

/// A permanent neighbour: what `proxy` answers with.
pub(crate) fn set_neighbour(link: u32, ip: IpAddr, mac: MacAddr) -> Vec<u8> {
    let mut message = neighbour_message(link, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    encode(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn delete_neighbour(link: u32, ip: IpAddr) -> Vec<u8> {
    encode(&RouteNetlinkMessage::DelNeighbour(neighbour_message(link, ip)), 0)
}

fn neighbour_message(link: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    message
}

/// To which host the vxlan link sends frames for `mac`: `self`, this link's own table.
pub(crate) fn append_forwarding(link: u32, mac: MacAddr, vtep: IpAddr) -> Vec<u8> {
    let mut message = forwarding_message(link, mac, NeighbourFlags::Own);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(vtep)));
    encode(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_APPEND)
}

pub(crate) fn delete_forwarding(link: u32, mac: MacAddr, vtep: IpAddr) -> Vec<u8> {
    let mut message = forwarding_message(link, mac, NeighbourFlags::Own);
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(vtep)));
    encode(&RouteNetlinkMessage::DelNeighbour(message), 0)
}

/// At which port of its bridge `mac` is: `master static`, the bridge's table.
pub(crate) fn set_port(link: u32, mac: MacAddr) -> Vec<u8> {
    let mut message = forwarding_message(link, mac, NeighbourFlags::Controller);
    message.header.state = NeighbourState::Noarp;
    encode(&RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn delete_port(link: u32, mac: MacAddr) -> Vec<u8> {
    encode(&RouteNetlinkMessage::DelNeighbour(forwarding_message(link, mac, NeighbourFlags::Controller)), 0)
}

fn forwarding_message(link: u32, mac: MacAddr, table: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link;
    message.header.flags = table;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// A unicast route of the main table.
pub(crate) fn add_route(to: IpNet, via: Option<IpAddr>, link: u32) -> Vec<u8> {
    let mut message = route_message(to, via, link);
    message.header.protocol = RouteProtocol::Static;
    encode(&RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn delete_route(to: IpNet, via: Option<IpAddr>, link: u32) -> Vec<u8> {
    let mut message = route_message(to, via, link);
    message.header.scope = RouteScope::NoWhere;
    encode(&RouteNetlinkMessage::DelRoute(message), 0)
}

fn route_message(to: IpNet, via: Option<IpAddr>, link: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(to.network())));
    }
    if let Some(via) = via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    message
}
