//! What holds after every step of any sequence of commands.

use proptest::prelude::*;
use shoal_common::{
    LogIndex, NetworkId, NodeId, ServiceId, TaskId, Timestamp,
    assignment::AssignmentDelta,
    container::{Attachment, ContainerLink, Phase, PortSpec},
    network::{BridgeOptions, Driver, MacvlanOptions, NetworkSpec},
    node::{Availability, Liveness, Role},
    service::{EndpointMode, Mode, Publish, PublishMode},
    task::{Slot, TaskState},
};
use shoal_state::{Command, ContainerReport, Proposal, RequestId, State, TaskChange, TaskReport, digest, violations};

use crate::world::{description, init, network, register, run, service};

/// Small numbers: ids are few, so that commands meet.
type Dice = (u8, u64, u64, u32, bool);

fn ports(n: u32) -> Vec<PortSpec> {
    let port = |host_port| PortSpec {
        host_ip: None,
        host_port,
        container_port: 80,
        protocol: Default::default(),
        host_port_last: None,
    };
    match n {
        0 => vec![],
        1 => vec![port(Some(8000)), port(None)],
        2 => vec![PortSpec { host_port_last: Some(8002), ..port(Some(8000)) }],
        _ => vec![port((n < 5).then_some(8000))],
    }
}

fn publish(n: u32) -> Vec<Publish> {
    let publish = |published, mode| Publish { published, target: 80, protocol: Default::default(), mode };
    match n {
        0 => vec![publish(Some(8000), PublishMode::Ingress)],
        1 => vec![publish(None, PublishMode::Ingress), publish(None, PublishMode::Ingress)],
        2 => vec![publish(Some(8000), PublishMode::Host)],
        3 => vec![publish(Some(8001), PublishMode::Ingress), publish(None, PublishMode::Host)],
        _ => vec![],
    }
}

fn command(state: &State, (kind, a, b, n, flag): Dice) -> Command {
    let pick = |ids: Vec<u64>, n: u64| if ids.is_empty() { n } else { ids[n as usize % ids.len()] };
    let node = |n| NodeId(pick(state.nodes.keys().map(|k| k.0).collect(), n));
    let net = |n| NetworkId(pick(state.networks.keys().map(|k| k.0).collect(), n));
    let svc = |n| ServiceId(pick(state.services.keys().map(|k| k.0).collect(), n));
    let task = |n| TaskId(pick(state.tasks.keys().map(|k| k.0).collect(), n));
    let container = |n| TaskId(pick(state.containers.keys().map(|k| k.0).collect(), n));
    let shape = |name: String| {
        let mut spec = service(&name, n, &[]);
        let mut networks = vec![net(a)];
        if flag && net(b) != net(a) {
            networks.push(net(b));
        }
        spec.networks = service("x", 1, &networks).networks;
        if n == 5 {
            spec.endpoint_mode = EndpointMode::DnsRr;
        }
        if n == 6 {
            spec.mode = Mode::Global;
        }
        spec.publish = publish(n);
        spec
    };
    match kind {
        0 => Command::SetLiveness { nodes: vec![(node(a), if n < 5 { Liveness::Ready } else { Liveness::Down })] },
        1 => register(&format!("h{}", a % 6), if b == 0 { Role::Manager } else { Role::Worker }),
        2 => Command::UpdateNode {
            node: node(a),
            availability: flag.then_some(if n < 4 { Availability::Active } else { Availability::Drain }),
            role: (n == 0).then_some(if flag { Role::Worker } else { Role::Manager }),
            labels_add: Default::default(),
            labels_remove: vec![],
        },
        3 => Command::RemoveNode { node: node(a), force: flag },
        4 => {
            let subnets: &[&str] = match n {
                0 => &["10.20.0.0/29"],
                1 => &["10.20.0.0/28", "fd00:7::/125"],
                2 => &["10.0.0.0/29"],
                3 => &["fd00:8::/64"],
                4 => &["192.168.7.0/30", "fd00:9::/126"],
                _ => &[],
            };
            let mut spec = network(&format!("n{}", a % 7), subnets);
            (spec.ipv6, spec.allow_overlap) = (flag, b % 2 == 0);
            Command::CreateNetwork { spec }
        }
        5 => Command::RemoveNetwork { network: net(a) },
        6 | 7 => Command::CreateService { spec: Box::new(shape(format!("s{}", b % 5))) },
        8 => {
            let id = svc(b);
            let old = state.services.get(&id);
            let name = old.map_or("gone".to_owned(), |s| s.spec.name.to_string());
            let version = old.map_or(LogIndex(1), |s| s.version);
            Command::UpdateService { service: id, version, spec: Box::new(shape(name)) }
        }
        9 => Command::RemoveService { service: svc(b) },
        10..=14 => {
            let service = svc(b);
            let of = state.services.get(&service);
            let spec_version = of.map_or(LogIndex(1), |s| s.spec_version);
            let change = |slot| TaskChange::Create {
                service,
                spec_version,
                slot,
                node: (n < 6).then(|| node(a)),
                why_pending: "no node".into(),
            };
            let changes = match of.map(|s| s.spec.mode) {
                Some(Mode::Global) => vec![change(Slot::Node(node(a)))],
                Some(Mode::Replicated { .. }) | None => (1..=n + 1).map(|s| change(Slot::Replica(s))).collect(),
            };
            Command::Orchestrate { changes }
        }
        15 => Command::Orchestrate {
            changes: vec![
                TaskChange::Assign { task: task(a), node: node(b) },
                TaskChange::Pend { task: task(b), why: "still no node".into() },
            ],
        },
        16 => Command::Orchestrate {
            changes: vec![
                TaskChange::Shutdown { task: task(a), why: "scaled down".into() },
                TaskChange::Orphan { task: task(b) },
                TaskChange::Forget { task: task(u64::from(n)) },
            ],
        },
        17 => Command::DescribeNode { node: node(a), description: description("again") },
        24 | 25 => {
            let name = |n: u64| format!("c{}", n % 4).parse().unwrap();
            let mut networks = vec![];
            if n > 2 {
                networks.push(Attachment { v4: (n == 5).then(|| [172, 17, 0, 9].into()), ..Attachment::to(net(b)) });
            }
            let mut spec = run(&format!("c{}", a % 4), networks);
            spec.ports = ports(n);
            spec.auto_remove = flag;
            if n == 1 {
                spec.links = vec![ContainerLink { container: name(b), alias: name(b + 1) }];
            }
            Command::CreateContainer { node: node(b), spec: Box::new(spec) }
        }
        26 | 27 => Command::StartContainer { container: container(a), again: flag },
        28 => Command::StopContainer { container: container(a), grace: flag.then_some(std::time::Duration::ZERO) },
        29 => Command::RemoveContainer { container: container(a), force: flag, volumes: n == 0 },
        30 => Command::ConnectContainer {
            container: container(a),
            attachment: Attachment {
                gw_priority: n as i32,
                mac: flag.then(|| "02:00:00:00:00:01".parse().unwrap()),
                v4: (n > 5).then(|| [172, 18, 0, 9].into()),
                ..Attachment::to(net(b))
            },
        },
        31 => Command::DisconnectContainer { container: container(a), network: net(b) },
        32 => Command::RenameContainer { container: container(a), name: format!("c{}", b % 4).parse().unwrap() },
        33 => {
            let options = BridgeOptions {
                link: flag.then(|| format!("br{}", n % 2).parse().unwrap()),
                ..BridgeOptions::on(node(b))
            };
            let mut spec = network(&format!("n{}", a % 7), if n < 3 { &["172.18.0.0/24"] } else { &[] });
            (spec.driver, spec.ipv6) = (Driver::Bridge(options), flag);
            if n == 0 {
                spec.subnets[0].ip_range = Some("172.18.0.128/31".parse().unwrap());
            }
            Command::CreateNetwork { spec }
        }
        37 => {
            let parents = [(node(b), "eth0".parse().unwrap())].into();
            let parent = flag.then(|| "eth1".parse().unwrap());
            let driver = Driver::Macvlan(MacvlanOptions { parent, parents, mode: Default::default() });
            Command::CreateNetwork { spec: NetworkSpec { driver, ..network(&format!("n{}", a % 7), &[]) } }
        }
        34 | 35 => {
            let of = container(a);
            let row = state.containers.get(&of);
            let phases = [Phase::Running, Phase::Restarting, Phase::Exited, Phase::Exited, Phase::Removed];
            let report = ContainerReport {
                node: row.map_or(NodeId(b), |c| c.node),
                container: of,
                start: row.map_or(1, |c| c.start.saturating_sub(b / 10)),
                phase: phases[n as usize % phases.len()],
                message: "seen".into(),
                exit_code: Some(1),
                restarts: n,
                health: None,
                unstarted: false,
            };
            Command::ReportContainers { reports: vec![report] }
        }
        36 if flag => Command::LeaveCluster { node: node(a) },
        _ => {
            let of = task(a);
            let node = state.tasks.get(&of).and_then(|t| t.node).unwrap_or(NodeId(b));
            let to = TaskState::ALL[(n as usize + b as usize) % TaskState::ALL.len()];
            let report = TaskReport { node, task: of, state: to, message: "seen".into(), exit_code: Some(1) };
            Command::ReportStatus { reports: vec![report] }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_commands_breaks_an_invariant(
        dice in proptest::collection::vec((0u8..40, 0u64..12, 0u64..12, 0u32..9, any::<bool>()), 1..120)
    ) {
        let mut state = State::default();
        let mut log: Vec<Proposal> = Vec::new();
        let mut snapshot = None;
        let middle = dice.len() / 2;
        for (n, roll) in dice.into_iter().enumerate() {
            let command = if n == 0 { init() } else { command(&state, roll) };
            // Some are retried under the same id, and must not happen twice.
            let request = (roll.3 == 1).then_some(RequestId(u128::from(roll.1)));
            let index = LogIndex(n as u64 + 1);
            let proposal = Proposal { at: Timestamp(index.0), request, command };
            let known = request.is_some_and(|r| log.iter().any(|p| p.request == Some(r)));
            let before = state.clone();
            let outcome = state.apply(index, &proposal);
            prop_assert_eq!(violations(&state), Vec::<String>::new(), "after {:?}", proposal);
            if known || (request.is_none() && outcome.is_err()) {
                let mut unmoved = before.clone();
                unmoved.applied = index;
                prop_assert_eq!(digest(&unmoved), digest(&state), "{:?} changed something", proposal);
            }
            for node in state.nodes.keys() {
                let cut = shoal_state::assignment(&state, *node).unwrap();
                if let Some(old) = shoal_state::assignment(&before, *node) {
                    let delta = AssignmentDelta::between(&old, &cut);
                    let same = delta.changes_nothing(&old);
                    let changed_at = state.changed_at(*node, old.networks.keys().copied());
                    prop_assert!(same || changed_at == index, "{:?} changes {}, and nobody noted it", proposal, node);
                    // Thrift: who is shown nothing new is not troubled.
                    prop_assert!(!same || changed_at != index, "{:?} troubles {} for nothing", proposal, node);
                    let views = [&before, &state].map(|state| shoal_state::view(state, *node).unwrap());
                    prop_assert_eq!(views[1].since(&views[0]), delta, "{:?}", proposal);
                }
                let by_hand = cut.containers.values().flat_map(|c| c.endpoints.iter());
                for e in cut.tasks.values().flat_map(|t| &t.endpoints).chain(by_hand) {
                    prop_assert!(cut.networks.contains_key(&e.network));
                }
            }
            log.push(proposal);
            if n == middle {
                snapshot = Some(rmp_serde::to_vec_named(&state).unwrap());
            }
        }
        let replay = |mut from: State, entries: &[Proposal]| {
            for proposal in entries {
                let _answer = from.apply(LogIndex(from.applied.0 + 1), proposal);
            }
            digest(&from)
        };
        prop_assert_eq!(replay(State::default(), &log), digest(&state));
        let restored: State = rmp_serde::from_slice(&snapshot.unwrap()).unwrap();
        prop_assert_eq!(replay(restored, &log[middle + 1..]), digest(&state));
    }
}
