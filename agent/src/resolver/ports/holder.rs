//! Which process of the host listens at a port.

use procfs::{
    net::{TcpState, tcp, tcp6, udp, udp6},
    process::{FDTarget, all_processes},
};
use shoal_plan::{Listener, nft::Transport};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder(Option<(String, i32)>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((name, pid)) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("another program"),
        }
    }
}

/// The process that listens where each of these listeners is to be, if there is one. Reads every descriptor of every
/// process, once: not for a thread of an async runtime.
pub(super) fn of(listeners: &[Listener]) -> BTreeMap<Listener, Holder> {
    let found: BTreeMap<Listener, Option<u64>> =
        listeners.iter().filter_map(|listener| Some((*listener, socket_of(*listener)?))).collect();
    let wanted: BTreeSet<u64> = found.values().flatten().copied().collect();
    let processes = if wanted.is_empty() { BTreeMap::new() } else { processes_of(&wanted) };
    let holder = |inode: Option<u64>| Holder(inode.and_then(|inode| processes.get(&inode).cloned()));
    found.into_iter().map(|(listener, inode)| (listener, holder(inode))).collect()
}

/// The inode of the socket that stands in the way, as far as the kernel tells it.
fn socket_of(listener: Listener) -> Option<Option<u64>> {
    let inode = match listener.transport {
        Transport::Tcp => {
            let all = tcp().into_iter().chain(tcp6()).flatten();
            let listening = all.filter(|entry| entry.state == TcpState::Listen);
            listening.map(|entry| (entry.local_address, entry.inode)).find(|(at, _)| collide(*at, listener.at))?.1
        }
        Transport::Udp => {
            let all = udp().into_iter().chain(udp6()).flatten();
            // One that has a peer is a client's.
            let serving = all.filter(|entry| entry.remote_address.port() == 0);
            serving.map(|entry| (entry.local_address, entry.inode)).find(|(at, _)| collide(*at, listener.at))?.1
        }
        Transport::Sctp => return Some(None),
    };
    Some(Some(inode))
}

/// Whether somebody at `theirs` keeps others from `ours`. `::` may be open to IPv4 too.
fn collide(theirs: SocketAddr, ours: SocketAddr) -> bool {
    let all = |at: SocketAddr| at.ip().is_unspecified();
    let same_family = theirs.is_ipv4() == ours.is_ipv4();
    let open = all(theirs) && (same_family || theirs.is_ipv6());
    theirs.port() == ours.port() && (open || (all(ours) && same_family) || theirs.ip() == ours.ip())
}

fn processes_of(inodes: &BTreeSet<u64>) -> BTreeMap<u64, (String, i32)> {
    let mut found = BTreeMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        let sockets = process.fd().into_iter().flatten().flatten().filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        });
        for inode in sockets.filter(|inode| inodes.contains(inode)) {
            if let Ok(stat) = process.stat() {
                found.entry(inode).or_insert((stat.comm, process.pid));
            }
        }
        if found.len() == inodes.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_at_the_same_port_of_the_same_address_is_in_the_way() {
        for (theirs, ours, collides) in [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:81", "0.0.0.0:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::1]:80", "0.0.0.0:80", false),
            ("[::1]:80", "[::]:80", true),
        ] {
            assert_eq!(collide(theirs.parse().unwrap(), ours.parse().unwrap()), collides, "{theirs} and {ours}");
        }
    }
}
