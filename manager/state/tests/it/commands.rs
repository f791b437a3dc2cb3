//! Each command, and each of its refusals.

use shoal_common::{
    LogIndex, Mtu, NodeId, TaskId,
    node::{Availability, Liveness, NodeDescription, Role},
    service::{EndpointMode, Mode},
    task::{DesiredState, TaskState},
};
use shoal_state::{Command, Rejection, Reply, TaskChange, TaskReport, assignment, network_mtu};

use crate::world::{World, description, init, network, register, service};

fn update_role(node: u64, role: Role) -> Command {
    Command::UpdateNode {
        node: NodeId(node),
        availability: None,
        role: Some(role),
        labels_add: Default::default(),
        labels_remove: vec![],
    }
}

#[test]
fn a_cluster_is_initialised_once_and_first() {
    let mut w = World::default();
    assert_eq!(w.apply(register("w1", Role::Worker)), Err(Rejection::NotInitialised));
    assert_eq!(w.apply(init()), Ok(Reply::Node(NodeId(1))));
    assert_eq!(w.apply(init()), Err(Rejection::AlreadyInitialised));
    assert_eq!(w.apply(Command::RotateJoinToken { role: Role::Worker, secret: "new".into() }), Ok(Reply::Done));
    assert_eq!(w.state.cluster.as_ref().unwrap().settings.worker_join_secret, "new");
}

#[test]
fn a_retried_join_finds_the_node_it_became() {
    let mut w = World::three_nodes();
    assert_eq!(w.apply(register("w2", Role::Worker)), Ok(Reply::Node(NodeId(2))));
    assert_eq!(w.state.nodes.len(), 3);
}

#[test]
fn a_retried_request_gets_the_first_answer_again() {
    let mut w = World::three_nodes();
    let create = Command::CreateNetwork { spec: network("blue", &[]) };
    let first = w.request(Some(7), create.clone());
    assert_eq!(w.request(Some(7), create.clone()), first);
    assert_eq!(w.state.networks.len(), 1);
    assert!(matches!(w.request(Some(8), create), Err(Rejection::NameTaken { .. })));
}

#[test]
fn nodes_leave_only_when_it_is_safe_or_forced() {
    let mut w = World::three_nodes();
    let remove = |node, force| Command::RemoveNode { node: NodeId(node), force };
    assert!(matches!(w.apply(remove(1, true)), Err(Rejection::NodeIsManager { .. })));
    assert!(matches!(w.apply(remove(2, false)), Err(Rejection::NodeIsReady { .. })));
    assert!(matches!(w.apply(remove(9, false)), Err(Rejection::NotFound { .. })));
    assert!(matches!(w.apply(update_role(1, Role::Worker)), Err(Rejection::LastManager { .. })));
    assert_eq!(w.apply(update_role(2, Role::Manager)), Ok(Reply::Done));
    assert_eq!(w.apply(update_role(1, Role::Worker)), Ok(Reply::Done));
    let blue = w.network(network("blue", &[]));
    let web = w.service(service("web", 1, &[blue]));
    w.orchestrate(vec![w.create(web, 1, Some(3))]);
    assert_eq!(w.apply(remove(3, true)), Ok(Reply::Done));
    let task = &w.state.tasks[&w.task(web, 1)];
    assert_eq!((task.status.state, task.endpoints.len()), (TaskState::Orphaned, 0));
    assert_eq!(w.apply(register("w3", Role::Worker)), Ok(Reply::Node(NodeId(task_id_after(&w)))));
}

/// Ids come from one sequence, so a returning node is a new one.
#[test]
fn a_host_that_left_is_down_whatever_is_heard_of_it_later() {
    let mut w = World::three_nodes();
    w.apply(Command::LeaveCluster { node: NodeId(2) }).unwrap();
    let left = w.state.nodes[&NodeId(2)].clone();
    assert_eq!((left.left, left.liveness), (true, Liveness::Down));
    w.apply(Command::SetLiveness { nodes: vec![(NodeId(2), Liveness::Ready)] }).unwrap();
    w.apply(Command::LeaveCluster { node: NodeId(2) }).unwrap();
    assert_eq!(w.state.nodes[&NodeId(2)], left, "neither a late heartbeat nor a second farewell changes it");
    assert!(matches!(w.apply(Command::LeaveCluster { node: NodeId(9) }), Err(Rejection::NotFound { .. })));
    w.apply(Command::RemoveNode { node: NodeId(2), force: false }).expect("one that left needs no force");
}

fn task_id_after(w: &World) -> u64 {
    w.state.tasks.keys().map(|t| t.0).max().unwrap() + 1
}

#[test]
fn subnets_come_from_the_pools_next_fit_round_hosts_links() {
    let mut w = World::three_nodes();
    let v4 = |w: &World, id| w.state.networks[&id].pools[0].subnet().net.to_string();
    let a = w.network(network("a", &[]));
    let b = w.network(network("b", &[]));
    // 10.0.2.0/24 is on a host's link.
    let c = w.network(network("c", &[]));
    assert_eq!([v4(&w, a), v4(&w, b), v4(&w, c)], ["10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/24"]);
    assert_eq!(w.apply(Command::RemoveNetwork { network: a }), Ok(Reply::Done));
    let d = w.network(network("d", &[]));
    let e = w.network(network("e", &[]));
    let f = w.network(network("f", &[]));
    assert_eq!([v4(&w, d), v4(&w, e), v4(&w, f)], ["10.9.0.0/24", "10.9.1.0/24", "10.0.0.0/24"]);
    let full = w.apply(Command::CreateNetwork { spec: network("g", &[]) }).unwrap_err();
    assert_eq!(
        full.to_string(),
        "no subnet is left in the address pool 10.0.0.0/22, 10.9.0.0/23: 5 are in use; name one with --subnet"
    );
    let vnis: Vec<u32> = w.state.networks.values().map(|n| n.vni.unwrap().get()).collect();
    assert_eq!(vnis, [4097, 4098, 4099, 4100, 4101], "a removed network's VNI rests");
}

#[test]
fn subnets_that_users_name_are_checked() {
    let mut w = World::three_nodes();
    w.network(network("blue", &["10.50.0.0/24"]));
    let create = |spec| Command::CreateNetwork { spec };
    let overlap = w.apply(create(network("red", &["10.50.0.128/25"]))).unwrap_err();
    assert_eq!(
        overlap.to_string(),
        "subnet 10.50.0.128/25 overlaps 10.50.0.0/24 of network blue; choose another subnet, or pass --allow-overlap if it is meant"
    );
    let underlay = |mut spec: shoal_common::network::NetworkSpec| {
        spec.allow_overlap = true;
        create(spec)
    };
    assert!(matches!(w.apply(underlay(network("red", &["192.168.0.0/16"]))), Err(Rejection::UnderlayOverlap { .. })));
    assert!(w.apply(underlay(network("red", &["10.50.0.0/24"]))).is_ok());
    assert!(matches!(w.apply(create(network("x", &["10.60.0.0/24", "10.61.0.0/24"]))), Err(Rejection::Invalid(_))));
    assert!(matches!(w.apply(create(network("x", &["10.60.0.7/24"]))), Err(Rejection::Invalid(_))));
    let (blue, red) = (w.state.find_network("blue", None).unwrap().id, w.state.find_network("red", None).unwrap().id);
    let both = w.apply(Command::CreateService { spec: Box::new(service("web", 1, &[blue, red])) });
    assert!(matches!(both, Err(Rejection::OverlapInService { .. })), "{both:?}");
}

/// An honest VPN, or a host that lies.
#[test]
fn what_hosts_say_of_their_links_leaves_half_of_each_pool() {
    let mut w = World::three_nodes();
    let describe = |node, links: &[&str]| {
        let underlay = links.iter().map(|l| l.parse().unwrap()).collect();
        let description = shoal_common::node::NodeDescription { underlay, ..description("w") };
        Command::DescribeNode { node: NodeId(node), description }
    };
    w.apply(describe(2, &["10.0.0.0/8", "0.0.0.0/0", "fd5a:1:2::/47"])).unwrap();
    w.apply(describe(3, &["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"])).unwrap();
    let overlapped: Vec<_> = w.state.overlapped_links().iter().map(|(n, l)| format!("{n} {l}")).collect();
    assert_eq!(
        overlapped,
        ["node-2 fd5a:1:2::/47", "node-3 10.0.1.0/24", "node-3 10.0.2.0/24", "node-2 10.0.0.0/8", "node-2 0.0.0.0/0"]
    );
    // Half of 10.0.0.0/22 stays, and what is kept clear is kept clear: 10.0.2.128/25 of node-1 and 10.0.0.0/24.
    let blue = w.network(network("blue", &[]));
    let subnet = w.state.networks.get(&blue).unwrap().subnets().next().unwrap().net;
    assert!(["10.0.1.0/24", "10.0.3.0/24"].contains(&subnet.to_string().as_str()), "{subnet}");
    let named = w.apply(Command::CreateNetwork { spec: network("red", &["10.0.0.0/24"]) });
    assert!(matches!(named, Err(Rejection::UnderlayOverlap { .. })), "{named:?}");
    let mut spec = network("green", &[]);
    spec.ipv6 = true;
    w.network(spec);
}

#[test]
fn every_network_has_v4_and_v6_is_added_when_wanted() {
    let mut w = World::three_nodes();
    let nets = |w: &World, id| w.state.networks[&id].subnets().map(|s| s.net.to_string()).collect::<Vec<_>>().join(" ");
    let six = w.network(network("six", &["fd00:7::/64"]));
    assert_eq!(nets(&w, six), "10.0.0.0/24 fd00:7::/64");
    let mut spec = network("dual", &["10.50.0.0/24"]);
    spec.ipv6 = true;
    let dual = w.network(spec.clone());
    assert_eq!(nets(&w, dual), "10.50.0.0/24 fd5a:1:2::/64");
    (spec.name, spec.subnets) = ("next".parse().unwrap(), vec![]);
    let next = w.network(spec);
    assert_eq!(nets(&w, next), "10.0.1.0/24 fd5a:1:2:1::/64");
    let web = w.service(service("web", 1, &[dual]));
    w.orchestrate(vec![w.create(web, 1, Some(2))]);
    let task = w.task(web, 1);
    assert_eq!(w.address(task), "10.50.0.3 fd5a:1:2::3");
    assert_eq!(w.state.tasks[&task].endpoints[0].mac.to_string(), "02:42:0a:32:00:03");
}

#[test]
fn a_network_in_use_stays_and_says_by_whom() {
    let mut w = World::three_nodes();
    let blue = w.network(network("blue", &[]));
    let web = w.service(service("web", 1, &[blue]));
    w.orchestrate(vec![w.create(web, 1, Some(2))]);
    let remove = Command::RemoveNetwork { network: blue };
    let text = |r: Result<Reply, Rejection>| r.unwrap_err().to_string();
    assert_eq!(text(w.apply(remove.clone())), "network blue is in use by service web; remove them first");
    w.apply(Command::RemoveService { service: web }).unwrap();
    let ending = "network blue is in use by task web.1 (still ending); remove them first";
    assert_eq!(text(w.apply(remove.clone())), ending);
    assert_eq!(w.report(2, w.task(web, 1), TaskState::Shutdown), 1);
    assert_eq!(w.apply(remove), Ok(Reply::Done));
}

#[test]
fn a_service_is_checked_before_it_is_made() {
    let mut w = World::three_nodes();
    let blue = w.network(network("blue", &[]));
    w.service(service("web", 1, &[blue]));
    let create = |spec| Command::CreateService { spec: Box::new(spec) };
    let mut nameless = service("b", 1, &[]);
    nameless.container.image.clear();
    let cases = [
        (service("web", 1, &[]), "name web is taken by svc-5"),
        (service("b", 1, &[blue, blue]), "each network once"),
        (service("b", 1, &[shoal_common::NetworkId(99)]), "there is no network net-99"),
        (service("b", 50_001, &[]), "replicas"),
        (nameless, "image"),
    ];
    for (spec, says) in cases {
        let refused = w.apply(create(spec)).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn an_update_names_what_it_was_made_on_and_moves_vips_only_where_it_must() {
    let mut w = World::three_nodes();
    let (blue, red) = (w.network(network("blue", &[])), w.network(network("red", &[])));
    let web = w.service(service("web", 1, &[blue]));
    let row = |w: &World| w.state.services[&web].clone();
    let first = row(&w);
    let update = |w: &mut World, spec: &shoal_common::service::ServiceSpec, version: LogIndex| {
        w.apply(Command::UpdateService { service: web, version, spec: Box::new(spec.clone()) })
    };
    let mut spec = first.spec.clone();
    spec.mode = Mode::Replicated { replicas: 5 };
    let scaled = update(&mut w, &spec, first.version).unwrap();
    assert_eq!(scaled, Reply::Service(web, w.state.applied));
    assert_eq!((row(&w).spec_version, row(&w).vips.clone()), (first.spec_version, first.vips.clone()));
    assert_eq!(row(&w).previous, Some(Box::new(first.spec.clone())));
    let stale = update(&mut w, &spec, first.version);
    assert!(matches!(stale, Err(Rejection::VersionConflict { .. })), "{stale:?}");

    spec.networks = service("x", 1, &[blue, red]).networks;
    let version = row(&w).version;
    update(&mut w, &spec, version).unwrap();
    assert_eq!(row(&w).spec_version, w.state.applied);
    assert_eq!((row(&w).vips.len(), row(&w).vips[&blue]), (2, first.vips[&blue]));
    spec.endpoint_mode = EndpointMode::DnsRr;
    let version = row(&w).version;
    update(&mut w, &spec, version).unwrap();
    assert!(row(&w).vips.is_empty());

    let version = row(&w).version;
    spec.name = "other".parse().unwrap();
    assert!(matches!(update(&mut w, &spec, version), Err(Rejection::Invalid(_))));
    spec = row(&w).spec;
    spec.mode = Mode::Global;
    assert!(matches!(update(&mut w, &spec, version), Err(Rejection::Invalid(_))));
}

#[test]
fn a_change_whose_ground_has_moved_is_skipped() {
    let mut w = World::three_nodes();
    let web = w.service(service("web", 2, &[]));
    let old = w.create(web, 1, Some(2));
    assert_eq!(w.orchestrate(vec![old.clone(), old.clone()]), 1, "the slot is held");
    assert_eq!(w.orchestrate(vec![w.create(web, 3, None), w.create(web, 0, None)]), 0, "no such slot");
    assert_eq!(w.orchestrate(vec![w.create(web, 2, Some(9))]), 0, "no such node");
    let task = w.task(web, 1);
    assert_eq!(w.orchestrate(vec![TaskChange::Assign { task, node: NodeId(3) }]), 0, "it has a node");
    assert_eq!(w.orchestrate(vec![TaskChange::Orphan { task }]), 0, "its node is ready");
    assert_eq!(w.orchestrate(vec![TaskChange::Forget { task }]), 0, "it has not ended");
    let mut spec = service("web", 2, &[]);
    spec.container.image = "nginx".into();
    let version = w.state.services[&web].version;
    w.apply(Command::UpdateService { service: web, version, spec: Box::new(spec) }).unwrap();
    assert_eq!(w.orchestrate(vec![old]), 0, "the spec has changed");
    let drain = Command::UpdateNode {
        node: NodeId(3),
        availability: Some(Availability::Drain),
        role: None,
        labels_add: Default::default(),
        labels_remove: vec![],
    };
    w.apply(drain).unwrap();
    assert_eq!(w.orchestrate(vec![w.create(web, 2, Some(3))]), 0, "the node is drained");
    assert_eq!(w.orchestrate(vec![TaskChange::Shutdown { task: TaskId(99), why: String::new() }]), 0);
}

#[test]
fn a_task_is_ended_by_its_node_or_at_once_if_it_has_none() {
    let mut w = World::three_nodes();
    let web = w.service(service("web", 2, &[]));
    w.orchestrate(vec![w.create(web, 1, Some(2)), w.create(web, 2, None)]);
    let (placed, pending) = (w.task(web, 1), w.task(web, 2));
    let end = |task| TaskChange::Shutdown { task, why: "scaled down".into() };
    assert_eq!(w.orchestrate(vec![end(placed), end(pending), end(placed)]), 2);
    let status = |w: &World, t| w.state.tasks[&t].status.clone();
    assert_eq!(status(&w, pending).state, TaskState::Shutdown);
    assert_eq!(status(&w, placed).state, TaskState::Assigned);
    assert_eq!(w.state.tasks[&placed].desired, DesiredState::Shutdown);
    assert_eq!(w.orchestrate(vec![w.create(web, 1, Some(3))]), 1, "the slot is free for its replacement");
    assert_eq!(w.report(2, placed, TaskState::Shutdown), 1);
    assert_eq!(status(&w, placed).message, "scaled down");
    assert_eq!(w.orchestrate(vec![TaskChange::Forget { task: placed }, TaskChange::Forget { task: pending }]), 2);
    assert_eq!(w.state.tasks.len(), 1);
}

#[test]
fn only_the_tasks_own_node_may_report_and_nothing_moves_backwards() {
    let mut w = World::three_nodes();
    let web = w.service(service("web", 1, &[]));
    w.orchestrate(vec![w.create(web, 1, Some(2))]);
    let task = w.task(web, 1);
    assert_eq!(w.report(3, task, TaskState::Running), 0);
    assert_eq!(w.report(2, task, TaskState::Running), 1);
    assert_eq!(w.report(2, task, TaskState::Starting), 0);
    assert_eq!(w.report(2, task, TaskState::Orphaned), 0);
    let started = w.state.tasks[&task].started;
    assert!(started.is_some());
    w.apply(Command::SetLiveness { nodes: vec![(NodeId(2), Liveness::Down)] }).unwrap();
    assert_eq!(w.state.tasks[&task].status.state, TaskState::Running, "down does not orphan by itself");
    assert_eq!(w.orchestrate(vec![TaskChange::Orphan { task }]), 1);
    assert_eq!(w.report(2, task, TaskState::Running), 0, "an orphan has no voice");
    assert_eq!(
        w.state.nodes[&NodeId(2)].liveness_since,
        w.state.tasks[&task].status.since.min(w.state.nodes[&NodeId(2)].liveness_since)
    );
}

#[test]
fn one_that_is_unhealthy_leaves_names_keeps_its_address_until_it_ended_and_says_why() {
    let mut w = World::three_nodes();
    let net = w.network(network("app", &["10.50.0.0/24"]));
    let web = w.service(service("web", 1, &[net]));
    w.orchestrate(vec![w.create(web, 1, Some(2))]);
    let task = w.task(web, 1);
    let mut tell = |state, message: &str, exit_code| {
        let message = message.to_owned();
        let report = TaskReport { node: NodeId(2), task, state, message, exit_code };
        w.apply(Command::ReportStatus { reports: vec![report] }).unwrap();
        w.state.tasks[&task].clone()
    };
    assert!(tell(TaskState::Running, "", None).is_serving());
    let unhealthy = tell(TaskState::Unhealthy, "unhealthy: no answer", None);
    assert_eq!((unhealthy.is_serving(), unhealthy.is_live(), unhealthy.endpoints.len()), (false, true, 1));
    assert_eq!(tell(TaskState::Running, "", None).status.state, TaskState::Unhealthy);
    let ended = tell(TaskState::Failed, "ended by signal 15", Some(143));
    assert_eq!((ended.status.message.as_str(), ended.status.exit_code), ("unhealthy: no answer", Some(143)));
    assert!(ended.endpoints.is_empty());
}

#[test]
fn a_full_network_says_who_fills_it_and_a_freed_address_lets_the_next_in() {
    let mut w = World::three_nodes();
    let tiny = w.network(network("tiny", &["10.50.0.0/29"]));
    let (db, web) = (w.service(service("db", 1, &[tiny])), w.service(service("web", 9, &[tiny])));
    w.orchestrate(vec![w.create(db, 1, Some(2))]);
    let all = (1..=4).map(|n| w.create(web, n, Some(3))).collect();
    assert_eq!(w.orchestrate(all), 4);
    let (last, waiting) = (w.task(web, 2), w.task(web, 3));
    let why = "network tiny has no free address: all 5 of 10.50.0.0/29 are in use (service web 3, service db 2); \
               remove tasks or create a larger network";
    let status = &w.state.tasks[&waiting].status;
    assert_eq!((status.state, status.message.as_str()), (TaskState::Pending, why));
    let networks = w.state.services[&web].spec.networks.clone();
    assert_eq!(w.state.room(&networks).unwrap_err().to_string(), why);
    assert_eq!(w.orchestrate(vec![TaskChange::Assign { task: waiting, node: NodeId(2) }]), 0, "nothing has changed");
    let mut more = service("more", 1, &[tiny]);
    let refused = w.apply(Command::CreateService { spec: Box::new(more.clone()) });
    assert!(matches!(refused, Err(Rejection::AddressesExhausted { .. })), "a VIP needs an address too");
    more.endpoint_mode = EndpointMode::DnsRr;
    w.service(more);
    let freed = w.address(last);
    assert_eq!(w.report(3, last, TaskState::Failed), 1);
    assert_eq!(w.state.room(&networks), Ok(()));
    assert_eq!(w.orchestrate(vec![TaskChange::Assign { task: waiting, node: NodeId(2) }]), 1);
    assert_eq!(w.address(waiting), freed);
}

#[test]
fn a_node_is_described_anew() {
    let mut w = World::three_nodes();
    let describe = |node| Command::DescribeNode { node: NodeId(node), description: description("renamed") };
    assert_eq!(w.apply(describe(2)), Ok(Reply::Done));
    assert_eq!(w.state.find_node("renamed").map(|n| n.id), Some(NodeId(2)));
    assert!(matches!(w.apply(describe(9)), Err(Rejection::NotFound { .. })));
}

#[test]
fn an_overlay_carries_what_the_least_of_its_hosts_does() {
    let mut w = World::three_nodes();
    let describe = |w: &mut World, node: u64, mtu: u32| {
        let description = NodeDescription { underlay_mtu: mtu.try_into().unwrap(), ..description("host") };
        w.apply(Command::DescribeNode { node: NodeId(node), description }).unwrap();
    };
    let blue = w.network(network("blue", &[]));
    let web = w.service(service("web", 2, &[blue]));
    w.orchestrate(vec![w.create(web, 1, Some(1)), w.create(web, 2, Some(2))]);
    let told = |w: &World| assignment(&w.state, NodeId(1)).unwrap().networks[&blue].underlay.map(Mtu::get);
    let shown = |w: &World| network_mtu(&w.state, &w.state.networks[&blue]).map(Mtu::get);
    assert_eq!((told(&w), shown(&w)), (Some(1500), Some(1450)));
    describe(&mut w, 2, 1400);
    assert_eq!((told(&w), shown(&w)), (Some(1400), Some(1350)));
    assert_eq!(w.state.changed_at(NodeId(1), [blue].into_iter()), w.state.applied, "others are told");
    // A host that is not on the network does not count.
    describe(&mut w, 3, 1300);
    assert_eq!((told(&w), shown(&w)), (Some(1400), Some(1350)));
    w.report(2, w.task(web, 2), TaskState::Failed);
    assert_eq!((told(&w), shown(&w)), (Some(1500), Some(1450)));
}
