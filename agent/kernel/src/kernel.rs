//! The kernel of this host, as the agent sees it.

use rtnetlink::packet_route::link::LinkMessage;
use shoal_common::Mtu;
use shoal_plan::{Ns, Op, World, nft::Family};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{runtime, task};

use crate::{
    apply,
    handle::NetNs,
    monitor::{Changes, Dirty},
    namespace::Namespace,
    netlink::{Refusal, route},
    netns, observe,
    underlay::{self, HostFacts},
};

/// Where the kernel's state is kept and found.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Namespaces are files in `run_dir/netns`. To be emptied by a reboot, like the kernel: below `/run`.
    pub run_dir: PathBuf,
    /// The network namespace that is the host's. Default: that of the thread that calls [`Kernel::open`].
    pub host_ns: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot prepare {} for network namespaces", path.display())]
    Prepare {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot list the network namespaces in {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open network namespace {ns}")]
    Open {
        ns: Ns,
        #[source]
        source: io::Error,
    },
    #[error("there is no network namespace {0}")]
    Absent(Ns),
    #[error("cannot read the {what} of network namespace {ns}")]
    Observe {
        ns: Ns,
        what: &'static str,
        #[source]
        source: Refusal,
    },
    #[error("cannot read the sysctls of network namespace {ns}")]
    Sysctl {
        ns: Ns,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Underlay(#[from] underlay::Error),
}

impl Error {
    /// What was looked at changed meanwhile: nothing is wrong, and nothing was seen.
    pub fn is_torn(&self) -> bool {
        match self {
            Error::Observe { source, .. } | Error::Underlay(underlay::Error::Read(source)) => source.is_torn(),
            Error::Prepare { .. }
            | Error::List { .. }
            | Error::Open { .. }
            | Error::Absent(_)
            | Error::Sysctl { .. }
            | Error::Underlay(_) => false,
        }
    }
}

/// Hands on the kernel: look, act, be told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    run_dir: PathBuf,
    host_path: PathBuf,
    runtime: runtime::Handle,
    dirty: Arc<Dirty>,
    host: Arc<Namespace>,
    /// Namespaces that were looked at and are still there.
    open: Mutex<BTreeMap<Ns, Arc<Namespace>>>,
}

impl Kernel {
    /// Opens the host's namespace and the directory of ours. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN, and a tokio runtime.
    pub fn open(config: KernelConfig) -> Result<Self, Error> {
        let runtime = runtime::Handle::current();
        let dirty = Arc::new(Dirty::default());
        for (path, prepared) in [
            (memory_dir(&config.run_dir), std::fs::create_dir_all(memory_dir(&config.run_dir))),
            (netns_dir(&config.run_dir), netns::prepare(&netns_dir(&config.run_dir))),
        ] {
            prepared.map_err(|source| Error::Prepare { path, source })?;
        }
        let open_host = || -> io::Result<Namespace> {
            let fd = match &config.host_ns {
                Some(path) => netns::open(path)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?,
                None => netns::own()?,
            };
            Namespace::open(Ns::Host, None, fd, memory(&config.run_dir, Ns::Host), &dirty, &runtime)
        };
        let host = Arc::new(open_host().map_err(|source| Error::Open { ns: Ns::Host, source })?);
        let host_path = config.host_ns.unwrap_or_else(|| PathBuf::from("/proc/self/ns/net"));
        let inner = Inner { run_dir: config.run_dir, host_path, runtime, dirty, host, open: Mutex::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// The host's namespace and every one that we made, also in an earlier life.
    pub fn namespaces(&self) -> Result<BTreeSet<Ns>, Error> {
        let path = netns_dir(&self.0.run_dir);
        let listed = netns::list(&path).map_err(|source| Error::List { path, source })?;
        let ours = listed.iter().filter_map(|(name, _)| name.parse().ok()).filter(|ns| *ns != Ns::Host);
        Ok(ours.chain([Ns::Host]).collect())
    }

    /// Reads what is true in these namespaces. One that is not there is absent in the answer too.
    pub async fn observe(&self, namespaces: &BTreeSet<Ns>) -> Result<World, Error> {
        let (inner, namespaces) = (self.0.clone(), namespaces.clone());
        blocking(move || observe::world(&inner, &namespaces)).await
    }

    /// Does one thing.
    pub async fn apply(&self, op: &Op) -> Result<(), apply::OpError> {
        match self.apply_all(std::slice::from_ref(op)).await.pop() {
            None => Ok(()),
            Some((_, error)) => Err(error),
        }
    }

    /// Does everything, in order; what fails does not stop the rest. Gives the failures with their place in `ops`.
    pub async fn apply_all(&self, ops: &[Op]) -> Vec<(usize, apply::OpError)> {
        let (inner, ops) = (self.0.clone(), ops.to_vec());
        blocking(move || apply::all(&inner, &ops)).await
    }

    /// The kernel's changes, in the host's namespace and in each that was observed. For one consumer.
    pub fn changes(&self) -> Changes {
        Changes(self.0.dirty.clone())
    }

    /// The file that is the namespace, for whoever starts a process in it.
    pub fn netns_path(&self, ns: Ns) -> PathBuf {
        self.0.path(ns)
    }

    /// Whether the namespace is there, as far as can be seen.
    pub fn has_netns(&self, ns: Ns) -> bool {
        self.0.path(ns).exists()
    }

    /// A handle on a namespace, for sockets of ours in it.
    pub fn netns(&self, ns: Ns) -> Result<NetNs, Error> {
        let opened = netns::open(&self.0.path(ns)).map_err(|source| Error::Open { ns, source })?;
        opened.map(NetNs::from).ok_or(Error::Absent(ns))
    }

    /// Whether connections can be kept for as long as we say. Else, why not.
    pub async fn keeps_idle(&self) -> Result<(), Refusal> {
        let inner = self.0.clone();
        let table = shoal_plan::nft::idle();
        blocking(move || crate::nft::can(&inner.host, Family::Idle, &table.chains)).await
    }

    /// The host's own network, given the address under which other hosts reach it.
    pub async fn host_facts(&self, advertise: IpAddr) -> Result<HostFacts, Error> {
        let inner = self.0.clone();
        blocking(move || Ok(underlay::facts(&mut inner.host.route(), advertise, is_ours)?)).await
    }

    /// The largest packet of the link that bears this address.
    pub async fn underlay_mtu(&self, advertise: IpAddr) -> Result<Mtu, Error> {
        let inner = self.0.clone();
        blocking(move || Ok(underlay::mtu(&mut inner.host.route(), advertise, is_ours)?)).await
    }

    /// The address under which other hosts most likely reach this one.
    pub async fn default_advertise_addr(&self) -> Result<IpAddr, Error> {
        let inner = self.0.clone();
        blocking(move || Ok(underlay::default_advertise_addr(&mut inner.host.route(), is_ours)?)).await
    }
}

/// Whether a link in the host's namespace is ours.
pub(crate) fn is_ours(link: &LinkMessage) -> bool {
    route::is_marked(link) || route::name(link).is_some_and(|n| n.parse().is_ok_and(|n| shoal_plan::names::is_ours(&n)))
}

impl Inner {
    pub(crate) fn path(&self, ns: Ns) -> PathBuf {
        match ns {
            Ns::Host => self.host_path.clone(),
            Ns::Sandbox(_) | Ns::Task(_) => netns_dir(&self.run_dir).join(ns.to_string()),
        }
    }

    /// A namespace that is there. One whose file now is another namespace, or none, is let go.
    pub(crate) fn namespace(&self, ns: Ns) -> Result<Option<Arc<Namespace>>, Error> {
        if ns == Ns::Host {
            return Ok(Some(self.host.clone()));
        }
        let failed = |source| Error::Open { ns, source };
        let path = self.path(ns);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = netns::identity(&path).map_err(failed)?;
        if let Some(namespace) = open.get(&ns)
            && namespace.identity == identity
        {
            return Ok(Some(namespace.clone()));
        }
        open.remove(&ns);
        let Some(fd) = netns::open(&path).map_err(failed)? else { return Ok(None) };
        let namespace = Namespace::open(ns, identity, fd, memory(&self.run_dir, ns), &self.dirty, &self.runtime);
        let namespace = Arc::new(namespace.map_err(failed)?);
        open.insert(ns, namespace.clone());
        Ok(Some(namespace))
    }

    pub(crate) fn host(&self) -> &Namespace {
        &self.host
    }

    /// Makes a namespace unless it is there.
    pub(crate) fn create(&self, ns: Ns) -> io::Result<()> {
        netns::create(&self.path(ns))
    }

    /// Deletes a namespace and lets go of it.
    pub(crate) fn delete(&self, ns: Ns) -> io::Result<()> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&ns);
        netns::delete(&self.path(ns))?;
        match std::fs::remove_file(memory(&self.run_dir, ns)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn netns_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("netns")
}

fn memory_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("nft")
}

fn memory(run_dir: &Path, ns: Ns) -> PathBuf {
    memory_dir(run_dir).join(ns.to_string())
}

/// On a thread that may block. A panic there is a panic here.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody awaits this any longer.
            Err(_) => std::future::pending().await,
        },
    }
}
