//! A state and the next log index, with short ways to say things.

use shoal_common::{
    LogIndex, Mtu, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    container::{Attachment, Networking, RestartMode, RunSpec},
    network::{Driver, NetworkSpec},
    node::{Liveness, NodeDescription, Role},
    service::{
        ContainerSpec, EndpointMode, Mode, NetworkAttachment, Placement, Resources, RestartPolicy, ServiceSpec,
        UpdatePolicy,
    },
    subnet::SubnetSpec,
    task::{Slot, TaskState},
};
use shoal_state::{
    ClusterSettings, Command, Outcome, Proposal, Reply, RequestId, State, TaskChange, TaskReport, violations,
};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) state: State,
}

impl World {
    /// node-1 is a manager; node-2 and node-3 are workers; all are ready.
    pub(crate) fn three_nodes() -> World {
        let mut w = World::default();
        w.apply(init()).unwrap();
        for n in 2..=3 {
            w.apply(register(&format!("w{n}"), Role::Worker)).unwrap();
        }
        let nodes = (1..=3).map(|n| (NodeId(n), Liveness::Ready)).collect();
        w.apply(Command::SetLiveness { nodes }).unwrap();
        w
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.request(None, command)
    }

    pub(crate) fn request(&mut self, request: Option<u128>, command: Command) -> Outcome {
        let index = LogIndex(self.state.applied.0 + 1);
        let proposal = Proposal { at: Timestamp(index.0 * 1000), request: request.map(RequestId), command };
        let outcome = self.state.apply(index, &proposal);
        assert_eq!(violations(&self.state), Vec::<String>::new(), "after {proposal:?}");
        outcome
    }

    pub(crate) fn network(&mut self, spec: NetworkSpec) -> NetworkId {
        match self.apply(Command::CreateNetwork { spec }).unwrap() {
            Reply::Network(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn service(&mut self, spec: ServiceSpec) -> ServiceId {
        match self.apply(Command::CreateService { spec: Box::new(spec) }).unwrap() {
            Reply::Service(id, _) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn create(&self, service: ServiceId, slot: u32, node: Option<u64>) -> TaskChange {
        TaskChange::Create {
            service,
            spec_version: self.state.services.get(&service).map_or(LogIndex(0), |s| s.spec_version),
            slot: Slot::Replica(slot),
            node: node.map(NodeId),
            why_pending: "no node fits".into(),
        }
    }

    /// How many of the changes were made.
    pub(crate) fn orchestrate(&mut self, changes: Vec<TaskChange>) -> usize {
        made(self.apply(Command::Orchestrate { changes }))
    }

    pub(crate) fn report(&mut self, node: u64, task: TaskId, state: TaskState) -> usize {
        let report = TaskReport { node: NodeId(node), task, state, message: String::new(), exit_code: None };
        made(self.apply(Command::ReportStatus { reports: vec![report] }))
    }

    /// The newest task in the slot.
    pub(crate) fn task(&self, service: ServiceId, slot: u32) -> TaskId {
        self.state.tasks_of_service(service).filter(|t| t.slot == Slot::Replica(slot)).last().unwrap().id
    }

    pub(crate) fn address(&self, task: TaskId) -> String {
        let task = &self.state.tasks[&task];
        task.endpoints.iter().flat_map(|e| e.addresses()).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn made(outcome: Outcome) -> usize {
    match outcome.unwrap() {
        Reply::Made(n) => n,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn init() -> Command {
    let cluster = ClusterSettings {
        id: "c1".into(),
        ca_certificate_pem: "certificate".into(),
        ca_key_pem: "key".into(),
        worker_join_secret: "w".into(),
        manager_join_secret: "m".into(),
        address_pools: vec!["10.0.0.0/22".parse().unwrap(), "10.9.0.0/23".parse().unwrap()],
        subnet_prefix_len: 24,
        ula_prefix: "fd5a:1:2::/48".parse().unwrap(),
        data_path_port: 4789,
    };
    Command::InitCluster { cluster: Box::new(cluster), node: description("m1") }
}

pub(crate) fn register(name: &str, role: Role) -> Command {
    Command::RegisterNode { role, description: description(name), public_key_sha256: format!("key of {name}") }
}

pub(crate) fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        control_addr: "192.168.7.1:2377".parse().unwrap(),
        vtep: "192.168.7.1".parse().unwrap(),
        underlay_mtu: Mtu::ETHERNET,
        underlay: vec!["192.168.7.0/24".parse().unwrap(), "10.0.2.128/25".parse().unwrap()],
        capacity: Default::default(),
        os: "linux".into(),
        arch: "x86_64".into(),
        version: "0.1.0".into(),
        level: Default::default(),
        addresses: vec![],
        default_bridge: hostname.starts_with('h').then(Default::default),
    }
}

pub(crate) fn network(name: &str, subnets: &[&str]) -> NetworkSpec {
    let subnet = |s: &&str| SubnetSpec { net: s.parse().unwrap(), gateway: None, ip_range: None, aux: BTreeMap::new() };
    NetworkSpec {
        name: name.parse().unwrap(),
        driver: Driver::Overlay,
        subnets: subnets.iter().map(subnet).collect(),
        ipv6: false,
        internal: false,
        attachable: false,
        allow_overlap: false,
        mtu: None,
        labels: BTreeMap::new(),
    }
}

pub(crate) fn service(name: &str, replicas: u32, networks: &[NetworkId]) -> ServiceSpec {
    ServiceSpec {
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas },
        endpoint_mode: EndpointMode::Vip,
        networks: networks.iter().map(|n| NetworkAttachment { network: *n, aliases: vec![] }).collect(),
        container: ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        update: UpdatePolicy::default(),
        publish: vec![],
    }
}

pub(crate) fn run(name: &str, networks: Vec<Attachment>) -> RunSpec {
    RunSpec {
        name: name.parse().unwrap(),
        container: ContainerSpec { image: "page".into(), ..ContainerSpec::default() },
        resources: Resources::default(),
        networking: Networking::Own(networks),
        ports: vec![],
        exposed: BTreeSet::new(),
        restart: RestartMode::No,
        auto_remove: false,
        links: vec![],
    }
}
