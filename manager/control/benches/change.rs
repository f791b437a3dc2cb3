//! What one change of an overlay costs a manager that serves every host: `cargo bench -p shoal-control --bench change`.
//! One replica more, from the command until it runs. Prints times; asserts only what must hold everywhere.

#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench reads the clock")]

#[path = "../tests/decide/lab.rs"]
mod lab;

use lab::Lab;
use shoal_common::{LogIndex, NodeId, ServiceId};
use shoal_state::{Command, State, View, view};
use std::time::{Duration, Instant};

fn main() {
    println!("hosts  endpoints  entries  apply ms  streams ms  streams rebuilt  rows sent");
    for (hosts, endpoints) in [(100, 500), (100, 1_000), (100, 2_000), (100, 4_000), (400, 2_000), (1_000, 5_000)] {
        let mut rows: Vec<Cost> = one_more(hosts, endpoints);
        rows.sort_by_key(|cost| cost.streams);
        let Cost { entries, apply, streams, rebuilt, sent } = rows[rows.len() / 2];
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{hosts:5}  {endpoints:9}  {entries:7}  {:8.2}  {:10.2}  {rebuilt:15}  {sent:9}",
            ms(apply),
            ms(streams)
        );
    }
}

#[derive(Clone, Copy, Default)]
struct Cost {
    entries: u32,
    apply: Duration,
    streams: Duration,
    rebuilt: u32,
    sent: usize,
}

/// What a stream remembers.
struct Sent {
    last: View,
    looked: LogIndex,
}

/// Nine times.
fn one_more(hosts: u64, endpoints: u32) -> Vec<Cost> {
    let mut lab = Lab::new(hosts);
    let network = lab.network("net", "10.0.0.0/16");
    let web = lab.create("web", endpoints, |spec| spec.networks = vec![network]);
    lab.settle();
    let look = |state: &State, node| Sent { last: view(state, node).unwrap(), looked: state.applied };
    let mut streams: Vec<(NodeId, Sent)> =
        lab.state.nodes.keys().map(|node| (*node, look(&lab.state, *node))).collect();
    (1..10).map(|more| scale(&mut lab, &mut streams, web, endpoints + more)).collect()
}

fn scale(lab: &mut Lab, streams: &mut [(NodeId, Sent)], service: ServiceId, replicas: u32) -> Cost {
    let mut cost = Cost::default();
    let begin = Instant::now();
    lab.scale(service, replicas);
    cost.apply += begin.elapsed();
    serve(&lab.state, streams, &mut cost);
    loop {
        let commands = lab.decide().commands;
        let led = !commands.is_empty();
        for command in commands {
            propose(lab, command, streams, &mut cost);
        }
        let begin = Instant::now();
        let acted = lab.agents();
        if acted {
            cost.entries += 1;
            cost.apply += begin.elapsed();
            serve(&lab.state, streams, &mut cost);
        }
        if !led && !acted {
            assert_eq!(lab.running(service).len(), replicas as usize);
            return cost;
        }
    }
}

fn propose(lab: &mut Lab, command: Command, streams: &mut [(NodeId, Sent)], cost: &mut Cost) {
    let begin = Instant::now();
    lab.propose(command).unwrap();
    cost.apply += begin.elapsed();
    cost.entries += 1;
    serve(&lab.state, streams, cost);
}

/// As every stream does after every entry.
fn serve(state: &State, streams: &mut [(NodeId, Sent)], cost: &mut Cost) {
    let begin = Instant::now();
    for (node, sent) in streams {
        if state.changed_at(*node, sent.last.networks()) > sent.looked {
            let now = view(state, *node).unwrap();
            let delta = now.since(&sent.last);
            cost.rebuilt += 1;
            cost.sent += delta.endpoints.upsert.len() + delta.tasks.upsert.len();
            sent.last = now;
        }
        sent.looked = state.applied;
    }
    cost.streams += begin.elapsed();
}
