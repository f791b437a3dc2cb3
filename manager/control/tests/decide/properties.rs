//! Laws, over random services, nodes and failures.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use shoal_common::{
    NodeId, ServiceId,
    node::{Availability, Liveness},
    service::{Mode, NetworkAttachment, RestartCondition, UpdatePolicy},
    task::TaskState,
};
use shoal_state::{Command, TaskChange};

use crate::lab::{Lab, mib};

#[derive(Debug, Clone)]
enum Event {
    Create { replicas: Option<u32>, parallelism: u32, reserve_mib: u64, condition: RestartCondition, on_ssd: bool },
    Scale { service: usize, replicas: u32 },
    Image { service: usize },
    Constrain { service: usize, on_ssd: bool },
    Remove { service: usize },
    Availability { node: u64, availability: Availability },
    Liveness { node: u64, down: bool },
    Label { node: u64, ssd: bool },
    End { task: usize, state: TaskState },
    Lead,
    Agents,
    Pass { seconds: u64 },
}

const NODES: u64 = 5;

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=NODES;
    prop_oneof![
        2 => (proptest::option::of(0..7u32), 0..3u32, 0..400u64, 0..3usize, any::<bool>()).prop_map(
            |(replicas, parallelism, reserve_mib, c, on_ssd)| Event::Create {
                replicas,
                parallelism,
                reserve_mib,
                condition: [RestartCondition::None, RestartCondition::OnFailure, RestartCondition::Any][c],
                on_ssd,
            }
        ),
        2 => (any::<usize>(), 0..8u32).prop_map(|(service, replicas)| Event::Scale { service, replicas }),
        2 => any::<usize>().prop_map(|service| Event::Image { service }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(service, on_ssd)| Event::Constrain { service, on_ssd }),
        1 => any::<usize>().prop_map(|service| Event::Remove { service }),
        2 => (node.clone(), 0..3usize).prop_map(|(node, a)| Event::Availability {
            node,
            availability: [Availability::Active, Availability::Pause, Availability::Drain][a],
        }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, down)| Event::Liveness { node, down }),
        1 => (node, any::<bool>()).prop_map(|(node, ssd)| Event::Label { node, ssd }),
        3 => (any::<usize>(), 0..4usize).prop_map(|(task, s)| Event::End {
            task,
            state: [TaskState::Complete, TaskState::Shutdown, TaskState::Failed, TaskState::Rejected][s],
        }),
        6 => Just(Event::Lead),
        4 => Just(Event::Agents),
        2 => (0..40u64).prop_map(|seconds| Event::Pass { seconds }),
    ]
}

fn nth_service(lab: &Lab, n: usize) -> Option<ServiceId> {
    let ids: Vec<_> = lab.state.services.keys().copied().collect();
    (!ids.is_empty()).then(|| ids[n % ids.len()])
}

fn ssd(yes: bool) -> Vec<shoal_common::service::Constraint> {
    if yes { vec!["node.labels.disk==ssd".parse().unwrap()] } else { vec![] }
}

fn happen(lab: &mut Lab, event: Event, n: usize) {
    match event {
        Event::Create { replicas, parallelism, reserve_mib, condition, on_ssd } => {
            let blue = vec![NetworkAttachment { network: *lab.state.networks.keys().next().unwrap(), aliases: vec![] }];
            lab.create(&format!("s{n}"), 0, |spec| {
                spec.mode = replicas.map_or(Mode::Global, |replicas| Mode::Replicated { replicas });
                spec.update = UpdatePolicy { parallelism, delay: Duration::from_secs(u64::from(parallelism)) };
                spec.resources.reservations = mib(reserve_mib);
                spec.restart.condition = condition;
                spec.placement.constraints = ssd(on_ssd);
                // A network that is soon full.
                if n.is_multiple_of(2) {
                    spec.networks = blue;
                }
            });
        }
        Event::Scale { service, replicas } => {
            if let Some(service) = nth_service(lab, service)
                && lab.service(service).spec.mode != Mode::Global
            {
                lab.scale(service, replicas);
            }
        }
        Event::Image { service } => {
            if let Some(service) = nth_service(lab, service) {
                lab.update(service, |spec| spec.container.image = format!("busybox:{n}"));
            }
        }
        Event::Constrain { service, on_ssd } => {
            if let Some(service) = nth_service(lab, service) {
                lab.update(service, |spec| spec.placement.constraints = ssd(on_ssd));
            }
        }
        Event::Remove { service } => {
            if let Some(service) = nth_service(lab, service) {
                lab.propose(Command::RemoveService { service }).unwrap();
            }
        }
        Event::Availability { node, availability } => lab.availability(node, availability),
        Event::Liveness { node, down } => {
            lab.liveness(node, if down { Liveness::Down } else { Liveness::Ready });
        }
        Event::Label { node, ssd: true } => lab.label(node, "disk", "ssd"),
        Event::Label { node, ssd: false } => lab.unlabel(node, "disk"),
        Event::End { task, state } => {
            let placed: Vec<_> =
                lab.state.tasks.values().filter(|t| t.is_live() && t.node.is_some()).map(|t| t.id).collect();
            if !placed.is_empty() {
                lab.report(placed[task % placed.len()], state);
            }
        }
        Event::Lead => {
            check_decision(lab);
            lab.lead();
        }
        Event::Agents => {
            lab.agents();
        }
        Event::Pass { seconds } => lab.pass(Duration::from_secs(seconds)),
    }
    check_slots(lab);
}

/// What is placed, is placed on nodes that may be used and have room.
fn check_decision(lab: &Lab) {
    for command in lab.decide().commands {
        let Command::Orchestrate { changes } = command else { panic!("{command:?}") };
        for change in changes {
            let (node, service) = match change {
                TaskChange::Create { node: Some(node), service, .. } => (node, service),
                TaskChange::Assign { task, node } => (node, lab.state.tasks.get(&task).unwrap().service),
                TaskChange::Create { node: None, .. }
                | TaskChange::Pend { .. }
                | TaskChange::Shutdown { .. }
                | TaskChange::Orphan { .. }
                | TaskChange::Forget { .. } => continue,
            };
            let node = lab.state.nodes.get(&node).unwrap();
            assert!(node.is_schedulable(), "{service} to {node:?}");
            let ssd = node.labels.contains_key("disk");
            assert!(ssd || lab.service(service).spec.placement.constraints.is_empty());
        }
    }
}

fn check_slots(lab: &Lab) {
    let mut slots = BTreeSet::new();
    for task in lab.state.tasks.values().filter(|task| task.is_live()) {
        assert!(slots.insert((task.service, task.slot)), "two live tasks in {}", task.name());
    }
    for node in lab.state.nodes.values() {
        let reserved: u64 = lab
            .state
            .tasks
            .values()
            .filter(|task| task.node == Some(node.id) && !task.status.state.is_terminal())
            .map(|task| task.resources.reservations.memory_bytes)
            .sum();
        assert!(reserved <= node.description.capacity.memory_bytes, "{} is overbooked", node.id);
    }
    assert_eq!(shoal_state::violations(&lab.state), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However the cluster came to be as it is: the leader alone comes to an end, and so does the cluster once
    /// nothing fails any more, with every wanted replica running or saying why not.
    #[test]
    fn every_history_ends_in_a_fixed_point(events in prop::collection::vec(event(), 1..60)) {
        let mut lab = Lab::new(NODES);
        lab.network("blue", "10.9.0.0/28");
        for (n, event) in events.into_iter().enumerate() {
            happen(&mut lab, event, n);
        }
        lab.lead_on();
        check_slots(&lab);
        lab.settle_in_time();
        check_slots(&lab);
        prop_assert_eq!(lab.decide().commands, vec![]);
        for service in lab.state.services.values() {
            let live = lab.live(service.id);
            if let Mode::Replicated { replicas } = service.spec.mode {
                let done: BTreeSet<_> = lab.tasks(service.id).iter()
                    .filter(|t| !t.is_live() && t.status.state.is_terminal() && service.spec.restart.condition != RestartCondition::Any)
                    .map(|t| t.slot).collect();
                prop_assert!(live.len() <= replicas as usize);
                prop_assert!(live.len() + done.len() >= replicas as usize, "{} of {replicas}", live.len());
            }
            let replicated = matches!(service.spec.mode, Mode::Replicated { .. });
            if replicated && live.iter().any(|t| t.spec_version != service.spec_version) {
                let waits = live.iter().any(|t| t.node.is_none());
                let failed = lab.tasks(service.id).iter().any(|t| {
                    t.spec_version == service.spec_version && t.status.state.is_terminal()
                        && t.desired == shoal_common::task::DesiredState::Running
                });
                prop_assert!(waits || failed, "an update stands still, and nobody knows why");
            }
            for task in live {
                match task.node {
                    Some(_) => prop_assert_eq!(task.status.state, TaskState::Running),
                    None => {
                        let why = &task.status.message;
                        prop_assert!(why.starts_with("no node fits: ") || why.starts_with("network blue has no free"), "{why}");
                    },
                }
            }
        }
        let known: BTreeSet<_> = lab.state.services.keys().copied().collect();
        prop_assert!(lab.state.tasks.values().all(|t| known.contains(&t.service) || !t.is_live()));
    }

    /// A batch that is decided twice (a reply was lost, a new leader repeats it) changes nothing the second time
    /// that the first had not: no slot gets two tasks.
    #[test]
    fn a_repeated_batch_is_harmless(events in prop::collection::vec(event(), 1..40)) {
        let mut lab = Lab::new(NODES);
        lab.network("blue", "10.9.0.0/28");
        for (n, event) in events.into_iter().enumerate() {
            happen(&mut lab, event, n);
        }
        for command in lab.decide().commands {
            lab.propose(command.clone()).unwrap();
            lab.propose(command).unwrap();
            check_slots(&lab);
        }
    }

    #[test]
    fn equal_nodes_differ_by_one_task_at_most(nodes in 1..9u64, services in prop::collection::vec(0..20u32, 1..5)) {
        let mut lab = Lab::new(nodes);
        let ids: Vec<_> = services.iter().enumerate().map(|(n, &r)| lab.create(&format!("s{n}"), r, |_| {})).collect();
        lab.settle();
        let count = |tasks: &mut dyn Iterator<Item = NodeId>| {
            let mut per: BTreeMap<NodeId, usize> = lab.state.nodes.keys().map(|&n| (n, 0)).collect();
            for node in tasks { *per.get_mut(&node).unwrap() += 1; }
            per.values().max().unwrap() - per.values().min().unwrap()
        };
        for id in ids {
            prop_assert!(count(&mut lab.live(id).iter().filter_map(|t| t.node)) <= 1);
        }
        prop_assert!(count(&mut lab.state.tasks.values().filter_map(|t| t.node)) <= 1);
    }

    /// The leader and each agent act in any order; an update never has more than `parallelism` slots out of service.
    #[test]
    fn an_update_takes_no_more_slots_than_it_may(
        replicas in 1..9u32,
        parallelism in 1..4u32,
        gaps in 0..5u32,
        turns in prop::collection::vec((any::<bool>(), any::<usize>(), 0..4u64), 1..150),
    ) {
        let mut lab = Lab::new(1);
        let web = lab.create("web", replicas, |spec| {
            spec.update = UpdatePolicy { parallelism, delay: Duration::from_secs(1) };
        });
        lab.settle();
        // Numbers above the replica count: on new nodes, and scaled down again.
        for n in 2..=3 {
            lab.add_node(n);
        }
        lab.ready();
        lab.scale(web, replicas + gaps);
        lab.settle();
        lab.scale(web, replicas);
        lab.settle();
        lab.update(web, |spec| spec.container.image = "busybox:2".to_owned());
        for (lead, which, seconds) in turns {
            if lead {
                lab.lead();
            } else {
                let due: Vec<_> = lab.tasks(web).into_iter()
                    .filter(|t| !t.status.state.is_terminal() && !t.is_serving())
                    .map(|t| (t.id, if t.is_live() { TaskState::Running } else { TaskState::Shutdown }))
                    .collect();
                if !due.is_empty() {
                    let (task, state) = due[which % due.len()];
                    lab.report(task, state);
                }
            }
            lab.pass(Duration::from_secs(seconds));
            let out = replicas as usize - lab.running(web).len();
            prop_assert!(out <= parallelism as usize, "{out} of {replicas} are out of service");
        }
        lab.settle_in_time();
        let version = lab.service(web).spec_version;
        prop_assert!(lab.running(web).iter().all(|t| t.spec_version == version));
    }
}
