//! rtnetlink: requests as bytes, and whole tables as `netlink-packet-route` reads them.

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressMessage,
        link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage},
        neighbour::NeighbourMessage,
        nsid::{NsidAttribute, NsidMessage},
        route::RouteMessage,
    },
};

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    Refusal, Socket,
    attr::{Message, attributes, push, request},
};

/// A request with these flags besides REQUEST and ACK.
pub(crate) fn encode(message: &RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut body = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut body);
    request(message.message_type(), flags, &body)
}

/// A message that this version of `netlink-packet-route` cannot read is left out: it is from a newer kernel, about
/// something that is not ours.
fn decode(message: Message<'_>) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, message.payload)
        .inspect_err(|error| tracing::debug!(%error, kind = message.kind, "cannot read a message of the kernel"))
        .ok()
}

fn table<T>(
    socket: &mut Socket,
    ask: &RouteNetlinkMessage,
    pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let mut found = Vec::new();
    socket.dump(&encode(ask, 0), |message| found.extend(decode(message).and_then(&pick)))?;
    Ok(found)
}

/// All links, and of each what [`lean`] leaves.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<LinkMessage>, Refusal> {
    let mut ask = LinkMessage::default();
    ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = Vec::new();
    socket.dump(&encode(&RouteNetlinkMessage::GetLink(ask), 0), |message| {
        let payload = lean(message.payload);
        if let Some(RouteNetlinkMessage::NewLink(link)) = decode(Message { payload: &payload, ..message }) {
            found.push(link);
        }
    })?;
    Ok(found)
}

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_IFALIAS, IFLA_LINK_NETNSID.
const OF_LINK: [u16; 7] = [1, 3, 4, 5, 10, 20, 37];
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MCAST_FLOOD.
const OF_PORT: [u16; 4] = [4, 8, 9, 27];

/// A link's message without what nobody here asks. The kernel tells 1.5 KB of a bridge's port, and a host may have
/// hundreds; to read all of it took a tenth of the time of a look at such a host.
fn lean(payload: &[u8]) -> Vec<u8> {
    let (header, rest) = payload.split_at(payload.len().min(IFINFOMSG));
    let mut kept = header.to_vec();
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_LINKINFO => push(&mut kept, kind, &lean_info(value)),
            kind if OF_LINK.contains(&kind) => push(&mut kept, kind, value),
            _ => {}
        }
    }
    kept
}

fn lean_info(info: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for (kind, value) in attributes(info) {
        match kind {
            IFLA_INFO_SLAVE_DATA => push(&mut kept, kind, &lean_port(value)),
            kind => push(&mut kept, kind, value),
        }
    }
    kept
}

fn lean_port(port: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for (kind, value) in attributes(port).filter(|(kind, _)| OF_PORT.contains(kind)) {
        push(&mut kept, kind, value);
    }
    kept
}

/// All addresses, of both families.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<AddressMessage>, Refusal> {
    table(socket, &RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| match message {
        RouteNetlinkMessage::NewAddress(address) => Some(address),
        _ => None,
    })
}

/// The routes of one family, of all tables.
pub(crate) fn routes(socket: &mut Socket, family: AddressFamily) -> Result<Vec<RouteMessage>, Refusal> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = family;
    table(socket, &RouteNetlinkMessage::GetRoute(ask), |message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    })
}

/// The neighbours of one family; of `AF_BRIDGE` the forwarding entries.
pub(crate) fn neighbours(socket: &mut Socket, family: AddressFamily) -> Result<Vec<NeighbourMessage>, Refusal> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = family;
    table(socket, &RouteNetlinkMessage::GetNeighbour(ask), |message| match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
        _ => None,
    })
}

/// The index of the link of this name.
pub(crate) fn index(socket: &mut Socket, name: &str) -> Result<u32, Refusal> {
    let mut ask = LinkMessage::default();
    ask.attributes.push(LinkAttribute::IfName(name.to_owned()));
    ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut index = None;
    socket.get(&encode(&RouteNetlinkMessage::GetLink(ask), 0), |message| {
        // `struct ifinfomsg`: the index is its second word.
        index = message.payload.get(4..8).and_then(|i| i.try_into().ok()).map(u32::from_ne_bytes).or(index);
    })?;
    index.ok_or_else(|| Errno::ENODEV.into())
}

/// The name of the link of this index.
pub(crate) fn name_of(socket: &mut Socket, index: u32) -> Result<Option<String>, Refusal> {
    Ok(link(socket, index)?.as_ref().and_then(name).map(ToOwned::to_owned))
}

/// The link of this index.
pub(crate) fn link(socket: &mut Socket, index: u32) -> Result<Option<LinkMessage>, Refusal> {
    let mut ask = LinkMessage::default();
    ask.header.index = index;
    ask.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let mut found = None;
    let asked = socket.get(&encode(&RouteNetlinkMessage::GetLink(ask), 0), |message| {
        if let Some(RouteNetlinkMessage::NewLink(link)) = decode(message) {
            found = Some(link);
        }
    });
    match asked {
        Err(refusal) if refusal.errno != Errno::ENODEV => Err(refusal),
        Ok(()) | Err(_) => Ok(found),
    }
}

/// Whether a link is of kind vxlan or macvlan.
pub(crate) fn is_vxlan_or_macvlan(link: &LinkMessage) -> bool {
    let kind = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Vxlan | InfoKind::MacVlan));
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkInfo(infos) if infos.iter().any(kind)))
}

/// The name of a link.
pub(crate) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Whether a link bears our mark.
pub(crate) fn is_marked(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfAlias(alias) if alias == shoal_plan::names::MARK))
}

/// The id by which the socket's namespace knows another; `None` if it has none for it.
pub(crate) fn namespace_id(socket: &mut Socket, other: BorrowedFd<'_>) -> Result<Option<i32>, Refusal> {
    let mut ask = NsidMessage::default();
    let fd = u32::try_from(other.as_raw_fd()).unwrap_or(u32::MAX);
    ask.attributes.push(NsidAttribute::Fd(fd));
    let mut id = None;
    socket.get(&encode(&RouteNetlinkMessage::GetNsId(ask), 0), |message| {
        if let Some(RouteNetlinkMessage::NewNsId(answer)) = decode(message) {
            id = answer.attributes.iter().find_map(|a| if let NsidAttribute::Id(id) = a { Some(*id) } else { None });
        }
    })?;
    Ok(id.filter(|id| *id >= 0))
}
