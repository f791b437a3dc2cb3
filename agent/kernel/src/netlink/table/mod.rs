//! Writing nftables: one table as the messages of one transaction (`linux/netfilter/nf_tables.h`), the same ones that
//! `nft` would send for the table's text. The tests compare the two.

mod expression;
mod rule;
mod set;

use shoal_plan::nft::{self, Chain, Hook, Rule};

use super::{
    attr::{NESTED, NFGEN, push, request},
    nftables::SUBSYSTEM,
};
use expression::Expressions;

const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const NEW_OBJECT: u16 = SUBSYSTEM | 18;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

const NFPROTO_UNSPEC: u8 = 0;
const NF_ACCEPT: i32 = 1;

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
        if nft::has_policy(chains) {
            messages.push(table.policy());
        }
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

/// Makes the table and deletes it again, all in one transaction.
pub(crate) fn attempt(family: u8, name: &str, chains: &[Chain]) -> Vec<Vec<u8>> {
    let mut messages = replace(family, name, Some(("", chains)));
    let end = messages.len() - 1;
    messages.insert(end, Table { family, name }.message(DEL_TABLE, 0, |_| {}));
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

    /// [`nft::IDLE_POLICY`]: `struct nft_ct_timeout_obj`.
    fn policy(&self) -> Vec<u8> {
        const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
        const NFPROTO_IPV4: u16 = 2;
        const IPPROTO_TCP: u8 = 6;
        /// CTA_TIMEOUT_TCP_*
        const ESTABLISHED: u16 = 3;
        const CLOSE_WAIT: u16 = 5;
        let seconds = u32::try_from(nft::IDLE.as_secs()).unwrap_or(u32::MAX);
        self.message(NEW_OBJECT, NLM_F_CREATE, |b| {
            string(b, 2, nft::IDLE_POLICY);
            number(b, 3, NFT_OBJECT_CT_TIMEOUT);
            nest(b, 4, |b| {
                push(b, 1, &NFPROTO_IPV4.to_be_bytes());
                push(b, 2, &[IPPROTO_TCP]);
                nest(b, 3, |b| [ESTABLISHED, CLOSE_WAIT].into_iter().for_each(|state| number(b, state, seconds)));
            });
        })
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
                Hook::FilterOutput => ("filter", 3, 0),
                Hook::NatOutput => ("nat", 3, -100),
                Hook::NatPostrouting => ("nat", 4, 100),
                Hook::AfterNatPrerouting => ("filter", 0, -99),
                Hook::AfterNatOutput => ("filter", 3, -99),
                Hook::AfterNatPostrouting => ("filter", 4, 101),
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
}
