//! Whole plans, for a network engineer to review: their order, and that nothing is done in vain.
//! `UPDATE_GOLDEN=1 cargo test -p shoal-plan --test golden` writes them anew.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, LAN, Own, QUIET, RED, TAGGED, WEB, WIRE, published, task, wanted},
    model::Model,
};
use shoal_common::{
    NodeId,
    assignment::{Assignment, IngressAssignment, IngressHost, NetworkKind},
    container::Wanted,
    network::MacvlanMode,
    service::{IngressPort, Protocol},
};
use shoal_plan::{Ns, Op, World, names, nft, plan};
use std::collections::BTreeSet;

/// The lines of a plan, and below a table's line its text.
fn text(ops: &[Op]) -> String {
    let line = |op: &Op| match op {
        Op::ReplaceTable { family, digest, chains, .. } => {
            let text = nft::text(*family, digest, chains);
            let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
            format!("{op}\n{indented}")
        }
        other => format!("{other}\n"),
    };
    ops.iter().map(line).collect()
}

#[allow(
    clippy::disallowed_methods,
    reason = "golden files are files, and whoever runs the test says whether to write them"
)]
fn check(name: &str, ops: &[Op]) {
    let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let got = text(ops);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(got, golden, "the plan differs from {path}");
}

/// What is planned on node 1 when `before` is true and `after` is wanted.
fn between(before: &World, after: &World) -> Vec<Op> {
    let mut kernel = Model::default();
    kernel.reach(before);
    let all = before.namespaces.keys().chain(after.namespaces.keys()).copied().collect();
    plan(after, &kernel.observe(&all), &all)
}

fn step(name: &str, before: &Cluster, after: &Cluster) {
    check(name, &between(&wanted(&before.assignment(1)), &wanted(&after.assignment(1))));
}

fn small() -> Cluster {
    Cluster::default().with(11, 1, CLIENT, &[BLUE])
}

/// Web on both hosts, and its client.
fn running() -> Cluster {
    small().with(12, 1, WEB, &[BLUE]).with(21, 2, WEB, &[BLUE])
}

#[test]
fn the_first_task_on_a_network() {
    step("first-task", &Cluster::default(), &small());
}

#[test]
fn the_first_task_on_an_internal_network() {
    step("first-task-internal", &Cluster::default(), &Cluster::default().with(11, 1, CLIENT, &[RED]));
}

#[test]
fn a_second_task_on_a_network() {
    step("second-task", &small(), &small().with(12, 1, WEB, &[BLUE]));
}

#[test]
fn an_endpoint_on_another_host() {
    step("remote-endpoint", &small(), &small().with(21, 2, WEB, &[BLUE]));
}

#[test]
fn an_endpoint_that_moved_to_another_host() {
    let mut moved = running();
    moved.members.get_mut(&21).unwrap().node = 3;
    step("endpoint-moved", &running(), &moved);
}

#[test]
fn a_backend_that_leaves_its_vip() {
    let mut leaving = running();
    leaving.members.get_mut(&21).unwrap().serving = false;
    step("backend-leaves", &running(), &leaving);
}

#[test]
fn a_task_that_ended() {
    let mut ended = running();
    ended.members.remove(&12);
    step("task-ended", &running(), &ended);
}

#[test]
fn the_last_task_of_a_network() {
    let node = running().assignment(1).node;
    let empty = Assignment { node, ..Assignment::default() };
    check("network-gone", &between(&wanted(&running().assignment(1)), &wanted(&empty)));
}

#[test]
fn a_daemon_that_starts_again_does_nothing() {
    let world = wanted(&running().assignment(1));
    assert_eq!(text(&between(&world, &world)), "");
}

#[test]
fn a_container_is_wired_as_a_task_is() {
    let of = |cluster: Cluster| {
        let mut assignment = cluster.assignment(1);
        assignment.services.clear();
        let mut world = wanted(&assignment);
        // Only by hand has anybody ports, and flows by them.
        world
            .namespaces
            .get_mut(&Ns::Host)
            .unwrap()
            .tables
            .values_mut()
            .for_each(|table| table.flows = Default::default());
        world
    };
    let both = [BLUE, RED];
    assert_eq!(of(Cluster::default().run(11, 1, &both)), of(Cluster::default().with(11, 1, WEB, &both)));
}

#[test]
fn the_default_bridge_is_there_with_nobody_on_it() {
    step("bridge-alone", &Cluster::default(), &Cluster::default().bridge(BRIDGE));
}

#[test]
fn the_first_container_on_a_bridge() {
    step("bridge-first", &Cluster::default().bridge(BRIDGE), &Cluster::default().run(31, 1, &[BRIDGE]));
}

#[test]
fn bridges_of_every_kind() {
    let all = small().run(31, 1, &[BRIDGE, QUIET]).run(32, 1, &[LAN]).run(33, 1, &[LAN]);
    step("bridges", &Cluster::default(), &all);
    let mut less = all.clone();
    less.runs.remove(&33);
    step("bridge-container-gone", &all, &less);
}

#[test]
fn a_link_of_somebody_else_that_is_called_as_ours_is_to_be() {
    let after = small().run(31, 1, &[BRIDGE]).run(32, 1, &[LAN]);
    let mut kernel = Model::default();
    let host = kernel.world.namespaces.get_mut(&Ns::Host).unwrap();
    host.foreign.insert("br-lan".parse().unwrap(), BTreeSet::new());
    let ops = kernel.plan(&wanted(&after.assignment(1)));
    let touching = ops.iter().filter(|op| text(std::slice::from_ref(op)).contains("br-lan"));
    assert_eq!(
        text(&touching.cloned().collect::<Vec<_>>()),
        "ip -n host link add br-lan # but this host has a link br-lan that is not shoal's: give the network's bridge another \
         name, or remove or rename the link\n"
    );
    let refused = kernel.apply_all(&ops);
    assert!(matches!(&refused[..], [(Op::Impossible { .. }, _)]), "{refused:#?}");
    assert_eq!(kernel.plan(&wanted(&after.assignment(1))).len(), 1);
}

#[test]
fn what_fails_on_the_host_concerns_those_who_need_it() {
    let world = wanted(&small().run(31, 1, &[BRIDGE]).run(32, 1, &[LAN, TAGGED]).bridge(QUIET).assignment(1));
    let mut kernel = Model::default();
    kernel.world.namespaces.get_mut(&Ns::Host).unwrap().foreign.insert("shb9".parse().unwrap(), BTreeSet::new());
    for op in kernel.plan(&world) {
        let concerned: Vec<Ns> = op.concerns(&world).into_iter().collect();
        match (op.ns(), op.link()) {
            (Ns::Host, Some("shoal0" | "shpv-0")) => assert_eq!(concerned, [task(31)], "{op}"),
            (Ns::Host, Some("br-lan" | "shpw-0" | "wire0.50")) => assert_eq!(concerned, [task(32)], "{op}"),
            (Ns::Host, Some("shx1005")) => assert_eq!(concerned, [Ns::Sandbox(BLUE)], "{op}"),
            // Nobody is on it.
            (Ns::Host, Some("shb9")) => assert!(concerned.is_empty() && matches!(op, Op::Impossible { .. }), "{op}"),
            (Ns::Host, other) => assert!(concerned == [Ns::Host] && other.is_none(), "{op}"),
            (ns, _) => assert!(concerned.contains(&ns), "{op}"),
        }
    }
}

#[test]
fn ports_of_containers_on_bridges_and_on_overlays() {
    let tcp = |ip: &str, at| published(ip, at, 80, Protocol::Tcp);
    let before = small().run(31, 1, &[BRIDGE]).run(32, 1, &[BLUE, QUIET]);
    let after = small()
        .run_at(31, &[BRIDGE], &[tcp("", 8080), tcp("127.0.0.1", 8081), published("", 53, 5353, Protocol::Udp)])
        .run_at(32, &[BLUE, QUIET], &[tcp("192.0.2.1", 8082), tcp("::", 8082), published("", 99, 9, Protocol::Sctp)])
        .run_at(33, &[BLUE], &[tcp("192.0.2.9", 8082)])
        // Neither an internal network nor one that is not running.
        .run_at(34, &[QUIET], &[tcp("", 8084)]);
    step("ports", &before, &after);
    let mut stopped = after.clone();
    stopped.runs.get_mut(&31).unwrap().wanted = Wanted::Stopped;
    step("ports-stopped", &after, &stopped);
}

#[test]
fn ports_of_the_cluster_prefer_tasks_of_this_host() {
    let ports = vec![IngressPort { port: 8080, target: 80, protocol: Protocol::Tcp }];
    let host = |last: u8, tasks| {
        let (v4, v6) = ([192, 0, 2, last].into(), format!("2001:db8::{last:x}").parse().unwrap());
        (NodeId(last.into()), IngressHost { v4: Some(v4), v6: Some(v6), tasks })
    };
    let mut far = Cluster::default();
    far.ingress.insert(WEB, IngressAssignment { ports: ports.clone(), hosts: [host(2, 2), host(3, 1)].into() });
    step("ingress-elsewhere", &Cluster::default(), &far);
    let mut near = Cluster::default().with(11, 1, WEB, &[BLUE]).with(12, 1, WEB, &[BLUE]).with(13, 1, WEB, &[BRIDGE]);
    near.ingress.insert(WEB, IngressAssignment { ports, hosts: [host(1, 3), host(2, 2)].into() });
    step("ingress-here", &far, &near);
    // What does not serve yet, or no more, is not sent to.
    near.members.get_mut(&11).unwrap().serving = false;
    near.members.get_mut(&13).unwrap().serving = false;
    step("ingress-one", &far, &near);
}

#[test]
fn containers_that_are_neighbours_of_their_hosts_neighbours() {
    let ports = [published("", 8080, 80, Protocol::Tcp)];
    let both = Cluster::default().run_at(31, &[WIRE, TAGGED], &ports).run(32, 1, &[TAGGED]);
    step("macvlan", &Cluster::default(), &both);
    step("macvlan-gone", &both, &Cluster::default().run_at(31, &[WIRE], &ports));
}

#[test]
fn a_vlan_link_that_is_there_already_is_used_and_left_alone() {
    let mut kernel = Model::default();
    let host = kernel.world.namespaces.get_mut(&Ns::Host).unwrap();
    host.foreign.insert("wire0.50".parse().unwrap(), BTreeSet::new());
    let world = wanted(&Cluster::default().run(32, 1, &[TAGGED]).assignment(1));
    let ops = kernel.plan(&world);
    assert!(ops.iter().all(|op| op.ns() != Ns::Host), "{}", text(&ops));
    assert!(kernel.apply_all(&ops).is_empty() && kernel.plan(&world).is_empty());
    assert!(kernel.world.namespaces[&task(32)].links.contains_key(&names::eth(0)));
}

#[test]
fn a_container_does_not_get_the_link_by_which_its_host_is_known() {
    let mut assignment = Cluster::default().run(31, 1, &[BRIDGE, WIRE]).assignment(1);
    let parent = "wire0".parse().unwrap();
    assignment.networks.get_mut(&WIRE).unwrap().kind = NetworkKind::Macvlan { parent, mode: MacvlanMode::Passthru };
    let world = wanted(&assignment);
    let mut kernel = Model::default();
    let addresses = |kernel: &mut Model, all: &[&str]| {
        let all = all.iter().map(|ip| ip.parse().unwrap()).collect();
        kernel.world.namespaces.get_mut(&Ns::Host).unwrap().foreign.insert("wire0".parse().unwrap(), all);
    };
    addresses(&mut kernel, &["192.0.2.1/24", "2001:db8::1/64"]);
    let refused = kernel.plan(&world);
    assert!(!refused.iter().any(|op| matches!(op, Op::AddMacvlan { .. })), "{}", text(&refused));
    let failed = kernel.apply_all(&refused);
    assert!(matches!(&failed[..], [(Op::Impossible { .. }, _)]), "{failed:#?}");
    assert_eq!(
        text(&kernel.plan(&world)),
        "ip -n task-31 link add eth1 # but link wire0 has addresses of this host (192.0.2.1, 2001:db8::1), and \
         macvlan_mode passthru would give all that comes by it to the container: use a parent link without addresses, \
         or macvlan_mode bridge\n"
    );
    // Whoever does not look at the container does not miss its link.
    let host = [Ns::Host].into();
    assert!(plan(&world, &kernel.observe(&host), &host).is_empty());
    addresses(&mut kernel, &[]);
    kernel.reach(&world);
    // It is the container's by now.
    addresses(&mut kernel, &["192.0.2.1/24"]);
    assert!(kernel.plan(&world).is_empty());
}

#[test]
fn a_container_without_networks() {
    step("loopback-only", &Cluster::default(), &Cluster::default().run_with(31, 1, Own::Loopback, &[]));
    let on_the_host = wanted(&Cluster::default().run_with(31, 1, Own::Host, &[]).assignment(1));
    assert!(!on_the_host.namespaces.contains_key(&task(31)));
}
