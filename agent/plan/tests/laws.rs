//! The three laws of plan and apply, on a model of the kernel and clusters made at random.

#![allow(clippy::unwrap_used)]

mod fixture;

use fixture::{
    cluster::{
        BLUE, BRIDGE, CLIENT, Cluster, DB, LAN, Member, Own, QUIET, RED, Run, TAGGED, WEB, WIRE, published, wanted,
    },
    model::Model,
};
use proptest::{collection, prelude::*, sample};
use shoal_common::{
    NodeId, ServiceId,
    assignment::{IngressAssignment, IngressHost},
    container::Wanted,
    service::{IngressPort, Protocol},
};
use shoal_plan::{LinkKind, Ns, Op, World, names};
use std::collections::BTreeMap;

/// Whatever is broken is right again after so many: in the first round a change may take something along that only
/// the next look shows (an address and the routes by it).
const ROUNDS: usize = 2;

fn member() -> impl Strategy<Value = Member> {
    let service = sample::select(vec![WEB, CLIENT, DB]);
    let networks = sample::subsequence(vec![BLUE, RED], 0..=2).prop_shuffle();
    (1u64..4, service, networks, any::<bool>()).prop_map(|(node, service, networks, serving)| Member {
        node,
        service,
        networks,
        serving,
    })
}

/// Containers that were run by hand.
fn run() -> impl Strategy<Value = Run> {
    let networks = sample::subsequence(vec![BLUE, RED, BRIDGE, LAN, QUIET, WIRE, TAGGED], 0..=5).prop_shuffle();
    let stack = prop_oneof![
        4 => networks.prop_map(Own::Networks),
        1 => Just(Own::Loopback),
        1 => Just(Own::Host),
    ];
    let wanted = sample::select(vec![Wanted::Created, Wanted::Running, Wanted::Stopped]);
    let all = ["", "192.0.2.1", "127.0.0.1", "::"].map(|ip| published(ip, 8080, 80, Protocol::Tcp));
    let ports = sample::subsequence([all.to_vec(), vec![published("", 53, 53, Protocol::Udp)]].concat(), 0..3);
    (1u64..3, stack, ports, wanted).prop_map(|(node, stack, ports, wanted)| Run { node, stack, ports, wanted })
}

fn ingress() -> impl Strategy<Value = BTreeMap<ServiceId, IngressAssignment>> {
    let host =
        |(node, tasks)| (NodeId(node), IngressHost { v4: Some([192, 0, 2, node as u8].into()), v6: None, tasks });
    let hosts = collection::vec((1u64..4, 1u32..3).prop_map(host), 0..3);
    let ports = vec![IngressPort { port: 9090, target: 80, protocol: Protocol::Tcp }];
    let one =
        hosts.prop_map(move |hosts| IngressAssignment { ports: ports.clone(), hosts: hosts.into_iter().collect() });
    collection::btree_map(sample::select(vec![WEB, DB]), one, 0..2)
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let (members, runs) =
        (collection::btree_map(10u16..18, member(), 0..8), collection::btree_map(30u16..36, run(), 0..6));
    let bridges = collection::btree_set(sample::select(vec![BRIDGE, LAN, QUIET]), 0..3);
    (members, runs, bridges, ingress()).prop_map(|(members, runs, bridges, ingress)| Cluster {
        members,
        runs,
        bridges,
        ingress,
    })
}

/// As node 1 should be.
fn desired(cluster: &Cluster) -> World {
    wanted(&cluster.assignment(1))
}

/// What somebody else may do to a host. The numbers pick, of as many as there are.
#[derive(Debug, Clone)]
enum Damage {
    /// Part of what would take everything away.
    TakeAway(usize),
    DelLink(usize, usize),
    Down(usize, usize),
    NoMaster(usize, usize),
    Foreign(usize, usize),
    Flags(usize, usize),
    Unmark,
    ForgetTables(usize),
    ForgetSysctls(usize),
    ForgetRoutes(usize),
    ForgetEntries(usize, usize),
    DelNetns(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let n = 0usize..64;
    prop_oneof![
        n.clone().prop_map(Damage::TakeAway),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::DelLink(a, b)),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::Down(a, b)),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::NoMaster(a, b)),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::Foreign(a, b)),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::Flags(a, b)),
        Just(Damage::Unmark),
        n.clone().prop_map(Damage::ForgetTables),
        n.clone().prop_map(Damage::ForgetSysctls),
        n.clone().prop_map(Damage::ForgetRoutes),
        (n.clone(), n.clone()).prop_map(|(a, b)| Damage::ForgetEntries(a, b)),
        n.prop_map(Damage::DelNetns),
    ]
}

impl Damage {
    fn inflict(&self, model: &mut Model) {
        let namespaces: Vec<Ns> = model.world.namespaces.keys().copied().collect();
        let ns = |n: usize| namespaces[n % namespaces.len()];
        let link = |model: &Model, n: usize, l: usize| {
            let links: Vec<_> = model.world.namespaces[&ns(n)].links.keys().cloned().collect();
            (!links.is_empty()).then(|| links[l % links.len()].clone())
        };
        let at = |model: &mut Model, n: usize, op: &dyn Fn(Ns) -> Op| {
            let _ = model.apply(&op(ns(n)));
        };
        match *self {
            Damage::TakeAway(n) => {
                let ops = model.plan(&desired(&Cluster::default()));
                model.apply_all(&ops[..n.min(ops.len())]);
            }
            Damage::DelLink(n, l) => {
                if let Some(link) = link(model, n, l) {
                    at(model, n, &|ns| Op::DelLink { ns, link: link.clone() });
                }
            }
            Damage::Down(n, l) => {
                if let Some(link) = link(model, n, l) {
                    at(model, n, &|ns| Op::SetUp { ns, link: link.clone(), up: false });
                }
            }
            Damage::NoMaster(n, l) => {
                if let Some(link) = link(model, n, l) {
                    at(model, n, &|ns| Op::SetMaster { ns, link: link.clone(), master: None });
                }
            }
            Damage::Foreign(n, l) => {
                // A name of ours, of something else.
                if let Some(link) = link(model, n, l) {
                    let _ = model.apply(&Op::DelLink { ns: ns(n), link: link.clone() });
                    let _ = model.apply(&Op::AddBridge {
                        ns: ns(n),
                        link: link.clone(),
                        mac: None,
                        mtu: 1400.try_into().unwrap(),
                        marked: ns(n) == Ns::Host,
                    });
                    let kind = LinkKind::Other("ifb".to_owned());
                    model.world.namespaces.get_mut(&ns(n)).unwrap().links.get_mut(&link).unwrap().kind = kind;
                }
            }
            Damage::Flags(n, l) => {
                if let Some(name) = link(model, n, l) {
                    let link = model.world.namespaces.get_mut(&ns(n)).unwrap().links.get_mut(&name).unwrap();
                    link.mtu = 1300.try_into().unwrap();
                    link.mac = Some("02:00:00:00:00:99".parse().unwrap());
                    link.addresses.insert("10.99.0.1/24".parse().unwrap());
                    if link.master.is_some() {
                        link.port.flood ^= true;
                        link.bridge_fdb.insert("02:00:00:00:00:98".parse().unwrap());
                    }
                }
            }
            Damage::Unmark => {
                // One that bears no name of ours is from then on somebody else's.
                let links = &mut model.world.namespaces.get_mut(&Ns::Host).unwrap().links;
                links.iter_mut().filter(|(name, _)| names::is_ours(name)).for_each(|(_, link)| link.marked = false);
            }
            Damage::ForgetTables(n) => model.world.namespaces.get_mut(&ns(n)).unwrap().tables.clear(),
            Damage::ForgetSysctls(n) => model.world.namespaces.get_mut(&ns(n)).unwrap().sysctls.clear(),
            Damage::ForgetRoutes(n) => model.world.namespaces.get_mut(&ns(n)).unwrap().routes.clear(),
            Damage::ForgetEntries(n, l) => {
                if let Some(name) = link(model, n, l) {
                    let link = model.world.namespaces.get_mut(&ns(n)).unwrap().links.get_mut(&name).unwrap();
                    link.fdb.clear();
                    link.bridge_fdb.clear();
                    link.neighbours.clear();
                }
            }
            Damage::DelNetns(n) => {
                if ns(n) != Ns::Host {
                    at(model, n, &|ns| Op::DelNetns { ns });
                }
            }
        }
    }
}

/// Looks and acts; nothing that is planned may be refused.
fn converge(model: &mut Model, desired: &World) -> Result<(), TestCaseError> {
    for _ in 0..ROUNDS {
        let ops = model.plan(desired);
        let refused = model.apply_all(&ops);
        prop_assert!(refused.is_empty(), "{refused:#?}\nof {ops:#?}");
        prop_assert!(model.is_sound());
    }
    let differences = model.differences(desired);
    prop_assert!(differences.is_empty(), "{differences:#?}");
    let left = model.plan(desired);
    prop_assert!(left.is_empty(), "still to do: {left:#?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Nobody reads them, so one that was wanted would be set again in each round.
    #[test]
    fn no_sysctl_is_wanted_that_nobody_reads(cluster in cluster()) {
        let is_read_of_link = |path: &str| {
            let is_known = |link: &str| {
                names::LINK_SYSCTLS.iter().any(|(before, after)| path == format!("{before}{link}{after}"))
                    && !link.parse().is_ok_and(|link| names::is_host_port(&link))
            };
            names::sysctl_link(path).is_some_and(is_known)
        };
        for (ns, namespace) in &desired(&cluster).namespaces {
            for path in namespace.sysctls.keys() {
                let is_read = names::sysctls(*ns).contains(&path.as_str());
                prop_assert!(is_read || *ns == Ns::Host && is_read_of_link(path), "{} of {}", path, ns);
            }
        }
    }

    #[test]
    fn a_plan_reaches_what_is_desired_and_then_there_is_nothing_to_do(before in cluster(), after in cluster()) {
        let (before, after) = (desired(&before), desired(&after));
        let mut model = Model::default();
        for world in [before, after] {
            let ops = model.plan(&world);
            let refused = model.apply_all(&ops);
            prop_assert!(refused.is_empty(), "{refused:#?}");
            // From where nobody else meddled, one round does.
            prop_assert_eq!(model.differences(&world), Vec::<String>::new());
            let left = model.plan(&world);
            prop_assert!(left.is_empty(), "still to do: {left:#?}");
        }
    }

    #[test]
    fn whatever_others_broke_is_repaired(
        cluster in cluster(),
        damages in collection::vec(damage(), 0..6),
    ) {
        let world = desired(&cluster);
        let mut model = Model::default();
        model.reach(&world);
        for damage in &damages {
            damage.inflict(&mut model);
        }
        converge(&mut model, &world)?;
    }

    #[test]
    fn any_prefix_of_a_plan_can_be_abandoned_for_another_plan(
        before in cluster(),
        abandoned in cluster(),
        after in cluster(),
        damages in collection::vec(damage(), 0..2),
        part in any::<sample::Index>(),
    ) {
        let mut model = Model::default();
        model.reach(&desired(&before));
        for damage in &damages {
            damage.inflict(&mut model);
        }
        let ops = model.plan(&desired(&abandoned));
        let (done, _never) = ops.split_at(part.index(ops.len() + 1));
        let refused = model.apply_all(done);
        prop_assert!(refused.is_empty(), "{refused:#?}");
        // What was done is not planned a second time.
        let again = model.plan(&desired(&abandoned));
        prop_assert!(again.len() <= ops.len() - done.len() || !damages.is_empty(), "{again:#?}");
        converge(&mut model, &desired(&after))?;
    }

    #[test]
    fn a_plan_speaks_of_the_namespaces_that_were_looked_at(
        before in cluster(),
        after in cluster(),
        part in collection::vec(any::<sample::Index>(), 1..4),
    ) {
        let mut model = Model::default();
        model.reach(&desired(&before));
        let world = desired(&after);
        let all: Vec<Ns> = model.everything(&world).into_iter().collect();
        let looked_at = part.iter().map(|index| all[index.index(all.len())]).collect();
        for op in shoal_plan::plan(&world, &model.observe(&looked_at), &looked_at) {
            prop_assert!(looked_at.contains(&op.ns()), "{op}");
        }
    }
}
