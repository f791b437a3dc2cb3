//! Anonymous sets and maps, filled in the transaction that makes them.

use super::{super::attr::NESTED, NEW_ELEMENTS, NEW_SET, NLM_F_CREATE, Table, nest, number, push, string, userdata};

pub(super) const NFT_GOTO: i32 = -4;

pub(super) const SET_ANONYMOUS: u32 = 1;
pub(super) const SET_CONSTANT: u32 = 2;
pub(super) const SET_MAP: u32 = 8;
/// `nft`'s own numbers for data types, by which it prints a set.
pub(super) const TYPE_INTEGER: u32 = 4;
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;
pub(super) const TYPE_ETHER: u32 = 9;
pub(super) const TYPE_ICMPV6: u32 = 29;
pub(super) const TYPE_PROTOCOL: u32 = 12;
pub(super) const TYPE_PORT: u32 = 13;
pub(super) const TYPE_IFNAME: u32 = 41;
pub(super) const TYPE_BITS: u32 = 6;
pub(super) const TYPE_VERDICT: u32 = 0xffff_ff00;

/// An attribute's length is 16 bits, and all of a message's elements are in one attribute.
pub(super) const ELEMENTS_BYTES: usize = 32 << 10;

/// An anonymous set or map, filled in the transaction that makes it.
pub(super) struct Set {
    pub(super) key_type: u32,
    pub(super) key_bytes: u32,
    /// Type and length of what a map gives.
    pub(super) value: Option<(u32, u32)>,
    pub(super) elements: Vec<Element>,
}

pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Value>,
}

pub(super) enum Value {
    Bytes(Vec<u8>),
    Goto(String),
}

impl Table<'_> {
    pub(super) fn set(&self, id: u32, set: Set, messages: &mut Vec<Vec<u8>>) {
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

pub(super) fn verdict(bytes: &mut Vec<u8>, code: i32, chain: Option<&str>) {
    nest(bytes, 2, |b| {
        push(b, 1, &code.to_be_bytes());
        if let Some(chain) = chain {
            string(b, 2, chain);
        }
    });
}
