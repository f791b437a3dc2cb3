use proptest::prelude::*;
use shoal_common::subnet::SubnetSpec;
use std::collections::BTreeSet;

use super::*;

fn pool(net: &str, range: Option<&str>) -> Pool {
    let spec = SubnetSpec {
        net: net.parse().unwrap(),
        gateway: None,
        ip_range: range.map(|r| r.parse().unwrap()),
        aux: [("router".to_owned(), "10.0.1.3".parse().unwrap())]
            .into_iter()
            .filter(|_| net == "10.0.1.0/29")
            .collect(),
    };
    Pool::new(spec.settle().unwrap())
}

fn take(pool: &mut Pool) -> String {
    pool.take().map_or("none".to_owned(), |ip| ip.to_string())
}

#[test]
fn reserved_addresses_are_never_handed_out() {
    let mut p = pool("10.0.1.0/29", None);
    assert_eq!((p.total(), p.free()), (4, 4));
    let got: Vec<String> = (0..5).map(|_| take(&mut p)).collect();
    assert_eq!(got, ["10.0.1.2", "10.0.1.4", "10.0.1.5", "10.0.1.6", "none"]);
    assert_eq!(p.free(), 0);
    for reserved in ["10.0.1.0", "10.0.1.1", "10.0.1.3", "10.0.1.7"] {
        assert!(!p.is_used(reserved.parse().unwrap()) && !p.release(reserved.parse().unwrap()), "{reserved}");
    }
}

#[test]
fn the_smallest_subnets_have_one_address_beside_their_gateways_or_two_without_a_broadcast_address() {
    for (net, all) in
        [("10.0.1.0/30", vec!["10.0.1.2", "none"]), ("fd00:9::/126", vec!["fd00:9::2", "fd00:9::3", "none"])]
    {
        let mut p = pool(net, None);
        assert_eq!(all, all.iter().map(|_| take(&mut p)).collect::<Vec<_>>(), "{net}");
        assert_eq!((p.free(), p.violation()), (0, None));
    }
}

#[test]
fn addresses_come_from_the_range_only() {
    let mut p = pool("10.0.0.0/16", Some("10.0.9.0/30"));
    let got: Vec<String> = (0..5).map(|_| take(&mut p)).collect();
    assert_eq!(got, ["10.0.9.0", "10.0.9.1", "10.0.9.2", "10.0.9.3", "none"]);
    assert!(!p.is_used("10.0.8.255".parse().unwrap()));
}

#[test]
fn an_address_outside_of_the_range_is_had_by_who_asks_for_it_and_by_nobody_else() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut p = pool("10.0.0.0/16", Some("10.0.9.0/30"));
    let before = p.clone();
    assert!(p.take_exactly(ip("10.0.7.7")) && p.is_used(ip("10.0.7.7")) && !p.take_exactly(ip("10.0.7.7")));
    for not_to_be_had in ["10.0.0.0", "10.0.0.1", "10.0.255.255", "10.1.0.2"] {
        assert!(!p.take_exactly(ip(not_to_be_had)), "{not_to_be_had}");
    }
    assert_eq!((p.used(), p.free(), p.violation()), (1, 4, None));
    while p.take().is_some() {}
    assert_eq!((p.used(), p.free()), (5, 0));
    assert!(p.take_exactly(ip("10.0.7.8")), "also when the range is full");
    for n in 0..4 {
        assert!(p.release(ip(&format!("10.0.9.{n}"))));
    }
    assert!(p.release(ip("10.0.7.7")) && p.release(ip("10.0.7.8")) && !p.release(ip("10.0.7.7")));
    assert_eq!((p.used(), p.free(), p.violation()), (0, 4, None));
    let mut p = before;
    assert!(p.take_exactly(ip("10.0.7.7")) && p.release(ip("10.0.7.7")) && p.take_exactly(ip("10.0.7.7")));
}

#[test]
fn a_huge_subnet_costs_no_more_than_a_small_one() {
    let mut p = pool("fd00:9::/64", None);
    assert_eq!(p.total(), (1u128 << 64) - 2);
    assert_eq!((take(&mut p), take(&mut p)), ("fd00:9::2".into(), "fd00:9::3".into()));
    let mut p = pool("fd00::/16", None);
    assert_eq!(take(&mut p), "fd00::2");
    let mut p = pool("fd00::/16", Some("fd00:ffff::/127"));
    let got: Vec<String> = (0..3).map(|_| take(&mut p)).collect();
    assert_eq!(got, ["fd00:ffff::", "fd00:ffff::1", "none"]);
}

#[test]
fn a_full_slash_sixteen_is_one_run() {
    let mut p = pool("10.7.0.0/16", None);
    while p.take().is_some() {}
    assert_eq!((p.used(), p.free(), p.runs.len()), (65_533, 0, 1));
    for n in 0..60_000u32 {
        assert!(p.release(Ipv4Addr::from(0x0a07_0002 + n).into()));
    }
    assert_eq!((p.free(), p.resting.len()), (60_000, Pool::RESTING));
    for _ in 0..60_000 {
        assert!(p.take().is_some());
    }
    assert_eq!(p.take(), None);
    assert_eq!(p.violation(), None);
}

#[test]
fn releasing_twice_changes_nothing() {
    let mut p = pool("10.0.1.0/29", None);
    let ip = p.take().unwrap();
    assert!(p.release(ip));
    let after = p.clone();
    assert!(!p.release(ip));
    assert_eq!(p, after);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the plainest model: the free addresses as a queue.
    #[test]
    fn a_freed_address_rests_a_full_turn(steps in proptest::collection::vec(0u8..8, 1..300)) {
        let mut p = pool("10.0.2.0/28", None);
        let mut queue: Vec<IpAddr> = (2..15).map(|n| IpAddr::from([10, 0, 2, n])).collect();
        let mut held: Vec<IpAddr> = Vec::new();
        for step in steps {
            if step < 4 || held.is_empty() {
                let got = p.take();
                let longest_free = (!queue.is_empty()).then(|| queue.remove(0));
                prop_assert_eq!(got, longest_free);
                held.extend(got);
            } else {
                let ip = held.remove(usize::from(step) * 7 % held.len());
                prop_assert!(p.release(ip));
                queue.push(ip);
            }
            prop_assert_eq!(p.free(), queue.len() as u128);
            prop_assert_eq!(p.violation(), None);
            let used: BTreeSet<IpAddr> = (0..16).map(|n| IpAddr::from([10, 0, 2, n])).filter(|ip| p.is_used(*ip)).collect();
            prop_assert_eq!(used, held.iter().copied().collect::<BTreeSet<_>>());
        }
    }
}
