//! A cluster in memory: the real state, changed by commands only, with agents that do as they are told.

#![allow(dead_code, unreachable_pub)] // the bench uses a part of it

use std::time::Duration;

use shoal_common::{
    LogIndex, NodeId, ServiceId, TaskId, Timestamp,
    name::Labels,
    network::{Driver, NetworkSpec},
    node::{Availability, Liveness, NodeDescription, Role},
    service::{
        Amount, ContainerSpec, EndpointMode, Mode, NetworkAttachment, Placement, Resources, RestartPolicy, ServiceSpec,
        UpdatePolicy,
    },
    subnet::SubnetSpec,
    task::{DesiredState, Slot, TaskState},
};
use shoal_control::{Decision, decide};
use shoal_state::{ClusterSettings, Command, Outcome, Proposal, Reply, Service, State, Task, TaskReport};

pub struct Lab {
    pub state: State,
    pub now: Timestamp,
}

impl Lab {
    /// `nodes` nodes, `node-1` to `node-N`, ready, each with 4 cores and 1 GiB; the first is the manager.
    pub fn new(nodes: u64) -> Self {
        let mut lab = Self { state: State::default(), now: Timestamp(1_800_000_000_000) };
        let cluster = Box::new(settings());
        lab.propose(Command::InitCluster { cluster, node: description(1) }).unwrap();
        for n in 2..=nodes {
            lab.add_node(n);
        }
        lab.ready();
        lab
    }

    pub fn add_node(&mut self, n: u64) -> NodeId {
        let command = Command::RegisterNode {
            role: Role::Worker,
            description: description(n),
            public_key_sha256: format!("{n:064x}"),
        };
        match self.propose(command) {
            Ok(Reply::Node(node)) => node,
            other => panic!("a node: {other:?}"),
        }
    }

    pub fn ready(&mut self) {
        let nodes = self.state.nodes.keys().map(|&node| (node, Liveness::Ready)).collect();
        self.propose(Command::SetLiveness { nodes }).unwrap();
    }

    pub fn propose(&mut self, command: Command) -> Outcome {
        let index = LogIndex(self.state.applied.0 + 1);
        self.state.apply(index, &Proposal { at: self.now, request: None, command })
    }

    pub fn liveness(&mut self, node: u64, liveness: Liveness) {
        self.propose(Command::SetLiveness { nodes: vec![(NodeId(node), liveness)] }).unwrap();
    }

    pub fn availability(&mut self, node: u64, availability: Availability) {
        self.update_node(node, Some(availability), Labels::new(), vec![]);
    }

    pub fn label(&mut self, node: u64, key: &str, value: &str) {
        self.update_node(node, None, Labels::from([(key.to_owned(), value.to_owned())]), vec![]);
    }

    pub fn unlabel(&mut self, node: u64, key: &str) {
        self.update_node(node, None, Labels::new(), vec![key.to_owned()]);
    }

    fn update_node(
        &mut self,
        node: u64,
        availability: Option<Availability>,
        labels_add: Labels,
        labels_remove: Vec<String>,
    ) {
        let node = NodeId(node);
        self.propose(Command::UpdateNode { node, availability, role: None, labels_add, labels_remove }).unwrap();
    }

    pub fn network(&mut self, name: &str, net: &str) -> NetworkAttachment {
        self.network_by(Driver::Overlay, name, net)
    }

    pub fn network_by(&mut self, driver: Driver, name: &str, net: &str) -> NetworkAttachment {
        let spec = NetworkSpec {
            name: name.parse().unwrap(),
            driver,
            subnets: vec![SubnetSpec {
                net: net.parse().unwrap(),
                gateway: None,
                ip_range: None,
                aux: Default::default(),
            }],
            ipv6: false,
            internal: false,
            attachable: false,
            allow_overlap: false,
            mtu: None,
            labels: Labels::new(),
        };
        match self.propose(Command::CreateNetwork { spec }) {
            Ok(Reply::Network(network)) => NetworkAttachment { network, aliases: vec![] },
            other => panic!("a network: {other:?}"),
        }
    }

    pub fn create(&mut self, name: &str, replicas: u32, change: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        let mut spec = spec(name, replicas);
        change(&mut spec);
        match self.propose(Command::CreateService { spec: Box::new(spec) }) {
            Ok(Reply::Service(service, _)) => service,
            other => panic!("a service: {other:?}"),
        }
    }

    pub fn update(&mut self, service: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let old = self.service(service).clone();
        let mut spec = Box::new(old.spec);
        change(&mut spec);
        self.propose(Command::UpdateService { service, version: old.version, spec }).unwrap();
    }

    pub fn scale(&mut self, service: ServiceId, replicas: u32) {
        self.update(service, |spec| spec.mode = Mode::Replicated { replicas });
    }

    pub fn service(&self, service: ServiceId) -> &Service {
        self.state.services.get(&service).unwrap()
    }

    pub fn decide(&self) -> Decision {
        decide(&self.state, self.now)
    }

    /// One round of the leader: whether it proposed anything.
    pub fn lead(&mut self) -> bool {
        let commands = self.decide().commands;
        let any = !commands.is_empty();
        for command in commands {
            self.propose(command).unwrap();
        }
        any
    }

    /// The leader goes on until it has nothing to propose; how many entries that took.
    pub fn lead_on(&mut self) -> usize {
        for entries in 0..200 {
            if !self.lead() {
                return entries;
            }
        }
        panic!("no fixed point: still {:?}", self.decide());
    }

    /// Agents of ready nodes start what is assigned and stop what should stop. Whether there was anything to do.
    pub fn agents(&mut self) -> bool {
        self.agents_with(|_| TaskState::Running)
    }

    pub fn agents_with(&mut self, outcome: impl Fn(&Task) -> TaskState) -> bool {
        let reports: Vec<TaskReport> = self
            .state
            .tasks
            .values()
            .filter(|task| !task.status.state.is_terminal() && task.status.state != TaskState::Pending)
            .filter_map(|task| {
                let node = task.node?;
                let up = self.state.nodes.get(&node).is_some_and(|node| node.liveness == Liveness::Ready);
                let state = match task.desired {
                    DesiredState::Shutdown => TaskState::Shutdown,
                    DesiredState::Running => outcome(task),
                };
                (up && state > task.status.state).then(|| report(task, state))
            })
            .collect();
        let any = !reports.is_empty();
        if any {
            self.propose(Command::ReportStatus { reports }).unwrap();
        }
        any
    }

    pub fn report(&mut self, task: TaskId, state: TaskState) {
        let reports = vec![report(self.state.tasks.get(&task).unwrap(), state)];
        self.propose(Command::ReportStatus { reports }).unwrap();
    }

    /// Leader and agents by turns until both are quiet; time stands still.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            let (led, acted) = (self.lead(), self.agents());
            if !led && !acted {
                return;
            }
        }
        panic!("does not settle: {:?}", self.decide());
    }

    /// The same, with time going on to each wake-up.
    pub fn settle_in_time(&mut self) {
        for _ in 0..200 {
            self.settle();
            match self.decide().wake_at {
                Some(at) => {
                    assert!(at > self.now, "a wake-up lies ahead");
                    self.now = at;
                }
                None => return,
            }
        }
        panic!("does not settle in time: {:?}", self.decide());
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub fn tasks(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks.values().map(|t| &**t).filter(|t| t.service == service).collect()
    }

    pub fn live(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks.values().map(|t| &**t).filter(|task| task.service == service && task.is_live()).collect()
    }

    pub fn running(&self, service: ServiceId) -> Vec<&Task> {
        self.state.tasks.values().map(|t| &**t).filter(|task| task.service == service && task.is_serving()).collect()
    }

    /// `[(slot, node)]` of the live tasks, by slot.
    pub fn where_live(&self, service: ServiceId) -> Vec<(String, u64)> {
        let mut live = self.live(service);
        live.sort_by_key(|task| task.slot);
        live.iter().map(|task| (task.slot.to_string(), task.node.map_or(0, |node| node.0))).collect()
    }

    pub fn in_slot(&self, service: ServiceId, slot: u32) -> &Task {
        self.live(service).into_iter().find(|task| task.slot == Slot::Replica(slot)).unwrap()
    }
}

fn report(task: &Task, state: TaskState) -> TaskReport {
    let exit_code = match state {
        TaskState::Failed => Some(1),
        TaskState::Complete => Some(0),
        TaskState::Pending
        | TaskState::Assigned
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Unhealthy
        | TaskState::Shutdown
        | TaskState::Rejected
        | TaskState::Orphaned => None,
    };
    TaskReport { node: task.node.unwrap(), task: task.id, state, message: String::new(), exit_code }
}

/// Networkless, so that only what a test is about can refuse.
pub fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: name.parse().unwrap(),
        labels: Labels::new(),
        mode: Mode::Replicated { replicas },
        endpoint_mode: EndpointMode::DnsRr,
        networks: vec![],
        container: ContainerSpec { image: "busybox".to_owned(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        update: UpdatePolicy::default(),
        publish: vec![],
    }
}

pub fn mib(n: u64) -> Amount {
    Amount { nano_cpus: 0, memory_bytes: n << 20 }
}

fn description(n: u64) -> NodeDescription {
    let [.., a, b] = n.to_be_bytes();
    NodeDescription {
        hostname: format!("host-{n}"),
        control_addr: format!("192.0.{a}.{b}:2377").parse().unwrap(),
        vtep: format!("192.0.{a}.{b}").parse().unwrap(),
        underlay_mtu: 1500.try_into().unwrap(),
        underlay: vec![],
        capacity: Amount { nano_cpus: 4_000_000_000, memory_bytes: 1 << 30 },
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        level: Default::default(),
        addresses: vec![],
        default_bridge: None,
    }
}

fn settings() -> ClusterSettings {
    ClusterSettings {
        id: "0123456789abcdef".to_owned(),
        ca_certificate_pem: String::new(),
        ca_key_pem: String::new(),
        worker_join_secret: String::new(),
        manager_join_secret: String::new(),
        address_pools: vec!["10.0.0.0/8".parse().unwrap()],
        subnet_prefix_len: 24,
        ula_prefix: "fd00:1:2::/48".parse().unwrap(),
        data_path_port: 4789,
    }
}
