//! From an assignment to the kernel and back: what is observed after a plan was carried out is what was desired.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, CLIENT, Cluster, DB, RED, WEB, converge, lines, look, task, wanted},
};
use shoal_common::assignment::Assignment;
use shoal_plan::Ns;

const SANDBOX: Ns = Ns::Sandbox(BLUE);

/// Three tasks on node 1, others on nodes 2 and 3.
fn cluster() -> Cluster {
    Cluster::default()
        .with(11, 1, CLIENT, &[BLUE, RED])
        .with(12, 1, WEB, &[BLUE])
        .with(13, 1, DB, &[RED])
        .with(21, 2, WEB, &[BLUE])
        .with(22, 2, DB, &[RED])
        .with(31, 3, WEB, &[BLUE])
        .with(32, 3, DB, &[RED])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignment_is_carried_out_in_one_round_and_then_there_is_nothing_to_do() {
    let [a, _b] = Host::pair();
    let assignment = cluster().assignment(1);
    let ops = look(&a, &assignment).await;
    let failed = a.kernel.apply_all(&ops).await;
    assert!(failed.is_empty(), "{failed:#?}");
    let left = look(&a, &assignment).await;
    assert!(left.is_empty(), "{:#?}", lines(&left));
    // Also for the daemon that comes after.
    let world = wanted(&assignment);
    let all = world.namespaces.keys().copied().collect();
    let seen = a.reopened().observe(&all).await.unwrap();
    let left = shoal_plan::plan(&world, &seen, &all);
    assert!(left.is_empty(), "{:#?}", lines(&left));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_broken_is_repaired_by_the_next_look_and_nothing_else_is_touched() {
    let [a, _b] = Host::pair();
    let assignment = cluster().assignment(1);
    converge(&a, &assignment).await;
    for (ns, line) in [
        (SANDBOX, "ip link del t12"),
        (SANDBOX, "ip link del vx0"),
        (SANDBOX, "ip link del br0"),
        (SANDBOX, "ip link del up0"),
        (task(11), "ip link del eth1"),
        (Ns::Host, "ip link del $(ip -o link | grep -o 'shx[0-9a-f]*' | head -1)"),
        (SANDBOX, "ip link set vx0 down; ip link set br0 down; ip link set t12 down"),
        (task(12), "ip link set eth0 down; ip link set lo down"),
        (SANDBOX, "ip link set vx0 nomaster; ip link set t12 nomaster"),
        (SANDBOX, "ip link set t12 mtu 1300; ip link set br0 address 02:00:00:00:00:01"),
        (task(12), "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:02 up"),
        (SANDBOX, "bridge link set dev t12 hairpin off learning on flood off; bridge link set dev vx0 flood on"),
        (SANDBOX, "for m in $(bridge fdb show dev vx0 | grep dst | cut -d' ' -f1); do bridge fdb del $m dev vx0; done"),
        (SANDBOX, "bridge fdb del 02:42:0a:00:09:15 dev vx0 master; bridge fdb del 02:42:0a:00:09:0c dev t12 master"),
        (SANDBOX, "bridge fdb replace 02:42:0a:00:09:15 dev vx0 dst 192.0.2.9"),
        (SANDBOX, "bridge fdb add 02:42:0a:00:09:63 dev vx0 dst 192.0.2.9"),
        (SANDBOX, "ip neigh del 10.0.9.21 dev vx0; ip -6 neigh del fd00:9::15 dev vx0"),
        (SANDBOX, "ip neigh replace 10.0.9.21 lladdr 02:00:00:00:00:03 dev vx0 nud permanent"),
        (SANDBOX, "ip neigh add 10.0.9.99 lladdr 02:00:00:00:00:03 dev vx0 nud permanent"),
        (SANDBOX, "ip addr flush dev br0"),
        (SANDBOX, "ip addr add 10.0.9.99/32 dev br0"),
        (task(11), "ip addr flush dev eth0"),
        (task(11), "ip route del default; ip -6 route del default"),
        (task(11), "ip route replace default via 10.0.9.99"),
        (SANDBOX, "ip route flush table main proto static"),
        (SANDBOX, "nft delete table inet shoal"),
        (SANDBOX, "nft flush chain inet shoal pre"),
        (task(11), "nft flush ruleset"),
        (Ns::Host, "nft flush ruleset"),
        (SANDBOX, "sysctl -qw net.ipv4.ip_forward=0 net.bridge.bridge-nf-call-iptables=0"),
        (task(11), "sysctl -qw net.ipv6.conf.all.accept_dad=1"),
        (Ns::Host, "sysctl -qw net.ipv4.ip_forward=0"),
        (SANDBOX, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1"),
        (task(11), "sysctl -qw net.ipv6.conf.all.disable_ipv6=1"),
    ] {
        let _ = a.run(ns, line);
        let done = converge(&a, &assignment).await;
        assert!(!done.is_empty(), "not noticed: {line}");
    }
    // A namespace that went behind our back.
    let path = a.kernel.netns_path(task(12));
    a.run(Ns::Host, &format!("umount -l {}", path.display()));
    converge(&a, &assignment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_an_assignment_is_followed_and_an_empty_one_leaves_nothing() {
    let [a, _b] = Host::pair();
    // Its own link-local address may take a while.
    let look = "ip -o link; ip addr | sed 's/ tentative//'; nft list ruleset";
    let before = a.run(Ns::Host, look);
    let mut cluster = cluster();
    converge(&a, &cluster.assignment(1)).await;
    cluster.members.get_mut(&21).unwrap().node = 3;
    converge(&a, &cluster.assignment(1)).await;
    cluster.members.get_mut(&12).unwrap().serving = false;
    converge(&a, &cluster.assignment(1)).await;
    cluster.members.remove(&13);
    converge(&a, &cluster.assignment(1)).await;
    cluster.members.remove(&11);
    converge(&a, &cluster.assignment(1)).await;
    assert!(!a.kernel.namespaces().unwrap().contains(&Ns::Sandbox(RED)));
    let empty = Assignment { node: cluster.assignment(1).node, ..Assignment::default() };
    converge(&a, &empty).await;
    assert_eq!(a.kernel.namespaces().unwrap(), [Ns::Host].into());
    assert_eq!(a.run(Ns::Host, look), before);
    assert_eq!(std::fs::read_dir(a.run_dir().join("netns")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(a.run_dir().join("nft")).unwrap().count(), 1, "what is known of the host's");
    // And of a node that left the cluster: the assignment of nobody.
    converge(&a, &cluster.assignment(1)).await;
    converge(&a, &Assignment::default()).await;
    assert_eq!(a.kernel.namespaces().unwrap(), [Ns::Host].into());
}
