//! What the host's own network is like: over which link the overlays run, and which subnets are taken.

use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use shoal_common::{LinkName, Mtu};
use std::{collections::BTreeSet, net::IpAddr};

use crate::netlink::{Refusal, Socket, route};

/// The host's network as overlays need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The link that bears the address under which other hosts reach this one.
    pub link: LinkName,
    /// That link's MTU: the largest packet of the underlay.
    pub mtu: Mtu,
    /// `advertise`, and that link's first address of the other family, if it has one that is reached from afar.
    pub addresses: Vec<IpAddr>,
    /// The subnets of the host's links, ours and loopback left out.
    pub subnets: BTreeSet<IpNet>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the host's links and addresses")]
    Read(#[source] Refusal),
    #[error("no link of this host has the address {0}: advertise one of {1:?}")]
    NotHere(IpAddr, BTreeSet<IpAddr>),
    #[error("link {link} has an MTU of {mtu}, which does not carry IPv6 (1280 at least)")]
    Narrow { link: String, mtu: u32 },
    #[error("this host has no address that others could reach: give one with --advertise-addr")]
    NoAddress,
}

/// An address of a link.
struct Address {
    link: u32,
    ip: IpAddr,
    net: Option<IpNet>,
    reaches_out: bool,
}

fn address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link ADDRESS is the other end's and LOCAL ours; IPv6 has ADDRESS only.
    let (mut local, mut either) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => either = Some(*ip),
            _ => {}
        }
    }
    let ip = local.or(either)?;
    Some(Address {
        link: message.header.index,
        ip,
        net: IpNet::new(ip, message.header.prefix_len).ok().map(|net| net.trunc()),
        reaches_out: message.header.scope == AddressScope::Universe,
    })
}

/// Reads the host's network. Links for which `ours` holds do not count.
pub(crate) fn facts(
    socket: &mut Socket,
    advertise: IpAddr,
    ours: impl Fn(&LinkMessage) -> bool,
) -> Result<HostFacts, Error> {
    let links = foreign_links(socket, ours)?;
    let addresses: Vec<Address> = route::addresses(socket).map_err(Error::Read)?.iter().filter_map(address).collect();
    let of = |a: &Address| links.iter().find(|link| link.header.index == a.link);
    let Some(link) = addresses.iter().filter(|a| a.ip == advertise).find_map(of) else {
        let there = addresses.iter().filter(|a| a.reaches_out && of(a).is_some()).map(|a| a.ip).collect();
        return Err(Error::NotHere(advertise, there));
    };
    let name = route::name(link).unwrap_or_default();
    let other = |a: &&Address| {
        let lasts = a.reaches_out && a.ip.is_ipv4() != advertise.is_ipv4();
        lasts && a.link == link.header.index
    };
    let other = addresses.iter().find(other).map(|a| a.ip);
    Ok(HostFacts {
        addresses: [advertise].into_iter().chain(other).collect(),
        link: name.parse().map_err(|_| Error::NotHere(advertise, BTreeSet::new()))?,
        mtu: mtu_of(link)?,
        subnets: addresses
            .iter()
            .filter(|a| a.reaches_out && of(a).is_some_and(|l| !l.header.flags.contains(LinkFlags::Loopback)))
            .filter_map(|a| a.net)
            .collect(),
    })
}

/// The MTU of the link that bears an address: asked again and again, so no other link is asked for. Links for which
/// `ours` holds do not count.
pub(crate) fn mtu(socket: &mut Socket, advertise: IpAddr, ours: impl Fn(&LinkMessage) -> bool) -> Result<Mtu, Error> {
    let addresses: Vec<Address> = route::addresses(socket).map_err(Error::Read)?.iter().filter_map(address).collect();
    for address in addresses.iter().filter(|a| a.ip == advertise) {
        if let Some(link) = route::link(socket, address.link).map_err(Error::Read)?.filter(|link| !ours(link)) {
            return mtu_of(&link);
        }
    }
    Err(Error::NotHere(advertise, addresses.iter().filter(|a| a.reaches_out).map(|a| a.ip).collect()))
}

fn mtu_of(link: &LinkMessage) -> Result<Mtu, Error> {
    let mtu = link.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None });
    let mtu = mtu.unwrap_or_default();
    let narrow = || Error::Narrow { link: route::name(link).unwrap_or_default().to_owned(), mtu };
    // Loopback's 65536 is more than an IP packet holds.
    Mtu::try_from(mtu.min(65_535)).map_err(|_| narrow())
}

/// The address that others most likely reach this host by: that of the link of the default route, IPv4 first;
/// without a default route the only address, if there is just one.
pub(crate) fn default_advertise_addr(
    socket: &mut Socket,
    ours: impl Fn(&LinkMessage) -> bool,
) -> Result<IpAddr, Error> {
    let links = foreign_links(socket, ours)?;
    let usable = |a: &Address| {
        let link = links.iter().find(|l| l.header.index == a.link);
        a.reaches_out && link.is_some_and(|l| !l.header.flags.contains(LinkFlags::Loopback))
    };
    let addresses: Vec<Address> =
        route::addresses(socket).map_err(Error::Read)?.iter().filter_map(address).filter(usable).collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut defaults: Vec<_> =
            route::routes(socket, family).map_err(Error::Read)?.iter().filter_map(default_route).collect();
        defaults.sort();
        for (_, link, source) in defaults {
            let of_link =
                addresses.iter().find(|a| a.link == link && a.ip.is_ipv4() == (family == AddressFamily::Inet));
            if let Some(ip) = source.or(of_link.map(|a| a.ip)) {
                return Ok(ip);
            }
        }
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().map(|a| a.ip).partition(IpAddr::is_ipv4);
    match (v4.as_slice(), v6.as_slice()) {
        ([one], _) | ([], [one]) => Ok(*one),
        (_, _) => Err(Error::NoAddress),
    }
}

/// Metric, link and preferred source of a default route.
fn default_route(route: &RouteMessage) -> Option<(u32, u32, Option<IpAddr>)> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let (mut metric, mut link, mut source) = (0, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => source = Some(IpAddr::V4(*ip)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => source = Some(IpAddr::V6(*ip)),
            _ => {}
        }
    }
    Some((metric, link?, source))
}

fn foreign_links(socket: &mut Socket, ours: impl Fn(&LinkMessage) -> bool) -> Result<Vec<LinkMessage>, Error> {
    let links = route::links(socket).map_err(Error::Read)?;
    Ok(links.into_iter().filter(|link| route::name(link).is_some() && !ours(link)).collect())
}
