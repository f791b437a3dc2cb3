//! Writing nftables: one table as the messages of one transaction (`linux/netfilter/nf_tables.h`), the same ones that
//! `nft` would send for the table's text. The tests compare the two.

use ipnet::IpNet;
use shoal_common::MacAddr;
use shoal_plan::nft::{Action, Addresses, Chain, Hook, Interface, Match, Rule, Transport};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::attr::{NFGEN, push, request};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NESTED: u16 = 0x8000;

/// Registers: the verdict, the first two of 16 bytes, and the second of 4 bytes, which follows the start of the first.
const VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG_2: u32 = 2;
const REG32_01: u32 = 9;

const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
/// IFNAMSIZ.
const IFNAME_BYTES: u32 = 16;

const NFT_META_PROTOCOL: u32 = 1;
const NFT_META_L4PROTO: u32 = 16;

const LINK_HEADER: u32 = 0;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

const NFT_GOTO: i32 = -4;

const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_MAP: u32 = 8;
/// `nft`'s own numbers for data types, by which it prints a set.
const TYPE_INTEGER: u32 = 4;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_ETHER: u32 = 9;
const TYPE_ICMPV6: u32 = 29;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_IFNAME: u32 = 41;
const TYPE_BITS: u32 = 6;
const TYPE_VERDICT: u32 = 0xffff_ff00;

/// An attribute's length is 16 bits, and all of a message's elements are in one attribute.
const ELEMENTS_BYTES: usize = 32 << 10;

/// Deletes the table, which is there or not, and makes it from these chains if any are given.
pub(crate) fn replace(family: u8, name: &str, made: Option<(&str, &[Chain])>) -> Vec<Vec<u8>> {
    let table = Table { family, name };
    let mut messages = vec![batch(BATCH_BEGIN)];
    // "Delete it if it is there" is of Linux 6.3: it is added first, which does nothing if it is.
    messages.push(table.message(NEW_TABLE, NLM_F_CREATE, |b| number(b, 2, 0)));
    messages.push(table.message(DEL_TABLE, 0, |_| {}));
    if let Some((comment, chains)) = made {
        messages.push(table.message(NEW_TABLE, NLM_F_CREATE, |b| {
            number(b, 2, 0);
            push(b, 6, &userdata(0, &[comment.as_bytes(), b"\0"].concat()));
        }));
        // Rules go to chains, so all of those come first.
        messages.extend(chains.iter().map(|chain| table.chain(chain)));
        let mut sets = 0;
        for chain in chains {
            for rule in &chain.rules {
                table.rule(&chain.name, rule, &mut sets, &mut messages);
            }
        }
    }
    messages.push(batch(BATCH_END));
    messages
}

fn batch(kind: u16) -> Vec<u8> {
    // `struct nfgenmsg`, its resource id in network order.
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    request(kind, 0, &[NFPROTO_UNSPEC, 0, high, low])
}

fn number(bytes: &mut Vec<u8>, kind: u16, value: u32) {
    push(bytes, kind, &value.to_be_bytes());
}

fn string(bytes: &mut Vec<u8>, kind: u16, value: &str) {
    push(bytes, kind, &[value.as_bytes(), b"\0"].concat());
}

fn nest(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    push(bytes, kind | NESTED, &inner);
}

/// One value of libnftnl's own type-length-value format.
fn userdata(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&value[..value.len().min(usize::from(u8::MAX))]);
    bytes
}

fn bytes_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAME_BYTES as usize, 0);
    padded
}

/// A port as part of a key or value: those are aligned to 4 bytes.
fn port_bytes(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

/// A MAC address as part of a key.
fn mac_bytes(mac: MacAddr) -> Vec<u8> {
    [&mac.0[..], &[0; 2]].concat()
}

/// What differs between the families, in the headers and in `nft`'s types.
#[derive(Clone, Copy)]
struct Family {
    protocol: u8,
    bytes: u32,
    source: u32,
    destination: u32,
    type_: u32,
    /// Where a second address follows the one in the first register.
    second: u32,
}

fn family(addresses: impl IntoIterator<Item = IpAddr>) -> Family {
    if addresses.into_iter().next().is_some_and(|ip| ip.is_ipv6()) {
        Family { protocol: NFPROTO_IPV6, bytes: 16, source: 8, destination: 24, type_: TYPE_IPV6, second: REG_2 }
    } else {
        Family { protocol: NFPROTO_IPV4, bytes: 4, source: 12, destination: 16, type_: TYPE_IPV4, second: REG32_01 }
    }
}

/// An anonymous set or map, filled in the transaction that makes it.
struct Set {
    key_type: u32,
    key_bytes: u32,
    /// Type and length of what a map gives.
    value: Option<(u32, u32)>,
    elements: Vec<Element>,
}

struct Element {
    key: Vec<u8>,
    value: Option<Value>,
}

enum Value {
    Bytes(Vec<u8>),
    Goto(String),
}

struct Table<'a> {
    family: u8,
    name: &'a str,
}

impl Table<'_> {
    fn message(&self, kind: u16, flags: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut body = vec![self.family, 0, 0, 0];
        debug_assert_eq!(body.len(), NFGEN);
        // NFTA_{TABLE_NAME,CHAIN_TABLE,RULE_TABLE,SET_TABLE,SET_ELEM_LIST_TABLE}
        string(&mut body, 1, self.name);
        fill(&mut body);
        request(kind, flags, &body)
    }

    fn chain(&self, chain: &Chain) -> Vec<u8> {
        self.message(NEW_CHAIN, NLM_F_CREATE, |b| {
            string(b, 3, &chain.name);
            let Some(hook) = chain.hook else { return };
            // NF_INET_* and the priorities NF_IP_PRI_{NAT_DST,FILTER,NAT_SRC}; NF_BR_* and
            // NF_BR_PRI_{NAT_DST,FILTER}_BRIDGED.
            let (kind, at, priority): (_, u32, i32) = match hook {
                Hook::NatPrerouting => ("nat", 0, -100),
                Hook::FilterInput => ("filter", 1, 0),
                Hook::FilterForward => ("filter", 2, 0),
                Hook::NatOutput => ("nat", 3, -100),
                Hook::NatPostrouting => ("nat", 4, 100),
                Hook::BridgePrerouting => ("filter", 0, -300),
                Hook::BridgeForward => ("filter", 2, -200),
            };
            string(b, 7, kind);
            push(b, 5, &NF_ACCEPT.to_be_bytes());
            nest(b, 4, |b| {
                number(b, 1, at);
                push(b, 2, &priority.to_be_bytes());
            });
        })
    }

    /// A rule, after the sets that it looks things up in.
    fn rule(&self, chain: &str, rule: &Rule, sets: &mut u32, messages: &mut Vec<Vec<u8>>) {
        let mut expressions = Expressions { table: self, sets, messages, bytes: Vec::new(), network: 0, transport: 0 };
        for matched in &rule.matches {
            expressions.matched(matched);
        }
        expressions.action(&rule.action);
        let bytes = expressions.bytes;
        messages.push(self.message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |b| {
            string(b, 2, chain);
            push(b, 4 | NESTED, &bytes);
        }));
    }

    fn set(&self, id: u32, set: Set, messages: &mut Vec<Vec<u8>>) {
        let (name, is_map) = if set.value.is_some() { ("__map%d", SET_MAP) } else { ("__set%d", 0) };
        messages.push(self.message(NEW_SET, NLM_F_CREATE, |b| {
            string(b, 2, name);
            number(b, 3, SET_ANONYMOUS | SET_CONSTANT | is_map);
            number(b, 4, set.key_type);
            number(b, 5, set.key_bytes);
            if let Some((value_type, length)) = set.value {
                number(b, 6, value_type);
                number(b, 7, length);
            }
            number(b, 10, id);
            nest(b, 9, |b| number(b, 1, u32::try_from(set.elements.len()).unwrap_or(u32::MAX)));
            // NFTNL_UDATA_SET_{KEYBYTEORDER,DATABYTEORDER}: numbers are in the host's order, addresses in the network's.
            let in_hosts = [TYPE_INTEGER, TYPE_IFNAME].contains(&set.key_type);
            let order = |key: bool| if key && in_hosts { 1u32 } else { 2 };
            let mut user = userdata(0, &order(true).to_ne_bytes());
            if set.value.is_some() {
                user.extend(userdata(1, &order(false).to_ne_bytes()));
            }
            push(b, 13, &user);
        }));
        let mut elements = Vec::new();
        for element in set.elements {
            nest(&mut elements, 1, |b| element.fill(b));
            if elements.len() >= ELEMENTS_BYTES {
                messages.push(self.elements(name, id, &std::mem::take(&mut elements)));
            }
        }
        if !elements.is_empty() {
            messages.push(self.elements(name, id, &elements));
        }
    }

    fn elements(&self, name: &str, id: u32, elements: &[u8]) -> Vec<u8> {
        self.message(NEW_ELEMENTS, NLM_F_CREATE, |b| {
            string(b, 2, name);
            number(b, 4, id);
            push(b, 3 | NESTED, elements);
        })
    }
}

impl Element {
    fn fill(&self, bytes: &mut Vec<u8>) {
        nest(bytes, 1, |b| push(b, 1, &self.key));
        match &self.value {
            None => {}
            Some(Value::Bytes(value)) => nest(bytes, 2, |b| push(b, 1, value)),
            Some(Value::Goto(chain)) => nest(bytes, 2, |b| verdict(b, NFT_GOTO, Some(chain))),
        }
    }
}

fn verdict(bytes: &mut Vec<u8>, code: i32, chain: Option<&str>) {
    nest(bytes, 2, |b| {
        push(b, 1, &code.to_be_bytes());
        if let Some(chain) = chain {
            string(b, 2, chain);
        }
    });
}

/// The expressions of one rule, as they run, one after the other.
struct Expressions<'a> {
    table: &'a Table<'a>,
    sets: &'a mut u32,
    messages: &'a mut Vec<Vec<u8>>,
    bytes: Vec<u8>,
    /// What earlier ones made sure of: the NFPROTO_* and the IPPROTO_*.
    network: u8,
    transport: u8,
}

impl Expressions<'_> {
    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        nest(&mut self.bytes, 1, |b| {
            string(b, 1, name);
            nest(b, 2, fill);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.push("meta", |b| {
            number(b, 2, key);
            number(b, 1, register);
        });
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.push("cmp", |b| {
            number(b, 1, REG_1);
            number(b, 2, u32::from(!equal));
            nest(b, 3, |b| push(b, 1, value));
        });
    }

    /// `base`: the [`LINK_HEADER`], the network header (1) or the transport header (2).
    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.push("payload", |b| {
            number(b, 1, register);
            number(b, 2, base);
            number(b, 3, offset);
            number(b, 4, length);
        });
    }

    fn of_family(&mut self, family: Family) {
        const NFT_META_NFPROTO: u32 = 15;
        if self.network != family.protocol {
            self.meta(NFT_META_NFPROTO, REG_1);
            self.compare(true, &[family.protocol]);
            self.network = family.protocol;
        }
    }

    fn of_transport(&mut self, protocol: u8) {
        if self.transport != protocol {
            self.meta(NFT_META_L4PROTO, REG_1);
            self.compare(true, &[protocol]);
            self.transport = protocol;
        }
    }

    /// `found`: whether what is looked up is to be there.
    fn lookup(&mut self, set: Set, found: bool, result: Option<u32>) {
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

    fn one_of(&mut self, these: &Addresses) {
        if let (1, Some(one)) = (these.len(), these.first()) {
            return self.compare(true, &bytes_of(*one));
        }
        let Family { bytes, type_, .. } = family(these.iter().copied());
        let elements = these.iter().map(|ip| Element { key: bytes_of(*ip), value: None }).collect();
        self.lookup(Set { key_type: type_, key_bytes: bytes, value: None, elements }, true, None);
    }

    fn interface(&mut self, key: u32, equal: bool, interface: &Interface) {
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
    fn in_net(&mut self, net: &IpNet, offset: u32, equal: bool) {
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

    fn icmpv6_type(&mut self) {
        const IPPROTO_ICMPV6: u8 = 58;
        self.payload(LINK_HEADER, 12, 2, REG_1);
        self.compare(true, &ETHERTYPE_IPV6);
        self.of_transport(IPPROTO_ICMPV6);
        self.payload(2, 0, 1, REG_1);
    }

    /// Whether what the registers hold is none of these.
    fn not_own(&mut self, types: &[u32], key_bytes: u32, all: impl Iterator<Item = Vec<u8>>) {
        let key_type = types.iter().fold(0, |all, one| all << TYPE_BITS | one);
        let elements = all.map(|key| Element { key, value: None }).collect();
        self.lookup(Set { key_type, key_bytes, value: None, elements }, false, None);
    }

    fn masked(&mut self, mask: &[u8]) {
        self.push("bitwise", |b| {
            number(b, 1, REG_1);
            number(b, 2, REG_1);
            number(b, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
            nest(b, 4, |b| push(b, 1, mask));
            nest(b, 5, |b| push(b, 1, &vec![0; mask.len()]));
        });
    }

    fn connection(&mut self, key: u32, bits: u32) {
        self.push("ct", |b| {
            number(b, 2, key);
            number(b, 1, REG_1);
        });
        self.masked(&bits.to_ne_bytes());
        self.compare(false, &[0; 4]);
    }

    fn matched(&mut self, matched: &Match) {
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
            Match::Tcp => self.of_transport(protocol(Transport::Tcp)),
            Match::Port(transport, port) => {
                self.of_transport(protocol(*transport));
                self.payload(2, 2, 2, REG_1);
                self.compare(true, &port.to_be_bytes());
            }
        }
    }

    fn immediate(&mut self, register: u32, fill: impl FnOnce(&mut Vec<u8>)) {
        self.push("immediate", |b| {
            number(b, 1, register);
            nest(b, 2, fill);
        });
    }

    /// Address, from the first register, and port, from that register.
    fn translate(&mut self, family: Family, port: Option<u32>) {
        const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
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

    fn action(&mut self, action: &Action) {
        match action {
            Action::Accept => self.immediate(VERDICT, |b| verdict(b, NF_ACCEPT, None)),
            Action::Drop => {
                self.push("counter", |b| {
                    push(b, 1, &0u64.to_be_bytes());
                    push(b, 2, &0u64.to_be_bytes());
                });
                self.immediate(VERDICT, |b| verdict(b, NF_DROP, None));
            }
            Action::Masquerade => self.push("masq", |_| {}),
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
                    key: [vec![protocol(*transport), 0, 0, 0], port_bytes(*port)].concat(),
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

    fn reject(&mut self, kind: u32, code: u8) {
        self.push("reject", |b| {
            number(b, 1, kind);
            push(b, 2, &[code]);
        });
    }

    /// One of these values, which are of that type and length.
    fn choose(&mut self, value_type: u32, value_bytes: u32, these: Vec<Vec<u8>>) {
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

fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
    }
}
