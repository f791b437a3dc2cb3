use super::*;
use shoal_common::{
    LogIndex, Mtu, TaskId, Timestamp,
    network::{Driver, NetworkSpec},
    node::{NodeDescription, Role},
    service::{
        ContainerSpec, EndpointMode, NetworkAttachment, Placement, Resources, RestartPolicy, ServiceSpec, UpdatePolicy,
    },
    task::TaskState,
};
use shoal_state::{ClusterSettings, Command, Proposal, Reply, TaskChange, TaskReport};

/// node-1 (m1) is a manager, node-2 (w2) a worker; both are ready. net-3 is blue.
fn cluster() -> State {
    let mut state = State::default();
    let settings = ClusterSettings {
        id: "c1".into(),
        ca_certificate_pem: String::new(),
        ca_key_pem: String::new(),
        worker_join_secret: String::new(),
        manager_join_secret: String::new(),
        address_pools: vec!["10.0.0.0/22".parse().unwrap()],
        subnet_prefix_len: 24,
        ula_prefix: "fd5a:1:2::/48".parse().unwrap(),
        data_path_port: 4789,
    };
    apply(&mut state, Command::InitCluster { cluster: Box::new(settings), node: description("m1") });
    let worker = Command::RegisterNode {
        role: Role::Worker,
        description: description("w2"),
        public_key_sha256: "key of w2".into(),
    };
    apply(&mut state, worker);
    let nodes = vec![(NodeId(1), Liveness::Ready), (NodeId(2), Liveness::Ready)];
    apply(&mut state, Command::SetLiveness { nodes });
    let blue = NetworkSpec {
        name: "blue".parse().unwrap(),
        driver: Driver::Overlay,
        subnets: vec![],
        ipv6: false,
        internal: false,
        attachable: false,
        allow_overlap: false,
        mtu: None,
        labels: BTreeMap::new(),
    };
    apply(&mut state, Command::CreateNetwork { spec: blue });
    state
}

const BLUE: NetworkId = NetworkId(3);

fn apply(state: &mut State, command: Command) -> Reply {
    let index = LogIndex(state.applied.0 + 1);
    state.apply(index, &Proposal { at: Timestamp(index.0 * 1000), request: None, command }).unwrap()
}

fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        control_addr: "192.168.7.1:2377".parse().unwrap(),
        vtep: "192.168.7.1".parse().unwrap(),
        underlay_mtu: Mtu::ETHERNET,
        underlay: vec![],
        capacity: Default::default(),
        os: "linux".into(),
        arch: "x86_64".into(),
        version: "0.1.0".into(),
        level: Default::default(),
        addresses: vec![],
        default_bridge: None,
    }
}

fn spec(mode: Mode) -> ServiceSpec {
    ServiceSpec {
        name: "web".parse().unwrap(),
        labels: BTreeMap::new(),
        mode,
        endpoint_mode: EndpointMode::Vip,
        networks: vec![NetworkAttachment { network: BLUE, aliases: vec![] }],
        container: ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() },
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: Placement::default(),
        update: UpdatePolicy::default(),
        publish: vec![],
    }
}

fn create(state: &mut State, spec: ServiceSpec) -> shoal_common::ServiceId {
    match apply(state, Command::CreateService { spec: Box::new(spec) }) {
        Reply::Service(id, _) => id,
        other => panic!("{other:?}"),
    }
}

fn start(state: &mut State, service: shoal_common::ServiceId, slot: Slot, node: u64) -> TaskId {
    let create = TaskChange::Create {
        service,
        spec_version: state.services[&service].spec_version,
        slot,
        node: Some(NodeId(node)),
        why_pending: String::new(),
    };
    apply(state, Command::Orchestrate { changes: vec![create] });
    let task = state.tasks_of_service(service).last().unwrap().id;
    report(state, node, task, TaskState::Running);
    task
}

fn report(state: &mut State, node: u64, task: TaskId, new: TaskState) {
    let report = TaskReport { node: NodeId(node), task, state: new, message: String::new(), exit_code: None };
    assert_eq!(apply(state, Command::ReportStatus { reports: vec![report] }), Reply::Made(1));
}

#[test]
fn a_node_is_shown_with_its_part_in_raft_and_the_tasks_that_have_not_ended() {
    let mut state = cluster();
    let web = create(&mut state, spec(Mode::Replicated { replicas: 2 }));
    start(&mut state, web, Slot::Replica(1), 2);
    let ended = start(&mut state, web, Slot::Replica(2), 2);
    report(&mut state, 2, ended, TaskState::Failed);
    let leadership = |leader: Option<u64>, voters: &[u64], learners: &[u64]| Leadership {
        leader: leader.map(NodeId),
        voters: voters.iter().copied().map(NodeId).collect(),
        learners: learners.iter().copied().map(NodeId).collect(),
        ..Leadership::default()
    };
    for (leadership, m1, w2) in [
        (leadership(Some(1), &[1, 2], &[]), "leader", "voter"),
        (leadership(Some(1), &[1], &[2]), "leader", "learner"),
        (leadership(Some(1), &[1], &[]), "leader", ""),
        (leadership(None, &[1], &[]), "voter", ""),
    ] {
        let shown = |id| node(&state, &state.nodes[&NodeId(id)], &leadership, None, NodeId(1));
        assert_eq!((shown(1).raft.as_str(), shown(2).raft.as_str()), (m1, w2));
        assert_eq!((shown(1).is_self, shown(2).is_self), (true, false));
        assert_eq!((shown(1).tasks, shown(2).tasks), (0, 1));
        assert_eq!(shown(2).liveness(), pb::Liveness::Ready);
    }
}

#[test]
fn a_network_names_everyone_who_holds_an_address_of_it() {
    let mut state = cluster();
    let web = create(&mut state, spec(Mode::Replicated { replicas: 2 }));
    let gone = start(&mut state, web, Slot::Replica(1), 2);
    let kept = start(&mut state, web, Slot::Replica(2), 1);
    report(&mut state, 2, gone, TaskState::Failed);

    let all = users(&state, &BTreeSet::from([BLUE]));
    let shown = network(&state, &state.networks[&BLUE], all[&BLUE].clone());
    let users: Vec<_> = shown.users.iter().map(|u| (u.name.as_str(), u.kind.as_str(), u.node.as_str())).collect();
    assert_eq!(users, [("web", "vip", ""), ("web.2", "task", "m1")]);
    assert_eq!((shown.users[0].id, shown.users[1].id), (web.0, kept.0));
    let vip = state.services[&web].vips[&BLUE].v4.unwrap().to_string();
    assert_eq!((shown.users[0].v4.as_str(), shown.users[0].v6.as_str()), (vip.as_str(), ""));
    assert_ne!(shown.users[1].mac, "");
    let subnet = &shown.subnets[0];
    assert_eq!((subnet.subnet.as_str(), subnet.gateway.as_str()), ("10.0.0.0/24", "10.0.0.1"));
    assert_eq!((subnet.addresses.as_str(), subnet.used), ("253", 2));
    assert!(super::users(&state, &BTreeSet::new()).is_empty());
}

#[test]
fn a_service_counts_what_runs_and_what_should() {
    let mut state = cluster();
    let web = create(&mut state, spec(Mode::Replicated { replicas: 3 }));
    start(&mut state, web, Slot::Replica(1), 2);
    let replaced = start(&mut state, web, Slot::Replica(2), 1);
    let shutdown = TaskChange::Shutdown { task: replaced, why: "replaced".into() };
    apply(&mut state, Command::Orchestrate { changes: vec![shutdown] });
    let shown = service(&state, &state.services[&web]);
    assert_eq!((shown.running, shown.wanted), (1, 3), "a task that is told to end does not count, though it runs");
    assert_eq!((shown.vips.len(), shown.vips[0].network_name.as_str()), (1, "blue"));
    assert_eq!(shown.version, state.services[&web].version.0);
}

#[test]
fn a_global_service_should_have_a_task_wherever_the_scheduler_will_put_one() {
    let set = |node, availability| Command::UpdateNode {
        node: NodeId(node),
        availability: Some(availability),
        role: None,
        labels_add: BTreeMap::from([("zone".to_owned(), format!("z{node}"))]),
        labels_remove: vec![],
    };
    let down = Command::SetLiveness { nodes: vec![(NodeId(2), Liveness::Down)] };
    let cases: &[(&[&str], Vec<Command>, u32)] = &[
        (&[], vec![], 2),
        (&[], vec![down], 1),
        (&[], vec![set(1, Availability::Drain)], 1),
        (&[], vec![set(1, Availability::Pause), set(2, Availability::Drain)], 0),
        (&["node.role==worker"], vec![], 1),
        (&["node.role!=worker"], vec![], 1),
        (&["node.hostname==w2"], vec![], 1),
        (&["node.id==node-1"], vec![], 1),
        (&["node.labels.zone==z2"], vec![set(2, Availability::Active)], 1),
        (&["node.labels.zone!=z2"], vec![set(2, Availability::Active)], 1),
        (&["node.platform.arch==amd64"], vec![], 2),
        (&["node.platform.os==plan9"], vec![], 0),
        (&["node.role==worker", "node.hostname==m1"], vec![], 0),
    ];
    for (constraints, commands, expected) in cases {
        let mut state = cluster();
        for command in commands {
            apply(&mut state, command.clone());
        }
        let placement =
            Placement { constraints: constraints.iter().map(|c| c.parse().unwrap()).collect(), ..Placement::default() };
        let web = create(&mut state, ServiceSpec { placement, ..spec(Mode::Global) });
        assert_eq!(wanted(&state, &state.services[&web]), *expected, "{constraints:?} {commands:?}");
        // The witness: what the orchestrator makes of the same state.
        for command in shoal_control::decide(&state, Timestamp(1_000_000)).commands {
            apply(&mut state, command);
        }
        let made = state.tasks_of_service(web).filter(|t| t.is_live()).count();
        assert_eq!(count(made), *expected, "{constraints:?} {commands:?}");
    }
}

#[test]
fn a_global_service_keeps_its_task_on_a_node_that_is_paused() {
    let mut state = cluster();
    let web = create(&mut state, spec(Mode::Global));
    start(&mut state, web, Slot::Node(NodeId(2)), 2);
    let pause = |availability| Command::UpdateNode {
        node: NodeId(2),
        availability: Some(availability),
        role: None,
        labels_add: BTreeMap::new(),
        labels_remove: vec![],
    };
    apply(&mut state, pause(Availability::Pause));
    assert_eq!(wanted(&state, &state.services[&web]), 2);
    apply(&mut state, pause(Availability::Drain));
    assert_eq!(wanted(&state, &state.services[&web]), 1);
}

#[test]
fn a_slots_wanted_task_stands_above_its_history_and_the_history_is_newest_first() {
    let mut state = cluster();
    let web = create(&mut state, spec(Mode::Replicated { replicas: 2 }));
    let mut history = Vec::new();
    for _ in 0..2 {
        let task = start(&mut state, web, Slot::Replica(1), 2);
        report(&mut state, 2, task, TaskState::Failed);
        let shutdown = TaskChange::Shutdown { task, why: "it failed".into() };
        apply(&mut state, Command::Orchestrate { changes: vec![shutdown] });
        history.push(task.0);
    }
    let second = start(&mut state, web, Slot::Replica(2), 1);
    let first = start(&mut state, web, Slot::Replica(1), 2);
    let shown = tasks(&state, state.tasks_of_service(web));
    let ids: Vec<u64> = shown.iter().map(|t| t.id).collect();
    assert_eq!(ids, [first.0, history[1], history[0], second.0]);
    assert_eq!((shown[0].name.as_str(), shown[0].node_name.as_str(), shown[0].node), ("web.1", "w2", 2));
    assert_eq!((shown[0].endpoints.len(), shown[1].endpoints.len()), (1, 0));

    apply(&mut state, Command::RemoveNode { node: NodeId(2), force: true });
    let shown = tasks(&state, state.tasks_of_service(web));
    assert_eq!(shown[0].node_name, "node-2", "a node that left has no host name any more");
}
