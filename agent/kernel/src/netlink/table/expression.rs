//! The expressions that a rule is made of: little programs over the registers of nftables' machine.

use ipnet::IpNet;
use shoal_common::MacAddr;
use shoal_plan::nft::{Addresses, Interface};
use std::net::IpAddr;

use super::{
    Table, nest, number, push,
    set::{Element, Set, TYPE_BITS, TYPE_IFNAME, TYPE_INTEGER, TYPE_IPV4, TYPE_IPV6, Value},
    string,
};

pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

/// Registers: the verdict, the first two of 16 bytes, and the second of 4 bytes, which follows the start of the first.
pub(super) const VERDICT: u32 = 0;
pub(super) const REG_1: u32 = 1;
pub(super) const REG_2: u32 = 2;
pub(super) const REG32_01: u32 = 9;

/// IFNAMSIZ.
pub(super) const IFNAME_BYTES: u32 = 16;

pub(super) const NFT_META_PROTOCOL: u32 = 1;
pub(super) const NFT_META_L4PROTO: u32 = 16;

const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;

pub(super) const NFT_CMP_LTE: u32 = 3;
pub(super) const NFT_CMP_GTE: u32 = 5;

pub(super) const LINK_HEADER: u32 = 0;
pub(super) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
pub(super) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

pub(super) fn bytes_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAME_BYTES as usize, 0);
    padded
}

/// A port as part of a key or value: those are aligned to 4 bytes.
pub(super) fn port_bytes(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

/// A MAC address as part of a key.
pub(super) fn mac_bytes(mac: MacAddr) -> Vec<u8> {
    [&mac.0[..], &[0; 2]].concat()
}

/// What differs between the families, in the headers and in `nft`'s types.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) protocol: u8,
    pub(super) bytes: u32,
    pub(super) source: u32,
    pub(super) destination: u32,
    pub(super) type_: u32,
    /// Where a second address follows the one in the first register.
    pub(super) second: u32,
}

pub(super) fn family(addresses: impl IntoIterator<Item = IpAddr>) -> Family {
    if addresses.into_iter().next().is_some_and(|ip| ip.is_ipv6()) {
        Family { protocol: NFPROTO_IPV6, bytes: 16, source: 8, destination: 24, type_: TYPE_IPV6, second: REG_2 }
    } else {
        Family { protocol: NFPROTO_IPV4, bytes: 4, source: 12, destination: 16, type_: TYPE_IPV4, second: REG32_01 }
    }
}

/// The expressions of one rule, as they run, one after the other.
pub(super) struct Expressions<'a> {
    pub(super) table: &'a Table<'a>,
    pub(super) sets: &'a mut u32,
    pub(super) messages: &'a mut Vec<Vec<u8>>,
    pub(super) bytes: Vec<u8>,
    /// What earlier ones made sure of: the NFPROTO_* and the IPPROTO_*.
    pub(super) network: u8,
    pub(super) transport: u8,
}

impl Expressions<'_> {
    pub(super) fn push(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        nest(&mut self.bytes, 1, |b| {
            string(b, 1, name);
            nest(b, 2, fill);
        });
    }

    pub(super) fn meta(&mut self, key: u32, register: u32) {
        self.push("meta", |b| {
            number(b, 2, key);
            number(b, 1, register);
        });
    }

    pub(super) fn set_meta(&mut self, key: u32) {
        self.push("meta", |b| {
            number(b, 2, key);
            number(b, 3, REG_1);
        });
    }

    pub(super) fn compare(&mut self, equal: bool, value: &[u8]) {
        self.ordered(u32::from(!equal), value);
    }

    /// NFT_CMP_*
    pub(super) fn ordered(&mut self, how: u32, value: &[u8]) {
        self.push("cmp", |b| {
            number(b, 1, REG_1);
            number(b, 2, how);
            nest(b, 3, |b| push(b, 1, value));
        });
    }

    /// `base`: the [`LINK_HEADER`], the network header (1) or the transport header (2).
    pub(super) fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.push("payload", |b| {
            number(b, 1, register);
            number(b, 2, base);
            number(b, 3, offset);
            number(b, 4, length);
        });
    }

    /// A header without a checksum of its own, from the first register.
    pub(super) fn rewrite(&mut self, base: u32, offset: u32, length: u32) {
        self.push("payload", |b| {
            number(b, 5, REG_1);
            number(b, 2, base);
            number(b, 3, offset);
            number(b, 4, length);
            number(b, 6, 0);
            number(b, 7, 0);
            number(b, 8, 0);
        });
    }

    pub(super) fn of_family(&mut self, family: Family) {
        const NFT_META_NFPROTO: u32 = 15;
        if self.network != family.protocol {
            self.meta(NFT_META_NFPROTO, REG_1);
            self.compare(true, &[family.protocol]);
            self.network = family.protocol;
        }
    }

    pub(super) fn of_transport(&mut self, protocol: u8) {
        if self.transport != protocol {
            self.meta(NFT_META_L4PROTO, REG_1);
            self.compare(true, &[protocol]);
            self.transport = protocol;
        }
    }

    /// `found`: whether what is looked up is to be there.
    pub(super) fn lookup(&mut self, set: Set, found: bool, result: Option<u32>) {
        const NFT_LOOKUP_F_INV: u32 = 1;
        *self.sets += 1;
        let id = *self.sets;
        let name = if set.value.is_some() { "__map%d" } else { "__set%d" };
        self.table.set(id, set, self.messages);
        self.push("lookup", |b| {
            number(b, 2, REG_1);
            if let Some(register) = result {
                number(b, 3, register);
            }
            string(b, 1, name);
            number(b, 4, id);
            if !found {
                number(b, 5, NFT_LOOKUP_F_INV);
            }
        });
    }

    pub(super) fn one_of(&mut self, these: &Addresses) {
        if let (1, Some(one)) = (these.len(), these.first()) {
            return self.compare(true, &bytes_of(*one));
        }
        let Family { bytes, type_, .. } = family(these.iter().copied());
        let elements = these.iter().map(|ip| Element { key: bytes_of(*ip), value: None }).collect();
        self.lookup(Set { key_type: type_, key_bytes: bytes, value: None, elements }, true, None);
    }

    pub(super) fn interface(&mut self, key: u32, equal: bool, interface: &Interface) {
        self.meta(key, REG_1);
        match interface {
            Interface::Named(name) => self.compare(equal, &padded(name)),
            Interface::Prefixed(prefix) => self.compare(equal, prefix.as_bytes()),
            Interface::OneOf(names) if names.len() == 1 => {
                names.iter().for_each(|name| self.compare(equal, &padded(name)));
            }
            Interface::OneOf(names) => {
                let elements = names.iter().map(|name| Element { key: padded(name), value: None }).collect();
                let set = Set { key_type: TYPE_IFNAME, key_bytes: IFNAME_BYTES, value: None, elements };
                self.lookup(set, equal, None);
            }
        }
    }

    /// Whether the address at `offset` of the network header lies in the network.
    pub(super) fn in_net(&mut self, net: &IpNet, offset: u32, equal: bool) {
        let (base, mask) = (bytes_of(net.network()), bytes_of(net.netmask()));
        if net.prefix_len().is_multiple_of(8) {
            // As many bytes as there are bits in the prefix.
            let length = usize::from(net.prefix_len() / 8);
            self.payload(1, offset, u32::from(net.prefix_len() / 8), REG_1);
            return self.compare(equal, &base[..length]);
        }
        self.payload(1, offset, u32::try_from(base.len()).unwrap_or(u32::MAX), REG_1);
        self.masked(&mask);
        self.compare(equal, &base);
    }

    pub(super) fn icmp_type(&mut self) {
        const IPPROTO_ICMP: u8 = 1;
        self.message_type(ETHERTYPE_IPV4, IPPROTO_ICMP);
    }

    pub(super) fn icmpv6_type(&mut self) {
        const IPPROTO_ICMPV6: u8 = 58;
        self.message_type(ETHERTYPE_IPV6, IPPROTO_ICMPV6);
    }

    fn message_type(&mut self, ethertype: [u8; 2], protocol: u8) {
        self.payload(LINK_HEADER, 12, 2, REG_1);
        self.compare(true, &ethertype);
        self.of_transport(protocol);
        self.payload(2, 0, 1, REG_1);
    }

    /// Whether what the registers hold is none of these.
    pub(super) fn not_own(&mut self, types: &[u32], key_bytes: u32, all: impl Iterator<Item = Vec<u8>>) {
        let key_type = types.iter().fold(0, |all, one| all << TYPE_BITS | one);
        let elements = all.map(|key| Element { key, value: None }).collect();
        self.lookup(Set { key_type, key_bytes, value: None, elements }, false, None);
    }

    pub(super) fn masked(&mut self, mask: &[u8]) {
        self.mixed(mask, &vec![0; mask.len()]);
    }

    /// The first register, with these bits kept and then those turned.
    pub(super) fn mixed(&mut self, mask: &[u8], turned: &[u8]) {
        self.push("bitwise", |b| {
            number(b, 1, REG_1);
            number(b, 2, REG_1);
            number(b, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            nest(b, 4, |b| push(b, 1, mask));
            nest(b, 5, |b| push(b, 1, turned));
        });
    }

    pub(super) fn connection(&mut self, key: u32, bits: u32) {
        self.push("ct", |b| {
            number(b, 2, key);
            number(b, 1, REG_1);
        });
        self.masked(&bits.to_ne_bytes());
        self.compare(false, &[0; 4]);
    }

    pub(super) fn immediate(&mut self, register: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        self.push("immediate", |b| {
            number(b, 1, register);
            nest(b, 2, fill);
        });
    }

    /// Address, from the first register, and port, from that register.
    pub(super) fn translate(&mut self, family: Family, port: Option<u32>) {
        self.push("nat", |b| {
            number(b, 1, 1);
            number(b, 2, family.protocol.into());
            number(b, 3, REG_1);
            if let Some(port) = port {
                number(b, 5, port);
                number(b, 7, NF_NAT_RANGE_PROTO_SPECIFIED);
            }
        });
    }

    /// The source port, to one between those in these registers.
    pub(super) fn renumber(&mut self, first: u32, last: u32) {
        const NFPROTO_INET: u32 = 1;
        self.push("nat", |b| {
            number(b, 1, 0);
            number(b, 2, NFPROTO_INET);
            number(b, 5, first);
            number(b, 6, last);
            number(b, 7, NF_NAT_RANGE_PROTO_SPECIFIED);
        });
    }

    pub(super) fn reject(&mut self, kind: u32, code: u8) {
        self.push("reject", |b| {
            number(b, 1, kind);
            push(b, 2, &[code]);
        });
    }

    /// One of these values, which are of that type and length.
    pub(super) fn choose(&mut self, value_type: u32, value_bytes: u32, these: Vec<Vec<u8>>) {
        const NFT_NG_RANDOM: u32 = 1;
        self.push("numgen", |b| {
            number(b, 1, REG_1);
            number(b, 2, u32::try_from(these.len()).unwrap_or(u32::MAX));
            number(b, 3, NFT_NG_RANDOM);
            number(b, 4, 0);
        });
        let nth =
            |(n, value): (u32, Vec<u8>)| Element { key: n.to_ne_bytes().to_vec(), value: Some(Value::Bytes(value)) };
        let set = Set {
            key_type: TYPE_INTEGER,
            key_bytes: 4,
            value: Some((value_type, value_bytes)),
            elements: (0..).zip(these).map(nth).collect(),
        };
        self.lookup(set, true, Some(REG_1));
    }
}
