//! Containers that are neighbours of their host's neighbours: the other host is one.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{Cluster, TAGGED, WIRE, converge, look, task, v4_in, v6_in},
    traffic::{call, echo},
};
use shoal_common::{
    assignment::{Assignment, NetworkKind},
    network::MacvlanMode,
};
use shoal_plan::Ns;
use std::error::Error;

const PORT: u16 = 80;

fn with_mode(cluster: &Cluster, mode: MacvlanMode) -> Assignment {
    let mut assignment = cluster.assignment(1);
    let kind = NetworkKind::Macvlan { parent: "wire0".parse().unwrap(), mode };
    assignment.networks.get_mut(&WIRE).unwrap().kind = kind;
    assignment
}

/// What could not be done, in words.
async fn failures(host: &Host, assignment: &Assignment) -> Vec<String> {
    let failed = host.kernel.apply_all(&look(host, assignment).await).await;
    failed.iter().map(|(_, e)| e.source().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_on_the_wire_of_their_host() {
    let [a, b] = Host::pair();
    let cluster = Cluster::default().run(31, 1, &[WIRE]).run(32, 1, &[WIRE]);
    // The LAN's router, and another of its hosts.
    b.run(
        Ns::Host,
        &format!("ip addr add {}/24 dev wire0; ip addr add {}/64 dev wire0 nodad", v4_in(WIRE, 1), v6_in(WIRE, 1)),
    );
    converge(&a, &cluster.assignment(1)).await;
    echo(&a, task(32), (v4_in(WIRE, 32), PORT));
    echo(&b, Ns::Host, ([192, 0, 2, 2], PORT));
    echo(&b, Ns::Host, (v6_in(WIRE, 1), PORT));
    assert_eq!(call(&a, task(31), (v4_in(WIRE, 32), PORT)).unwrap().1, v4_in(WIRE, 31));
    // By the LAN's own router, under its own address.
    assert_eq!(call(&a, task(31), ([192, 0, 2, 2], PORT)).unwrap().1, v4_in(WIRE, 31));
    assert_eq!(call(&a, task(31), (v6_in(WIRE, 1), PORT)).unwrap().1, v6_in(WIRE, 31));
    assert_eq!(call(&b, Ns::Host, (v4_in(WIRE, 32), PORT)).unwrap().0, v4_in(WIRE, 32));
    // The kernel keeps a parent and its macvlan links apart.
    a.run(Ns::Host, &format!("ip route add {}/32 dev wire0", v4_in(WIRE, 32)));
    assert!(call(&a, Ns::Host, (v4_in(WIRE, 32), PORT)).is_err());
    assert!(a.run(task(31), "ip -d link show eth0").contains("macvlan mode bridge"));

    // Another mode is another link; privately, neighbours on one host do not meet.
    let private = with_mode(&cluster, MacvlanMode::Private);
    assert!(!look(&a, &private).await.is_empty());
    converge(&a, &private).await;
    assert!(a.run(task(31), "ip -d link show eth0").contains("macvlan mode private"));
    assert!(call(&a, task(31), (v4_in(WIRE, 32), PORT)).is_err());
    assert!(call(&a, task(31), ([192, 0, 2, 2], PORT)).is_ok());
    converge(&a, &with_mode(&cluster, MacvlanMode::Vepa)).await;

    // Whatever becomes of it.
    for (ns, line) in [
        (task(31), "ip link del eth0"),
        (task(31), "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:02 up"),
        (task(31), "ip link set eth0 mtu 1300; ip route del default"),
        (task(31), "ip link del eth0; ip link add eth0 type bridge"),
    ] {
        a.run(ns, line);
        assert!(!converge(&a, &cluster.assignment(1)).await.is_empty(), "not noticed: {line}");
    }
    a.run(Ns::Host, "ip link add other0 type bridge; ip link set other0 up");
    a.run(task(31), "ip link del eth0");
    let path = a.kernel.netns_path(task(31));
    a.run(
        Ns::Host,
        &format!(
            "ip link add tmp0 link other0 type macvlan mode bridge; ip link set tmp0 netns {} name eth0",
            path.display()
        ),
    );
    assert!(!converge(&a, &cluster.assignment(1)).await.is_empty(), "another parent is not noticed");
    let empty = Assignment { node: cluster.assignment(1).node, ..Assignment::default() };
    converge(&a, &empty).await;
    assert!(!a.run(Ns::Host, "ip -o link").contains('~'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_may_have_the_whole_link() {
    let [a, b] = Host::pair();
    b.run(Ns::Host, &format!("ip addr add {}/24 dev wire0", v4_in(WIRE, 1)));
    echo(&b, Ns::Host, (v4_in(WIRE, 1), PORT));
    let assignment = with_mode(&Cluster::default().run(31, 1, &[WIRE]), MacvlanMode::Passthru);
    // Not the one by which the host itself is known.
    for _ in 0..2 {
        let said = failures(&a, &assignment).await;
        assert!(said[0].starts_with("link wire0 has addresses of this host (192.0.2.1), and macvlan_mode"), "{said:?}");
        assert_eq!(said.len(), 1);
    }
    a.run(Ns::Host, "ping -c 1 -W 2 192.0.2.2; ip addr flush dev wire0");
    // Nor one that others have a part of.
    a.run(Ns::Host, "ip link add own0 link wire0 type macvlan mode bridge");
    let alone = "link wire0 has other macvlan links: in macvlan_mode passthru there is one on a parent link, and \
                 none beside it";
    assert_eq!(failures(&a, &assignment).await[0], alone);
    a.run(Ns::Host, "ip link del own0");
    let before =
        a.run(Ns::Host, "cat /sys/class/net/wire0/address; ip -o link show wire0 | grep -o 'link/ether [^ ]*'");
    converge(&a, &assignment).await;
    assert!(call(&a, task(31), (v4_in(WIRE, 1), PORT)).is_ok());
    let after = a.run(Ns::Host, "cat /sys/class/net/wire0/address; ip -o link show wire0 | grep -o 'link/ether [^ ]*'");
    assert_eq!(after, before, "the host's own address is its own");
    // The next one has it at once.
    let empty = Assignment { node: assignment.node.clone(), ..Assignment::default() };
    for _ in 0..5 {
        converge(&a, &empty).await;
        converge(&a, &assignment).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_is_not_there_is_named_and_so_is_what_is_there() {
    let a = Host::new();
    a.run(Ns::Host, "ip link add lan0 mtu 1400 type veth peer name lan2; ip link add lan1 type bridge");
    let assignment = Cluster::default().run(31, 1, &[WIRE]).assignment(1);
    assert_eq!(failures(&a, &assignment).await[0], "this host has no link wire0; its links are lan0, lan1, lan2");
    a.run(Ns::Host, "ip link set lan0 name wire0");
    let narrow = "link wire0 carries packets of up to 1400 bytes: give the network an MTU of that or less";
    assert_eq!(failures(&a, &assignment).await[0], narrow);
    a.run(Ns::Host, "ip link set wire0 mtu 1500 up; ip link add all0 type bridge; ip link set wire0 master all0");
    let part = "link wire0 is part of another (a bridge, a bond, a team): use that as parent link";
    assert_eq!(failures(&a, &assignment).await[0], part);
    a.run(Ns::Host, "ip link set wire0 nomaster");
    converge(&a, &assignment).await;
    let mut on_loopback = assignment.clone();
    let kind = NetworkKind::Macvlan { parent: "lo".parse().unwrap(), mode: MacvlanMode::Private };
    on_loopback.networks.get_mut(&WIRE).unwrap().kind = kind;
    assert_eq!(failures(&a, &on_loopback).await[0], "link lo is no Ethernet link: use another parent link");
}

/// A kernel with VLANs makes one, on demand; this says which this is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vlan_is_made_on_demand_or_it_is_said_what_is_missing() {
    let [a, _b] = Host::pair();
    let assignment = Cluster::default().run(31, 1, &[TAGGED]).assignment(1);
    let has_vlans =
        a.attempt(Ns::Host, "ip link add link wire0 name try0 type vlan id 9 && ip link del try0").status.success();
    if has_vlans {
        converge(&a, &assignment).await;
        assert!(a.run(Ns::Host, "ip -d link show wire0.50").contains("vlan protocol 802.1Q id 50"));
        let empty = Assignment { node: assignment.node.clone(), ..Assignment::default() };
        converge(&a, &empty).await;
        assert!(!a.run(Ns::Host, "ip -o link").contains("wire0.50"));
    } else {
        let said = failures(&a, &assignment).await;
        assert_eq!(
            said[0],
            "this kernel has no VLAN links: it was built without CONFIG_VLAN_8021Q, or its module 8021q is not there"
        );
        assert_eq!(said[1], "this host has no link wire0.50; its links are wire0");
        // One that is there already, whatever it is, is used as it is.
        a.run(Ns::Host, "ip link add wire0.50 type bridge; ip link set wire0.50 up");
        converge(&a, &assignment).await;
        assert!(a.run(task(31), "ip -d link show eth0").contains("macvlan mode private"));
    }
}
