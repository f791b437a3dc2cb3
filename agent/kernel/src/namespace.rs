//! One network namespace, held open: a handle on it and sockets that belong to it.

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use shoal_plan::{Flow, Ns};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::runtime;

use crate::{
    monitor::{Dirty, Monitor, Subscriptions},
    netlink::Socket,
    netns::{self, Identity},
    nft, sysctl,
};

/// The flows as they were looked at under one table.
#[derive(Debug)]
pub(crate) struct SeenFlows {
    pub(crate) digest: String,
    pub(crate) flows: BTreeSet<Flow>,
}

/// A namespace that lives at least as long as this: whoever drops it lets it go.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) ns: Ns,
    pub(crate) identity: Option<Identity>,
    fd: OwnedFd,
    route: Mutex<Socket>,
    filter: Mutex<Socket>,
    pub(crate) tables: Mutex<nft::Memory>,
    pub(crate) sysctls: Mutex<sysctl::Open>,
    pub(crate) flows: Mutex<Option<SeenFlows>>,
    _monitor: Monitor,
}

impl Namespace {
    /// Subscribes to the namespace's changes and opens its sockets, in this order, so that nothing is missed.
    pub(crate) fn open(
        ns: Ns,
        identity: Option<Identity>,
        fd: OwnedFd,
        memory: PathBuf,
        dirty: &Arc<Dirty>,
        runtime: &runtime::Handle,
    ) -> io::Result<Self> {
        let (subscriptions, route, filter) = netns::enter(&fd, || -> io::Result<_> {
            let subscriptions = Subscriptions::open()?;
            let route = Socket::open(NETLINK_ROUTE)?;
            route.check_strictly()?;
            Ok((subscriptions, route, Socket::open(NETLINK_NETFILTER)?))
        })??;
        let monitor = subscriptions.listen(ns, dirty.clone(), runtime);
        Ok(Self {
            ns,
            identity,
            fd,
            route: Mutex::new(route),
            filter: Mutex::new(filter),
            tables: Mutex::new(nft::Memory::load(memory)),
            sysctls: Mutex::default(),
            flows: Mutex::new(None),
            _monitor: monitor,
        })
    }

    /// The socket for links, addresses, routes and neighbours. A panic elsewhere leaves it usable: answers that
    /// nobody read are told apart by their sequence number.
    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket for nftables and conntrack.
    pub(crate) fn filter(&self) -> MutexGuard<'_, Socket> {
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` inside.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        netns::enter(self.fd.as_fd(), f)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
