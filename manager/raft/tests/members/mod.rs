//! A group of members, each with a directory and a listener of its own.

use shoal_common::{
    LogIndex, Mtu, NodeId, Timestamp,
    network::{Driver, NetworkSpec},
    node::{NodeDescription, Role},
    service::Amount,
};
use shoal_proto::pb::{self, raft_client::RaftClient};
use shoal_raft::{Connector, Consensus, Owner, Settings};
use shoal_rt::{Peer, PeerIdentity};
use shoal_state::{ClusterSettings, Command, Proposal, Reply, RequestId};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

pub(crate) const DEADLINE: Duration = Duration::from_secs(3);
/// The header that names who sends a request: the first word is the number of a member.
const SPEAKER: &str = "user-agent";
pub(crate) const SNAPSHOT_EVERY: u64 = 50;
/// Nodes of the group's state. As many may be members.
const MEMBERS: u64 = 7;

/// Speaks as this member.
struct Plain(u64);

#[async_trait::async_trait]
impl Connector for Plain {
    async fn connect(&self, _: NodeId, addr: SocketAddr) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Endpoint::from_shared(format!("http://{addr}"))?.user_agent(self.0.to_string())?.connect().await?)
    }
}

struct Host {
    dir: TempDir,
    addr: SocketAddr,
    member: Arc<Mutex<Option<Consensus>>>,
    serving: CancellationToken,
    stands_from: LogIndex,
}

#[derive(Default)]
pub(crate) struct Group(BTreeMap<u64, Host>);

impl Group {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) async fn open(&mut self, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let host = Host {
            dir: tempfile::tempdir().unwrap(),
            addr,
            member: Arc::default(),
            serving: CancellationToken::new(),
            stands_from: LogIndex(0),
        };
        self.0.insert(id, host);
        self.start(id, listener).await;
    }

    async fn start(&mut self, id: u64, listener: TcpListener) {
        let host = self.0.get_mut(&id).unwrap();
        let dir = host.dir.path().join("raft");
        let owner = Owner { cluster: "c0ffee".to_owned(), node: id, incarnation: "1".to_owned() };
        if !dir.exists() {
            shoal_raft::create(&dir, owner.clone()).await.unwrap();
        }
        let mut settings = Settings::new(owner, dir);
        settings.snapshot_every = SNAPSHOT_EVERY;
        settings.deadline = DEADLINE;
        settings.stands_from = host.stands_from;
        *host.member.lock().unwrap() = Some(Consensus::open(settings, Arc::new(Plain(id))).await.unwrap());
        host.serving = CancellationToken::new();
        let (member, serving, addr) = (Arc::clone(&host.member), host.serving.clone(), host.addr);
        let service = shoal_raft::service(Arc::new(move || {
            member.lock().unwrap().clone().ok_or_else(|| "this host is not a manager".to_owned())
        }));
        // In the daemon TLS says who speaks; here the request does.
        let authenticated =
            tonic::service::interceptor::InterceptedService::new(service, move |mut request: tonic::Request<()>| {
                let says =
                    request.metadata().get(SPEAKER).and_then(|v| v.to_str().ok()?.split(' ').next()?.parse().ok());
                let identity = says.map(|node| PeerIdentity { node: NodeId(node), role: Role::Manager });
                request.extensions_mut().insert(Peer { addr, identity });
                Ok(request)
            });
        tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_service(authenticated)
                .serve_with_incoming_shutdown(incoming, serving.cancelled_owned())
                .await
                .unwrap();
        });
    }

    pub(crate) async fn bootstrap(&mut self, id: u64) {
        self.open(id).await;
        let member = self.member(id);
        member.bootstrap(self.0[&id].addr).await.unwrap();
        member.propose(init()).await.unwrap().1.unwrap();
        // The ids of other members are those of nodes: an id that anything else has is of a node that was removed.
        for other in (1..=MEMBERS).filter(|other| *other != id) {
            let registered = member.propose(register(&format!("m{other}"), Role::Manager)).await.unwrap().1;
            assert_eq!(registered, Ok(Reply::Node(NodeId(other))));
        }
    }

    /// Opens those that are not there yet, and waits until exactly these vote.
    pub(crate) async fn grow(&mut self, ids: &[u64]) {
        for id in ids {
            if !self.0.contains_key(id) {
                self.open(*id).await;
            }
        }
        let wanted = self.addresses(ids);
        eventually("the membership is as wanted", async || {
            let leader = self.member(self.leader().await);
            let aligned = leader.align_membership(&wanted).await;
            let led = leader.leadership();
            let led = led.borrow();
            aligned == Ok(true) && led.voters == wanted.keys().copied().collect() && led.learners.is_empty()
        })
        .await;
    }

    pub(crate) fn addresses(&self, ids: &[u64]) -> BTreeMap<NodeId, SocketAddr> {
        ids.iter().map(|id| (NodeId(*id), self.0[id].addr)).collect()
    }

    pub(crate) fn member(&self, id: u64) -> Consensus {
        self.0[&id].member.lock().unwrap().clone().unwrap()
    }

    /// Asks member `id` for a read index, as `speaker` with a manager's certificate.
    pub(crate) async fn ask(&self, id: u64, speaker: u64) -> Result<(), tonic::Code> {
        let channel = Plain(speaker).connect(NodeId(id), self.0[&id].addr).await.unwrap();
        RaftClient::new(channel).read_index(pb::ReadIndexRequest {}).await.map(drop).map_err(|status| status.code())
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.0.iter().filter(|(_, h)| h.member.lock().unwrap().is_some()).map(|(id, _)| *id).collect()
    }

    /// The one that leads, as it says itself.
    pub(crate) async fn leader(&self) -> u64 {
        let mut found = 0;
        eventually("somebody leads", async || {
            let mut leaders = self.running();
            leaders.retain(|id| self.member(*id).leadership().borrow().is_self);
            found = *leaders.first().unwrap_or(&0);
            leaders.len() == 1
        })
        .await;
        found
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        let host = &self.0[&id];
        host.serving.cancel();
        let member = host.member.lock().unwrap().take();
        if let Some(member) = member {
            member.shutdown().await;
        }
    }

    pub(crate) async fn restart(&mut self, id: u64) {
        self.stop(id).await;
        self.listen_again(id).await;
    }

    /// With nothing of what it kept, on a host that has seen the log up to `seen`.
    pub(crate) async fn restart_empty(&mut self, id: u64, seen: LogIndex) {
        self.stop(id).await;
        let host = self.0.get_mut(&id).unwrap();
        (host.dir, host.stands_from) = (tempfile::tempdir().unwrap(), seen);
        self.listen_again(id).await;
    }

    async fn listen_again(&mut self, id: u64) {
        let addr = self.0[&id].addr;
        let mut listener = None;
        eventually("its port is free again", async || {
            listener = TcpListener::bind(addr).await.ok();
            listener.is_some()
        })
        .await;
        self.start(id, listener.unwrap()).await;
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With an id, as everything that is proposed once: a try whose answer is lost is repeated.
pub(crate) fn proposal(command: Command) -> Proposal {
    Proposal { at: Timestamp(1_000), request: Some(RequestId(rand::random())), command }
}

pub(crate) fn network(name: &str) -> Proposal {
    let spec = NetworkSpec {
        name: name.parse().unwrap(),
        driver: Driver::Overlay,
        subnets: Vec::new(),
        ipv6: false,
        internal: false,
        attachable: false,
        allow_overlap: false,
        mtu: None,
        labels: BTreeMap::new(),
    };
    proposal(Command::CreateNetwork { spec })
}

pub(crate) fn register(hostname: &str, role: Role) -> Proposal {
    let public_key_sha256 = hostname.to_owned();
    proposal(Command::RegisterNode { role, description: description(hostname), public_key_sha256 })
}

pub(crate) fn describe(node: u64, hostname: &str) -> Proposal {
    proposal(Command::DescribeNode { node: NodeId(node), description: description(hostname) })
}

fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.to_owned(),
        control_addr: "192.0.2.1:2377".parse().unwrap(),
        vtep: "192.0.2.1".parse().unwrap(),
        underlay_mtu: Mtu::try_from(1500).unwrap(),
        underlay: vec!["192.0.2.0/24".parse().unwrap()],
        capacity: Amount::default(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        level: Default::default(),
        addresses: vec![],
        default_bridge: None,
    }
}

fn init() -> Proposal {
    let cluster = ClusterSettings {
        id: "c0ffee".to_owned(),
        ca_certificate_pem: String::new(),
        ca_key_pem: String::new(),
        worker_join_secret: "w".to_owned(),
        manager_join_secret: "m".to_owned(),
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix_len: 24,
        ula_prefix: "fd00:1:2::/48".parse().unwrap(),
        data_path_port: 4789,
    };
    proposal(Command::InitCluster { cluster: Box::new(cluster), node: description("host") })
}
