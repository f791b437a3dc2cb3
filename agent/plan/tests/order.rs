//! The law of order: at no moment of a plan does a table lead to a place that does not answer.
//!
//! The test finds what answers from the model's links, entries and rules, not from what `plan` uses.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    cluster::{BLUE, BRIDGE, CLIENT, Cluster, Member, Own, RED, Run, WEB, published, wanted},
    model::Model,
};
use proptest::{collection, prelude::*, sample};
use shoal_common::{
    LinkName, NodeId,
    assignment::{IngressAssignment, IngressHost},
    container::Wanted,
    service::{IngressPort, Protocol},
};
use shoal_plan::{
    Link, LinkKind, Namespace, Ns, Op, World, names,
    nft::{Action, Family, Match},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// Where the rules of a namespace's table lead, with the address that each was sent to if a rule names one.
fn leads(namespace: &Namespace) -> Vec<(Option<IpAddr>, IpAddr, Option<u16>)> {
    let rules = namespace.tables.get(&Family::Inet).into_iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
    let mut all = Vec::new();
    for rule in rules {
        let sent = rule.matches.iter().find_map(|m| match m {
            Match::To(ips) if ips.len() == 1 => ips.first().copied(),
            _ => None,
        });
        match &rule.action {
            Action::TranslateToOneOf(to) => all.extend(to.iter().map(|ip| (None, *ip, None))),
            Action::TranslateTo(ip, port) => all.push((sent, *ip, Some(*port))),
            Action::TranslateToEither(to) => all.extend(to.iter().map(|to| (sent, to.ip(), Some(to.port())))),
            Action::TranslateByPort(to) => all.extend(to.values().map(|to| (sent, to.ip(), Some(to.port())))),
            _ => {}
        }
    }
    all
}

fn is_up(world: &World, ns: Ns, link: &LinkName) -> bool {
    world.namespaces.get(&ns).and_then(|n| n.links.get(link)).is_some_and(|l| l.up)
}

/// Whether frames to this address come out of the container's end of this port.
fn port_answers(world: &World, ns: Ns, name: &LinkName, port: &Link, ip: IpAddr) -> bool {
    let LinkKind::Veth { peer: Some((task, eth)) } = &port.kind else { return false };
    let end = world.namespaces.get(task).and_then(|n| n.links.get(eth));
    let has_it = |end: &Link| end.up && end.addresses.iter().any(|net| net.addr() == ip);
    let bridged = port.master.as_ref().is_some_and(|bridge| is_up(world, ns, bridge));
    let known = end.and_then(|end| end.mac).is_some_and(|mac| port.bridge_fdb.contains(&mac));
    is_up(world, ns, name) && bridged && known && end.is_some_and(has_it)
}

fn on_a_port(world: &World, ns: Ns, ip: IpAddr) -> bool {
    let links = world.namespaces.get(&ns).into_iter().flat_map(|n| &n.links);
    links.into_iter().any(|(name, link)| port_answers(world, ns, name, link, ip))
}

/// Here, or by VXLAN.
fn answers_in_sandbox(world: &World, ns: Ns, ip: IpAddr) -> bool {
    let vxlan = world.namespaces.get(&ns).and_then(|n| n.links.get(&names::vxlan()));
    let elsewhere = vxlan.is_some_and(|vx| {
        let mac = vx.neighbours.iter().find(|n| n.ip == ip).map(|n| n.mac);
        vx.up && mac.is_some_and(|mac| vx.bridge_fdb.contains(&mac) && vx.fdb.iter().any(|fdb| fdb.mac == mac))
    });
    elsewhere || on_a_port(world, ns, ip)
}

fn answers_from_host(world: &World, to: SocketAddr) -> bool {
    if matches!(to.ip(), IpAddr::V4(ip) if ip.octets()[..3] == [192, 0, 2]) {
        return true;
    }
    let sandbox = world.namespaces.iter().find(|(ns, n)| {
        let at = |link: &Link| link.up && link.addresses.iter().any(|net| net.addr() == to.ip());
        matches!(ns, Ns::Sandbox(_)) && n.links.get(&names::uplink()).is_some_and(at)
    });
    match sandbox {
        Some((ns, inside)) => {
            let rules = inside.tables.get(&Family::Inet).into_iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules);
            let led = rules.filter(|rule| rule.matches.contains(&Match::To([to.ip()].into()))).find_map(|rule| {
                let Action::TranslateByPort(by_port) = &rule.action else { return None };
                by_port.iter().find(|((_, port), _)| *port == to.port()).map(|(_, to)| *to)
            });
            led.is_some_and(|led| answers_in_sandbox(world, *ns, led.ip()))
        }
        None => on_a_port(world, Ns::Host, to.ip()),
    }
}

/// What leads nowhere.
fn astray(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for (ns, namespace) in &world.namespaces {
        for (_, ip, port) in leads(namespace) {
            let answers = match ns {
                Ns::Host => answers_from_host(world, SocketAddr::new(ip, port.unwrap_or(0))),
                Ns::Sandbox(_) => answers_in_sandbox(world, *ns, ip),
                // Its resolver is a socket.
                Ns::Task(_) => true,
            };
            if !answers {
                found.push(format!("{ns} leads to {ip} {port:?}"));
            }
        }
    }
    found
}

fn member() -> impl Strategy<Value = (Member, [Option<bool>; 2])> {
    let networks = sample::subsequence(vec![BLUE, RED], 1..=2).prop_shuffle();
    let place = || proptest::option::of(any::<bool>());
    let service = sample::select(vec![WEB, CLIENT]);
    (1u64..3, service, networks, place(), place()).prop_map(|(node, service, networks, before, after)| {
        (Member { node, service, networks, serving: true }, [before, after])
    })
}

fn run() -> impl Strategy<Value = (Run, [Option<Wanted>; 2])> {
    let networks = sample::subsequence(vec![BLUE, BRIDGE], 1..=2).prop_shuffle();
    let place = || proptest::option::of(sample::select(vec![Wanted::Running, Wanted::Stopped]));
    let ports = vec![published("", 8080, 80, Protocol::Tcp), published("", 53, 53, Protocol::Udp)];
    (networks, place(), place()).prop_map(move |(networks, before, after)| {
        let stack = Own::Networks(networks);
        (Run { node: 1, stack, ports: ports.clone(), wanted: Wanted::Running }, [before, after])
    })
}

type Members = BTreeMap<u16, (Member, [Option<bool>; 2])>;
type Runs = BTreeMap<u16, (Run, [Option<Wanted>; 2])>;

/// Before and after: a container that stays keeps its addresses.
fn clusters() -> impl Strategy<Value = [Cluster; 2]> {
    let host =
        |(node, tasks)| (NodeId(node), IngressHost { v4: Some([192, 0, 2, node as u8].into()), v6: None, tasks });
    let hosts = || collection::btree_map(2u64..4, 0u32..3, 0..3);
    let ingress = move |hosts: BTreeMap<u64, u32>| {
        let ports = vec![IngressPort { port: 9090, target: 80, protocol: Protocol::Tcp }];
        [(WEB, IngressAssignment { ports, hosts: hosts.into_iter().map(host).collect() })].into()
    };
    let (members, runs) =
        (collection::btree_map(10u16..18, member(), 0..8), collection::btree_map(30u16..33, run(), 0..3));
    (members, runs, hosts(), hosts()).prop_map(move |(members, runs, before, after): (Members, Runs, _, _)| {
        [(0, before), (1, after)].map(|(nth, hosts): (usize, BTreeMap<u64, u32>)| Cluster {
            members: members
                .iter()
                .filter_map(|(last, (m, there))| Some((*last, Member { serving: there[nth]?, ..m.clone() })))
                .collect(),
            runs: runs
                .iter()
                .filter_map(|(last, (r, there))| Some((*last, Run { wanted: there[nth]?, ..r.clone() })))
                .collect(),
            bridges: BTreeSet::new(),
            ingress: ingress(hosts),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_leads_to_a_place_before_it_answers_nor_after([before, after] in clusters()) {
        let mut model = Model::default();
        for cluster in [before, after] {
            let world = wanted(&cluster.assignment(1));
            let ops = model.plan(&world);
            for (nth, op) in ops.iter().enumerate() {
                prop_assert!(model.apply(op).is_ok(), "{op}");
                let astray = astray(&model.world);
                let done: Vec<String> = ops[..=nth].iter().map(Op::to_string).collect();
                prop_assert!(astray.is_empty(), "{astray:#?} after {done:#?}");
            }
            prop_assert!(model.plan(&world).is_empty());
        }
    }
}

#[test]
fn a_law_that_sees_nothing_would_hold_always() {
    let web = |last| Cluster::default().with(last, 1, WEB, &[BLUE]);
    let ports = vec![IngressPort { port: 9090, target: 80, protocol: Protocol::Tcp }];
    let ingress = IngressAssignment { ports, hosts: BTreeMap::new() };
    let cluster = Cluster { ingress: [(WEB, ingress)].into(), ..web(12) };
    let mut model = Model::default();
    model.reach(&wanted(&cluster.assignment(1)));
    // The VIPs' and the hop's, of both families, and the host's.
    let count: usize =
        model.world.namespaces.iter().filter(|(ns, _)| !matches!(ns, Ns::Task(_))).map(|(_, n)| leads(n).len()).sum();
    assert!(count >= 6, "{count}");
    assert_eq!(astray(&model.world), Vec::<String>::new());
    for ns in [Ns::Sandbox(BLUE), Ns::Task(shoal_common::TaskId(12))] {
        let mut broken = model.clone();
        broken.apply(&Op::DelNetns { ns }).unwrap();
        assert!(!astray(&broken.world).is_empty(), "{ns} is gone");
    }
}
