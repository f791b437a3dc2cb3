//! How long the kernel keeps connections that say nothing: ours as if nobody tracked them, and others as the host says.
//! `conntrack` tells what is left of a connection's time; the answer after 65 s is tried where there is time for it.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, LAN, VIP, WEB, converge, task, v4, v4_in},
    eventually,
    traffic::{call, echo, hold},
};
use shoal_common::{
    NodeId,
    assignment::{IngressAssignment, IngressHost},
    service::{IngressPort, Protocol},
};
use shoal_plan::Ns;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    time::Duration,
};

const PORT: u16 = 80;
const PUBLISHED: u16 = 8080;
const OTHER: u16 = 8081;
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Of what is kept for days.
const HOURS: u64 = 100_000;

fn cluster() -> Cluster {
    let cluster = Cluster::default()
        .with(11, 1, CLIENT, &[BLUE])
        .with(12, 1, WEB, &[BLUE])
        .with(13, 1, WEB, &[BRIDGE])
        .run(33, 1, &[LAN]);
    ingress(cluster, PUBLISHED, &[])
}

fn ingress(mut cluster: Cluster, port: u16, hosts: &[(u64, Ipv4Addr)]) -> Cluster {
    let ports = vec![IngressPort { port, target: PORT, protocol: Protocol::Tcp }];
    let hosts = hosts.iter().map(|(n, ip)| (NodeId(*n), IngressHost { v4: Some(*ip), v6: None, tasks: 1 })).collect();
    cluster.ingress.insert(WEB, IngressAssignment { ports, hosts });
    cluster
}

/// The state and seconds left of each connection that was sent to this port.
fn tracked(host: &Host, ns: Ns, port: u16) -> Vec<(String, u64)> {
    let all = host.run(ns, &format!("conntrack -L -p tcp --orig-port-dst {port} 2>/dev/null"));
    let words = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.map(|w| (w[3].to_owned(), w[2].parse().unwrap())).collect()
}

/// Each of them has come to this state, and whether they are kept for hours.
async fn kept(host: &Host, ns: Ns, port: u16, state: &str) -> Vec<bool> {
    eventually(&format!("{state} at port {port} in {ns}"), async || {
        let all = tracked(host, ns, port);
        !all.is_empty() && all.iter().all(|(is, _)| is == state)
    })
    .await;
    tracked(host, ns, port).into_iter().map(|(_, left)| left > HOURS).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_connections_of_ours_are_kept_and_the_hosts_own_are_as_the_host_says() {
    let [a, b] = Host::pair();
    a.run(Ns::Host, "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=3000");
    let mut cluster = cluster();
    converge(&a, &cluster.assignment(1)).await;
    echo(&a, task(12), (v4(12), PORT));
    echo(&a, task(13), (v4_in(BRIDGE, 13), PORT));
    echo(&a, Ns::Host, (HERE, OTHER));
    echo(&b, Ns::Host, (THERE, PORT));
    let (vip, ..) = hold(&a, task(11), (v4(VIP), PORT)).unwrap();
    // As many as reach both of its tasks.
    let published: Vec<TcpStream> = (0..32).map(|_| hold(&b, Ns::Host, (HERE, PUBLISHED)).unwrap().0).collect();
    let (local, ..) = hold(&a, Ns::Host, (HERE, PUBLISHED)).unwrap();
    let (own, ..) = hold(&b, Ns::Host, (HERE, OTHER)).unwrap();
    let (out, ..) = hold(&a, task(13), (THERE, PORT)).unwrap();
    b.run(Ns::Host, "ip route add 172.20.8.0/24 via 192.0.2.1");
    let (plain, ..) = hold(&a, task(33), (THERE, PORT)).unwrap();
    assert_eq!(kept(&a, Ns::Host, PUBLISHED, "ESTABLISHED").await, [true; 33]);
    assert_eq!(kept(&a, Ns::Host, PORT, "ESTABLISHED").await, [true; 2], "by masquerade, and without");
    assert_eq!(kept(&a, Ns::Host, OTHER, "ESTABLISHED").await, [false]);

    // The host's table is replaced meanwhile.
    cluster.members.get_mut(&12).unwrap().serving = false;
    let before = a.run(Ns::Host, "nft list table inet shoal | grep comment");
    converge(&a, &cluster.assignment(1)).await;
    assert_ne!(a.run(Ns::Host, "nft list table inet shoal | grep comment"), before);
    // What it says of those that are under way is not in that table.
    assert_eq!(kept(&a, Ns::Host, PUBLISHED, "ESTABLISHED").await, [true; 33]);
    let ask = |stream: &TcpStream| {
        let mut stream = stream.try_clone().unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    published.iter().chain([&vip, &local, &own, &out, &plain]).for_each(ask);
    assert_eq!(kept(&a, Ns::Host, PUBLISHED, "ESTABLISHED").await, [true; 33]);
    assert_eq!(kept(&a, Ns::Host, OTHER, "ESTABLISHED").await, [false]);
    assert_eq!(a.run(Ns::Host, "sysctl -n net.netfilter.nf_conntrack_tcp_timeout_close_wait").trim(), "60");
    // Nobody else sees our mark on a packet that is to be routed.
    let marked = a.run(Ns::Host, "conntrack -L -p tcp 2>/dev/null | grep -v 'mark=0' || true");
    assert_eq!(marked, "");
}

/// A server that answers when it is asked to, also after its client has said all.
fn waits(host: &Host, ns: Ns, at: (Ipv4Addr, u16), answers: std::sync::mpsc::Receiver<()>) {
    let listener = host.inside(ns, move || TcpListener::bind(at).unwrap()).join().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let _ = answers.recv();
        stream.write_all(b"late").unwrap();
    });
}

/// Closes its half.
fn asks(host: &Host, ns: Ns, to: (Ipv4Addr, u16)) -> TcpStream {
    let stream = host.inside(ns, move || TcpStream::connect(to).unwrap()).join().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

fn answer(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// By a VIP, by published ports to an overlay and a bridge, and from another host by this one to a third place.
async fn half_closed(wait: Duration) {
    let [a, b] = Host::pair();
    let only = |last, network| Cluster::default().with(last, 1, WEB, &[network]).with(11, 1, CLIENT, &[BLUE]);
    for (cluster, server, place) in [
        (ingress(only(12, BLUE), PUBLISHED, &[]), task(12), v4(12)),
        (ingress(only(13, BRIDGE), PUBLISHED, &[]), task(13), v4_in(BRIDGE, 13)),
    ] {
        converge(&a, &cluster.assignment(1)).await;
        let (now, answers) = std::sync::mpsc::sync_channel(1);
        waits(&a, server, (place, PORT), answers);
        let mut stream = asks(&b, Ns::Host, (HERE, PUBLISHED));
        assert_eq!(kept(&a, Ns::Host, PUBLISHED, "CLOSE_WAIT").await, [true]);
        tokio::time::sleep(wait).await;
        now.send(()).unwrap();
        assert_eq!(answer(&mut stream).unwrap(), b"late");
    }
    converge(&a, &only(12, BLUE).assignment(1)).await;
    let (now, answers) = std::sync::mpsc::sync_channel(1);
    waits(&a, task(12), (v4(12), PORT), answers);
    let mut stream = asks(&a, task(11), (v4(VIP), PORT));
    assert_eq!(kept(&a, Ns::Sandbox(BLUE), PORT, "CLOSE_WAIT").await, [true]);
    tokio::time::sleep(wait).await;
    now.send(()).unwrap();
    assert_eq!(answer(&mut stream).unwrap(), b"late");

    // Published here, and served by another host.
    let elsewhere = ingress(only(11, BLUE), PUBLISHED, &[(2, THERE)]);
    let mut elsewhere = elsewhere;
    elsewhere.members.retain(|_, member| member.service != WEB);
    converge(&a, &elsewhere.assignment(1)).await;
    let (now, answers) = std::sync::mpsc::sync_channel(1);
    waits(&b, Ns::Host, (THERE, PUBLISHED), answers);
    let mut stream = asks(&b, Ns::Host, (HERE, PUBLISHED));
    assert_eq!(kept(&a, Ns::Host, PUBLISHED, "CLOSE_WAIT").await, [true]);
    tokio::time::sleep(wait).await;
    now.send(()).unwrap();
    assert_eq!(answer(&mut stream).unwrap(), b"late");
    assert!(call(&b, Ns::Host, (HERE, OTHER)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_connections_are_kept_for_days() {
    half_closed(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes five minutes: run it with --run-ignored all"]
async fn an_answer_after_65_seconds_arrives() {
    half_closed(Duration::from_secs(65)).await;
}
