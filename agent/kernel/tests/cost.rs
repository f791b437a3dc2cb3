//! What the network part of a task costs. Prints; run by hand, with optimisation:
//! `CARGO_PROFILE_DEV_OPT_LEVEL=2 cargo test -p shoal-kernel --test cost -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod fixture;

use fixture::{
    Host,
    cluster::{BLUE, Cluster, Member, WEB, converge, look, wanted},
};
use nix::sys::resource::{UsageWho, getrusage};
use shoal_common::assignment::Assignment;
use shoal_plan::{Ns, plan};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const LOCAL: u16 = 100;
const REMOTE: u16 = 1_000;

/// What this process and its children spent, and how long it took.
struct Spent {
    begun: Instant,
    cpu: Duration,
}

fn cpu() -> Duration {
    let of = |who| {
        let usage = getrusage(who).unwrap();
        [usage.user_time(), usage.system_time()]
            .map(|t| Duration::from_micros(u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap()))
            .iter()
            .sum::<Duration>()
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

impl Spent {
    fn now() -> Self {
        Self { begun: Instant::now(), cpu: cpu() }
    }

    fn tell(&self, what: &str, times: u32) {
        let (cpu, wall) = ((cpu() - self.cpu) / times, self.begun.elapsed() / times);
        println!("{what}: {cpu:.2?} CPU, {wall:.2?} wall, each of {times}");
    }
}

fn cluster(local: u16) -> Cluster {
    let here = (10..10 + local).map(|last| (last, 1));
    let there = (2000..2000 + REMOTE).map(|last| (last, 2 + u64::from(last) % 4));
    here.chain(there).fold(Cluster::default(), |c, (last, node)| c.with(last, node, WEB, &[BLUE]))
}

/// As the agent does when an assignment changed: looks where other things are wanted than before.
async fn follow(host: &Host, before: &Assignment, after: &Assignment) {
    let (old, new) = (wanted(before), wanted(after));
    let all = old.namespaces.keys().chain(new.namespaces.keys());
    let scope: BTreeSet<Ns> = all.filter(|ns| old.namespaces.get(ns) != new.namespaces.get(ns)).copied().collect();
    let actual = host.kernel.observe(&scope).await.unwrap();
    let failed = host.kernel.apply_all(&plan(&new, &actual, &scope)).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn a_round_with_a_hundred_tasks_and_a_thousand_endpoints() {
    let [a, _b] = Host::pair();
    let assignment = cluster(LOCAL).assignment(1);
    let spent = Spent::now();
    converge(&a, &assignment).await;
    spent.tell("all at once, per local task", LOCAL.into());
    let spent = Spent::now();
    for _ in 0..10 {
        assert!(look(&a, &assignment).await.is_empty());
    }
    spent.tell("a whole look (desired, observe, plan)", 10);
    let all: BTreeSet<Ns> = a.kernel.namespaces().unwrap();
    let spent = Spent::now();
    for _ in 0..10 {
        a.kernel.observe(&all).await.unwrap();
    }
    spent.tell("of it, observe", 10);
    let spent = Spent::now();
    for _ in 0..10 {
        a.kernel.observe(&[Ns::Sandbox(BLUE)].into()).await.unwrap();
    }
    spent.tell("observe, of the sandbox alone", 10);
    let spent = Spent::now();
    for _ in 0..10 {
        wanted(&assignment);
    }
    spent.tell("desired", 10);
    let empty = Assignment { node: assignment.node.clone(), ..Assignment::default() };
    let spent = Spent::now();
    follow(&a, &assignment, &empty).await;
    spent.tell("taking all away, per local task", LOCAL.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn tasks_that_come_one_by_one() {
    let [a, _b] = Host::pair();
    for busy in [false, true] {
        let base = if busy { cluster(1) } else { Cluster::default().with(10, 1, WEB, &[BLUE]) };
        let mut members = base;
        let mut before = members.assignment(1);
        converge(&a, &before).await;
        let spent = Spent::now();
        for last in 11..10 + LOCAL {
            members = members.with(last, 1, WEB, &[BLUE]);
            let after = members.assignment(1);
            follow(&a, &before, &after).await;
            before = after;
        }
        spent.tell(&format!("one local task more, busy network: {busy}"), u32::from(LOCAL) - 1);
        let spent = Spent::now();
        for last in 5000..5000 + LOCAL {
            members = members.with(last, 3, WEB, &[BLUE]);
            let after = members.assignment(1);
            follow(&a, &before, &after).await;
            before = after;
        }
        spent.tell(&format!("one endpoint more elsewhere, busy network: {busy}"), LOCAL.into());
        let empty = Assignment { node: before.node.clone(), ..Assignment::default() };
        converge(&a, &empty).await;
    }
}

/// A fifth of a hundred tasks, on each of five hosts: what one of them spends when one task more is ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn endpoints_that_begin_to_serve() {
    let [a, _b] = Host::pair();
    let mut cluster = (10..110).fold(Cluster::default(), |c, last| c.with(last, 1 + u64::from(last) % 5, WEB, &[BLUE]));
    cluster.members.values_mut().for_each(|member| member.serving = false);
    let mut before = cluster.assignment(1);
    converge(&a, &before).await;
    let spent = Spent::now();
    for last in 110..130 {
        cluster.members.insert(last, Member { node: 1, service: WEB, networks: vec![BLUE], serving: false });
        let after = cluster.assignment(1);
        follow(&a, &before, &after).await;
        before = after;
    }
    spent.tell("one local task more, of a hundred, not serving yet", 20);
    let spent = Spent::now();
    for last in 130..150 {
        cluster.members.insert(last, Member { node: 1, service: WEB, networks: vec![BLUE], serving: false });
    }
    let after = cluster.assignment(1);
    follow(&a, &before, &after).await;
    before = after;
    spent.tell("twenty local tasks at once, each", 20);
    let spent = Spent::now();
    for last in 10..110 {
        cluster.members.get_mut(&last).unwrap().serving = true;
        let after = cluster.assignment(1);
        follow(&a, &before, &after).await;
        before = after;
    }
    spent.tell("one of a hundred endpoints begins to serve", 100);
    let spent = Spent::now();
    for _ in 0..100 {
        std::hint::black_box((cluster.assignment(1), wanted(&before), wanted(&before)));
    }
    spent.tell("of it, computing", 100);
    let spent = Spent::now();
    for _ in 0..100 {
        a.kernel.observe(&[Ns::Sandbox(BLUE)].into()).await.unwrap();
    }
    spent.tell("of it, observing", 100);
}
