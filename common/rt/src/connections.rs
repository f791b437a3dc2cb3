//! The connections from other hosts: how many there may be, and how each of them ends.
//!
//! Whoever has shown no certificate is limited by address. Where a limit is reached, the oldest handshake or connection
//! of the address that has the most gives way: so silent connections keep nobody else out, and not even another process
//! at the same address (the containers of a host have its address) for longer than its handshake takes.

use shoal_common::{NodeId, Timestamp};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Peer, PeerIdentity, clock};

/// TLS handshakes under way from one address. A host begins a few at once: its agent, its manager, its users.
pub const HANDSHAKES_PER_ADDRESS: usize = 16;
/// TLS handshakes under way, each with a socket and some 20 KiB.
pub const HANDSHAKES: usize = 512;
/// Connections without a certificate from one address: hosts that join.
pub const STRANGERS_PER_ADDRESS: usize = 8;
/// Connections without a certificate, each with up to 2 MiB of what was received.
pub const STRANGERS: usize = 128;
/// A connection without a certificate is closed after this. A join is given 15 s.
pub const STRANGER_LIFE: Duration = Duration::from_secs(30);
/// Connections with the certificate of one node. A manager opens one for each call of its users.
pub const CONNECTIONS_PER_NODE: usize = 1024;

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// Those without a certificate, by the order in which they came.
    handshakes: BTreeMap<u64, (IpAddr, CancellationToken)>,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    peer: Peer,
    since: Instant,
    expires: Option<Timestamp>,
    close: CancellationToken,
}

/// A handshake under way. It is cancelled when it has to give way.
#[derive(Debug)]
pub(crate) struct Handshake {
    id: u64,
    all: Connections,
    pub(crate) cancelled: CancellationToken,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    id: u64,
    all: Connections,
    pub(crate) closed: CancellationToken,
}

impl Connections {
    pub(crate) fn handshake(&self, from: IpAddr) -> Handshake {
        let from = source(from);
        let cancelled = CancellationToken::new();
        let mut table = self.table();
        let by_address = || table.handshakes.iter().map(|(id, (address, _))| (*id, *address));
        if let Some(oldest) = gives_way(by_address(), from, HANDSHAKES_PER_ADDRESS, HANDSHAKES)
            && let Some((address, cancel)) = table.handshakes.remove(&oldest)
        {
            tracing::debug!(%address, "a TLS handshake gives way to a newer one");
            cancel.cancel();
        }
        let id = table.next();
        table.handshakes.insert(id, (from, cancelled.clone()));
        Handshake { id, all: self.clone(), cancelled }
    }

    /// The handshake is done. `None`: this node has too many connections.
    pub(crate) fn open(&self, peer: Peer, expires: Option<Timestamp>) -> Option<Counted> {
        let closed = CancellationToken::new();
        let mut table = self.table();
        match peer.identity {
            Some(PeerIdentity { node, .. }) => {
                if table.of_node(node) >= CONNECTIONS_PER_NODE {
                    tracing::warn!(%node, limit = CONNECTIONS_PER_NODE, "a node has too many connections: one is refused");
                    return None;
                }
            }
            None => {
                let strangers = table.open.iter().filter(|(_, open)| open.peer.identity.is_none());
                let by_address = strangers.map(|(id, open)| (*id, source(open.peer.addr.ip())));
                let from = source(peer.addr.ip());
                if let Some(oldest) = gives_way(by_address, from, STRANGERS_PER_ADDRESS, STRANGERS)
                    && let Some(open) = table.open.remove(&oldest)
                {
                    tracing::debug!(addr = %open.peer.addr, "a connection without a certificate gives way to a newer one");
                    open.close.cancel();
                }
            }
        }
        let id = table.next();
        table.open.insert(id, Open { peer, since: Instant::now(), expires, close: closed.clone() });
        Some(Counted { id, all: self.clone(), closed })
    }

    /// Those that are open, each with its number.
    pub fn peers(&self) -> Vec<(u64, Peer)> {
        self.table().open.iter().map(|(id, open)| (*id, open.peer.clone())).collect()
    }

    /// Ends a connection, with all that goes on over it.
    pub fn close(&self, connection: u64) {
        if let Some(open) = self.table().open.remove(&connection) {
            open.close.cancel();
        }
    }

    /// Closes those whose certificate has expired, and those that were open long enough without one.
    pub(crate) fn close_expired(&self) {
        let (now, at) = (Instant::now(), clock::now());
        self.table().open.retain(|_, open| {
            let expired = match open.expires {
                Some(expires) => expires <= at,
                None => now.duration_since(open.since) >= STRANGER_LIFE,
            };
            if expired {
                tracing::debug!(addr = %open.peer.addr, "a connection has come to its end");
                open.close.cancel();
            }
            !expired
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn of_node(&self, node: NodeId) -> usize {
        self.open.values().filter(|open| open.peer.identity.is_some_and(|i| i.node == node)).count()
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.table().handshakes.remove(&self.id);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.all.table().open.remove(&self.id);
    }
}

/// Whoever has an IPv6 address has the 2^64 of its subnet.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Which of those that are there, if any, one more from this address replaces.
fn gives_way(
    present: impl Iterator<Item = (u64, IpAddr)>,
    from: IpAddr,
    per_address: usize,
    in_all: usize,
) -> Option<u64> {
    // The number of each address, and the first that came from it.
    let mut addresses: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
    let mut all = 0;
    for (id, address) in present {
        let (count, oldest) = addresses.entry(address).or_insert((0, id));
        (*count, *oldest) = (*count + 1, id.min(*oldest));
        all += 1;
    }
    match addresses.get(&from) {
        Some((count, oldest)) if *count >= per_address => Some(*oldest),
        _ if all >= in_all => addresses.into_values().max_by_key(|(count, _)| *count).map(|(_, oldest)| oldest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::node::Role;

    fn address(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn peer(n: u8, node: Option<u64>) -> Peer {
        let identity = node.map(|node| PeerIdentity { node: NodeId(node), role: Role::Worker });
        Peer { addr: (address(n), 1).into(), identity }
    }

    #[test]
    fn silent_handshakes_of_one_address_keep_out_nobody() {
        let all = Connections::default();
        let honest = all.handshake(address(1));
        let silent: Vec<_> = (0..1000).map(|_| all.handshake(address(2))).collect();
        let there = silent.iter().filter(|h| !h.cancelled.is_cancelled()).count();
        assert_eq!(there, HANDSHAKES_PER_ADDRESS);
        // Not even another process at that address.
        let other = all.handshake(address(2));
        assert!(!honest.cancelled.is_cancelled() && !other.cancelled.is_cancelled());
    }

    #[test]
    fn of_many_addresses_the_busiest_gives_way() {
        let all = Connections::default();
        let honest = all.handshake(address(1));
        let mut silent = Vec::new();
        for n in 2..=200 {
            silent.extend((0..HANDSHAKES_PER_ADDRESS).map(|_| all.handshake(address(n))));
        }
        let there = silent.iter().filter(|h| !h.cancelled.is_cancelled()).count();
        assert_eq!(there + 1, HANDSHAKES);
        assert!(!honest.cancelled.is_cancelled());
    }

    #[test]
    fn a_subnet_of_ipv6_is_one_address() {
        let v6 = |text: &str| source(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), address(1));
    }

    #[test]
    fn strangers_are_few_and_nodes_have_their_number() {
        let all = Connections::default();
        let strangers: Vec<_> = (0..100).map(|_| all.open(peer(1, None), None).unwrap()).collect();
        assert_eq!(strangers.iter().filter(|c| !c.closed.is_cancelled()).count(), STRANGERS_PER_ADDRESS);
        let node: Vec<_> = (0..2000).map_while(|_| all.open(peer(1, Some(7)), None)).collect();
        assert_eq!(node.len(), CONNECTIONS_PER_NODE);
        assert!(all.open(peer(1, Some(8)), None).is_some(), "another node has its own number");
        drop(node);
        assert!(all.open(peer(1, Some(7)), None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_stays_without_a_certificate_or_with_one_that_has_expired() {
        let all = Connections::default();
        let now = clock::now();
        let stranger = all.open(peer(1, None), None).unwrap();
        let expired = all.open(peer(2, Some(1)), Some(Timestamp(now.0 - 1))).unwrap();
        let valid = all.open(peer(2, Some(1)), Some(Timestamp(now.0 + 3_600_000))).unwrap();
        all.close_expired();
        assert!(!stranger.closed.is_cancelled() && expired.closed.is_cancelled());
        tokio::time::advance(STRANGER_LIFE).await;
        all.close_expired();
        assert!(stranger.closed.is_cancelled() && !valid.closed.is_cancelled());
    }
}
