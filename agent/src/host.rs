//! This host: its containers, its kernel and its resolver. There before the host is in any cluster, and after.

use futures::future::join_all;
use shoal_common::{
    Invalid, Level, Mtu,
    node::{DefaultBridge, NodeDescription},
    service::Amount,
};
use shoal_kernel::{Kernel, KernelConfig};
use shoal_plan::{Namespace, Ns, World, names, plan};
use shoal_runtime::{ContainerState, Runtime, RuntimeConfig};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    check::Checks,
    memory::{self, Memory},
    resolver::{self, Client},
    sessions::Waiting,
};

/// What a host that leaves gives its containers between the stop signal and SIGKILL.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// Looks at the kernel before a host that leaves gives up: each finds only what the one before could not remove.
const CLEARING_ROUNDS: usize = 3;

/// Where a host keeps its things. Two hosts on one machine differ in all of these.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Images, containers and the remembered assignment. Survives a reboot.
    pub data_dir: PathBuf,
    /// Locks of living containers and network namespaces. To be emptied by a reboot.
    pub run_dir: PathBuf,
    /// The cgroup above those of the containers.
    pub cgroup_parent: String,
    /// The program that supervises one container when started as `PROGRAM supervise DIR`, and answers names when
    /// started as `PROGRAM resolve RUN_DIR RESOLV_CONF`.
    pub supervisor: PathBuf,
    /// The host's network namespace; default: that of the calling thread.
    pub host_ns: Option<PathBuf>,
    /// The host's own resolv.conf: where other people's names are asked for.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the container runtime")]
    Runtime(#[source] shoal_runtime::Error),
    #[error("cannot open the kernel's networking")]
    Kernel(#[source] shoal_kernel::Error),
    #[error("cannot read the host's network")]
    Network(#[source] shoal_kernel::Error),
    #[error("cannot make the directory {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot protect the directory {}", path.display())]
    Protect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read how much memory this host has from /proc/meminfo")]
    Memory(#[source] io::Error),
    #[error("/proc/meminfo does not say how much memory this host has")]
    NoMemTotal,
    #[error(transparent)]
    Bridge(Invalid),
    #[error("the host's hostname is of no use")]
    Hostname(#[source] Invalid),
    #[error("cannot forget the assignment")]
    Forget(#[from] memory::Error),
    #[error("not everything could be removed from this host: {}", .0.join("; "))]
    NotCleared(Vec<String>),
}

/// Handles on all that a host has. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    kernel: Kernel,
    resolver: Client,
    run_dir: PathBuf,
    memory: Memory,
    waiting: Waiting,
    checks: Checks,
}

impl Host {
    /// Opens everything, and adopts the containers that run. Changes nothing.
    pub async fn open(config: HostConfig) -> Result<Host, Error> {
        for path in [&config.data_dir, &config.run_dir] {
            fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.clone(), source })?;
        }
        // A process that connects to a socket below it commands a container or the resolver.
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&config.run_dir, private)
            .map_err(|source| Error::Protect { path: config.run_dir.clone(), source })?;
        let kernel = KernelConfig { run_dir: config.run_dir.clone(), host_ns: config.host_ns };
        let kernel = Kernel::open(kernel).map_err(Error::Kernel)?;
        let runtime = RuntimeConfig {
            data_dir: config.data_dir.clone(),
            run_dir: config.run_dir.clone(),
            cgroup_parent: config.cgroup_parent,
            supervisor: config.supervisor.clone(),
        };
        let runtime = Runtime::open(runtime).await.map_err(Error::Runtime)?;
        let memory = Memory::new(&config.data_dir);
        let resolver = Client::new(config.supervisor, config.run_dir.clone(), config.resolv_conf, kernel.clone());
        Ok(Self(Arc::new(Inner {
            runtime,
            kernel,
            resolver,
            run_dir: config.run_dir,
            memory,
            waiting: Waiting::default(),
            checks: Checks::default(),
        })))
    }

    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    pub fn kernel(&self) -> &Kernel {
        &self.0.kernel
    }

    pub(crate) fn resolver(&self) -> &Client {
        &self.0.resolver
    }

    /// Those who are attached to containers that are about to be started.
    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.0.checks
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Refuses subnets for a default bridge that is not there yet where a link of this host is in them already.
    pub async fn may_have_bridge(&self, wanted: &DefaultBridge) -> Result<(), Error> {
        let world = self.0.kernel.observe(&[Ns::Host].into()).await.map_err(Error::Network)?;
        world.namespaces.get(&Ns::Host).map_or(Ok(()), |host| may_have_bridge(host, wanted)).map_err(Error::Bridge)
    }

    /// What the host says of itself to the managers.
    pub async fn describe(
        &self,
        hostname: String,
        control_addr: SocketAddr,
        vtep: IpAddr,
    ) -> Result<NodeDescription, Error> {
        let fitted = shoal_common::node::fit_hostname(&hostname)
            .ok_or_else(|| Error::Hostname(Invalid::new("hostname", &hostname, "a name with a letter or a digit")))?;
        if fitted != hostname {
            tracing::warn!(
                hostname,
                known_as = fitted,
                "this host's name is no host name: the cluster knows it by another"
            );
        }
        let hostname = fitted;
        let facts = self.0.kernel.host_facts(vtep).await.map_err(Error::Network)?;
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(Error::Memory)?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let underlay_mtu: Mtu = facts.mtu;
        Ok(NodeDescription {
            hostname,
            control_addr,
            vtep,
            underlay_mtu,
            underlay: facts.subnets.into_iter().collect(),
            capacity: Amount {
                nano_cpus: u64::try_from(cpus).unwrap_or(1) * 1_000_000_000,
                memory_bytes: memory_bytes(&meminfo).ok_or(Error::NoMemTotal)?,
            },
            os: "linux".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: Level::KNOWN,
            addresses: facts.addresses,
            default_bridge: None,
        })
    }

    /// For a host that is in no cluster any more: ends every container and removes all that there is of us in its
    /// kernel. What fails does not keep the rest; all of it is told. No [`crate::Agent`] may be running.
    pub async fn clear(&self) -> Result<(), Error> {
        let mut failures = Vec::new();
        let run_dir = self.0.run_dir.clone();
        match tokio::task::spawn_blocking(move || resolver::quit(&run_dir)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("the resolver does not end: {error}")),
            Err(error) => failures.push(format!("the resolver does not end: {error}")),
        }
        let removals = self.0.runtime.list().into_iter().map(|c| async move {
            if matches!(c.state, ContainerState::Running { .. })
                && let Err(error) = self.0.runtime.stop(&c.id, LEAVE_GRACE).await
            {
                tracing::warn!(container = c.id, %error, "cannot stop a container: it is killed");
            }
            self.0.runtime.remove(&c.id).await.map_err(|e| format!("container {}: {e}", c.id))
        });
        failures.extend(join_all(removals).await.into_iter().filter_map(Result::err));
        failures.extend(self.clear_kernel().await);
        if let Err(error) = self.forget_memory() {
            failures.push(error.to_string());
        }
        if failures.is_empty() { Ok(()) } else { Err(Error::NotCleared(failures)) }
    }

    async fn clear_kernel(&self) -> Vec<String> {
        let host = Namespace { loopback_up: true, ..Namespace::default() };
        let empty = World { namespaces: [(Ns::Host, host)].into() };
        let mut failures = Vec::new();
        for _ in 0..CLEARING_ROUNDS {
            let ops = match self.0.kernel.namespaces() {
                Ok(all) => self.0.kernel.observe(&all).await.map(|actual| plan(&empty, &actual, &all)),
                Err(error) => Err(error),
            };
            match ops {
                Ok(ops) if ops.is_empty() => return Vec::new(),
                Ok(ops) => {
                    let failed = self.0.kernel.apply_all(&ops).await;
                    failures = failed.iter().map(|(_, e)| crate::chain(e)).collect();
                }
                Err(error) => failures = vec![crate::chain(&error)],
            }
        }
        failures
    }

    /// What this host was told by a cluster is of no use in another.
    pub fn forget_memory(&self) -> Result<(), Error> {
        Ok(self.0.memory.forget()?)
    }
}

fn may_have_bridge(host: &Namespace, wanted: &DefaultBridge) -> Result<(), Invalid> {
    if host.links.contains_key(&names::default_bridge()) {
        return Ok(());
    }
    let v6 = wanted.fixed_cidr_v6.filter(|_| wanted.ipv6);
    for (field, net) in [("bip", wanted.bip), ("fixed-cidr-v6", v6)] {
        let Some(net) = net else { continue };
        for (link, other) in host.foreign.iter().flat_map(|(link, nets)| nets.iter().map(move |net| (link, net))) {
            if net.contains(&other.network()) || other.contains(&net.network()) {
                let expected = format!("a subnet that is free on this host: its link {link} has {other}");
                return Err(Invalid::new(field, net, expected));
            }
        }
    }
    Ok(())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_plan::{Link, LinkKind};

    #[test]
    fn a_default_bridge_has_no_subnet_of_another_link() {
        let eth0 = ["192.0.2.7/24", "2001:db8::7/64"].map(|net| net.parse().unwrap());
        let mut host = Namespace { foreign: [("eth0".parse().unwrap(), eth0.into())].into(), ..Namespace::default() };
        let bridge = |bip: &str, v6: &str| DefaultBridge {
            bip: bip.parse().ok(),
            ipv6: true,
            fixed_cidr_v6: v6.parse().ok(),
            ..DefaultBridge::default()
        };
        for (bip, v6, clashes) in [
            ("", "", None),
            ("192.0.3.1/24", "2001:db8:1::/64", None),
            ("192.0.2.129/25", "", Some("bip: \"192.0.2.129/25\"")),
            ("192.0.0.1/16", "", Some("bip: \"192.0.0.1/16\"")),
            ("", "2001:db8::/48", Some("fixed-cidr-v6: \"2001:db8::/48\"")),
        ] {
            let said = may_have_bridge(&host, &bridge(bip, v6)).map_err(|e| e.to_string());
            match clashes {
                None => assert_eq!(said, Ok(())),
                Some(field) => assert!(said.is_err_and(|e| e.starts_with(field) && e.contains("link eth0"))),
            }
        }
        // One that is there stays, whatever came later.
        host.links.insert(names::default_bridge(), Link::new(LinkKind::Bridge, Mtu::ETHERNET));
        assert_eq!(may_have_bridge(&host, &bridge("192.0.2.129/25", "")), Ok(()));
    }

    #[test]
    fn the_hosts_memory_is_what_the_kernel_says() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
    }
}
