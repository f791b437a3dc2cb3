//! Published ports: packets from another host, from the host itself, and from containers by the host's address.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, Cluster, LAN, QUIET, converge, published, task, v4_in, v6_in},
    eventually,
    traffic::{ask, ask_at_length, ask_from, call, echo, echo_datagrams, heard_by_all},
};
use shoal_common::{container::Wanted, service::Protocol};
use shoal_plan::Ns;
use std::net::IpAddr;

const PORT: u16 = 80;
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

fn here6() -> IpAddr {
    "fd00:192::1".parse().unwrap()
}

fn there6() -> IpAddr {
    "fd00:192::2".parse().unwrap()
}

/// 31 on the default bridge, with a neighbour, 32; 41 on the overlay, with 42; 33 and 34, which may not meet, on another
/// bridge.
fn cluster() -> Cluster {
    let tcp = |ip: &str, at| published(ip, at, PORT, Protocol::Tcp);
    Cluster::default()
        .run_at(31, &[BRIDGE], &[tcp("", 8080), tcp("127.0.0.1", 8081), published("", 8053, 53, Protocol::Udp)])
        .run_at(32, &[BRIDGE], &[tcp("192.0.2.1", 8082)])
        .run_at(33, &[LAN], &[tcp("", 8083)])
        .run_at(34, &[LAN], &[])
        .run_at(35, &[QUIET], &[tcp("", 8085)])
        .run_at(41, &[BLUE], &[tcp("", 9080), published("", 9053, 53, Protocol::Udp)])
        .run_at(42, &[BLUE], &[])
}

async fn wired(cluster: &Cluster) -> [Host; 2] {
    let [a, b] = Host::pair();
    for (host, last) in [(&a, 1), (&b, 2)] {
        host.run(Ns::Host, &format!("ip addr add fd00:192::{last}/64 dev wire0 nodad"));
    }
    converge(&a, &cluster.assignment(1)).await;
    for (network, last) in [(BRIDGE, 31), (BRIDGE, 32), (BLUE, 41)] {
        echo(&a, task(last), (v4_in(network, last), PORT));
        echo(&a, task(last), (v6_in(network, last), PORT));
    }
    for (network, last) in [(QUIET, 35), (LAN, 33)] {
        echo(&a, task(last), (v4_in(network, last), PORT));
    }
    [a, b]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_hosts_reach_a_published_port_and_the_container_sees_who_calls() {
    let [a, b] = wired(&cluster()).await;
    for (port, network, last) in [(8080, BRIDGE, 31), (9080, BLUE, 41)] {
        let (to4, to6) = (IpAddr::from(v4_in(network, last)), IpAddr::from(v6_in(network, last)));
        assert_eq!(call(&b, Ns::Host, (HERE, port)).unwrap(), (to4, THERE), "{port}");
        assert_eq!(
            call(&b, Ns::Host, (here6(), port)).unwrap_or_else(|e| panic!("{port} {e}")),
            (to6, there6()),
            "{port}"
        );
    }
    assert_eq!(call(&b, Ns::Host, (HERE, 8082)).unwrap(), (v4_in(BRIDGE, 32).into(), THERE));
    // Only at the address that was named.
    a.run(Ns::Host, "ip addr add 192.0.2.9/24 dev wire0");
    let second: IpAddr = [192, 0, 2, 9].into();
    assert_eq!(call(&b, Ns::Host, (second, 8080)).unwrap(), (v4_in(BRIDGE, 31).into(), THERE));
    assert!(call(&b, Ns::Host, (second, 8082)).is_err());
    assert!(call(&b, Ns::Host, (here6(), 8082)).is_err());
    // One that is published at 127.0.0.1 is not for others, who may well write that address on a packet.
    assert!(call(&b, Ns::Host, (HERE, 8081)).is_err());
    b.run(
        Ns::Host,
        "sysctl -qw net.ipv4.conf.wire0.route_localnet=1; ip route add local 127.0.0.1 dev lo table 9; \
         ip rule add pref 9 to 127.0.0.1 lookup 10; ip route add 127.0.0.1 via 192.0.2.1 dev wire0 src 192.0.2.2 table 10; \
         ip rule add pref 10 lookup local; ip rule del pref 0",
    );
    assert!(call(&b, Ns::Host, ([127, 0, 0, 1], 8081)).is_err());
    // An internal network has none.
    assert!(call(&b, Ns::Host, (HERE, 8085)).is_err());
    assert!(call(&a, Ns::Host, (HERE, 8085)).is_err());
    // What is not published is not reached, also not beside a port that is.
    b.run(Ns::Host, "ip route add 172.20.0.0/16 via 192.0.2.1");
    assert!(call(&b, Ns::Host, (v4_in(BRIDGE, 31), PORT)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_reaches_a_published_port_by_each_of_its_addresses() {
    let [a, _b] = wired(&cluster()).await;
    let loopback = IpAddr::from([127, 0, 0, 1]);
    for (port, network, last) in [(8080, BRIDGE, 31), (9080, BLUE, 41)] {
        let (to4, to6) = (IpAddr::from(v4_in(network, last)), IpAddr::from(v6_in(network, last)));
        assert_eq!(call(&a, Ns::Host, (HERE, port)).unwrap(), (to4, HERE), "{port}");
        assert_eq!(
            call(&a, Ns::Host, (here6(), port)).unwrap_or_else(|e| panic!("{port} {e}")),
            (to6, here6()),
            "{port}"
        );
        assert_eq!(call(&a, Ns::Host, (loopback, port)).unwrap().0, to4, "{port}");
        // Not translated, and so refused at once.
        let refused = call(&a, Ns::Host, (std::net::Ipv6Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(call(&a, Ns::Host, (loopback, 8081)).unwrap().0, IpAddr::from(v4_in(BRIDGE, 31)));
    assert!(call(&a, Ns::Host, (HERE, 8081)).is_err());
    // Another service of the host's own keeps its address in 127.0.0.0/8.
    echo(&a, Ns::Host, ([127, 0, 0, 53], 8080));
    assert_eq!(call(&a, Ns::Host, ([127, 0, 0, 53], 8080)).unwrap().0, IpAddr::from([127, 0, 0, 53]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_reach_published_ports_by_the_hosts_address_their_own_too() {
    let [a, _b] = wired(&cluster()).await;
    for (port, network, last, from) in [(8080, BRIDGE, 31, [31, 32, 33, 41]), (9080, BLUE, 41, [41, 42, 31, 33])] {
        for from in from {
            let reached = call(&a, task(from), (HERE, port)).unwrap_or_else(|e| panic!("{from} to {port}: {e}"));
            assert_eq!(reached.0, IpAddr::from(v4_in(network, last)));
            if from == 33 {
                assert_eq!(reached.1, IpAddr::from(v4_in(LAN, 33)), "who asks is seen on other networks, {port}");
            }
        }
    }
    // Whether or not somebody, Docker say, has frames that only cross a bridge filtered too.
    for on in [0, 1] {
        let both = format!("net.bridge.bridge-nf-call-iptables={on} net.bridge.bridge-nf-call-ip6tables={on}");
        a.run(Ns::Host, &format!("sysctl -qw {both}"));
        // A neighbour is seen as who it is. Nobody can take itself for a stranger: that one is seen as the bridge.
        for (from, seen) in [(31, 1), (32, 32)] {
            let (reached4, reached6) = (call(&a, task(from), (HERE, 8080)), call(&a, task(from), (here6(), 8080)));
            assert_eq!(reached4.unwrap(), (v4_in(BRIDGE, 31).into(), v4_in(BRIDGE, seen).into()), "{from}, {on}");
            assert_eq!(reached6.unwrap().0, IpAddr::from(v6_in(BRIDGE, 31)), "{from}, {on}");
        }
        let seen = call(&a, task(32), (here6(), 8080)).unwrap().1;
        assert_eq!(seen, IpAddr::from(v6_in(BRIDGE, 32)), "{on}");
        assert!(call(&a, task(31), (v4_in(BRIDGE, 32), PORT)).is_ok());
        // Neighbours that may not meet do by a published port, and by that alone; they know of the bridge only.
        let reached = call(&a, task(34), (HERE, 8083)).unwrap_or_else(|e| panic!("{on}: {e}"));
        assert_eq!(reached, (v4_in(LAN, 33).into(), v4_in(LAN, 1).into()), "{on}");
        assert!(call(&a, task(34), (v4_in(LAN, 33), PORT)).is_err());
        assert_eq!(call(&a, task(33), (HERE, 8080)).unwrap().1, IpAddr::from(v4_in(LAN, 33)));
    }
    assert_eq!(call(&a, task(42), (here6(), 9080)).unwrap().0, IpAddr::from(v6_in(BLUE, 41)));
    assert!(call(&a, task(35), (HERE, 8080)).is_err(), "an internal network has no way out");
    // The bridge takes packets for 127.0.0.1 now, but not those that a container sends to the host's.
    echo(&a, Ns::Host, ([127, 0, 0, 1], 7777));
    a.run(
        task(31),
        &format!(
            "sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip rule add pref 10 lookup local; \
             ip rule add pref 9 to 127.0.0.1 lookup 10; ip route add 127.0.0.1 via {} dev eth0 src {} table 10; \
             ip rule del pref 0",
            v4_in(BRIDGE, 1),
            v4_in(BRIDGE, 31)
        ),
    );
    assert!(call(&a, task(31), ([127, 0, 0, 1], 7777)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_reached_from_each_network_of_its_container() {
    let both = published("", 8086, PORT, Protocol::Tcp);
    let [a, b] = wired(&cluster().run_at(36, &[BRIDGE, LAN], &[both]).run_at(
        37,
        &[BLUE, BRIDGE],
        &[published("", 8087, PORT, Protocol::Tcp)],
    ))
    .await;
    echo(&a, task(36), (v4_in(BRIDGE, 36), PORT));
    echo(&a, task(37), (v4_in(BLUE, 37), PORT));
    // They would answer these by the network that they share with them, and so as who was not asked.
    for (from, to, network, last) in [(33, 8086, BRIDGE, 36), (31, 8087, BLUE, 37), (32, 8087, BLUE, 37)] {
        let reached = call(&a, task(from), (HERE, to)).unwrap_or_else(|e| panic!("{from} to {to}: {e}"));
        assert_eq!(reached.0, IpAddr::from(v4_in(network, last)), "{from} to {to}");
    }
    // Everybody else is seen.
    assert_eq!(call(&a, task(32), (HERE, 8086)).unwrap().1, IpAddr::from(v4_in(BRIDGE, 32)));
    assert_eq!(call(&a, task(33), (HERE, 8087)).unwrap().1, IpAddr::from(v4_in(LAN, 33)));
    assert_eq!(call(&b, Ns::Host, (HERE, 8086)).unwrap().1, THERE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_by_the_hosts_address_is_answered_whatever_the_answer_is() {
    let [a, _b] = wired(&cluster()).await;
    let (server4, server6) = (IpAddr::from(v4_in(BRIDGE, 31)), IpAddr::from(v6_in(BRIDGE, 31)));
    // Nobody listens yet, and that is said at once.
    for here in [HERE, here6()] {
        assert_eq!(
            ask(&a, task(32), (here, 8053)).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{here}"
        );
    }
    // What is said to all is heard by all, also from a published port and in parts.
    for bytes in [10, 9000] {
        assert!(heard_by_all(&a, (task(31), 53), (task(32), 5353), v4_in(BRIDGE, 32), bytes), "{bytes}");
    }
    echo_datagrams(&a, task(31), (server4, 53));
    echo_datagrams(&a, task(31), (server6, 53));
    for on in [0, 1] {
        let both = format!("net.bridge.bridge-nf-call-iptables={on} net.bridge.bridge-nf-call-ip6tables={on}");
        a.run(Ns::Host, &format!("sysctl -qw {both}"));
        for bytes in [10, 9000] {
            let asked = |here| ask_at_length(&a, task(32), (here, 8053), bytes);
            assert_eq!(asked(HERE).unwrap(), (server4, v4_in(BRIDGE, 32).into()), "{bytes}, {on}");
            assert_eq!(asked(here6()).unwrap(), (server6, v6_in(BRIDGE, 32).into()), "{bytes}, {on}");
            // And by its own address, whatever port the question comes from.
            for (from, to) in [(0, server4), (5060, server4), (0, server6), (5060, server6)] {
                let answer = ask_from(&a, task(32), from, (to, 53), bytes);
                assert_eq!(answer.unwrap().0, to, "{bytes} from {from}, {on}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_flow_does_not_stay_with_a_container_that_stopped() {
    let cluster = cluster();
    let [a, b] = wired(&cluster).await;
    for (network, last) in [(BRIDGE, 31), (BLUE, 41)] {
        echo_datagrams(&a, task(last), (v4_in(network, last), 53));
    }
    assert_eq!(ask(&b, Ns::Host, (HERE, 8053)).unwrap(), (v4_in(BRIDGE, 31).into(), THERE));
    assert_eq!(ask(&b, Ns::Host, (HERE, 9053)).unwrap(), (v4_in(BLUE, 41).into(), THERE));
    // Somebody else's translation.
    a.run(
        Ns::Host,
        "nft 'table ip other { chain pre { type nat hook prerouting priority -90; udp dport 7053 dnat to 192.0.2.77:53; }; }'",
    );
    b.run(Ns::Host, "bash -c 'echo x > /dev/udp/192.0.2.1/7053'");
    let flows = "conntrack -L -p udp --dst-nat 2>/dev/null";
    eventually("the flows are known", async || a.run(Ns::Host, flows).contains("dport=7053")).await;
    assert!(a.run(Ns::Host, flows).contains("dport=8053"));
    // One that began before its port led anywhere; and a second container by the same way as 41.
    b.run(Ns::Host, "bash -c 'echo x > /dev/udp/192.0.2.1/8054'");
    let early = "conntrack -L -p udp --orig-port-dst 8054 2>/dev/null";
    eventually("it is known", async || a.run(Ns::Host, early).contains("dport=8054")).await;
    let mut cluster = cluster.run_at(42, &[BLUE], &[published("", 8054, 53, Protocol::Udp)]);
    converge(&a, &cluster.assignment(1)).await;
    let left = a.run(Ns::Host, early);
    assert!(!left.contains("dport=8054"), "{left}");
    echo_datagrams(&a, task(42), (v4_in(BLUE, 42), 53));
    assert_eq!(ask(&b, Ns::Host, (HERE, 8054)).unwrap(), (v4_in(BLUE, 42).into(), THERE));
    cluster.runs.get_mut(&31).unwrap().wanted = Wanted::Stopped;
    converge(&a, &cluster.assignment(1)).await;
    let left = a.run(Ns::Host, flows);
    assert!(!left.contains("dport=8053") && left.contains("dport=9053") && left.contains("dport=7053"), "{left}");
    cluster.runs.get_mut(&41).unwrap().wanted = Wanted::Stopped;
    converge(&a, &cluster.assignment(1)).await;
    let left = a.run(Ns::Host, flows);
    assert!(!left.contains("dport=9053") && left.contains("dport=7053"), "{left}");
    assert!(left.contains("dport=8054"), "{left}");
    assert!(!a.run(Ns::Sandbox(BLUE), flows).contains("dport=9053"));
    // Nor does anybody get in by a port that is no longer published.
    assert!(call(&b, Ns::Host, (HERE, 8080)).is_err());
}
