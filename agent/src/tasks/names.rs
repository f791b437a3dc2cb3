//! The resolver inside of each container's network namespace.

use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::{RESOLVER_ADDRESS, Resolver, Scope, ServeError, Zone, upstream_servers};
use shoal_kernel::Kernel;
use shoal_plan::{Ns, names::RESOLVER_PORT};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the sockets of {task}'s resolver")]
    Open {
        task: TaskId,
        #[source]
        source: shoal_kernel::Error,
    },
    #[error("cannot serve names to {task}")]
    Serve {
        task: TaskId,
        #[source]
        source: ServeError,
    },
}

/// What all resolvers of the host answer from.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    kernel: Kernel,
    resolver: Resolver,
    zone: watch::Sender<Arc<Zone>>,
    servers: watch::Sender<Vec<SocketAddr>>,
    resolv_conf: PathBuf,
}

/// One container's resolver. It ends with this.
#[derive(Debug)]
pub(crate) struct Serving {
    task: JoinHandle<()>,
    _end: DropGuard,
}

impl Serving {
    pub(crate) fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Names {
    pub(crate) fn new(kernel: Kernel, resolver: Resolver, resolv_conf: &Path) -> Self {
        let (zone, servers) = (watch::Sender::new(Arc::default()), watch::Sender::new(Vec::new()));
        let names = Self { kernel, resolver, zone, servers, resolv_conf: resolv_conf.to_owned() };
        names.refresh_servers();
        names
    }

    /// From now on every answer is made from this.
    pub(crate) fn tell(&self, assignment: &Assignment) {
        self.zone.send_replace(Arc::new(Zone::of(assignment)));
    }

    /// The host's resolv.conf, and the servers in it, as they are now. A file that cannot be read changes nothing.
    pub(crate) fn refresh_servers(&self) {
        if let Some(text) = self.host_resolv_conf() {
            let servers = upstream_servers(&text);
            self.servers.send_if_modified(|before| {
                let news = *before != servers;
                *before = servers;
                news
            });
        }
    }

    pub(crate) fn host_resolv_conf(&self) -> Option<String> {
        match std::fs::read_to_string(&self.resolv_conf) {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::debug!(%error, path = %self.resolv_conf.display(), "cannot read the host's resolv.conf");
                None
            }
        }
    }

    /// Opens a container's resolver: it listens when this returns.
    pub(crate) async fn serve(&self, task: TaskId, scope: Scope) -> Result<Serving, Error> {
        let addr = SocketAddr::new(RESOLVER_ADDRESS, RESOLVER_PORT);
        let failed = |source| Error::Open { task, source };
        let udp = self.kernel.udp_socket(Ns::Task(task), addr).await.map_err(failed)?;
        let tcp = self.kernel.tcp_listener(Ns::Task(task), addr).await.map_err(failed)?;
        let end = CancellationToken::new();
        let serving = self
            .resolver
            .serve(udp, tcp, Arc::new(scope), self.zone.subscribe(), self.servers.subscribe(), end.clone())
            .map_err(|source| Error::Serve { task, source })?;
        Ok(Serving { task: serving, _end: end.drop_guard() })
    }
}
