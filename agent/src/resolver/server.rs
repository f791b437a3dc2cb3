//! The resolver's own process: sockets in the namespaces of tasks, and answers from what the daemon told last.

use futures::{FutureExt as _, future::BoxFuture};
use nix::fcntl::{Flock, FlockArg};
use shoal_common::TaskId;
use shoal_dns::{OwnWay, RESOLVER_ADDRESS, Resolver, Scope, ServeError, Servers, Way, Zone, upstream_servers};
use shoal_kernel::{Kernel, KernelConfig};
use shoal_plan::{Ns, names::RESOLVER_PORT};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpStream, UdpSocket, UnixListener, UnixStream},
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ports::Ports,
    wire::{self, Answer, Ask, VERSION},
};
use crate::chain;

/// A container's own server that takes longer for a connection is not asked.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;
/// How often the host's resolv.conf is read again.
const RESOLV_CONF: Duration = Duration::from_secs(10);
/// With nobody to serve, no port and no daemon for so long, it is of no use: its daemon ended before it had begun.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the kernel's networking: {}", chain(.0))]
    Kernel(#[from] shoal_kernel::Error),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

pub(super) fn run(run_dir: &Path, resolv_conf: &Path) -> Result<(), Error> {
    let failed = |doing, path: PathBuf| move |source| Error::File { doing, path, source };
    let path = super::lock(run_dir);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let Ok(_lock) = Flock::lock(file.map_err(failed("open", path))?, FlockArg::LockExclusiveNonblock) else {
        // Another one serves.
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let socket = super::socket(run_dir);
        match std::fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", socket)(e)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed("listen at", socket.clone()))?;
        let kernel = Kernel::open(KernelConfig { run_dir: run_dir.to_owned(), host_ns: None })?;
        let served = Arc::new(Served {
            kernel,
            resolver: Resolver::new(),
            zone: watch::Sender::default(),
            servers: watch::Sender::default(),
            tasks: Mutex::default(),
            ports: Ports::default(),
            daemons: AtomicUsize::default(),
            quit: CancellationToken::new(),
        });
        tokio::select! {
            () = served.quit.cancelled() => {}
            () = served.follow(resolv_conf) => {}
            () = served.useless() => {}
            () = accept(listener, &served) => {}
        }
        let _ = std::fs::remove_file(&socket);
        Ok(())
    });
    runtime.shutdown_background();
    done
}

async fn accept(listener: UnixListener, served: &Arc<Served>) {
    loop {
        match listener.accept().await {
            Ok((daemon, _)) => {
                let served = Arc::clone(served);
                served.daemons.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Err(error) = served.talk(daemon).await {
                        tracing::warn!(%error, "the resolver does not understand its daemon");
                    }
                    served.daemons.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Served {
    kernel: Kernel,
    resolver: Resolver,
    zone: watch::Sender<Arc<Zone>>,
    servers: watch::Sender<Vec<SocketAddr>>,
    tasks: Mutex<BTreeMap<TaskId, Serving>>,
    ports: Ports,
    /// Connections of daemons.
    daemons: AtomicUsize,
    quit: CancellationToken,
}

/// One container's resolver. It ends with this.
struct Serving {
    scope: Scope,
    task: JoinHandle<()>,
    _end: DropGuard,
}

/// A container's own servers are asked by its own networks.
#[derive(Debug)]
struct TaskWay {
    kernel: Kernel,
    ns: Ns,
}

impl Way for TaskWay {
    fn udp(&self, local: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        async move {
            let socket = self.kernel.udp_socket(self.ns, local).await.map_err(io::Error::other)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        }
        .boxed()
    }

    fn tcp(&self, server: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let stream = self.kernel.tcp_stream(self.ns, server, CONNECT_LIMIT).await.map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        }
        .boxed()
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
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

impl Served {
    async fn talk(&self, mut daemon: UnixStream) -> io::Result<()> {
        while let Some(ask) = wire::read(&mut daemon).await? {
            let answer = match ask {
                Ask::Hello => {
                    let serving = self.tasks.lock().await.keys().copied().collect();
                    Answer::Hello { version: VERSION.to_owned(), serving }
                }
                Ask::Tell(assignment) => {
                    self.zone.send_replace(Arc::new(Zone::of(&assignment)));
                    Answer::Done
                }
                Ask::Serve { task, scope } => match self.serve(task, scope).await {
                    Ok(()) => Answer::Done,
                    Err(refusal) => Answer::Failed(chain(&refusal)),
                },
                Ask::Stop { task } => {
                    self.tasks.lock().await.remove(&task);
                    Answer::Done
                }
                Ask::Hold(ports) => {
                    let closed = self.ports.hold(ports.into_iter().collect()).await;
                    Answer::Held(closed.into_iter().collect())
                }
                Ask::Quit => {
                    let _ = wire::write(&mut daemon, &Answer::Done).await;
                    self.quit.cancel();
                    return Ok(());
                }
            };
            if wire::write(&mut daemon, &answer).await.is_err() {
                // The daemon has gone without waiting for it.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns when it has been so for a while.
    async fn useless(&self) {
        let mut before = false;
        loop {
            tokio::time::sleep(IDLE / 2).await;
            let nobody = self.tasks.lock().await.is_empty() && self.ports.is_empty().await;
            let now = self.daemons.load(Ordering::Relaxed) == 0 && nobody;
            if before && now {
                return;
            }
            before = now;
        }
    }

    async fn serve(&self, task: TaskId, scope: Scope) -> Result<(), Refusal> {
        let mut tasks = self.tasks.lock().await;
        if tasks.get(&task).is_some_and(|s| s.scope == scope && !s.task.is_finished()) {
            return Ok(());
        }
        tasks.remove(&task);
        let addr = SocketAddr::new(RESOLVER_ADDRESS, RESOLVER_PORT);
        let failed = |source| Refusal::Open { task, source };
        let udp = self.kernel.udp_socket(Ns::Task(task), addr).await.map_err(failed)?;
        let tcp = self.kernel.tcp_listener(Ns::Task(task), addr).await.map_err(failed)?;
        let end = CancellationToken::new();
        let servers = match scope.servers.as_slice() {
            [] => Servers { addresses: self.servers.subscribe(), way: Arc::new(OwnWay) },
            own => {
                let addresses = own.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect();
                let way = TaskWay { kernel: self.kernel.clone(), ns: Ns::Task(task) };
                Servers { addresses: watch::Sender::new(addresses).subscribe(), way: Arc::new(way) }
            }
        };
        let zone = self.zone.subscribe();
        let serving = self
            .resolver
            .serve(udp, tcp, Arc::new(scope.clone()), zone, servers, end.clone())
            .map_err(|source| Refusal::Serve { task, source })?;
        tasks.insert(task, Serving { scope, task: serving, _end: end.drop_guard() });
        Ok(())
    }

    /// The servers in the host's resolv.conf, as they are now. A file that cannot be read changes nothing.
    async fn follow(&self, resolv_conf: &Path) {
        loop {
            match tokio::fs::read_to_string(resolv_conf).await {
                Ok(text) => {
                    let servers = upstream_servers(&text);
                    self.servers.send_if_modified(|before| {
                        let news = *before != servers;
                        *before = servers;
                        news
                    });
                }
                Err(error) => tracing::debug!(%error, path = %resolv_conf.display(), "cannot read resolv.conf"),
            }
            tokio::time::sleep(RESOLV_CONF).await;
        }
    }
}
