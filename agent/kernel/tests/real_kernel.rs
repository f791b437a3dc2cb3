//! Two hosts on the real kernel, wired by ops; `ip`, `bridge`, `nft` and packets are the witnesses.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{Host, eventually};
use ipnet::IpNet;
use shoal_common::{LinkName, MacAddr, Mtu, NetworkId, TaskId, Vni};
use shoal_plan::{Fdb, Flow, Link, LinkKind, Neighbour, Ns, Op, PortFlags, Route, Table, names, nft};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const SANDBOX: Ns = Ns::Sandbox(NetworkId(5));

fn vni() -> Vni {
    4101.try_into().unwrap()
}

fn mtu() -> Mtu {
    1450.try_into().unwrap()
}

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn v4(last: u8) -> IpAddr {
    [10, 0, 9, last].into()
}

fn v6(last: u8) -> IpAddr {
    format!("fd00:9::{last:x}").parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0x42, 10, 0, 9, last])
}

fn task(last: u8) -> Ns {
    Ns::Task(TaskId(last.into()))
}

fn sandbox_ops(local: [u8; 4]) -> Vec<Op> {
    let ns = SANDBOX;
    let sysctl = |path: &str, value: &str| Op::SetSysctl { ns, path: path.into(), value: value.into() };
    vec![
        Op::AddNetns { ns },
        Op::LoopbackUp { ns },
        sysctl("net/ipv4/ip_forward", "1"),
        sysctl("net/bridge/bridge-nf-call-iptables", "1"),
        sysctl("net/bridge/bridge-nf-call-ip6tables", "1"),
        Op::AddBridge { ns, link: names::bridge(), mac: Some(mac(1)), mtu: mtu(), marked: false },
        Op::AddVxlan { ns, link: names::vxlan(), vni: vni(), local: local.into(), port: 4789, mtu: mtu() },
        Op::SetMaster { ns, link: names::vxlan(), master: Some(names::bridge()) },
        Op::SetPort {
            ns,
            link: names::vxlan(),
            port: PortFlags { hairpin: false, learning: false, flood: true, mcast_flood: true },
        },
        Op::SetUp { ns, link: names::vxlan(), up: true },
        Op::SetUp { ns, link: names::bridge(), up: true },
        Op::AddAddress { ns, link: names::bridge(), address: IpNet::new(v4(1), 24).unwrap() },
        Op::AddAddress { ns, link: names::bridge(), address: IpNet::new(v6(1), 64).unwrap() },
    ]
}

fn task_ops(last: u8) -> Vec<Op> {
    let (ns, port, eth0) = (task(last), names::port(TaskId(last.into())), names::eth(0));
    vec![
        Op::AddNetns { ns },
        Op::LoopbackUp { ns },
        Op::AddVeth {
            ns: SANDBOX,
            link: port.clone(),
            mtu: mtu(),
            mac: None,
            peer_ns: ns,
            peer: eth0.clone(),
            peer_mac: Some(mac(last)),
        },
        Op::SetMaster { ns: SANDBOX, link: port.clone(), master: Some(names::bridge()) },
        Op::SetPort { ns: SANDBOX, link: port.clone(), port: PortFlags { hairpin: true, ..PortFlags::default() } },
        Op::SetUp { ns: SANDBOX, link: port, up: true },
        Op::SetUp { ns, link: eth0.clone(), up: true },
        Op::AddAddress { ns, link: eth0.clone(), address: IpNet::new(v4(last), 24).unwrap() },
        Op::AddAddress { ns, link: eth0.clone(), address: IpNet::new(v6(last), 64).unwrap() },
        Op::AddRoute { ns, route: default_route(v4(1)) },
        Op::AddRoute { ns, route: default_route(v6(1)) },
    ]
}

fn default_route(via: IpAddr) -> Route {
    let to = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Route { to: to.parse().unwrap(), via: Some(via), link: names::eth(0) }
}

/// What a host must know to reach an endpoint on another.
fn remote_ops(last: u8, vtep: [u8; 4]) -> Vec<Op> {
    let (ns, link) = (SANDBOX, names::vxlan());
    vec![
        Op::AddFdb { ns, link: link.clone(), entry: Fdb { mac: mac(last), dst: vtep.into() } },
        Op::AddBridgeFdb { ns, link: link.clone(), mac: mac(last) },
        Op::SetNeighbour { ns, link: link.clone(), entry: Neighbour { ip: v4(last), mac: mac(last) } },
        Op::SetNeighbour { ns, link, entry: Neighbour { ip: v6(last), mac: mac(last) } },
    ]
}

/// A network over two hosts: task 11 on the first, 12 and 13 on the second.
async fn network() -> [Host; 2] {
    let [a, b] = Host::pair();
    let (va, vb) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    done(&a, [sandbox_ops(va), task_ops(11), remote_ops(12, vb), remote_ops(13, vb)].concat()).await;
    done(&b, [sandbox_ops(vb), task_ops(12), task_ops(13), remote_ops(11, va)].concat()).await;
    [a, b]
}

async fn done(host: &Host, ops: Vec<Op>) {
    let failed = host.kernel.apply_all(&ops).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn observed(host: &Host, ns: Ns) -> shoal_plan::Namespace {
    let world = host.kernel.observe(&BTreeSet::from([ns])).await.unwrap();
    world.namespaces.get(&ns).cloned().unwrap_or_else(|| panic!("{ns} is not there"))
}

/// Answers each connection with who it came from.
fn serve(host: &Host, ns: Ns, at: &str) {
    let at: SocketAddr = at.parse().unwrap();
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let _ends_with_the_test = host.inside(ns, move || {
        let listener = TcpListener::bind(at).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip();
            let me = stream.local_addr().unwrap().ip();
            if write!(stream, "{me} {from}").is_err() {
                return;
            }
        }
    });
    is_ready.recv_timeout(Duration::from_secs(5)).unwrap();
}

fn call(host: &Host, ns: Ns, to: &str) -> std::io::Result<String> {
    let to: SocketAddr = to.parse().unwrap();
    let answer = host.inside(ns, move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    answer.join().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_on_two_hosts_reach_each_other_by_both_families() {
    let [a, b] = network().await;
    a.run(task(11), "ping -c 1 -W 2 10.0.9.12");
    a.run(task(11), "ping -c 1 -W 2 fd00:9::c");
    b.run(task(12), "ping -c 1 -W 2 10.0.9.11");
    b.run(task(12), "ping -c 1 -W 2 10.0.9.13");
    serve(&b, task(12), "10.0.9.12:80");
    serve(&b, task(12), "[fd00:9::c]:80");
    assert_eq!(call(&a, task(11), "10.0.9.12:80").unwrap(), "10.0.9.12 10.0.9.11");
    assert_eq!(call(&a, task(11), "[fd00:9::c]:80").unwrap(), "fd00:9::c fd00:9::b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_what_is_observed_and_what_other_tools_see() {
    let [a, _b] = network().await;
    let all = BTreeSet::from([Ns::Host, SANDBOX, task(11)]);
    let world = a.kernel.observe(&all).await.unwrap();
    assert_eq!(a.kernel.namespaces().unwrap(), all);
    let host = &world.namespaces[&Ns::Host];
    assert!(host.links.is_empty() && host.routes.is_empty(), "{host:?}");

    let sandbox = &world.namespaces[&SANDBOX];
    let links: Vec<_> = sandbox.links.keys().map(LinkName::as_str).collect();
    assert_eq!(links, ["br0", "t11", "vx0"]);
    assert!(sandbox.loopback_up);
    assert_eq!(sandbox.sysctls.get("net/ipv4/ip_forward").map(String::as_str), Some("1"));
    assert_eq!(sandbox.sysctls.get("net/bridge/bridge-nf-call-iptables").map(String::as_str), Some("1"));
    let bridge = &sandbox.links[&link("br0")];
    assert_eq!(
        *bridge,
        Link {
            mac: Some(mac(1)),
            addresses: [IpNet::new(v4(1), 24).unwrap(), IpNet::new(v6(1), 64).unwrap()].into(),
            ..Link::new(LinkKind::Bridge, mtu())
        }
    );
    let vxlan = &sandbox.links[&link("vx0")];
    assert_eq!(vxlan.kind, LinkKind::Vxlan { vni: vni(), local: [192, 0, 2, 1].into(), port: 4789 });
    assert_eq!(vxlan.port, PortFlags { learning: false, ..PortFlags::default() });
    assert_eq!(vxlan.master, Some(link("br0")));
    let vtep: IpAddr = [192, 0, 2, 2].into();
    assert_eq!(vxlan.fdb, [Fdb { mac: mac(12), dst: vtep }, Fdb { mac: mac(13), dst: vtep }].into());
    assert_eq!(vxlan.bridge_fdb, [mac(12), mac(13)].into());
    assert_eq!(vxlan.neighbours.len(), 4);
    let port = &sandbox.links[&link("t11")];
    assert_eq!(port.kind, LinkKind::Veth { peer: Some((task(11), link("eth0"))) });
    assert!(port.port.hairpin && port.up);

    let inside = &world.namespaces[&task(11)];
    let eth0 = &inside.links[&link("eth0")];
    assert_eq!(eth0.kind, LinkKind::Veth { peer: Some((SANDBOX, link("t11"))) });
    assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(mac(11)), mtu(), true));
    assert_eq!(inside.routes, [default_route(v4(1)), default_route(v6(1))].into());

    // Whoever looks at one end only cannot know the other.
    let alone = observed(&a, SANDBOX).await;
    assert_eq!(alone.links[&link("t11")].kind, LinkKind::Veth { peer: None });

    let seen = a.run(SANDBOX, "ip -d link show vx0");
    for word in ["vxlan id 4101", "local 192.0.2.1", "dstport 4789", "nolearning", "proxy", "master br0", "mtu 1450"] {
        assert!(seen.contains(word), "{word} in {seen}");
    }
    let seen = a.run(SANDBOX, "bridge fdb show dev vx0");
    // Newer tools also say that the link came from another namespace.
    let told = |line: &str| line.starts_with("02:42:0a:00:09:0c dst 192.0.2.2 ") && line.ends_with("self permanent");
    assert!(seen.lines().any(|line| told(line.trim())), "{seen}");
    assert!(seen.contains("02:42:0a:00:09:0c master br0 static"), "{seen}");
    let seen = a.run(task(11), "ip addr show eth0");
    assert!(seen.contains("10.0.9.11/24") && seen.contains("fd00:9::b/64"), "{seen}");
    // Nothing is left in the host's namespace of the link that passed through it.
    assert!(!a.run(Ns::Host, "ip link").contains("shx"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doing_it_again_fails_only_where_a_link_would_be_made_twice() {
    let [a, _b] = network().await;
    let before = a.kernel.observe(&a.kernel.namespaces().unwrap()).await.unwrap();
    let again = [sandbox_ops([192, 0, 2, 1]), task_ops(11), remote_ops(12, [192, 0, 2, 2])].concat();
    for (_, error) in a.kernel.apply_all(&again).await {
        assert!(matches!(error.op, Op::AddBridge { .. } | Op::AddVxlan { .. } | Op::AddVeth { .. }), "{error}");
    }
    assert_eq!(a.kernel.observe(&a.kernel.namespaces().unwrap()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_and_the_rest_is_done() {
    let [a, _b] = network().await;
    let ns = SANDBOX;
    let goto = nft::Action::GotoByDestination([(v4(2), "nowhere".to_owned())].into());
    let goes_nowhere =
        nft::Chain { name: "pre".into(), hook: None, rules: vec![nft::Rule { matches: vec![], action: goto }] };
    let ops = [
        Op::AddAddress { ns, link: link("nope"), address: "10.0.9.9/32".parse().unwrap() },
        Op::AddAddress { ns, link: link("br0"), address: "10.0.9.9/32".parse().unwrap() },
        Op::SetSysctl { ns, path: "net/ipv4/no_such_thing".into(), value: "1".into() },
        Op::AddBridge { ns: task(99), link: link("br0"), mac: None, mtu: mtu(), marked: false },
        Op::ReplaceTable {
            ns,
            family: nft::Family::Inet,
            chains: vec![goes_nowhere],
            digest: "x".into(),
            leads: [].into(),
        },
        // Gone already: done.
        Op::DelLink { ns, link: link("nope") },
        Op::DelAddress { ns, link: link("nope"), address: "10.0.9.9/32".parse().unwrap() },
        Op::DelTable { ns: task(99), family: nft::Family::Inet },
        Op::DelRoute { ns: task(11), route: Route { to: "10.7.0.0/16".parse().unwrap(), ..default_route(v4(1)) } },
        Op::DelNeighbour { ns, link: names::vxlan(), ip: v4(77) },
        Op::DelFdb { ns, link: names::vxlan(), entry: Fdb { mac: mac(77), dst: v4(1) } },
        Op::DelBridgeFdb { ns, link: names::vxlan(), mac: mac(77) },
        Op::DelNetns { ns: task(99) },
        Op::AddAddress { ns, link: link("br0"), address: "10.0.9.10/32".parse().unwrap() },
    ];
    let failed = a.kernel.apply_all(&ops).await;
    let at: Vec<_> = failed.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [0, 2, 3, 4], "{failed:#?}");
    let said = std::error::Error::source(&failed[3].1).unwrap().to_string();
    assert!(said.contains("refused"), "{said}");
    let seen = observed(&a, ns).await;
    for added in ["10.0.9.9/32", "10.0.9.10/32"] {
        assert!(seen.links[&link("br0")].addresses.contains(&added.parse().unwrap()), "{added}");
    }
}

fn vip_table() -> Table {
    let IpAddr::V4(vip4) = v4(200) else { unreachable!() };
    let backends4 = [[10, 0, 9, 12].into(), [10, 0, 9, 13].into()].into();
    let services = vec![nft::VirtualService { vip4: Some(vip4), backends4, ..Default::default() }];
    nft::sandbox(&nft::Sandbox { services, ..Default::default() })
}

fn vip_ops() -> Vec<Op> {
    let (ns, Table { chains, digest, leads, .. }) = (SANDBOX, vip_table());
    let leads = leads.unwrap();
    vec![
        Op::AddAddress { ns, link: names::bridge(), address: "10.0.9.200/32".parse().unwrap() },
        Op::ReplaceTable { ns, family: nft::Family::Inet, chains, digest, leads },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vip_leads_to_backends_on_the_other_host_and_its_flows_can_be_forgotten() {
    let [a, b] = network().await;
    done(&a, vip_ops()).await;
    serve(&b, task(12), "10.0.9.12:80");
    serve(&b, task(13), "10.0.9.13:80");
    let answers: BTreeSet<_> = (0..32).map(|_| call(&a, task(11), "10.0.9.200:80").unwrap()).collect();
    assert_eq!(answers, ["10.0.9.12 10.0.9.11", "10.0.9.13 10.0.9.11"].map(String::from).into());
    assert!(a.run(SANDBOX, "nft -j list table inet shoal").contains("10.0.9.13"));

    // Nobody listens; the flow is tracked all the same.
    let send = r#"for n in $(seq 32); do echo x > /dev/udp/10.0.9.200/53; done"#;
    a.run(task(11), &format!("bash -c '{send}'"));
    let flows = "conntrack -L -p udp --dst-nat 2>/dev/null";
    let seen = a.run(SANDBOX, flows);
    assert!(seen.contains("src=10.0.9.12") && seen.contains("src=10.0.9.13"), "{seen}");
    let reopened = a.reopened();
    let told = reopened.observe(&[SANDBOX].into()).await.unwrap().namespaces[&SANDBOX].flows.clone();
    let to = |transport, port, last| {
        let (to, answers) = (SocketAddr::new(v4(200), port), SocketAddr::new(v4(last), port));
        Flow { transport, to, answers, opening: false }
    };
    let all = [12, 13].map(|last| [to(nft::Transport::Tcp, 80, last), to(nft::Transport::Udp, 53, last)]);
    assert_eq!(told, all.concat().into_iter().collect());
    done(&a, vec![Op::ForgetFlows { ns: SANDBOX, flows: [to(nft::Transport::Udp, 53, 13)].into() }]).await;
    let seen = a.run(SANDBOX, flows);
    assert!(seen.contains("src=10.0.9.12") && !seen.contains("src=10.0.9.13"), "{seen}");
}

async fn digest(kernel: &shoal_kernel::Kernel) -> Option<String> {
    let world = kernel.observe(&[SANDBOX].into()).await.unwrap();
    world.namespaces[&SANDBOX].tables.get(&nft::Family::Inet).map(|t| t.digest.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_known_as_ours_until_somebody_changes_it_also_across_a_restart() {
    let [a, _b] = network().await;
    done(&a, vip_ops()).await;
    let made = vip_table().digest;
    assert_eq!(digest(&a.kernel).await.as_deref(), Some(made.as_str()));
    // Somebody else's table is not our business.
    a.run(SANDBOX, "nft 'table ip other { chain c { }; }'");
    assert_eq!(digest(&a.kernel).await.as_deref(), Some(made.as_str()));
    let restarted = a.reopened();
    assert_eq!(digest(&restarted).await.as_deref(), Some(made.as_str()));
    // Changed while nobody looked.
    a.run(SANDBOX, "nft 'flush chain inet shoal svc0_4'");
    assert_eq!(digest(&restarted).await.as_deref(), Some(""));
    assert_eq!(digest(&a.reopened()).await.as_deref(), Some(""));
    done(&a, vip_ops()).await;
    assert_eq!(digest(&a.kernel).await.as_deref(), Some(made.as_str()));
    a.run(SANDBOX, "nft flush ruleset");
    assert_eq!(digest(&a.kernel).await, None);
    done(&a, vip_ops()).await;
    done(&a, vec![Op::DelTable { ns: SANDBOX, family: nft::Family::Inet }]).await;
    assert_eq!(digest(&a.kernel).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sabotage_is_noticed_within_a_second_and_chatter_is_not() {
    let [a, _b] = network().await;
    done(&a, vip_ops()).await;
    let mut changes = a.kernel.changes();
    a.kernel.observe(&a.kernel.namespaces().unwrap()).await.unwrap();
    let quiet = async |changes: &mut shoal_kernel::Changes| {
        eventually("our own changes have been told", async || {
            tokio::time::timeout(Duration::from_millis(300), changes.next()).await.is_err()
        })
        .await;
    };
    for (ns, line) in [
        (SANDBOX, "bridge fdb del 02:42:0a:00:09:0c dev vx0 dst 192.0.2.2"),
        (SANDBOX, "bridge fdb del 02:42:0a:00:09:0c dev vx0 master"),
        (SANDBOX, "ip neigh del 10.0.9.12 dev vx0"),
        (SANDBOX, "ip addr del 10.0.9.200/32 dev br0"),
        (SANDBOX, "bridge link set dev t11 hairpin off"),
        (SANDBOX, "nft delete table inet shoal"),
        (SANDBOX, "sysctl -qw net.ipv4.ip_forward=0"),
        (task(11), "ip route del default"),
        (task(11), "ip link set eth0 mtu 1400"),
        (task(11), "ip -6 addr del fd00:9::b/64 dev eth0"),
        (SANDBOX, "ip link del t11"),
    ] {
        quiet(&mut changes).await;
        a.run(ns, line);
        let told = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
        assert!(told.is_ok_and(|told| told.contains(&ns)), "not noticed: {line}");
    }
    // What comes and goes by itself: neighbours that are looked for and not found, and flows.
    quiet(&mut changes).await;
    let _ = a.attempt(SANDBOX, "ping -c 1 -W 1 10.0.9.77");
    a.run(SANDBOX, "nft 'table ip other { chain c { }; }'");
    let told = tokio::time::timeout(Duration::from_millis(300), changes.next()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_outlive_the_daemon_and_what_is_left_of_one_is_repaired() {
    let a = Host::new();
    let (one, two) = (task(1), task(2));
    done(
        &a,
        vec![
            Op::AddNetns { ns: one },
            Op::AddBridge { ns: one, link: link("br0"), mac: None, mtu: mtu(), marked: false },
        ],
    )
    .await;
    // As after a crash between making the file and mounting the namespace.
    std::fs::write(a.kernel.netns_path(two), "").unwrap();
    let next = a.reopened();
    assert_eq!(next.namespaces().unwrap(), [Ns::Host, one].into());
    let world = next.observe(&[one, two].into()).await.unwrap();
    assert_eq!(world.namespaces.keys().collect::<Vec<_>>(), [&one]);
    assert!(world.namespaces[&one].links.contains_key(&link("br0")));
    assert!(next.apply_all(&[Op::AddNetns { ns: two }, Op::LoopbackUp { ns: two }]).await.is_empty());
    assert!(observed(&a, two).await.loopback_up);
    // Replaced behind our back: the old one is not mistaken for it.
    done(&a, vec![Op::DelNetns { ns: one }]).await;
    assert!(!a.kernel.netns_path(one).exists());
    assert!(next.apply_all(&[Op::AddNetns { ns: one }]).await.is_empty());
    assert!(observed(&a, one).await.links.is_empty());
    done(&a, vec![Op::DelNetns { ns: one }, Op::DelNetns { ns: two }]).await;
    assert_eq!(std::fs::read_dir(a.run_dir().join("netns")).unwrap().count(), 0);
    assert_eq!(next.namespaces().unwrap(), [Ns::Host].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_comes_back_at_once_gets_its_vni() {
    let [a, _b] = Host::pair();
    for _ in 0..5 {
        done(&a, sandbox_ops([192, 0, 2, 1])).await;
        done(&a, vec![Op::DelNetns { ns: SANDBOX }]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_open_where_they_are_asked_for() {
    let a = Host::new();
    done(&a, vec![Op::AddNetns { ns: task(1) }, Op::LoopbackUp { ns: task(1) }]).await;
    let at: SocketAddr = "127.0.0.11:61053".parse().unwrap();
    let netns = a.kernel.netns(task(1)).unwrap();
    let (udp, _tcp) = netns.sockets(at).await.unwrap();
    let seen = a.run(task(1), "ss -Hlntu");
    assert_eq!(seen.matches("127.0.0.11:61053").count(), 2, "{seen}");
    assert!(!a.run(Ns::Host, "ss -Hlntu").contains("61053"));
    udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    a.run(task(1), "bash -c 'echo -n hi > /dev/udp/127.0.0.11/61053'");
    let mut buffer = [0; 8];
    assert_eq!(udp.recv(&mut buffer).unwrap(), 2);
    assert_eq!(netns.identity().unwrap(), a.kernel.netns(task(1)).unwrap().identity().unwrap());
    assert_ne!(netns.identity().unwrap(), a.kernel.netns(Ns::Host).unwrap().identity().unwrap());
    let absent = a.kernel.netns(task(9)).unwrap_err();
    assert_eq!(absent.to_string(), "there is no network namespace task-9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_underlay_is_told_by_the_advertised_address() {
    let [a, _b] = Host::pair();
    let kernel = &a.kernel;
    assert_eq!(kernel.default_advertise_addr().await.unwrap(), IpAddr::from([192, 0, 2, 1]));
    let facts = kernel.host_facts([192, 0, 2, 1].into()).await.unwrap();
    assert_eq!((facts.link.as_str(), facts.mtu.get()), ("wire0", 1500));
    assert_eq!(facts.subnets, ["192.0.2.0/24".parse().unwrap()].into());
    let error = kernel.host_facts([192, 0, 2, 9].into()).await.unwrap_err().to_string();
    assert!(error.contains("no link of this host has the address 192.0.2.9"), "{error}");
    a.run(Ns::Host, "ip link add other0 type bridge; ip addr add 198.51.100.1/24 dev other0; ip link set other0 up");
    assert!(kernel.default_advertise_addr().await.is_err());
    a.run(Ns::Host, "ip route add default via 198.51.100.9 metric 50; ip route add default via 192.0.2.9 metric 10");
    assert_eq!(kernel.default_advertise_addr().await.unwrap(), IpAddr::from([192, 0, 2, 1]));
}
