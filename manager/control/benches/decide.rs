//! How long `decide` takes: `cargo bench -p shoal-control`. Prints times; asserts only what must hold everywhere.

#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench reads the clock")]

#[path = "../tests/decide/lab.rs"]
mod lab;

use std::time::{Duration, Instant};

use lab::Lab;

const NODES: u64 = 1_000;

fn main() {
    let mut lab = Lab::new(NODES);
    lab.create("web", 10_000, |_| {});
    let (mut entries, mut deciding, mut applying) = (0, Duration::ZERO, Duration::ZERO);
    loop {
        let begin = Instant::now();
        let commands = lab.decide().commands;
        deciding += begin.elapsed();
        if commands.is_empty() {
            break;
        }
        let begin = Instant::now();
        for command in commands {
            lab.propose(command).unwrap();
            entries += 1;
        }
        applying += begin.elapsed();
    }
    println!("10,000 replicas on 1,000 nodes: {entries} entries, decide {deciding:?}, apply {applying:?} in all");

    for n in 0..40 {
        lab.create(&format!("service-{n}"), 1_000, |spec| {
            spec.placement.constraints = vec!["node.platform.os==linux".parse().unwrap()];
        });
    }
    lab.settle();
    report("50,000 tasks of 41 services on 1,000 nodes, steady", &lab);

    lab.liveness(7, shoal_common::node::Liveness::Down);
    report("the same, one node down", &lab);
}

/// The median of a few runs.
fn report(what: &str, lab: &Lab) {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(lab.decide());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what}: {} tasks, decide {:?} (worst {:?})", lab.state.tasks.len(), times[10], times[20]);
}
