//! Who writes into an overlay: the kernels of the hosts that are on that network, and nobody else.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, DB, RED, converge, task, v4},
    traffic::{call, echo},
};
use nix::unistd::{Uid, setfsuid};
use shoal_common::{MacAddr, NetworkId, Vni};
use shoal_plan::Ns;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

const VXLAN: u16 = 4789;
const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// At which somebody of the network listens for what somebody outside wrote.
const PORT: u16 = 7777;
/// For a datagram that comes; the others are followed by one that must.
const PATIENCE: Duration = Duration::from_millis(500);
const NOBODY: Uid = Uid::from_raw(65534);

/// 11 on both networks of host a, 21 on blue at host b; a container of a's default bridge.
fn cluster() -> Cluster {
    Cluster::default().with(11, 1, CLIENT, &[BLUE]).with(14, 1, DB, &[RED]).with(21, 2, CLIENT, &[BLUE]).run(
        31,
        1,
        &[BRIDGE],
    )
}

fn vni(network: NetworkId) -> Vni {
    Vni::try_from(4096 + u32::try_from(network.0).unwrap()).unwrap()
}

/// VXLAN's header (RFC 7348 §5) and a frame of UDP to that task, as from another of its network.
fn forged(network: NetworkId, to: u16) -> Vec<u8> {
    let (from_ip, to_ip) = (v4(21), v4(to));
    let payload = b"forged";
    let udp_length = u16::try_from(8 + payload.len()).unwrap();
    let vni = (vni(network).get() << 8).to_be_bytes();
    let mut ip = [
        &[0x45, 0][..],
        &(20 + udp_length).to_be_bytes(),
        &[0, 1, 0, 0, 64, 17, 0, 0],
        &from_ip.octets(),
        &to_ip.octets(),
    ]
    .concat();
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // Without a checksum, as IPv4 permits.
    let udp = [&PORT.to_be_bytes()[..], &PORT.to_be_bytes(), &udp_length.to_be_bytes(), &[0, 0]].concat();
    let ethernet = [&MacAddr::of_v4(to_ip).0[..], &MacAddr::of_v4(from_ip).0, &[8, 0]].concat();
    [&[8, 0, 0, 0][..], &vni, &ethernet, &ip, &udp, payload].concat()
}

fn listening(host: &Host, last: u16) -> UdpSocket {
    let socket = host.inside(task(last), || UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).join().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn comes(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 64]).is_ok()
}

/// From a socket of that namespace, of the user nobody. Being refused is as good as being dropped.
fn send(host: &Host, ns: Ns, to: Ipv4Addr, what: Vec<u8>) -> io::Result<usize> {
    let send = move || {
        // By which a socket is known as somebody's, and of this thread alone.
        setfsuid(NOBODY);
        UdpSocket::bind("0.0.0.0:0")?.send_to(&what, SocketAddr::from((to, VXLAN)))
    };
    host.inside(ns, send).join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_and_no_process_of_a_host_writes_into_an_overlay() {
    let [a, b] = Host::pair();
    converge(&a, &cluster().assignment(1)).await;
    converge(&b, &cluster().assignment(2)).await;
    // What the kernel encapsulates passes.
    echo(&b, task(21), (v4(21), 80));
    assert_eq!(call(&a, task(11), (v4(21), 80)).unwrap(), (v4(21).into(), IpAddr::from(v4(11))));
    let (here, there) = (listening(&a, 11), listening(&b, 21));
    for (what, from, ns, to, heard) in [
        ("a container on a bridge, to another host", &a, task(31), B, &there),
        ("a container on an overlay, to another host", &a, task(11), B, &there),
        ("a container on a bridge, to its own host", &a, task(31), A, &here),
        ("a process, to another host", &a, Ns::Host, B, &there),
        ("a process of another host", &b, Ns::Host, A, &here),
        ("a process, to its own host", &a, Ns::Host, A, &here),
        ("a process, to its own host by loopback", &a, Ns::Host, Ipv4Addr::LOCALHOST, &here),
    ] {
        let last = if to == B { 21 } else { 11 };
        let _ = send(from, ns, to, forged(BLUE, last));
        assert!(!comes(heard), "{what}");
    }
    let dropped = a.run(Ns::Host, "nft list table inet shoal | grep 'udp dport 4789' | grep -v 'packets 0'");
    assert!(dropped.lines().count() >= 3, "counted: {dropped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_writes_into_those_networks_only_that_it_is_on() {
    let [a, b] = Host::pair();
    converge(&a, &cluster().assignment(1)).await;
    // Host b is somebody's who sends what he likes. It is believed about blue, on which it has a task, and not about red.
    let (blue, red) = (listening(&a, 11), listening(&a, 14));
    let hostile = |network, last| send(&b, Ns::Host, A, forged(network, last)).unwrap();
    hostile(RED, 14);
    assert!(!comes(&red));
    hostile(BLUE, 11);
    assert!(comes(&blue), "a host of the network is dropped");
    // Once it has none there, neither.
    let mut without = cluster();
    without.members.remove(&21);
    converge(&a, &without.assignment(1)).await;
    hostile(BLUE, 11);
    assert!(!comes(&blue));
}
