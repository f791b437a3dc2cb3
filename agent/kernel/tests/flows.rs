//! Connections whose backend is gone: an unanswered one is led to another backend, an established one is reset, and
//! connections to other backends are left alone.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, VIP, WEB, converge, look, task, v4, v4_in},
    eventually,
    traffic::{echo, hold, lives},
};
use shoal_common::{
    NodeId,
    assignment::{IngressAssignment, IngressHost},
    service::{IngressPort, Protocol},
};
use shoal_plan::Ns;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    thread::JoinHandle,
    time::{Duration, Instant},
};

const PORT: u16 = 80;
const PUBLISHED: u16 = 8080;
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// TCP sends its first packet again after 1 and 3 s; conntrack would lead it astray for 120 s.
const AGAIN: Duration = Duration::from_secs(10);

/// A connection from this source port, that waits for as long as TCP does.
fn connect(host: &Host, ns: Ns, from: u16, to: (Ipv4Addr, u16)) -> JoinHandle<io::Result<TcpStream>> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};
    use std::os::fd::AsRawFd;
    host.inside(ns, move || {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, from))?;
        let SocketAddr::V4(to) = SocketAddr::from(to) else { unreachable!() };
        connect(fd.as_raw_fd(), &SockaddrIn::from(to))?;
        Ok(TcpStream::from(fd))
    })
}

fn tracked(host: &Host, ns: Ns, what: &str) -> String {
    host.run(ns, &format!("conntrack -L -p tcp {what} 2>/dev/null"))
}

fn published(mut cluster: Cluster, hosts: &[u64]) -> Cluster {
    let ports = vec![IngressPort { port: PUBLISHED, target: PORT, protocol: Protocol::Tcp }];
    let host = |node: &u64| {
        let v4 = Some(Ipv4Addr::new(192, 0, 2, u8::try_from(*node).unwrap()));
        (NodeId(*node), IngressHost { v4, v6: None, tasks: 1 })
    };
    let hosts = hosts.iter().map(host).collect();
    cluster.ingress.insert(WEB, IngressAssignment { ports, hosts });
    cluster
}

/// Its connections go nowhere, as when its host has died.
fn dies(host: &Host, last: u16) {
    host.run(task(last), "ip link set eth0 down");
}

async fn comes_through(waiting: JoinHandle<io::Result<TcpStream>>, begun: Instant) -> TcpStream {
    eventually("the connection is led to another", async || waiting.is_finished() || begun.elapsed() > AGAIN).await;
    assert!(waiting.is_finished(), "still waits after {:?}", begun.elapsed());
    waiting.join().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_vip_whose_backend_died_is_led_to_another() {
    let before = Cluster::default().with(11, 1, CLIENT, &[BLUE]).with(21, 2, WEB, &[BLUE]);
    let [a, b] = Host::pair();
    converge(&a, &before.assignment(1)).await;
    converge(&b, &before.assignment(2)).await;
    echo(&b, task(21), (v4(21), PORT));
    let (mut established, ..) = hold(&a, task(11), (v4(VIP), PORT)).unwrap();
    lives(&mut established).unwrap();
    dies(&b, 21);
    let (waiting, begun) = (connect(&a, task(11), 40_000, (v4(VIP), PORT)), Instant::now());
    eventually("it is tracked", async || tracked(&a, Ns::Sandbox(BLUE), "--state SYN_SENT").contains("sport=40000"))
        .await;

    let mut after = before.clone().with(12, 1, WEB, &[BLUE]);
    after.members.remove(&21);
    converge(&a, &after.assignment(1)).await;
    echo(&a, task(12), (v4(12), PORT));
    comes_through(waiting, begun).await;
    // Its next packet reaches the other backend, which does not know the connection.
    let reset = lives(&mut established).unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    assert!(!tracked(&a, Ns::Sandbox(BLUE), "--dst-nat").contains(&format!("src={} ", v4(21))));
    assert!(look(&a, &after.assignment(1)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_that_ends_has_begun_goes_on_and_nobody_waits_for_it_any_more() {
    let mut cluster = Cluster::default().with(11, 1, CLIENT, &[BLUE]).with(21, 2, WEB, &[BLUE]);
    let [a, b] = Host::pair();
    converge(&a, &cluster.assignment(1)).await;
    converge(&b, &cluster.assignment(2)).await;
    echo(&b, task(21), (v4(21), PORT));
    let (mut established, ..) = hold(&a, task(11), (v4(VIP), PORT)).unwrap();
    b.run(
        task(21),
        "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; }'; \
         nft add rule inet t in tcp flags syn / syn,ack drop",
    );
    let (waiting, begun) = (connect(&a, task(11), 40_000, (v4(VIP), PORT)), Instant::now());
    eventually("it is tracked", async || tracked(&a, Ns::Sandbox(BLUE), "--state SYN_SENT").contains("sport=40000"))
        .await;
    cluster.members.get_mut(&21).unwrap().serving = false;
    let cluster = cluster.with(12, 1, WEB, &[BLUE]);
    converge(&a, &cluster.assignment(1)).await;
    echo(&a, task(12), (v4(12), PORT));
    comes_through(waiting, begun).await;
    lives(&mut established).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_port_leads_past_a_task_and_a_host_that_died() {
    let here = published(Cluster::default().with(12, 1, WEB, &[BLUE]).with(13, 1, WEB, &[BRIDGE]), &[1]);
    let [a, b] = Host::pair();
    converge(&a, &here.assignment(1)).await;
    for (network, last) in [(BLUE, 12), (BRIDGE, 13)] {
        echo(&a, task(last), (v4_in(network, last), PORT));
    }
    // One connection to each, of as many as it takes.
    let mut held: std::collections::BTreeMap<IpAddr, TcpStream> = (0..64)
        .map(|_| hold(&b, Ns::Host, (HERE, PUBLISHED)).unwrap())
        .map(|(stream, server, _)| (server, stream))
        .collect();
    assert_eq!(held.len(), 2);
    dies(&a, 12);
    let begun = Instant::now();
    let waiting: Vec<_> = (0..16).map(|n| connect(&b, Ns::Host, 40_000 + n, (HERE, PUBLISHED))).collect();
    eventually("some are led to the dead", async || {
        tracked(&a, Ns::Host, "--state SYN_SENT").contains("src=240.0.32.11")
            && tracked(&a, Ns::Sandbox(BLUE), "--state SYN_SENT").contains("sport=")
    })
    .await;
    let mut without = here.clone();
    without.members.remove(&12);
    converge(&a, &without.assignment(1)).await;
    for waiting in waiting {
        comes_through(waiting, begun).await;
    }
    let mut dead = held.remove(&v4(12).into()).unwrap();
    assert!(lives(&mut dead).is_err(), "it would hang");
    lives(held.get_mut(&v4_in(BRIDGE, 13).into()).unwrap()).unwrap();

    // To another host, that does not answer; then there is one here.
    let elsewhere = published(Cluster::default().bridge(BRIDGE), &[1, 9]);
    let [c, d] = Host::pair();
    converge(&c, &elsewhere.assignment(1)).await;
    let (waiting, begun) = (connect(&d, Ns::Host, 40_000, (HERE, PUBLISHED)), Instant::now());
    eventually("it is tracked", async || tracked(&c, Ns::Host, "--state SYN_SENT").contains("src=192.0.2.9")).await;
    let here = published(Cluster::default().with(13, 1, WEB, &[BRIDGE]), &[1]);
    converge(&c, &here.assignment(1)).await;
    echo(&c, task(13), (v4_in(BRIDGE, 13), PORT));
    comes_through(waiting, begun).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbours_end_leaves_connections_through_the_host_alone() {
    // Both are reached by one way, each at a port of its own there.
    let both = published(Cluster::default().with(12, 1, WEB, &[BLUE]).with(14, 1, WEB, &[BLUE]), &[1]);
    let [a, b] = Host::pair();
    converge(&a, &both.assignment(1)).await;
    for last in [12, 14] {
        echo(&a, task(last), (v4(last), PORT));
    }
    let mut held: std::collections::BTreeMap<IpAddr, TcpStream> = (0..64)
        .map(|_| hold(&b, Ns::Host, (HERE, PUBLISHED)).unwrap())
        .map(|(stream, server, _)| (server, stream))
        .collect();
    assert_eq!(held.len(), 2);
    for (gone, stays) in [(12, 14), (14, 12)] {
        let mut one = both.clone();
        one.members.remove(&gone);
        converge(&a, &one.assignment(1)).await;
        lives(held.get_mut(&v4(stays).into()).unwrap()).unwrap();
        if gone == 14 {
            break;
        }
        converge(&a, &both.assignment(1)).await;
        echo(&a, task(12), (v4(12), PORT));
        held = (0..64)
            .map(|_| hold(&b, Ns::Host, (HERE, PUBLISHED)).unwrap())
            .map(|(stream, server, _)| (server, stream))
            .collect();
        assert_eq!(held.len(), 2);
    }
}
