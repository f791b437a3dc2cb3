//! The requests against the real kernel, in namespaces of the test's own; `ip` and `bridge` are the witnesses.

use nix::sched::{CloneFlags, unshare};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use shoal_common::{LinkName, Mtu};
use std::{
    os::fd::{AsFd, OwnedFd},
    process::Command,
    thread,
};

use super::{Socket, conntrack, nftables, request, route};
use crate::netns;

/// A namespace with its sockets.
struct Ns {
    fd: OwnedFd,
    route: Socket,
    filter: Socket,
}

const MTU: Mtu = Mtu::ETHERNET;

fn name(s: &str) -> LinkName {
    s.parse().unwrap()
}

fn fresh() -> Ns {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel run as root");
        Ns {
            fd: netns::own().unwrap(),
            route: Socket::open(NETLINK_ROUTE).unwrap(),
            filter: Socket::open(NETLINK_NETFILTER).unwrap(),
        }
    })
    .join()
    .unwrap()
}

fn sh(ns: &Ns, line: &str) -> String {
    let output = netns::enter(ns.fd.as_fd(), || Command::new("sh").args(["-c", line]).output().unwrap()).unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_vxlan_link_moves_to_its_sandbox_under_its_new_name() {
    let (mut host, mut sandbox) = (fresh(), fresh());
    host.route
        .ask_one(request::vxlan(&name("tmp0"), 4097.try_into().unwrap(), [192, 0, 2, 1].into(), 4789, MTU))
        .unwrap();
    let index = route::index(&mut host.route, "tmp0").unwrap();
    host.route.ask_one(request::move_to(index, &name("vx0"), sandbox.fd.as_fd())).unwrap();
    assert!(route::index(&mut host.route, "tmp0").is_err());
    assert!(route::index(&mut sandbox.route, "vx0").is_ok());
    let seen = sh(&sandbox, "ip -d link show vx0");
    for word in ["vxlan id 4097", "local 192.0.2.1", "dstport 4789", "nolearning", "proxy"] {
        assert!(seen.contains(word), "{word} in {seen}");
    }
}

#[test]
fn one_request_makes_both_ends_of_a_veth_pair_where_they_belong() {
    let (mut sandbox, mut task) = (fresh(), fresh());
    sh(&sandbox, "ip link add br0 type bridge");
    let bridge = route::index(&mut sandbox.route, "br0").unwrap();
    let (ours, theirs) = (name("t7"), name("eth0"));
    let mac = "02:42:0a:00:01:03".parse().unwrap();
    let end = request::VethEnd { name: &ours, mac: None, mtu: MTU };
    let peer = request::VethEnd { name: &theirs, mac: Some(mac), mtu: MTU };
    sandbox.route.ask_one(request::veth(&end, &peer, task.fd.as_fd())).unwrap();
    sandbox.route.ask_one(request::set(request::named(&ours).controller(bridge).up().build())).unwrap();
    task.route.ask_one(request::set(request::named(&theirs).up().build())).unwrap();
    let seen = sh(&sandbox, "ip link show t7");
    assert!(seen.contains("master br0") && seen.contains("mtu 1500") && seen.contains("state UP"), "{seen}");
    let seen = sh(&task, "ip link show eth0");
    assert!(seen.contains("02:42:0a:00:01:03") && seen.contains("mtu 1500") && seen.contains("state UP"), "{seen}");
    let eth0 = route::index(&mut task.route, "eth0").unwrap();
    let answers = task.route.ask(vec![
        request::add_address(eth0, "10.0.1.3/24".parse().unwrap()),
        request::add_address(eth0, "fd00:9::3/64".parse().unwrap()),
        request::add_address(eth0, "fd00:9::3/64".parse().unwrap()),
        request::add_route("0.0.0.0/0".parse().unwrap(), Some([10, 0, 1, 1].into()), eth0),
        request::add_route("::/0".parse().unwrap(), Some("fd00:9::1".parse().unwrap()), eth0),
    ]);
    let refused: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|r| r.errno)).collect();
    assert_eq!(refused, [None, None, Some(nix::errno::Errno::EEXIST), None, None]);
    assert!(sh(&task, "ip route").contains("default via 10.0.1.1 dev eth0"));
    assert!(sh(&task, "ip -6 route").contains("default via fd00:9::1 dev eth0"));
    let seen = sh(&task, "ip -6 addr show dev eth0 to fd00:9::/64");
    assert!(seen.contains("fd00:9::3/64") && !seen.contains("tentative"), "{seen}");
}

#[test]
fn forwarding_entries_go_to_the_link_and_to_its_bridge() {
    let mut sandbox = fresh();
    sandbox
        .route
        .ask_one(request::vxlan(&name("vx0"), 4097.try_into().unwrap(), [192, 0, 2, 1].into(), 4789, MTU))
        .unwrap();
    sh(&sandbox, "ip link add br0 type bridge; ip link set vx0 master br0 up; ip link set br0 up");
    let vx0 = route::index(&mut sandbox.route, "vx0").unwrap();
    let many: Vec<_> = (0..2000u16)
        .flat_map(|n| {
            let [high, low] = n.to_be_bytes();
            let (mac, ip) = (shoal_common::MacAddr([2, 0x42, 10, 0, high, low]), [10, 0, high, low].into());
            [
                request::append_forwarding(vx0, mac, [192, 0, 2, 2].into()),
                request::set_port(vx0, mac),
                request::set_neighbour(vx0, ip, mac),
            ]
        })
        .collect();
    assert!(sandbox.route.ask(many).iter().all(Result::is_ok));
    let seen = sh(&sandbox, "bridge fdb show dev vx0");
    assert!(seen.contains("02:42:0a:00:07:cf dst 192.0.2.2 self permanent"), "{seen}");
    assert!(seen.contains("02:42:0a:00:07:cf master br0 static"), "{seen}");
    assert!(sh(&sandbox, "ip neigh show").contains("10.0.7.207 dev vx0 lladdr 02:42:0a:00:07:cf PERMANENT"));
    let read = route::neighbours(&mut sandbox.route, rtnetlink::packet_route::AddressFamily::Bridge).unwrap();
    assert!(read.len() >= 4000, "{}", read.len());
    let mac = shoal_common::MacAddr([2, 0x42, 10, 0, 7, 0xcf]);
    let answers = sandbox.route.ask(vec![
        request::delete_forwarding(vx0, mac, [192, 0, 2, 2].into()),
        request::delete_port(vx0, mac),
        request::delete_neighbour(vx0, [10, 0, 7, 207].into()),
    ]);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(!sh(&sandbox, "bridge fdb show dev vx0; ip neigh").contains("07:cf"));
}

#[test]
fn a_refusal_has_the_kernels_words() {
    let mut ns = fresh();
    let refusal = ns.route.ask_one(request::add_route("10.9.0.0/16".parse().unwrap(), None, 999)).unwrap_err();
    assert_eq!(refusal.errno, nix::errno::Errno::ENODEV);
    sh(&ns, "ip link set lo up");
    let refusal = ns
        .route
        .ask_one(request::add_route("10.9.0.0/16".parse().unwrap(), Some([10, 8, 0, 1].into()), 1))
        .unwrap_err();
    assert_eq!(refusal.to_string(), "ENETUNREACH: Network is unreachable: Nexthop has invalid gateway");
}

#[test]
fn any_change_of_a_table_changes_its_fingerprint_and_the_generation() {
    let mut ns = fresh();
    sh(&ns, r#"nft 'table inet shoal { comment "d1"; map m { type ipv4_addr : verdict; }; chain c { counter; }; }'"#);
    sh(&ns, r#"nft 'table ip other { comment "x"; }'"#);
    let seen = nftables::tables(&mut ns.filter).unwrap();
    let ours = nftables::Table { family: 1, name: "shoal".into(), comment: Some("d1".into()) };
    assert!(seen.contains(&ours) && seen.len() == 2, "{seen:?}");
    let mut last = (
        nftables::generation(&mut ns.filter).unwrap().unwrap(),
        nftables::fingerprint(&mut ns.filter, 1, "shoal").unwrap(),
    );
    for line in [
        "nft 'add element inet shoal m { 10.0.0.1 : drop }'",
        "nft 'add rule inet shoal c accept'",
        "nft 'flush chain inet shoal c'",
        "nft 'delete element inet shoal m { 10.0.0.1 }'",
    ] {
        sh(&ns, line);
        let now = (
            nftables::generation(&mut ns.filter).unwrap().unwrap(),
            nftables::fingerprint(&mut ns.filter, 1, "shoal").unwrap(),
        );
        assert!(now.0 > last.0 && now.1 != last.1, "{line}: {last:?} {now:?}");
        last = now;
    }
    sh(&ns, "nft 'add chain ip other c'");
    let now = nftables::fingerprint(&mut ns.filter, 1, "shoal").unwrap();
    assert_eq!(now, last.1);
}

#[test]
fn flows_are_forgotten_by_what_they_were_sent_to() {
    let mut ns = fresh();
    sh(
        &ns,
        "ip link set lo up; nft 'table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }'",
    );
    netns::enter(ns.fd.as_fd(), || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.2:99").unwrap();
        socket.send_to(b"x", "127.0.0.3:99").unwrap();
    })
    .unwrap();
    let here = |f: &shoal_plan::Flow| f.to.ip() == std::net::Ipv4Addr::new(127, 0, 0, 2);
    let found = conntrack::flows(&mut ns.filter, here).unwrap();
    let forgotten = conntrack::forget(&mut ns.filter, &found);
    assert_eq!(forgotten.unwrap(), 1);
    let seen = sh(&ns, "conntrack -L -p udp 2>/dev/null");
    assert!(seen.contains("dst=127.0.0.3") && !seen.contains("dst=127.0.0.2"), "{seen}");
}
