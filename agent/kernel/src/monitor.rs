//! "Look again": the kernel's notifications, reduced to which namespace they are about.
//!
//! What a notification says is not used, only that something of the kind that we manage changed there. So a lost one
//! costs nothing as long as we know that one was lost, and our own changes cost at most one look that finds nothing to do.
//! What the kernel does all by itself (neighbours that come and go, cached routes) must not fire, or the looking
//! would never end.

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use rtnetlink::sys::{
    self, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use shoal_plan::Ns;
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{io::unix::AsyncFd, runtime, sync::Notify, task::AbortHandle};

use crate::{
    netlink::attr::{NFGEN, attribute, messages, text},
    observe::is_kernels,
};

/// RTNLGRP_* of `linux/rtnetlink.h`: links, neighbours, addresses, routes, and the sysctls that have notifications.
const ROUTE_GROUPS: [u32; 8] = [1, 3, 5, 7, 9, 11, 24, 25];
/// NFNLGRP_NFTABLES of `linux/netfilter/nfnetlink.h`.
const NFTABLES_GROUP: u32 = 7;
/// Notifications are about 1.5 KiB. One that does not fit is not read, and taken for one that matters.
const NOTIFICATION_BYTES: usize = 8 << 10;

/// Which namespaces to look at again.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    namespaces: Mutex<BTreeSet<Ns>>,
    notify: Notify,
}

impl Dirty {
    pub(crate) fn mark(&self, ns: Ns) {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).insert(ns);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<Ns> {
        std::mem::take(&mut self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The kernel's changes, for one consumer. As many as come between two looks are one.
#[derive(Debug)]
pub struct Changes(pub(crate) Arc<Dirty>);

impl Changes {
    /// Waits until there is something to look at again, and gives all of it. Safe to drop at any time.
    pub async fn next(&mut self) -> BTreeSet<Ns> {
        loop {
            let namespaces = self.0.take();
            if !namespaces.is_empty() {
                return namespaces;
            }
            self.0.notify.notified().await;
        }
    }
}

/// The subscriptions of one namespace. They end with this.
#[derive(Debug)]
pub(crate) struct Monitor(AbortHandle);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sockets that are subscribed and not yet listened to.
pub(crate) struct Subscriptions {
    route: sys::Socket,
    nftables: sys::Socket,
}

impl Subscriptions {
    /// Subscribes in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            route: subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nftables: subscribe(NETLINK_NETFILTER, &[NFTABLES_GROUP])?,
        })
    }

    /// Listens until the monitor is dropped.
    pub(crate) fn listen(self, ns: Ns, dirty: Arc<Dirty>, runtime: &runtime::Handle) -> Monitor {
        let task = runtime.spawn(async move {
            if let Err(error) = listen(ns, self, &dirty).await {
                // Periodic looks remain.
                tracing::error!(%ns, %error, "cannot listen to the kernel any longer");
            }
        });
        Monitor(task.abort_handle())
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<sys::Socket> {
    let mut socket = sys::Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Whether a notification of this kind and content is a change that a look would show.
type Matters = fn(Ns, u16, &[u8]) -> bool;

async fn listen(ns: Ns, subscriptions: Subscriptions, dirty: &Dirty) -> io::Result<()> {
    let (route, nftables) = (watched(subscriptions.route)?, watched(subscriptions.nftables)?);
    loop {
        let (mut ready, matters): (_, Matters) = tokio::select! {
            ready = route.readable() => (ready?, route_matters),
            ready = nftables.readable() => (ready?, nftables_matters),
        };
        if let Ok(fired) = ready.try_io(|socket| read_one(socket.get_ref(), |kind, payload| matters(ns, kind, payload)))
            && fired?
        {
            dirty.mark(ns);
        }
    }
}

#[allow(unsafe_code)]
fn watched(socket: sys::Socket) -> io::Result<AsyncFd<sys::Socket>> {
    // SAFETY: the socket owns its descriptor, always gives the same one, and is closed only after AsyncFd let go of it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Whether the next datagram matters. `WouldBlock` when there is none.
fn read_one(socket: &sys::Socket, matters: impl Fn(u16, &[u8]) -> bool) -> io::Result<bool> {
    let mut buffer = [0; NOTIFICATION_BYTES];
    match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
        Ok(length) if length > buffer.len() => Ok(true),
        Ok(length) => Ok(messages(&buffer[..length]).any(|m| matters(m.kind, m.payload))),
        // Some were lost: any of them might have mattered.
        Err(Errno::ENOBUFS) => Ok(true),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;

const AF_BRIDGE: u8 = 7;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_RA: u8 = 9;
/// RTM_F_CLONED: a cached route.
const CLONED: u32 = 0x200;

fn route_matters(ns: Ns, kind: u16, payload: &[u8]) -> bool {
    match kind {
        RTM_NEWLINK | RTM_DELLINK | RTM_NEWNETCONF | RTM_DELNETCONF => true,
        // Of its own link-local addresses the kernel tells when a link has been up for some time.
        RTM_NEWADDR | RTM_DELADDR => !v6_of(payload).is_some_and(|ip| is_kernels(ns, ip)),
        RTM_NEWNEIGH | RTM_DELNEIGH => {
            let (Some(&family), Some(&[low, high])) = (payload.first(), payload.get(8..10)) else { return true };
            let state = u16::from_ne_bytes([low, high]);
            if family == AF_BRIDGE {
                // What was told, not what was learned.
                state & (NUD_PERMANENT | NUD_NOARP) != 0
            } else {
                // Deleting a permanent entry makes it FAILED first, and so looks like a dynamic one that expired.
                // We keep entries in sandboxes only, where few expire.
                let told = matches!(ns, Ns::Sandbox(_)) && kind == RTM_DELNEIGH && state & NUD_FAILED != 0;
                state & NUD_PERMANENT != 0 || told
            }
        }
        // We have none there.
        RTM_NEWROUTE | RTM_DELROUTE if ns == Ns::Host => false,
        RTM_NEWROUTE | RTM_DELROUTE => {
            let (Some(&[table, protocol]), Some(flags)) = (payload.get(4..6), payload.get(8..12)) else { return true };
            let cloned = flags.try_into().is_ok_and(|f| u32::from_ne_bytes(f) & CLONED != 0);
            table == RT_TABLE_MAIN && !cloned && protocol != RTPROT_REDIRECT && protocol != RTPROT_RA
        }
        _ => false,
    }
}

/// The address that a notification is about; `None` of IPv4, where the kernel gives none by itself.
fn v6_of(payload: &[u8]) -> Option<IpAddr> {
    /// `struct ifaddrmsg`.
    const IFADDRMSG: usize = 8;
    const IFA_ADDRESS: u16 = 1;
    let octets: [u8; 16] = attribute(payload.get(IFADDRMSG..)?, IFA_ADDRESS)?.try_into().ok()?;
    Some(octets.into())
}

/// NFNL_SUBSYS_NFTABLES.
const NFTABLES: u16 = 10;
/// The table's name has this number in the messages of tables, chains, rules, sets, elements and objects alike.
const TABLE_NAME: u16 = 1;

fn nftables_matters(_: Ns, kind: u16, payload: &[u8]) -> bool {
    // What ends each transaction, NFT_MSG_NEWGEN, names no table of ours either: its first attribute is a number.
    kind >> 8 == NFTABLES
        && payload
            .get(NFGEN..)
            .and_then(|p| attribute(p, TABLE_NAME))
            .is_some_and(|name| crate::nft::is_ours(&text(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::push;
    use shoal_common::TaskId;
    use std::net::Ipv6Addr;

    #[test]
    fn a_link_local_address_of_the_kernels_is_no_change() {
        let told = |ns, address: &[u8]| {
            let mut payload = vec![0; 8];
            push(&mut payload, 1, address);
            route_matters(ns, RTM_NEWADDR, &payload)
        };
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        let IpAddr::V6(gateway) = shoal_plan::names::link_local_gateway().addr() else { panic!("it is of IPv6") };
        assert!(!told(Ns::Host, &v6("fe80::9ce2:9aff:fe30:ec40")));
        assert!(told(Ns::Host, &gateway.octets()) && !told(Ns::Task(TaskId(1)), &gateway.octets()));
        assert!(told(Ns::Host, &v6("fd00::1")) && told(Ns::Host, &[169, 254, 1, 1]));
        assert!(route_matters(Ns::Host, RTM_NEWADDR, &[]));
    }
}
