//! Frames that bear a neighbour's address, written by hand by a container that may (CAP_NET_RAW): they are dropped where
//! they enter the bridge, and true ones pass.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, LAN, converge, task, v4_in, v6_in},
    eventually,
    traffic::{call, echo},
};
use shoal_common::{MacAddr, NetworkId};
use shoal_plan::Ns;

/// The counter of the rule that has this in it.
fn dropped(host: &Host, ns: Ns, rule: &str) -> u64 {
    let table = host.run(ns, "nft -nn list table bridge shoal");
    let line = table.lines().find(|line| line.contains(rule)).unwrap_or_else(|| panic!("{rule} is not in {table}"));
    line.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// Sends one frame out of eth0 of this namespace.
fn send(host: &Host, from: Ns, frame: &[u8]) {
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!(
        "python3 -c \"import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); \
         s.send(bytes.fromhex('{hex}'))\""
    );
    host.run(from, &line);
}

struct Endpoint {
    mac: MacAddr,
    v4: [u8; 4],
    v6: [u8; 16],
}

fn endpoint(network: NetworkId, last: u16) -> Endpoint {
    let v4 = v4_in(network, last);
    Endpoint { mac: MacAddr::of_v4(v4), v4: v4.octets(), v6: v6_in(network, last).octets() }
}

fn ethernet(from: MacAddr, kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &from.0, &kind, payload].concat()
}

/// A gratuitous reply.
fn arp(from: MacAddr, sender: MacAddr, ip: [u8; 4]) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 2];
    ethernet(from, [8, 6], &[&fixed[..], &sender.0, &ip, &[0; 6], &ip].concat())
}

/// A UDP packet without a checksum; a header with a wrong one is dropped by who gets it, not by the bridge.
fn udp(from: MacAddr, ip: [u8; 4]) -> Vec<u8> {
    let header = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &ip, &[255; 4]].concat();
    ethernet(from, [8, 0], &[&header[..], &[0, 9, 0, 9, 0, 8, 0, 0]].concat())
}

fn icmpv6(from: MacAddr, ip: [u8; 16], kind: u8, target: [u8; 16]) -> Vec<u8> {
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    let header = [&[0x60, 0, 0, 0, 0, 24, 58, 255][..], &ip, &all_nodes].concat();
    ethernet(from, [0x86, 0xdd], &[&header[..], &[kind, 0, 0, 0, 0x20, 0, 0, 0], &target].concat())
}

/// One forgery of each kind by 31 in the name of 32, on one network.
async fn forge(host: &Host, ns: Ns, network: NetworkId) {
    let (me, other) = (endpoint(network, 31), endpoint(network, 32));
    let mut link_local = [0; 16];
    (link_local[0], link_local[1], link_local[15]) = (0xfe, 0x80, 9);
    let (advertisement, router) = (136, 134);
    for (rule, frame) in [
        ("ether saddr !=", arp(other.mac, other.mac, other.v4)),
        ("ether saddr !=", udp(other.mac, me.v4)),
        ("iifname . ip saddr !=", udp(me.mac, other.v4)),
        ("arp saddr ip !=", arp(me.mac, me.mac, other.v4)),
        ("arp saddr ip !=", arp(me.mac, other.mac, me.v4)),
        ("ip6 saddr !=", icmpv6(me.mac, other.v6, advertisement, me.v6)),
        ("@th,64,128", icmpv6(me.mac, me.v6, advertisement, other.v6)),
        ("@th,64,128", icmpv6(me.mac, link_local, advertisement, other.v6)),
        ("icmpv6 type { 134", icmpv6(me.mac, link_local, router, [0; 16])),
    ] {
        let before = dropped(host, ns, rule);
        send(host, task(31), &frame);
        eventually(&format!("dropped by {rule}"), async || dropped(host, ns, rule) == before + 1).await;
    }
    // In one's own name all of it is fine.
    let all = ["ether saddr !=", "iifname . ip saddr !=", "arp saddr ip !=", "ip6 saddr !=", "@th,64,128"];
    let before = all.map(|rule| dropped(host, ns, rule));
    for frame in [
        arp(me.mac, me.mac, me.v4),
        udp(me.mac, me.v4),
        icmpv6(me.mac, me.v6, advertisement, me.v6),
        icmpv6(me.mac, link_local, advertisement, link_local),
        icmpv6(me.mac, [0; 16], 135, me.v6),
    ] {
        send(host, task(31), &frame);
    }
    // Frames keep their order.
    let rule = "iifname . ip saddr !=";
    send(host, task(31), &udp(me.mac, other.v4));
    eventually("the last is dropped", async || dropped(host, ns, rule) == before[1] + 1).await;
    let after = all.map(|rule| dropped(host, ns, rule));
    assert_eq!([after[0], after[1] - 1, after[2], after[3], after[4]], before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_in_his_neighbours_name() {
    let [a, _b] = Host::pair();
    for (network, ns) in [(BRIDGE, Ns::Host), (BLUE, Ns::Sandbox(BLUE))] {
        let cluster = Cluster::default().run(31, 1, &[network]).with(32, 1, CLIENT, &[BLUE]).run(33, 1, &[network]);
        converge(&a, &cluster.assignment(1)).await;
        forge(&a, ns, network).await;
        // And neighbours still find each other, by both families.
        a.run(task(31), &format!("ping -c 1 -W 2 {}; ping -c 1 -W 2 {}", v4_in(network, 33), v6_in(network, 33)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_icc_neighbours_on_one_bridge_do_not_meet_even_by_frames() {
    let [a, _b] = Host::pair();
    let cluster = Cluster::default().run(31, 1, &[LAN]).run(32, 1, &[LAN]);
    converge(&a, &cluster.assignment(1)).await;
    echo(&a, task(32), (v4_in(LAN, 32), 80));
    assert!(call(&a, Ns::Host, (v4_in(LAN, 32), 80)).is_ok());
    a.run(Ns::Host, "nft -nn list table bridge shoal | grep -A3 across");
    // The neighbour is known, so that ARP's being dropped is not the reason.
    a.run(task(31), &format!("ip neigh add {} lladdr {} dev eth0", v4_in(LAN, 32), MacAddr::of_v4(v4_in(LAN, 32))));
    assert!(call(&a, task(31), (v4_in(LAN, 32), 80)).is_err());
    // Nor by way of the host, even if both try.
    for (last, other) in [(31, 32), (32, 31)] {
        let redirects = "net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.accept_redirects=0";
        let (to, via) = (v4_in(LAN, other), v4_in(LAN, 1));
        a.run(task(last), &format!("sysctl -qw {redirects}; ip route add {to}/32 via {via}"));
    }
    assert!(call(&a, task(31), (v4_in(LAN, 32), 80)).is_err());
}
