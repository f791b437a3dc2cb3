//! Packets of containers on bridges of their host, wired from its assignment alone. The other host knows the way to
//! each of the bridges' subnets.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, LAN, QUIET, converge, look, task, v4_in, v6_in},
    eventually,
    traffic::{ask, call, echo, echo_datagrams},
};
use shoal_common::assignment::Assignment;
use shoal_plan::{Ns, names};
use std::{collections::BTreeSet, net::IpAddr};

const PORT: u16 = 80;
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];
const HERE: [u8; 4] = [192, 0, 2, 1];

/// 31 and 32 on the default bridge, 33 and 34 on one without icc and masquerade, 35 and 36 on an internal one; and
/// a task on an overlay.
fn cluster() -> Cluster {
    Cluster::default()
        .with(11, 1, CLIENT, &[BLUE])
        .run(31, 1, &[BRIDGE])
        .run(32, 1, &[BRIDGE])
        .run(33, 1, &[LAN])
        .run(34, 1, &[LAN])
        .run(35, 1, &[QUIET])
        .run(36, 1, &[QUIET])
}

async fn wired(cluster: &Cluster) -> [Host; 2] {
    let [a, b] = Host::pair();
    for (host, last) in [(&a, 1), (&b, 2)] {
        host.run(Ns::Host, &format!("ip addr add fd00:192::{last}/64 dev wire0 nodad"));
    }
    converge(&a, &cluster.assignment(1)).await;
    b.run(Ns::Host, "ip route add 172.20.0.0/16 via 192.0.2.1; ip route add fd00:70::/64 via fd00:192::1");
    [a, b]
}

fn outside6() -> IpAddr {
    "fd00:192::2".parse().unwrap()
}

fn at(network: shoal_common::NetworkId, last: u16) -> (IpAddr, u16) {
    (v4_in(network, last).into(), PORT)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_on_a_bridge_meet_and_bridges_do_not() {
    let [a, _b] = wired(&cluster()).await;
    for (network, last) in [(BRIDGE, 32), (LAN, 33), (LAN, 34), (QUIET, 36)] {
        echo(&a, task(last), at(network, last));
    }
    echo(&a, task(32), (v6_in(BRIDGE, 32), PORT));
    echo(&a, task(11), (v4_in(BLUE, 11), PORT));
    let (to, from) = (IpAddr::from(v4_in(BRIDGE, 32)), IpAddr::from(v4_in(BRIDGE, 31)));
    assert_eq!(call(&a, task(31), at(BRIDGE, 32)).unwrap(), (to, from));
    let (to, from) = (IpAddr::from(v6_in(BRIDGE, 32)), IpAddr::from(v6_in(BRIDGE, 31)));
    assert_eq!(call(&a, task(31), (to, PORT)).unwrap(), (to, from));
    assert!(call(&a, task(35), at(QUIET, 36)).is_ok());
    // The host reaches all of them.
    for (network, last) in [(BRIDGE, 32), (LAN, 33), (QUIET, 36)] {
        assert!(call(&a, Ns::Host, at(network, last)).is_ok(), "{last}");
    }
    a.run(Ns::Host, "sysctl -qw net.bridge.bridge-nf-call-iptables=0");
    assert!(call(&a, task(35), at(QUIET, 36)).is_ok());
    for (from, network, last) in
        [(33, LAN, 34), (31, LAN, 33), (33, BRIDGE, 32), (31, QUIET, 36), (35, BRIDGE, 32), (11, BRIDGE, 32)]
    {
        assert!(call(&a, task(from), at(network, last)).is_err(), "{from} reaches {last}");
    }
    assert!(call(&a, task(31), (v4_in(BLUE, 11), PORT)).is_err());
    // Nor do they get at the overlay's sandbox, whose end of the way out the host reaches.
    a.run(Ns::Host, "ping -c 1 -W 2 240.0.32.11");
    assert!(!a.attempt(task(31), "ping -c 1 -W 1 240.0.32.11").status.success());
}

/// Or each start on a host reads files of each container that is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_containers_port_no_sysctl_is_read() {
    let [a, _b] = wired(&cluster()).await;
    let seen = a.kernel.observe(&[Ns::Host].into()).await.unwrap();
    let host = &seen.namespaces[&Ns::Host];
    assert_eq!(host.links.keys().filter(|link| names::is_host_port(link)).count(), 6);
    let of_links: BTreeSet<&str> = host.sysctls.keys().filter_map(|path| names::sysctl_link(path)).collect();
    let ports: Vec<_> = of_links.iter().filter(|link| link.starts_with("shp")).collect();
    assert!(of_links.contains("shoal0") && ports.is_empty(), "{of_links:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_out_is_the_hosts_and_the_way_in_is_shut() {
    let [a, b] = wired(&cluster()).await;
    echo(&b, Ns::Host, (OUTSIDE, PORT));
    echo(&b, Ns::Host, (outside6(), PORT));
    let (outside, here) = (IpAddr::from(OUTSIDE), IpAddr::from(HERE));
    assert_eq!(call(&a, task(31), (outside, PORT)).unwrap(), (outside, here));
    assert_eq!(call(&a, task(31), (outside6(), PORT)).unwrap(), (outside6(), "fd00:192::1".parse().unwrap()));
    // Without masquerade under its own address.
    assert_eq!(call(&a, task(33), (outside, PORT)).unwrap(), (outside, v4_in(LAN, 33).into()));
    assert!(call(&a, task(35), (outside, PORT)).is_err());
    for (network, last) in [(BRIDGE, 31), (LAN, 33), (QUIET, 35)] {
        echo(&a, task(last), at(network, last));
        assert!(call(&b, Ns::Host, at(network, last)).is_err(), "{last} is reached from outside");
    }
    echo(&a, task(31), (v6_in(BRIDGE, 31), PORT));
    assert!(call(&b, Ns::Host, (v6_in(BRIDGE, 31), PORT)).is_err());
    // Nor would an internal network's container get out that made itself a route.
    a.run(task(35), &format!("ip route add default via {}", v4_in(QUIET, 1)));
    assert!(call(&a, task(35), (outside, PORT)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_answers_an_internal_network_nothing_but_what_it_asked() {
    let [a, _b] = wired(&cluster()).await;
    let gateway = IpAddr::from(v4_in(QUIET, 1));
    let here = IpAddr::from(HERE);
    for port in [PORT, 2377] {
        echo(&a, Ns::Host, ([0, 0, 0, 0], port));
    }
    echo_datagrams(&a, Ns::Host, ([0, 0, 0, 0], 53));
    // A container that made itself a route asks the host by its other addresses, too.
    a.run(task(35), &format!("ip route add default via {gateway}"));
    for to in [gateway, here, v4_in(BRIDGE, 1).into()] {
        for port in [PORT, 2377] {
            assert!(call(&a, task(35), (to, port)).is_err(), "{to}:{port}");
        }
        assert!(ask(&a, task(35), (to, 53)).is_err(), "{to}:53");
        assert!(!a.attempt(task(35), &format!("ping -c 1 -W 1 {to}")).status.success(), "{to}");
    }
    // It still finds its gateway and its neighbours, and answers the host.
    a.run(
        task(35),
        &format!("ip neigh flush all; ping -c 1 -W 1 {gateway} || true; ip neigh show {gateway} | grep -q lladdr"),
    );
    echo(&a, task(36), at(QUIET, 36));
    assert!(call(&a, task(35), at(QUIET, 36)).is_ok());
    assert!(call(&a, Ns::Host, at(QUIET, 36)).is_ok());
    // Others reach what the host offers, as with Docker.
    assert!(call(&a, task(31), (v4_in(BRIDGE, 1), PORT)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_is_known_by_its_mark_and_another_of_its_name_is_left_alone() {
    let [a, _b] = Host::pair();
    a.run(
        Ns::Host,
        "ip link add br-lan type bridge; ip addr add 10.77.0.1/24 dev br-lan; ip link set br-lan mtu 1400 up",
    );
    let before = a.run(Ns::Host, "ip -o link show br-lan; ip -4 addr show br-lan");
    let assignment = cluster().assignment(1);
    for _ in 0..2 {
        let ops = look(&a, &assignment).await;
        let failed = a.kernel.apply_all(&ops).await;
        let said = failed.iter().map(|(_, e)| format!("{}", std::error::Error::source(e).unwrap())).collect::<Vec<_>>();
        assert_eq!(
            said,
            ["this host has a link br-lan that is not shoal's: give the network's bridge another name, or remove or \
              rename the link"]
        );
    }
    assert_eq!(a.run(Ns::Host, "ip -o link show br-lan; ip -4 addr show br-lan"), before);
    assert!(!a.run(Ns::Host, "nft list ruleset").contains("br-lan"));
    // Everything else is there.
    a.run(task(31), &format!("ping -c 1 -W 2 {}", v4_in(BRIDGE, 32)));
    a.run(Ns::Host, "ip link del br-lan");
    converge(&a, &assignment).await;
    a.run(Ns::Host, &format!("ping -c 1 -W 2 {}", v4_in(LAN, 33)));
    assert!(a.run(Ns::Host, "ip link show br-lan").contains("alias shoal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_on_the_host_is_repaired_and_an_empty_assignment_leaves_nothing() {
    let [a, _b] = Host::pair();
    // A link that is set up has carrier a moment later.
    let up = async || a.run(Ns::Host, "ip -o link show wire0").contains("state UP");
    eventually("the wire is up", up).await;
    let before = a.run(Ns::Host, "ip -o link; ip -4 addr; nft list ruleset");
    let assignment = cluster().assignment(1);
    converge(&a, &assignment).await;
    for (ns, line) in [
        (Ns::Host, "ip link del shoal0"),
        (Ns::Host, "ip link del br-lan"),
        (Ns::Host, "ip link del shpv-0"),
        (task(31), "ip link del eth0"),
        (Ns::Host, "ip link set shpv-0 nomaster"),
        (Ns::Host, "ip link set shb9 alias ''"),
        (Ns::Host, "ip addr del fe80::1/64 dev shoal0"),
        (Ns::Host, "ip addr flush dev shoal0"),
        (Ns::Host, "sysctl -qw net.ipv6.conf.shoal0.accept_ra=1"),
        (Ns::Host, "bridge fdb del 02:42:ac:14:07:1f dev shpv-0 master"),
        (Ns::Host, "nft flush ruleset"),
    ] {
        let _ = a.run(ns, line);
        let done = converge(&a, &assignment).await;
        assert!(!done.is_empty(), "not noticed: {line}");
    }
    let facts = a.kernel.host_facts(HERE.into()).await.unwrap();
    assert_eq!(facts.subnets, ["192.0.2.0/24".parse().unwrap()].into(), "our bridges are not the host's links");
    let empty = Assignment { node: assignment.node.clone(), ..Assignment::default() };
    converge(&a, &empty).await;
    assert_eq!(a.run(Ns::Host, "ip -o link; ip -4 addr; nft list ruleset"), before);
}
