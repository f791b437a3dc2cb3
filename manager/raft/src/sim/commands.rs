//! Changes as users and the leader's loops make them, few names and small networks, so that they meet.

use shoal_common::{
    Level, LogIndex, Mtu, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    network::{Driver, NetworkSpec},
    node::{Liveness, NodeDescription, Role},
    service::{
        ContainerSpec, EndpointMode, Mode, NetworkAttachment, Placement, Resources, RestartPolicy, ServiceSpec,
        UpdatePolicy,
    },
    task::{Slot, TaskState},
};
use shoal_state::{Checkpoint, ClusterSettings, Command, Proposal, RequestId, State, TaskChange, TaskReport};
use std::collections::BTreeMap;

use super::dice::Dice;

pub(super) fn proposal(request: u128, command: Command) -> Proposal {
    Proposal { at: Timestamp(1_000), request: Some(RequestId(request)), command }
}

pub(super) fn init(level: Level) -> Command {
    let cluster = ClusterSettings {
        id: "simulated".to_owned(),
        ca_certificate_pem: String::new(),
        ca_key_pem: String::new(),
        worker_join_secret: "w".to_owned(),
        manager_join_secret: "m".to_owned(),
        address_pools: vec!["10.0.0.0/24".parse().expect("this is a prefix")],
        subnet_prefix_len: 28,
        ula_prefix: "fd00:1:2::/48".parse().expect("this is a prefix"),
        data_path_port: 4789,
    };
    Command::InitCluster { cluster: Box::new(cluster), node: description(1, level) }
}

pub(super) fn register(nth: u64, level: Level) -> Command {
    Command::RegisterNode {
        role: Role::Manager,
        description: description(nth, level),
        public_key_sha256: format!("key of host {nth}"),
    }
}

pub(super) fn role(node: NodeId, role: Role) -> Command {
    Command::UpdateNode {
        node,
        availability: None,
        role: Some(role),
        labels_add: BTreeMap::new(),
        labels_remove: Vec::new(),
    }
}

pub(super) fn address(nth: u64) -> std::net::SocketAddr {
    ([192, 0, 2, u8::try_from(nth % 250).unwrap_or(0)], 2377).into()
}

fn description(nth: u64, level: Level) -> NodeDescription {
    NodeDescription {
        hostname: format!("host-{nth}"),
        control_addr: address(nth),
        vtep: address(nth).ip(),
        underlay_mtu: Mtu::ETHERNET,
        underlay: Vec::new(),
        capacity: Default::default(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        level,
        addresses: Vec::new(),
        default_bridge: None,
    }
}

/// The next change of somebody who knows this state.
pub(super) fn any(dice: &mut Dice, state: &State) -> Command {
    let node = pick(dice, state.nodes.keys().map(|id| id.0)).map_or(NodeId(1), NodeId);
    let network = pick(dice, state.networks.keys().map(|id| id.0)).map(NetworkId);
    let service = pick(dice, state.services.keys().map(|id| id.0)).map(ServiceId);
    let task = pick(dice, state.tasks.keys().map(|id| id.0)).map(TaskId);
    match (dice.below(20), network, service, task) {
        (0, _, _, _) => checkpoint(dice, node),
        (1..=2, _, _, _) => label(dice, node),
        (3..=4, _, _, _) => create_network(dice),
        (5, Some(network), _, _) => Command::RemoveNetwork { network },
        (6..=7, Some(network), _, _) => create_service(dice, network),
        (8, _, Some(service), _) => Command::RemoveService { service },
        (9..=13, _, Some(service), _) => {
            let spec_version = state.services.get(&service).map_or(LogIndex(0), |s| s.spec_version);
            let slot = Slot::Replica(u32::try_from(dice.between(1, 4)).unwrap_or(1));
            let why_pending = "no node".to_owned();
            let create = TaskChange::Create { service, spec_version, slot, node: Some(node), why_pending };
            Command::Orchestrate { changes: vec![create] }
        }
        (14..=15, _, _, Some(task)) => {
            Command::Orchestrate { changes: vec![TaskChange::Shutdown { task, why: "scaled down".to_owned() }] }
        }
        (16..=18, _, _, Some(task)) => {
            let node = state.tasks.get(&task).and_then(|t| t.node).unwrap_or(node);
            let state =
                *dice.pick(&[TaskState::Running, TaskState::Failed, TaskState::Shutdown]).unwrap_or(&TaskState::Failed);
            let report = TaskReport { node, task, state, message: String::new(), exit_code: None };
            Command::ReportStatus { reports: vec![report] }
        }
        (19, _, _, Some(task)) => Command::Orchestrate { changes: vec![TaskChange::Forget { task }] },
        _ => Command::SetLiveness { nodes: vec![(node, Liveness::Ready)] },
    }
}

fn pick(dice: &mut Dice, ids: impl Iterator<Item = u64>) -> Option<u64> {
    let ids: Vec<u64> = ids.collect();
    dice.pick(&ids).copied()
}

/// What only managers of a newer level know. Nobody compares it here.
fn checkpoint(dice: &mut Dice, node: NodeId) -> Command {
    Command::Checkpoint { node, checkpoint: Checkpoint { index: LogIndex(dice.below(1000)), digest: String::new() } }
}

/// A register: the last value written is what is read.
fn label(dice: &mut Dice, node: NodeId) -> Command {
    let (key, value) = (format!("key-{}", dice.below(3)), dice.next().to_string());
    Command::UpdateNode {
        node,
        availability: None,
        role: None,
        labels_add: BTreeMap::from([(key, value)]),
        labels_remove: Vec::new(),
    }
}

fn create_network(dice: &mut Dice) -> Command {
    let name = format!("net-{}", dice.below(4));
    let spec = NetworkSpec {
        name: name.parse().expect("this is a name"),
        driver: Driver::Overlay,
        subnets: Vec::new(),
        ipv6: false,
        internal: false,
        attachable: false,
        allow_overlap: false,
        mtu: None,
        labels: BTreeMap::new(),
    };
    Command::CreateNetwork { spec }
}

fn create_service(dice: &mut Dice, network: NetworkId) -> Command {
    let name = format!("service-{}", dice.below(5));
    let spec = ServiceSpec {
        name: name.parse().expect("this is a name"),
        labels: BTreeMap::new(),
        mode: Mode::Replicated { replicas: 4 },
        endpoint_mode: EndpointMode::Vip,
        networks: vec![NetworkAttachment { network, aliases: Vec::new() }],
        container: ContainerSpec { image: "busybox".to_owned(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        update: UpdatePolicy::default(),
        publish: Vec::new(),
    };
    Command::CreateService { spec: Box::new(spec) }
}
