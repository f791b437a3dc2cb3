//! One manager in a temporary directory, and hosts that have logs to show.

use futures::{StreamExt, stream, stream::BoxStream};
use ipnet::IpNet;
use shoal_common::{
    Mtu, NodeId, ServiceId, TaskId,
    node::{Availability, Liveness, NodeDescription, Role},
    task::{Slot, TaskState},
};
use shoal_proto::pb::{self, control_server::Control as _, node_logs_server};
use shoal_rt::{Credentials, Identity, Incoming, clock};
use shoal_state::{Command, Proposal, Reply, TaskChange, TaskReport};
use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

use crate::{
    Manager,
    api::Control,
    bootstrap::{self, Founding},
    ca::{self, Ca},
};

/// What each task wrote.
pub(super) type Written = BTreeMap<u64, Vec<pb::TaskLogsReply>>;

pub(super) struct Stage {
    pub(super) control: Control,
    pub(super) manager: Manager,
    /// Where node-1 is reached.
    pub(super) addr: SocketAddr,
    listener: std::sync::Mutex<Option<TcpListener>>,
    shutdown: CancellationToken,
    _stops: DropGuard,
    _seated: watch::Sender<Option<Manager>>,
    _dir: tempfile::TempDir,
}

impl Stage {
    pub(super) async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let founding = Founding {
            incarnation: bootstrap::new_incarnation(),
            description: description("m1", addr),
            address_pools: vec!["10.0.0.0/16".parse().unwrap()],
            subnet_prefix_len: 24,
            data_path_port: 4789,
            availability: Availability::Active,
        };
        let manager = bootstrap::found(dir.path(), founding).await.unwrap().manager;
        let (seated, seat) = crate::seat();
        seated.send_replace(Some(manager.clone()));
        let shutdown = CancellationToken::new();
        let stage = Stage {
            control: Control { seat },
            manager,
            addr,
            listener: std::sync::Mutex::new(Some(listener)),
            _stops: shutdown.clone().drop_guard(),
            shutdown,
            _seated: seated,
            _dir: dir,
        };
        stage.ready(NodeId(1)).await;
        stage
    }

    async fn ready(&self, node: NodeId) {
        self.propose(Command::SetLiveness { nodes: vec![(node, Liveness::Ready)] }).await;
    }

    pub(super) async fn propose(&self, command: Command) -> Reply {
        let proposal = Proposal { at: clock::now(), request: None, command };
        self.manager.consensus.propose(proposal).await.unwrap().1.unwrap()
    }

    pub(super) async fn network(&self, name: &str, request_id: &str) -> Result<u64, Status> {
        let spec = pb::NetworkSpec { name: name.into(), driver: "overlay".into(), ..Default::default() };
        let request = pb::CreateNetworkRequest { spec: Some(spec), request_id: request_id.into() };
        self.control.create_network(Request::new(request)).await.map(|r| r.into_inner().id)
    }

    /// A service on blue.
    pub(super) async fn create(&self, name: &str, request_id: &str) -> Result<pb::CreateServiceReply, Status> {
        let request = pb::CreateServiceRequest { spec: Some(spec(name)), request_id: request_id.into() };
        self.control.create_service(Request::new(request)).await.map(Response::into_inner)
    }

    pub(super) async fn worker(&self, name: &str, addr: SocketAddr) -> NodeId {
        let command = Command::RegisterNode {
            role: Role::Worker,
            description: description(name, addr),
            public_key_sha256: format!("{:032x}", rand::random::<u128>()),
        };
        match self.propose(command).await {
            Reply::Node(id) => {
                self.ready(id).await;
                id
            }
            other => panic!("{other:?}"),
        }
    }

    /// A worker that shows logs.
    pub(super) async fn worker_with_logs(&self, name: &str, written: Written) -> NodeId {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = self.worker(name, listener.local_addr().unwrap()).await;
        let state = self.manager.consensus.read().await.unwrap();
        let ca = Ca::from_settings(&state.cluster.as_ref().unwrap().settings).unwrap();
        let (key, request) = ca::signing_request().unwrap();
        let certificate = ca.sign(&request, node, Role::Worker, clock::now()).unwrap();
        let identity = Identity::new(key, certificate, ca.certificate_der().to_vec()).unwrap();
        self.show(listener, Credentials::new(identity), written);
        node
    }

    /// node-1 shows logs too.
    pub(super) fn show_own(&self, written: Written) {
        let listener = self.listener.lock().unwrap().take().unwrap();
        self.show(listener, self.manager.credentials.clone(), written);
    }

    fn show(&self, listener: TcpListener, credentials: Credentials, written: Written) {
        let incoming = Incoming::new(listener, credentials, self.shutdown.clone());
        let server = tonic::transport::Server::builder()
            .add_service(node_logs_server::NodeLogsServer::new(Shown(written)))
            .serve_with_incoming_shutdown(incoming, self.shutdown.clone().cancelled_owned());
        tokio::spawn(server);
    }

    pub(super) async fn start(&self, service: u64, slot: u32, node: NodeId) -> TaskId {
        self.start_all(service, slot..=slot, node).await[0]
    }

    /// One task in each of these slots, running.
    pub(super) async fn start_all(&self, service: u64, slots: RangeInclusive<u32>, node: NodeId) -> Vec<TaskId> {
        let service = ServiceId(service);
        let before = self.manager.consensus.read().await.unwrap();
        let create = |slot| TaskChange::Create {
            service,
            spec_version: before.services[&service].spec_version,
            slot: Slot::Replica(slot),
            node: Some(node),
            why_pending: String::new(),
        };
        let changes: Vec<TaskChange> = slots.map(create).collect();
        let made = Reply::Made(changes.len());
        assert_eq!(self.propose(Command::Orchestrate { changes }).await, made);
        let state = self.manager.consensus.read().await.unwrap();
        let new = |task: &TaskId| !before.tasks.contains_key(task);
        let tasks: Vec<TaskId> = state.tasks_of_service(service).map(|t| t.id).filter(new).collect();
        let running = |task: &TaskId| report(node, *task, TaskState::Running);
        let reports = tasks.iter().map(running).collect();
        assert_eq!(self.propose(Command::ReportStatus { reports }).await, made);
        tasks
    }

    pub(super) async fn report(&self, node: NodeId, task: TaskId, new: TaskState) {
        let reports = vec![report(node, task, new)];
        assert_eq!(self.propose(Command::ReportStatus { reports }).await, Reply::Made(1));
    }
}

fn report(node: NodeId, task: TaskId, state: TaskState) -> TaskReport {
    TaskReport { node, task, state, message: String::new(), exit_code: None }
}

pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, says: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{:?} says nothing of {says:?}", status.message());
}

pub(super) fn spec(name: &str) -> pb::ServiceSpec {
    pb::ServiceSpec {
        name: name.into(),
        mode: Some(pb::service_spec::Mode::Replicas(500)),
        networks: vec![pb::NetworkAttachment { network: "blue".into(), aliases: vec![] }],
        container: Some(pb::ContainerSpec { image: "busybox".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn description(hostname: &str, addr: SocketAddr) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        control_addr: addr,
        vtep: addr.ip(),
        underlay_mtu: Mtu::ETHERNET,
        underlay: Vec::<IpNet>::new(),
        capacity: Default::default(),
        os: "linux".into(),
        arch: "x86_64".into(),
        version: "0.1.0".into(),
        level: Default::default(),
        addresses: vec![],
        default_bridge: None,
    }
}

/// A line that is none: the stream fails there.
pub(super) const BREAKS: &[u8] = b"(breaks here)";

/// A host's containers. One that is followed writes nothing new, and does not end.
struct Shown(Written);

#[tonic::async_trait]
impl node_logs_server::NodeLogs for Shown {
    type TaskLogsStream = BoxStream<'static, Result<pb::TaskLogsReply, Status>>;

    async fn task_logs(&self, r: Request<pb::TaskLogsRequest>) -> Result<Response<Self::TaskLogsStream>, Status> {
        let asked = r.into_inner();
        let lines = self.0.get(&asked.task).ok_or_else(|| Status::not_found("no container"))?;
        let since = lines.iter().filter(|l| l.time_ms >= asked.since_ms);
        let tail = asked.tail.map_or(lines.len(), |n| lines.len().min(n as usize));
        let lines: Vec<_> = since.skip(lines.len() - tail).cloned().collect();
        let lines = stream::iter(lines).map(|line| match line.line == BREAKS {
            true => Err(Status::unavailable("the daemon ends")),
            false => Ok(line),
        });
        Ok(Response::new(if asked.follow { lines.chain(stream::pending()).boxed() } else { lines.boxed() }))
    }
}
