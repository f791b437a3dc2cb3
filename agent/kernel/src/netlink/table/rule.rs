//! What each match and each action of a rule is, in expressions.

use shoal_common::{MacAddr, Vni};
use shoal_plan::nft::{Action, IDLE_POLICY, Ip, Match, RETURN_PORTS, Receiver, TAG, Transport};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    NF_ACCEPT,
    expression::{
        ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Expressions, IFNAME_BYTES, LINK_HEADER, NFPROTO_IPV4,
        NFPROTO_IPV6, NFT_CMP_GTE, NFT_CMP_LTE, NFT_META_L4PROTO, NFT_META_PROTOCOL, REG_1, REG_2, REG32_01, VERDICT,
        bytes_of, family, mac_bytes, padded, port_bytes,
    },
    number, push,
    set::{
        Element, Set, TYPE_BITS, TYPE_ETHER, TYPE_ICMPV6, TYPE_IFNAME, TYPE_IPV4, TYPE_IPV6, TYPE_PORT, TYPE_PROTOCOL,
        TYPE_VERDICT, Value, verdict,
    },
    string,
};

const NF_DROP: i32 = 0;
const NFT_META_MARK: u32 = 3;
const NFT_META_PKTTYPE: u32 = 19;
/// `linux/if_packet.h`
const PACKET_HOST: u8 = 0;

impl Expressions<'_> {
    pub(super) fn matched(&mut self, matched: &Match) {
        const NFT_META_IIFNAME: u32 = 6;
        const NFT_META_OIFNAME: u32 = 7;
        const NFT_CT_STATE: u32 = 0;
        const NFT_CT_STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        const STATE_INVALID: u32 = 1;
        const STATE_ESTABLISHED: u32 = 2;
        const STATE_RELATED: u32 = 4;
        const STATE_NEW: u32 = 8;
        const STATE_UNTRACKED: u32 = 64;
        match matched {
            Match::From(these) => {
                let family = family(these.iter().copied());
                self.of_family(family);
                self.payload(1, family.source, family.bytes, REG_1);
                self.one_of(these);
            }
            Match::To(these) => {
                let family = family(these.iter().copied());
                self.of_family(family);
                self.payload(1, family.destination, family.bytes, REG_1);
                self.one_of(these);
            }
            Match::ToItself(these) => {
                let family = family(these.iter().copied());
                self.of_family(family);
                self.payload(1, family.source, family.bytes, REG_1);
                self.payload(1, family.destination, family.bytes, family.second);
                let twice = |ip: &IpAddr| Element { key: [bytes_of(*ip), bytes_of(*ip)].concat(), value: None };
                let set = Set {
                    key_type: family.type_ << TYPE_BITS | family.type_,
                    key_bytes: family.bytes * 2,
                    value: None,
                    elements: these.iter().map(twice).collect(),
                };
                self.lookup(set, true, None);
            }
            Match::FromNet(net) => {
                let family = family([net.addr()]);
                self.of_family(family);
                self.in_net(net, family.source, true);
            }
            Match::ToNet(net) | Match::NotToNet(net) => {
                let family = family([net.addr()]);
                self.of_family(family);
                self.in_net(net, family.destination, matches!(matched, Match::ToNet(_)));
            }
            Match::ToHere => {
                const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
                const NFTA_FIB_F_DADDR: u32 = 2;
                const RTN_LOCAL: u32 = 2;
                self.push("fib", |b| {
                    number(b, 1, REG_1);
                    number(b, 2, NFT_FIB_RESULT_ADDRTYPE);
                    number(b, 3, NFTA_FIB_F_DADDR);
                });
                self.compare(true, &RTN_LOCAL.to_ne_bytes());
            }
            Match::Translated => self.connection(NFT_CT_STATUS, IPS_DST_NAT),
            Match::UnderWay => self.connection(NFT_CT_STATE, STATE_ESTABLISHED | STATE_RELATED),
            Match::Fresh => self.connection(NFT_CT_STATE, STATE_INVALID | STATE_NEW | STATE_UNTRACKED),
            Match::Within(names) => {
                self.meta(NFT_META_IIFNAME, REG_1);
                self.meta(NFT_META_OIFNAME, REG_2);
                let twice = |name: &String| Element { key: [padded(name), padded(name)].concat(), value: None };
                let set = Set {
                    key_type: TYPE_IFNAME << TYPE_BITS | TYPE_IFNAME,
                    key_bytes: IFNAME_BYTES * 2,
                    value: None,
                    elements: names.iter().map(twice).collect(),
                };
                self.lookup(set, true, None);
            }
            Match::In(interface) => self.interface(NFT_META_IIFNAME, true, interface),
            Match::NotIn(interface) => self.interface(NFT_META_IIFNAME, false, interface),
            Match::Out(interface) => self.interface(NFT_META_OIFNAME, true, interface),
            Match::NotOut(interface) => self.interface(NFT_META_OIFNAME, false, interface),
            Match::NotOwnMac(own) => {
                self.meta(NFT_META_IIFNAME, REG_1);
                self.payload(LINK_HEADER, 6, 6, REG_2);
                let all = own.iter().map(|(link, mac)| [padded(link), mac_bytes(*mac)].concat());
                self.not_own(&[TYPE_IFNAME, TYPE_ETHER], IFNAME_BYTES + 8, all);
            }
            Match::NotOwnV4(own) => {
                self.meta(NFT_META_PROTOCOL, REG_1);
                self.compare(true, &ETHERTYPE_IPV4);
                self.meta(NFT_META_IIFNAME, REG_1);
                self.payload(1, 12, 4, REG_2);
                let all = own.iter().map(|(link, ip)| [padded(link), ip.octets().to_vec()].concat());
                self.not_own(&[TYPE_IFNAME, TYPE_IPV4], IFNAME_BYTES + 4, all);
            }
            Match::NotOwnV6(own) => {
                self.meta(NFT_META_PROTOCOL, REG_1);
                self.compare(true, &ETHERTYPE_IPV6);
                self.payload(1, 8, 16, REG_1);
                let (mask, link_local) = ([0xff, 0xc0], [0xfe, 0x80]);
                self.masked(&[&mask[..], &[0; 14]].concat());
                self.compare(false, &[&link_local[..], &[0; 14]].concat());
                self.meta(NFT_META_IIFNAME, REG_1);
                self.payload(1, 8, 16, REG_2);
                let all = own.iter().map(|(link, ip)| [padded(link), ip.octets().to_vec()].concat());
                self.not_own(&[TYPE_IFNAME, TYPE_IPV6], IFNAME_BYTES + 16, all);
            }
            Match::NotOwnArp(own) => {
                const REG32_06: u32 = 14;
                self.payload(LINK_HEADER, 12, 2, REG_1);
                self.compare(true, &ETHERTYPE_ARP);
                self.meta(NFT_META_IIFNAME, REG_1);
                self.payload(1, 8, 6, REG_2);
                self.payload(1, 14, 4, REG32_06);
                let one = |(link, mac, ip): &(String, MacAddr, Ipv4Addr)| {
                    [padded(link), mac_bytes(*mac), ip.octets().to_vec()].concat()
                };
                self.not_own(&[TYPE_IFNAME, TYPE_ETHER, TYPE_IPV4], IFNAME_BYTES + 12, own.iter().map(one));
            }
            Match::NotOwnNeighbour(own) => {
                const ND_NEIGHBOR_ADVERT: u8 = 136;
                self.icmpv6_type();
                self.compare(true, &[ND_NEIGHBOR_ADVERT]);
                self.payload(2, 8, 2, REG_1);
                self.masked(&[0xff, 0xc0]);
                self.compare(false, &[0xfe, 0x80]);
                self.meta(NFT_META_IIFNAME, REG_1);
                self.payload(2, 8, 16, REG_2);
                let all = own.iter().map(|(link, ip)| [padded(link), ip.octets().to_vec()].concat());
                // Told that these are integers, which have no length of their own, nft 1.0.6 breaks down when it lists them.
                self.not_own(&[TYPE_IFNAME, TYPE_IPV6], IFNAME_BYTES + 16, all);
            }
            Match::ActsAsRouter => {
                const ND_ROUTER_ADVERT: u8 = 134;
                const ND_REDIRECT: u8 = 137;
                self.icmpv6_type();
                let elements = [ND_ROUTER_ADVERT, ND_REDIRECT].map(|t| Element { key: vec![t], value: None }).into();
                self.lookup(Set { key_type: TYPE_ICMPV6, key_bytes: 1, value: None, elements }, true, None);
            }
            Match::FindsNeighbours => {
                const IPPROTO_ICMPV6: u8 = 58;
                const ND_NEIGHBOR_SOLICIT: u8 = 135;
                const ND_NEIGHBOR_ADVERT: u8 = 136;
                self.of_transport(IPPROTO_ICMPV6);
                self.payload(2, 0, 1, REG_1);
                let types = [ND_NEIGHBOR_SOLICIT, ND_NEIGHBOR_ADVERT];
                let elements = types.map(|t| Element { key: vec![t], value: None }).into();
                self.lookup(Set { key_type: TYPE_ICMPV6, key_bytes: 1, value: None, elements }, true, None);
            }
            Match::VxlanFrom(peers) => {
                let family = family(peers.iter().map(|(ip, _)| *ip));
                self.of_family(family);
                self.payload(1, family.source, family.bytes, REG_1);
                self.payload(2, 12, 4, family.second);
                let one = |(ip, vni): &(IpAddr, Vni)| {
                    let key = [bytes_of(*ip), (vni.get() << 8).to_be_bytes().to_vec()].concat();
                    Element { key, value: None }
                };
                let set = Set {
                    // The VNI passes for an address: an integer has no length of its own, and nft 1.0.6 breaks down when it
                    // lists one.
                    key_type: family.type_ << TYPE_BITS | TYPE_IPV4,
                    key_bytes: family.bytes + 4,
                    value: None,
                    elements: peers.iter().map(one).collect(),
                };
                self.lookup(set, true, None);
            }
            Match::Tag => self.tag(!TAG, TAG),
            Match::Tagged => {
                self.meta(NFT_META_MARK, REG_1);
                self.masked(&TAG.to_ne_bytes());
                self.compare(true, &TAG.to_ne_bytes());
            }
            Match::FromProcess => {
                const NFT_META_SKUID: u32 = 10;
                self.meta(NFT_META_SKUID, REG_1);
                self.compare(false, &u32::MAX.to_ne_bytes());
            }
            Match::Answers(these) => {
                const REG32_05: u32 = 13;
                self.meta(NFT_META_IIFNAME, REG_1);
                self.meta(NFT_META_L4PROTO, REG_2);
                self.payload(2, 0, 2, REG32_05);
                let one = |(link, transport, port): &(String, Transport, u16)| Element {
                    key: [padded(link), protocol_bytes(*transport), port_bytes(*port)].concat(),
                    value: None,
                };
                let set = Set {
                    key_type: (TYPE_IFNAME << TYPE_BITS | TYPE_PROTOCOL) << TYPE_BITS | TYPE_PORT,
                    key_bytes: IFNAME_BYTES + 8,
                    value: None,
                    elements: these.iter().map(one).collect(),
                };
                self.lookup(set, true, None);
                self.payload(2, 2, 2, REG_1);
                self.ordered(NFT_CMP_GTE, &RETURN_PORTS.start().to_be_bytes());
                self.ordered(NFT_CMP_LTE, &RETURN_PORTS.end().to_be_bytes());
            }
            Match::NotTo(receiver) => {
                const PACKET_OTHERHOST: u8 = 3;
                self.meta(NFT_META_PKTTYPE, REG_1);
                self.compare(false, &[if *receiver == Receiver::Host { PACKET_HOST } else { PACKET_OTHERHOST }]);
            }
            Match::Unreachable(Ip::V4) => {
                const ICMP_DEST_UNREACH: u8 = 3;
                self.icmp_type();
                self.compare(true, &[ICMP_DEST_UNREACH]);
            }
            Match::Unreachable(Ip::V6) => {
                const ICMPV6_DEST_UNREACH: u8 = 1;
                self.icmpv6_type();
                self.compare(true, &[ICMPV6_DEST_UNREACH]);
            }
            Match::Fragment(Ip::V4) => {
                self.meta(NFT_META_PROTOCOL, REG_1);
                self.compare(true, &ETHERTYPE_IPV4);
                self.payload(1, 6, 2, REG_1);
                self.masked(&[0x3f, 0xff]);
                self.compare(false, &[0, 0]);
            }
            Match::Fragment(Ip::V6) => {
                const NEXTHDR_FRAGMENT: u8 = 44;
                self.meta(NFT_META_PROTOCOL, REG_1);
                self.compare(true, &ETHERTYPE_IPV6);
                self.payload(1, 6, 1, REG_1);
                self.compare(true, &[NEXTHDR_FRAGMENT]);
            }
            Match::HasPorts => {
                self.meta(NFT_META_L4PROTO, REG_1);
                let all = [Transport::Tcp, Transport::Udp, Transport::Sctp].map(|t| vec![protocol(t)]);
                let elements = all.map(|key| Element { key, value: None }).into();
                self.lookup(Set { key_type: TYPE_PROTOCOL, key_bytes: 1, value: None, elements }, true, None);
            }
            Match::Tcp => self.of_transport(protocol(Transport::Tcp)),
            Match::Port(transport, port) => {
                self.of_transport(protocol(*transport));
                self.payload(2, 2, 2, REG_1);
                self.compare(true, &port.to_be_bytes());
            }
        }
    }

    /// The packet's mark, with these bits kept and those set.
    fn tag(&mut self, keep: u32, set: u32) {
        self.meta(NFT_META_MARK, REG_1);
        self.mixed(&keep.to_ne_bytes(), &set.to_ne_bytes());
        self.set_meta(NFT_META_MARK);
    }

    pub(super) fn action(&mut self, action: &Action) {
        match action {
            Action::Tag => self.tag(!TAG, TAG),
            Action::Untag => self.tag(!TAG, 0),
            Action::KeepIdle => {
                const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
                self.push("objref", |b| {
                    number(b, 1, NFT_OBJECT_CT_TIMEOUT);
                    string(b, 2, IDLE_POLICY);
                });
            }
            Action::Accept => self.immediate(VERDICT, |b| verdict(b, NF_ACCEPT, None)),
            Action::Drop => {
                self.push("counter", |b| {
                    push(b, 1, &0u64.to_be_bytes());
                    push(b, 2, &0u64.to_be_bytes());
                });
                self.immediate(VERDICT, |b| verdict(b, NF_DROP, None));
            }
            Action::Masquerade => self.push("masq", |_| {}),
            Action::MarkByPort => {
                self.immediate(REG_1, |b| push(b, 1, &RETURN_PORTS.start().to_be_bytes()));
                self.immediate(REG_2, |b| push(b, 1, &RETURN_PORTS.end().to_be_bytes()));
                self.renumber(REG_1, REG_2);
            }
            Action::TakeIn(bridge) => {
                self.immediate(REG_1, |b| push(b, 1, &bridge.0));
                self.rewrite(LINK_HEADER, 0, 6);
                self.immediate(REG_1, |b| push(b, 1, &[PACKET_HOST]));
                self.set_meta(NFT_META_PKTTYPE);
            }
            Action::Reset => self.reject(1, 0),
            Action::Reject => {
                // Port unreachable, of ICMP and ICMPv6, or of whichever the packet is.
                let (kind, code) = match self.network {
                    NFPROTO_IPV4 => (0, 3),
                    NFPROTO_IPV6 => (0, 4),
                    _ => (2, 1),
                };
                self.reject(kind, code);
            }
            Action::TranslateToOneOf(these) => {
                let family = family(these.iter().copied());
                if let (1, Some(one)) = (these.len(), these.first()) {
                    self.immediate(REG_1, |b| push(b, 1, &bytes_of(*one)));
                } else {
                    self.choose(family.type_, family.bytes, these.iter().map(|ip| bytes_of(*ip)).collect());
                }
                self.translate(family, None);
            }
            Action::TranslateToEither(these) => {
                let family = family(these.iter().map(SocketAddr::ip));
                let all = these.iter().map(|to| [bytes_of(to.ip()), port_bytes(to.port())].concat()).collect();
                self.choose(family.type_ << TYPE_BITS | TYPE_PORT, family.bytes + 4, all);
                self.translate(family, Some(family.second));
            }
            Action::TranslateTo(ip, port) => {
                self.immediate(REG_1, |b| push(b, 1, &bytes_of(*ip)));
                self.immediate(REG_2, |b| push(b, 1, &port.to_be_bytes()));
                self.translate(family([*ip]), Some(REG_2));
            }
            Action::TranslateByPort(ports) => {
                let family = family(ports.values().next().map(SocketAddr::ip));
                self.meta(NFT_META_L4PROTO, REG_1);
                self.payload(2, 2, 2, REG32_01);
                let one = |((transport, port), to): (&(Transport, u16), &SocketAddr)| Element {
                    key: [protocol_bytes(*transport), port_bytes(*port)].concat(),
                    value: Some(Value::Bytes([bytes_of(to.ip()), port_bytes(to.port())].concat())),
                };
                let set = Set {
                    key_type: TYPE_PROTOCOL << TYPE_BITS | TYPE_PORT,
                    key_bytes: 8,
                    value: Some((family.type_ << TYPE_BITS | TYPE_PORT, family.bytes + 4)),
                    elements: ports.iter().map(one).collect(),
                };
                self.lookup(set, true, Some(REG_1));
                self.translate(family, Some(family.second));
            }
            Action::GotoByDestination(chains) => {
                let family = family(chains.keys().copied());
                self.of_family(family);
                self.payload(1, family.destination, family.bytes, REG_1);
                let goto = |(ip, chain): (&IpAddr, &String)| Element {
                    key: bytes_of(*ip),
                    value: Some(Value::Goto(chain.clone())),
                };
                let set = Set {
                    key_type: family.type_,
                    key_bytes: family.bytes,
                    value: Some((TYPE_VERDICT, 0)),
                    elements: chains.iter().map(goto).collect(),
                };
                self.lookup(set, true, Some(VERDICT));
            }
        }
    }
}

/// A protocol as part of a key.
fn protocol_bytes(transport: Transport) -> Vec<u8> {
    vec![protocol(transport), 0, 0, 0]
}

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
    }
}
