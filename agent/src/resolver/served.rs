//! The containers that are answered names: for each its sockets, and what answers on them.

use futures::{FutureExt as _, future::BoxFuture};
use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::{Asker, OwnWay, Resolver, Scope, ServeError, Servers, Way, Zone};
use shoal_kernel::NetNs;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{Mutex, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::wire::Answer;
use crate::chain;

/// A container's own server that takes longer for a connection is not asked.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);
/// RFC 1035 §4.2.
const DNS_PORT: u16 = 53;
/// What a new process is given to be told the names of the host, before it refuses to serve a container.
const TOLD_LIMIT: Duration = Duration::from_secs(5);

/// Containers by the task that each belongs to.
#[derive(Debug)]
pub(super) struct Served {
    resolver: Resolver,
    /// What every answer is made from.
    zone: watch::Sender<Arc<Zone>>,
    /// Whether a daemon has told it.
    told: watch::Sender<bool>,
    /// The host's upstream servers.
    pub(super) servers: watch::Sender<Vec<SocketAddr>>,
    tasks: Mutex<BTreeMap<TaskId, Serving>>,
}

/// All that this process has of one container.
#[derive(Debug)]
struct Serving {
    /// Of the namespace that its sockets are in. A container that is started again may have got another one.
    netns: (u64, u64),
    asker: watch::Sender<Arc<Asker>>,
    /// Held only for a container with servers of its own.
    own_way: Option<NetNs>,
    answering: JoinHandle<()>,
    end: CancellationToken,
}

/// What came with [`super::wire::Ask::Serve`].
#[derive(Debug)]
struct Sockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
    own_way: Option<NetNs>,
}

/// A container's own servers are asked by its own networks.
#[derive(Debug)]
struct TaskWay(NetNs);

impl Way for TaskWay {
    fn udp(&self, local: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        async move {
            let socket = self.0.udp_socket(local).await?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        }
        .boxed()
    }

    fn tcp(&self, server: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let stream = self.0.tcp_stream(server, CONNECT_LIMIT).await?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        }
        .boxed()
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the resolver has not been told the names of this host yet")]
    Untold,
    #[error("the sockets of {task}'s resolver did not arrive: the resolver has too many open files")]
    Lost { task: TaskId },
    #[error("cannot serve names to {task}")]
    Serve {
        task: TaskId,
        #[source]
        source: ServeError,
    },
}

impl Default for Served {
    fn default() -> Self {
        Self {
            resolver: Resolver::new(),
            zone: watch::Sender::default(),
            told: watch::Sender::new(false),
            servers: watch::Sender::default(),
            tasks: Mutex::default(),
        }
    }
}

impl Served {
    /// From now on every answer is made from this.
    pub(super) fn tell(&self, assignment: &Assignment) {
        self.zone.send_replace(Arc::new(Zone::of(assignment)));
        self.told.send_replace(true);
    }

    pub(super) async fn tasks(&self) -> BTreeSet<TaskId> {
        self.tasks.lock().await.keys().copied().collect()
    }

    pub(super) async fn serve(
        &self,
        task: TaskId,
        scope: Scope,
        netns: (u64, u64),
        fds: Vec<OwnedFd>,
        fds_lost: bool,
    ) -> Answer {
        match self.try_serve(task, scope, netns, fds, fds_lost).await {
            Ok(answer) => answer,
            Err(refusal) => Answer::Failed(chain(&refusal)),
        }
    }

    async fn try_serve(
        &self,
        task: TaskId,
        scope: Scope,
        netns: (u64, u64),
        fds: Vec<OwnedFd>,
        fds_lost: bool,
    ) -> Result<Answer, Refusal> {
        let mut told = self.told.subscribe();
        // A process that knows nothing would deny every name.
        if !timeout(TOLD_LIMIT, told.wait_for(|told| *told)).await.is_ok_and(|told| told.is_ok()) {
            return Err(Refusal::Untold);
        }
        let mut tasks = self.tasks.lock().await;
        if let Some(serving) = tasks.get(&task) {
            if serving.suits(netns, &scope) {
                let asker = self.asker(scope, serving.own_way.as_ref());
                serving.asker.send_replace(Arc::new(asker));
                return Ok(Answer::Done);
            }
            if let Some(serving) = tasks.remove(&task) {
                serving.release().await;
            }
        }
        let Some(sockets) = Sockets::of(fds) else {
            return if fds_lost { Err(Refusal::Lost { task }) } else { Ok(Answer::Unsocketed) };
        };
        let asker = watch::Sender::new(Arc::new(self.asker(scope, sockets.own_way.as_ref())));
        let end = CancellationToken::new();
        let Sockets { udp, tcp, own_way } = sockets;
        let answering = self
            .resolver
            .serve(udp, tcp, asker.subscribe(), self.zone.subscribe(), end.clone())
            .map_err(|source| Refusal::Serve { task, source })?;
        tasks.insert(task, Serving { netns, asker, own_way, answering, end });
        Ok(Answer::Done)
    }

    /// Returns once all that there was of it is closed.
    pub(super) async fn stop(&self, task: TaskId) {
        let serving = self.tasks.lock().await.remove(&task);
        if let Some(serving) = serving {
            serving.release().await;
        }
    }

    fn asker(&self, scope: Scope, own_way: Option<&NetNs>) -> Asker {
        let own: Vec<SocketAddr> = scope.servers.iter().map(|ip: &IpAddr| SocketAddr::new(*ip, DNS_PORT)).collect();
        let servers = match own_way {
            Some(netns) if !own.is_empty() => {
                Servers { addresses: watch::Sender::new(own).subscribe(), way: Arc::new(TaskWay(netns.clone())) }
            }
            Some(_) | None => Servers { addresses: self.servers.subscribe(), way: Arc::new(OwnWay) },
        };
        Asker { scope, servers }
    }
}

impl Serving {
    fn suits(&self, netns: (u64, u64), scope: &Scope) -> bool {
        self.netns == netns && !self.answering.is_finished() && (scope.servers.is_empty() || self.own_way.is_some())
    }

    async fn release(self) {
        self.end.cancel();
        if let Err(error) = self.answering.await {
            tracing::error!(%error, "the resolver of a container broke");
        }
    }
}

impl Sockets {
    fn of(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (udp, tcp) = (fds.next()?, fds.next()?);
        Some(Self { udp: udp.into(), tcp: tcp.into(), own_way: fds.next().map(NetNs::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::os::fd::AsRawFd;

    const SCOPE: Scope = Scope { task: Some(TaskId(1)), networks: Vec::new(), servers: Vec::new() };

    fn sockets() -> Vec<OwnedFd> {
        loop {
            let udp = StdUdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = StdTcpListener::bind(udp.local_addr().unwrap()) {
                return vec![udp.into(), tcp.into()];
            }
        }
    }

    fn is_open(fd: i32) -> bool {
        std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|to| to.to_string_lossy().starts_with("socket"))
    }

    #[tokio::test]
    async fn a_task_that_ends_leaves_no_descriptor() {
        let served = Served::default();
        served.tell(&fixture::assignment(1, &[1]));
        assert_eq!(served.serve(TaskId(1), SCOPE, (0, 1), vec![], false).await, Answer::Unsocketed);
        let fds = sockets();
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        assert_eq!(served.serve(TaskId(1), SCOPE, (0, 1), fds, false).await, Answer::Done);
        assert!(raw.iter().all(|fd| is_open(*fd)));
        // Said again, and with another scope, it changes nothing.
        let other = Scope { networks: vec![fixture::NETWORK], ..SCOPE };
        assert_eq!(served.serve(TaskId(1), other, (0, 1), vec![], false).await, Answer::Done);
        served.stop(TaskId(1)).await;
        assert!(!raw.iter().any(|fd| is_open(*fd)) && served.tasks().await.is_empty());
    }

    #[tokio::test]
    async fn a_container_that_has_another_namespace_now_is_served_there() {
        let served = Served::default();
        served.tell(&fixture::assignment(1, &[1]));
        assert_eq!(served.serve(TaskId(1), SCOPE, (0, 1), sockets(), false).await, Answer::Done);
        assert_eq!(served.serve(TaskId(1), SCOPE, (0, 2), vec![], false).await, Answer::Unsocketed);
        assert_eq!(served.serve(TaskId(1), SCOPE, (0, 2), sockets(), false).await, Answer::Done);
        // Servers of its own are asked from its namespace, which must come along.
        let own = Scope { servers: vec![[192, 0, 2, 53].into()], ..SCOPE };
        assert_eq!(served.serve(TaskId(1), own, (0, 2), vec![], false).await, Answer::Unsocketed);
    }

    #[tokio::test]
    async fn descriptors_that_did_not_arrive_are_a_reason() {
        let served = Served::default();
        served.tell(&fixture::assignment(1, &[1]));
        let Answer::Failed(why) = served.serve(TaskId(1), SCOPE, (0, 1), vec![], true).await else { panic!() };
        assert!(why.contains("too many open files"), "{why}");
    }

    #[tokio::test]
    async fn a_process_that_was_told_nothing_serves_nobody() {
        let Answer::Failed(why) = Served::default().serve(TaskId(1), SCOPE, (0, 1), sockets(), false).await else {
            panic!()
        };
        assert!(why.contains("has not been told"), "{why}");
    }
}
