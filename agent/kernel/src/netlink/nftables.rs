//! Reading nftables (`linux/netfilter/nf_tables.h`) by netlink: which tables there are, what they say of themselves,
//! and whether anything in them changed. Starting `nft` for that would cost 4 ms of CPU per namespace and look.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hasher},
};

use super::{
    Refusal, Socket,
    attr::{Message, NFGEN, attribute, attributes, push, request, text},
};

/// NFNL_SUBSYS_NFTABLES, in the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// NFTA_{TABLE,SET}_NAME and NFTA_{CHAIN,RULE,SET,SET_ELEM_LIST}_TABLE.
const TABLE: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_GEN_ID: u16 = 1;
/// NFTNL_UDATA_TABLE_COMMENT of libnftnl: in user data, one byte type, one byte length, the value.
const UDATA_COMMENT: u8 = 0;

/// NFPROTO_*.
pub(crate) const ANY: u8 = 0;

/// A table and its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
    pub(crate) comment: Option<String>,
}

fn body(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

fn inner<'a>(message: &Message<'a>) -> &'a [u8] {
    message.payload.get(NFGEN..).unwrap_or(&[])
}

/// The generation of the namespace's rule set: every transaction, whoever made it, adds one.
pub(crate) fn generation(socket: &mut Socket) -> Result<Option<u32>, Refusal> {
    let mut generation = None;
    socket.get(&request(GET_GENERATION, 0, &body(ANY)), |message| {
        let id = attribute(inner(&message), NFTA_GEN_ID).and_then(|v| v.try_into().ok());
        generation = generation.or(id.map(u32::from_be_bytes));
    })?;
    Ok(generation)
}

/// All tables of the namespace.
pub(crate) fn tables(socket: &mut Socket) -> Result<Vec<Table>, Refusal> {
    let mut tables = Vec::new();
    socket.dump(&request(GET_TABLE, 0, &body(ANY)), |message| {
        if let (Some(family), Some(name)) = (message.payload.first(), attribute(inner(&message), TABLE)) {
            let comment = attribute(inner(&message), NFTA_TABLE_USERDATA).and_then(comment);
            tables.push(Table { family: *family, name: text(name), comment });
        }
    })?;
    Ok(tables)
}

fn comment(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text(value));
        }
        userdata = &rest[value.len()..];
    }
    None
}

/// What a table holds, in 64 bits: the chains, rules, sets and elements as the kernel tells them, with their handles,
/// so that replacing a table by its like changes it too. Use counts are left out: they follow from the rest.
pub(crate) fn fingerprint(socket: &mut Socket, family: u8, table: &str) -> Result<u64, Refusal> {
    let mut hasher = DefaultHasher::new();
    let mut named = body(family);
    push(&mut named, TABLE, &[table.as_bytes(), b"\0"].concat());
    let of_table = |message: &Message<'_>| {
        message.payload.first() == Some(&family) && attribute(inner(message), TABLE).map(text).as_deref() == Some(table)
    };
    let mut sets = BTreeSet::new();
    for kind in [GET_CHAIN, GET_RULE, GET_SET] {
        // Chains cannot be asked for by table; all are told, and ours are picked.
        let asked = if kind == GET_CHAIN { body(family) } else { named.clone() };
        socket.dump(&request(kind, 0, &asked), |message| {
            if of_table(&message) {
                hash(&mut hasher, kind, inner(&message));
                if kind == GET_SET {
                    sets.extend(attribute(inner(&message), NFTA_SET_NAME).map(text));
                }
            }
        })?;
    }
    for set in sets {
        let mut elements = named.clone();
        push(&mut elements, NFTA_SET_ELEM_LIST_SET, &[set.as_bytes(), b"\0"].concat());
        // The order of a hash table's elements is no property of it: they are summed up.
        let mut sum = 0u64;
        socket.dump(&request(GET_ELEMENT, 0, &elements), |message| {
            const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
            for (_, element) in attribute(inner(&message), NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flat_map(attributes)
            {
                let mut one = DefaultHasher::new();
                one.write(element);
                sum = sum.wrapping_add(one.finish());
            }
        })?;
        hasher.write_u64(sum);
    }
    Ok(hasher.finish())
}

fn hash(hasher: &mut DefaultHasher, kind: u16, bytes: &[u8]) {
    const NFTA_CHAIN_USE: u16 = 6;
    hasher.write_u16(kind);
    for (attr, value) in attributes(bytes) {
        if !(kind == GET_CHAIN && attr == NFTA_CHAIN_USE) {
            hasher.write_u16(attr);
            hasher.write(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_user_data() {
        assert_eq!(comment(&[7, 1, 9, 0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment(&[7, 1, 9]), None);
        assert_eq!(comment(&[0, 9, b'a']), None);
    }
}
