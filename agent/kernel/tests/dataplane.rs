//! Packets between tasks on two hosts, each host wired from its assignment alone.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, CLIENT, Cluster, DB, RED, VIP, WEB, converge, task, v4, v6},
    traffic::{ask, call, echo, echo_datagrams, hold, lives},
};
use shoal_plan::Ns;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::IpAddr,
    time::{Duration, Instant},
};

const PORT: u16 = 80;
/// Of this many connections to four backends, the chance that one gets none is below 1 in 10 million.
const CALLS: usize = 64;

/// Clients 11 and 41, web on both hosts; red with equal addresses.
fn cluster() -> Cluster {
    Cluster::default()
        .with(11, 1, CLIENT, &[BLUE])
        .with(12, 1, WEB, &[BLUE])
        .with(13, 1, CLIENT, &[RED])
        .with(14, 1, DB, &[RED])
        .with(21, 2, WEB, &[BLUE])
        .with(22, 2, WEB, &[BLUE])
        .with(23, 2, WEB, &[BLUE])
        .with(24, 2, DB, &[RED])
}

async fn wired(cluster: &Cluster) -> [Host; 2] {
    let [a, b] = Host::pair();
    converge(&a, &cluster.assignment(1)).await;
    converge(&b, &cluster.assignment(2)).await;
    [a, b]
}

fn at(host: &Host, last: u16) {
    echo(host, task(last), (v4(last), PORT));
    echo(host, task(last), (v6(last), PORT));
}

/// Who answered, of so many calls, each of which must come from `from`.
fn who(host: &Host, ns: Ns, vip: IpAddr, from: IpAddr) -> BTreeSet<IpAddr> {
    let mut by = BTreeSet::new();
    for _ in 0..CALLS {
        let (server, client) = call(host, ns, (vip, PORT)).unwrap();
        assert_eq!(client, from, "the backend {server} sees another client");
        by.insert(server);
    }
    by
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_reaches_tasks_on_both_hosts_by_address_and_each_replica_by_vip() {
    let [a, b] = wired(&cluster()).await;
    for last in [12, 21, 22, 23] {
        at(if last < 20 { &a } else { &b }, last);
    }
    for last in [12, 21] {
        a.run(task(11), &format!("ping -c 1 -W 2 {}; ping -c 1 -W 2 {}", v4(last), v6(last)));
    }
    let (client4, client6) = (IpAddr::from(v4(11)), IpAddr::from(v6(11)));
    assert_eq!(call(&a, task(11), (v4(21), PORT)).unwrap(), (v4(21).into(), client4));
    assert_eq!(call(&a, task(11), (v6(21), PORT)).unwrap(), (v6(21).into(), client6));
    let replicas = [12, 21, 22, 23];
    assert_eq!(who(&a, task(11), v4(VIP).into(), client4), replicas.map(|l| v4(l).into()).into());
    assert_eq!(who(&a, task(11), v6(VIP).into(), client6), replicas.map(|l| v6(l).into()).into());
    // A backend is a client of its own service too, and sometimes meets itself.
    let mut met_itself = false;
    for vip in [IpAddr::from(v4(VIP)), v6(VIP).into()] {
        for _ in 0..CALLS {
            let (server, client) = call(&b, task(21), (vip, PORT)).unwrap();
            let itself = [IpAddr::from(v4(21)), v6(21).into()];
            met_itself |= itself.contains(&server);
            assert!(itself.contains(&server) || itself.contains(&client), "{server} saw {client}");
        }
    }
    assert!(met_itself);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_to_the_vip_reach_each_replica_and_their_answers_come_from_the_vip() {
    let [a, b] = wired(&cluster()).await;
    for last in [12, 21, 22, 23] {
        let host = if last < 20 { &a } else { &b };
        echo_datagrams(host, task(last), (v4(last), PORT));
        echo_datagrams(host, task(last), (v6(last), PORT));
    }
    for (vip, client, all) in [
        (IpAddr::from(v4(VIP)), IpAddr::from(v4(11)), [12, 21, 22, 23].map(|l| IpAddr::from(v4(l)))),
        (v6(VIP).into(), v6(11).into(), [12, 21, 22, 23].map(|l| v6(l).into())),
    ] {
        let mut by = BTreeSet::new();
        for _ in 0..CALLS {
            let (server, seen) = ask(&a, task(11), (vip, PORT)).unwrap();
            assert_eq!(seen, client);
            by.insert(server);
        }
        assert_eq!(by, all.into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_out_is_by_the_hosts_address_and_an_internal_network_has_none() {
    let [a, b] = wired(&cluster()).await;
    for (host, last) in [(&a, 1), (&b, 2)] {
        host.run(Ns::Host, &format!("ip addr add fd00:192::{last}/64 dev wire0 nodad"));
    }
    let outside4 = IpAddr::from([192, 0, 2, 2]);
    let outside6: IpAddr = "fd00:192::2".parse().unwrap();
    echo(&b, Ns::Host, (outside4, PORT));
    echo(&b, Ns::Host, (outside6, PORT));
    assert_eq!(call(&a, task(11), (outside4, PORT)).unwrap(), (outside4, [192, 0, 2, 1].into()));
    assert_eq!(call(&a, task(11), (outside6, PORT)).unwrap(), (outside6, "fd00:192::1".parse().unwrap()));
    assert!(call(&a, task(13), (outside4, PORT)).is_err());
    // Nor does its sandbox have one, whoever would route through it.
    assert!(!a.run(Ns::Sandbox(RED), "ip -o link").contains("up0"));
    // Where one network's way out is, another's is not reached by it: red's db is not behind blue's uplink.
    echo(&a, task(14), (v4(14), PORT));
    assert!(call(&a, task(11), (v4(14), PORT)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_of_the_networks_mtu_pass_and_larger_ones_are_refused_at_home() {
    let [a, _b] = wired(&cluster()).await;
    // 1500 of the underlay, 50 of VXLAN's; 28 and 48 of ICMP's.
    a.run(task(11), &format!("ping -c 1 -W 2 -M do -s 1422 {}", v4(21)));
    a.run(task(11), &format!("ping -c 1 -W 2 -M do -s 1402 {}", v6(21)));
    let refused = a.attempt(task(11), &format!("ping -c 1 -W 2 -M do -s 1423 {}", v4(21)));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && said.contains("mtu=1450"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_with_equal_subnets_do_not_meet() {
    let [a, b] = wired(&cluster()).await;
    echo(&b, task(21), (v4(21), PORT));
    echo(&b, task(24), (v4(24), PORT));
    assert!(call(&a, task(11), (v4(21), PORT)).is_ok());
    assert!(call(&a, task(13), (v4(24), PORT)).is_ok());
    assert!(call(&a, task(13), (v4(21), PORT)).is_err());
    assert!(call(&a, task(11), (v4(24), PORT)).is_err());
    // The same VIP means each network's own service.
    echo(&a, task(14), (v4(14), PORT));
    let dbs = who(&a, task(13), v4(VIP).into(), v4(13).into());
    assert_eq!(dbs, [v4(14).into(), v4(24).into()].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_leaves_gets_nothing_new_and_what_is_under_way_elsewhere_goes_on() {
    let mut cluster = cluster();
    let [a, b] = wired(&cluster).await;
    for last in [12, 21, 22, 23] {
        at(if last < 20 { &a } else { &b }, last);
    }
    let mut held = BTreeMap::new();
    for _ in 0..CALLS {
        let (stream, server, _) = hold(&a, task(11), (v4(VIP), PORT)).unwrap();
        held.insert(server, stream);
    }
    assert_eq!(held.len(), 4);
    cluster.members.get_mut(&21).unwrap().serving = false;
    converge(&a, &cluster.assignment(1)).await;
    let left = who(&a, task(11), v4(VIP).into(), v4(11).into());
    assert_eq!(left, [12, 22, 23].map(|l| v4(l).into()).into());
    // Also to the one that leaves: it may finish what it has begun.
    for (server, stream) in &mut held {
        lives(stream).unwrap_or_else(|error| panic!("{server}: {error}"));
    }
    cluster.members.remove(&21);
    converge(&b, &cluster.assignment(2)).await;
    converge(&a, &cluster.assignment(1)).await;
    for (server, stream) in held.iter_mut().filter(|(server, _)| **server != IpAddr::from(v4(21))) {
        lives(stream).unwrap_or_else(|error| panic!("{server}: {error}"));
    }
    // Without any backend a VIP refuses at once, rather than let its clients wait.
    cluster.members.retain(|_, member| member.service != WEB);
    converge(&a, &cluster.assignment(1)).await;
    for vip in [IpAddr::from(v4(VIP)), v6(VIP).into()] {
        let begun = Instant::now();
        assert_eq!(call(&a, task(11), (vip, PORT)).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(begun.elapsed() < Duration::from_secs(1), "{vip} refused after {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_asks_of_the_resolver_comes_to_the_resolvers_own_port() {
    let [a, _b] = wired(&cluster()).await;
    let at = ([127, 0, 0, 11], shoal_plan::names::RESOLVER_PORT).into();
    let (resolver, _tcp) = a.kernel.netns(task(11)).unwrap().sockets(at).await.unwrap();
    resolver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let asked = a.inside(task(11), || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(b"who?", "127.0.0.11:53").unwrap();
        let mut answer = [0; 8];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        // A resolver library takes no answer from another address than it asked.
        assert_eq!(from, "127.0.0.11:53".parse().unwrap());
        // And the port stays free for the container's own server.
        (answer[..length].to_vec(), std::net::UdpSocket::bind("0.0.0.0:53").is_ok())
    });
    let mut question = [0; 8];
    let (length, from) = resolver.recv_from(&mut question).unwrap();
    assert_eq!(&question[..length], b"who?");
    resolver.send_to(b"me", from).unwrap();
    assert_eq!(asked.join().unwrap(), (b"me".to_vec(), true));
    assert!(a.inside(task(11), || std::net::TcpStream::connect("127.0.0.11:53").is_ok()).join().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_when_one_hosts_underlay_carries_less() {
    let cluster = cluster();
    let [a, b] = wired(&cluster).await;
    at(&b, 21);
    let (mut stream, ..) = hold(&a, task(11), (v4(21), PORT)).unwrap();
    let mut transfer = || {
        let (mut sending, sent) = (stream.try_clone().unwrap(), vec![7; 1 << 20]);
        let writer = std::thread::spawn(move || sending.write_all(&sent));
        let mut got = vec![0; 1 << 20];
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let read = stream.read_exact(&mut got);
        writer.join().unwrap().and(read)
    };
    transfer().unwrap();
    // What the managers tell each host: the least of the hosts on the network.
    b.run(Ns::Host, "ip link set wire0 mtu 1400");
    for (host, node) in [(&a, 1), (&b, 2)] {
        let mut assignment = cluster.assignment(node);
        assignment.networks.get_mut(&BLUE).unwrap().underlay = Some(1400.try_into().unwrap());
        converge(host, &assignment).await;
    }
    for (host, ns, link) in [(&a, Ns::Sandbox(BLUE), "vx0"), (&a, task(11), "eth0"), (&b, task(21), "eth0")] {
        assert!(host.run(ns, &format!("ip link show {link}")).contains("mtu 1350"), "{link} in {ns}");
    }
    transfer().unwrap();
    // A network whose hosts are others is as it was.
    assert!(a.run(task(13), "ip link show eth0").contains("mtu 1450"));
}
