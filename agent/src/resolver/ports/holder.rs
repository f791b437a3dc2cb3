//! Which process of the host listens at a port.

use procfs::{
    net::{TcpState, tcp, tcp6, udp, udp6},
    process::{FDTarget, all_processes},
};
use shoal_plan::{Listener, nft::Transport};
use std::{fmt, net::SocketAddr};

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

/// Who stands in the way of this listener; `None`: nobody who listens.
pub(super) fn of(listener: Listener) -> Option<Holder> {
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
        Transport::Sctp => return Some(Holder(None)),
    };
    Some(Holder(process_of(inode)))
}

/// Whether somebody at `theirs` keeps others from `ours`. `::` may be open to IPv4 too.
fn collide(theirs: SocketAddr, ours: SocketAddr) -> bool {
    let all = |at: SocketAddr| at.ip().is_unspecified();
    let same_family = theirs.is_ipv4() == ours.is_ipv4();
    let open = all(theirs) && (same_family || theirs.is_ipv6());
    theirs.port() == ours.port() && (open || (all(ours) && same_family) || theirs.ip() == ours.ip())
}

fn process_of(inode: u64) -> Option<(String, i32)> {
    all_processes().ok()?.flatten().find_map(|process| {
        let is_it = |target: &FDTarget| matches!(target, FDTarget::Socket(of) if *of == inode);
        let holds = process.fd().ok()?.flatten().any(|fd| is_it(&fd.target));
        holds.then(|| process.stat().ok().map(|stat| (stat.comm, process.pid)))?
    })
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
