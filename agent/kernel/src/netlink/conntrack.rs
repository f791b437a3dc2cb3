//! Tracked connections (`linux/netfilter/nfnetlink_conntrack.h`): where they go, and forgetting them. A translated
//! connection stays with the backend that it was given to, also after that backend is gone.

use shoal_plan::{Flow, nft::Transport};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Refusal, Socket,
    attr::{Message, NESTED, NFGEN, attribute, push, request},
};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

fn inner<'a>(message: &Message<'a>) -> &'a [u8] {
    message.payload.get(NFGEN..).unwrap_or(&[])
}

fn port(tuple: &[u8], which: u16) -> u16 {
    let port = attribute(tuple, CTA_TUPLE_PROTO).and_then(|proto| attribute(proto, which));
    // Not every protocol has ports.
    port.and_then(|v| <[u8; 2]>::try_from(v).ok()).map_or(0, u16::from_be_bytes)
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    let four = attribute(ip, v4).and_then(|v| <[u8; 4]>::try_from(v).ok()).map(IpAddr::from);
    four.or_else(|| attribute(ip, v6).and_then(|v| <[u8; 16]>::try_from(v).ok()).map(IpAddr::from))
}

fn transport(protocol: u8) -> Option<Transport> {
    match protocol {
        6 => Some(Transport::Tcp),
        17 => Some(Transport::Udp),
        132 => Some(Transport::Sctp),
        _ => None,
    }
}

fn is_opening(body: &[u8]) -> bool {
    const TCP_CONNTRACK_SYN_SENT: u8 = 1;
    let state = attribute(body, CTA_PROTOINFO)
        .and_then(|info| attribute(info, CTA_PROTOINFO_TCP))
        .and_then(|tcp| attribute(tcp, CTA_PROTOINFO_TCP_STATE));
    state.and_then(<[u8]>::first) == Some(&TCP_CONNTRACK_SYN_SENT)
}

/// `None`: of a protocol that has no ports.
fn flow(message: &Message<'_>) -> Option<Flow> {
    let body = inner(message);
    let (original, reply) = (attribute(body, CTA_TUPLE_ORIG)?, attribute(body, CTA_TUPLE_REPLY)?);
    let protocol = *attribute(attribute(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?.first()?;
    Some(Flow {
        transport: transport(protocol)?,
        to: SocketAddr::new(address(original, CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(original, CTA_PROTO_DST_PORT)),
        answers: SocketAddr::new(address(reply, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(reply, CTA_PROTO_SRC_PORT)),
        opening: is_opening(body),
    })
}

/// The flows for which `which` holds; those that are alike are one.
pub(crate) fn flows(socket: &mut Socket, which: impl Fn(&Flow) -> bool) -> Result<BTreeSet<Flow>, Refusal> {
    let mut flows = BTreeSet::new();
    socket.dump(&request(GET, 0, &[0; NFGEN]), |message| flows.extend(flow(&message).filter(&which)))?;
    Ok(flows)
}

/// Forgets these flows and returns how many connections they were. A connection that ended meanwhile counts as forgotten.
pub(crate) fn forget(socket: &mut Socket, these: &BTreeSet<Flow>) -> Result<usize, Refusal> {
    let mut deletions = Vec::new();
    socket.dump(&request(GET, 0, &[0; NFGEN]), |message| {
        if flow(&message).is_some_and(|f| these.contains(&f))
            && let Some(original) = attribute(inner(&message), CTA_TUPLE_ORIG)
        {
            let mut body = message.payload[..NFGEN].to_vec();
            push(&mut body, CTA_TUPLE_ORIG | NESTED, original);
            deletions.push(request(DELETE, 0, &body));
        }
    })?;
    let count = deletions.len();
    for answer in socket.ask(deletions) {
        match answer {
            Err(refusal) if refusal.errno != nix::errno::Errno::ENOENT => return Err(refusal),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(count)
}
