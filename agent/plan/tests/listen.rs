//! Where the host listens for its published ports, and what it leaves to others of the host.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod fixture;

use fixture::cluster::{BLUE, BRIDGE, Cluster, LAN, QUIET, WEB, facts, published};
use shoal_common::{
    NodeId, TaskId,
    assignment::{Assignment, IngressAssignment, IngressHost},
    service::{IngressPort, Protocol},
};
use shoal_plan::{Behind, Holder, HostFacts, Listener, Ns, desired, listeners, nft::Family};
use std::collections::BTreeSet;

fn local(assignment: &Assignment) -> BTreeSet<TaskId> {
    assignment.tasks.keys().chain(assignment.containers.keys()).copied().collect()
}

fn lines(assignment: &Assignment) -> Vec<String> {
    let line = |(listener, behind): (Listener, Behind)| {
        let holder = match behind.holder {
            Holder::Container(id) => id.to_string(),
            Holder::Service(id) => id.to_string(),
        };
        let to: Vec<String> = behind.to.iter().map(ToString::to_string).collect();
        format!("{} {}: {holder} at {}", listener.transport, listener.at, to.join(" "))
    };
    listeners(assignment, &facts(1), &local(assignment)).into_iter().map(line).collect()
}

fn table_of(assignment: &Assignment, facts: &HostFacts) -> String {
    let world = desired(assignment, facts, &local(assignment));
    let table = &world.namespaces[&Ns::Host].tables[&Family::Inet];
    table.chains.iter().map(ToString::to_string).collect()
}

#[test]
fn each_published_port_is_listened_at_and_leads_to_the_other_family_where_its_own_is_missing() {
    let tcp = |ip: &str, at| published(ip, at, 80, Protocol::Tcp);
    let cluster = Cluster::default()
        .run_at(31, &[BRIDGE], &[tcp("", 8080), tcp("127.0.0.1", 8081), published("", 53, 5353, Protocol::Udp)])
        .run_at(33, &[LAN], &[tcp("", 8082), tcp("::1", 8083), tcp("192.0.2.1", 8084)])
        .run_at(34, &[QUIET], &[tcp("", 8085)])
        .run_at(35, &[BLUE], &[tcp("", 8086), tcp("", 8087)]);
    assert_eq!(
        lines(&cluster.assignment(1)),
        [
            "tcp 0.0.0.0:8080: task-31 at 172.20.7.31:80",
            "tcp 0.0.0.0:8082: task-33 at 172.20.8.33:80",
            "tcp 0.0.0.0:8086: task-35 at 240.0.32.11:41429",
            "tcp 0.0.0.0:8087: task-35 at 240.0.32.11:41429",
            "tcp 127.0.0.1:8081: task-31 at 172.20.7.31:80",
            "tcp 192.0.2.1:8084: task-33 at 172.20.8.33:80",
            "tcp [::]:8080: task-31 at [fd00:70::1f]:80",
            "tcp [::]:8082: task-33 at 172.20.8.33:80",
            "tcp [::]:8086: task-35 at [fd73:686f:616c::200b]:41429",
            "tcp [::]:8087: task-35 at [fd73:686f:616c::200b]:41429",
            "tcp [::1]:8083: task-33 at 172.20.8.33:80",
            "udp 0.0.0.0:53: task-31 at 172.20.7.31:5353",
            "udp [::]:53: task-31 at [fd00:70::1f]:5353",
        ]
    );
}

#[test]
fn a_port_of_the_cluster_is_listened_at_on_every_host() {
    let ports = vec![IngressPort { port: 8080, target: 80, protocol: Protocol::Tcp }];
    let host = |last: u8| (NodeId(last.into()), IngressHost { v4: Some([192, 0, 2, last].into()), v6: None, tasks: 1 });
    let of_both = |(node, host): (NodeId, IngressHost)| (node, IngressHost { v6: "2001:db8::7".parse().ok(), ..host });
    let mut far = Cluster::default();
    far.ingress.insert(WEB, IngressAssignment { ports: ports.clone(), hosts: [host(2), host(3)].into() });
    let elsewhere = "svc-1 at 192.0.2.2:8080 192.0.2.3:8080";
    assert_eq!(
        lines(&far.assignment(1)),
        [format!("tcp 0.0.0.0:8080: {elsewhere}"), format!("tcp [::]:8080: {elsewhere}")]
    );
    let mut near = Cluster::default().with(11, 1, WEB, &[BRIDGE]);
    near.ingress.insert(WEB, IngressAssignment { ports: ports.clone(), hosts: [host(1), host(2)].into() });
    assert_eq!(
        lines(&near.assignment(1)),
        ["tcp 0.0.0.0:8080: svc-1 at 172.20.7.11:80", "tcp [::]:8080: svc-1 at [fd00:70::b]:80"]
    );
    // Tasks without IPv6, here and there: nobody sends to the other what comes by it.
    let mut four = Cluster::default().with(11, 1, WEB, &[LAN]);
    four.ingress.insert(WEB, IngressAssignment { ports, hosts: [of_both(host(1)), of_both(host(2))].into() });
    let four = four.assignment(1);
    let to = "svc-1 at 172.20.8.11:80";
    assert_eq!(lines(&four), [format!("tcp 0.0.0.0:8080: {to}"), format!("tcp [::]:8080: {to}")]);
    assert!(!table_of(&four, &facts(1)).contains("2001:db8::7"));
}

#[test]
fn a_port_that_others_of_the_host_have_stays_theirs() {
    let tcp = |at| published("", at, 80, Protocol::Tcp);
    let assignment = Cluster::default().run_at(31, &[BRIDGE], &[tcp(8080), tcp(8081)]).assignment(1);
    let closed = [Listener { transport: shoal_plan::nft::Transport::Tcp, at: "0.0.0.0:8080".parse().unwrap() }];
    let facts = HostFacts { closed: closed.into(), ..facts(1) };
    let text = table_of(&assignment, &facts);
    assert!(!text.contains("8080 : 172.20.7.31"), "{text}");
    assert!(text.contains("8081 : 172.20.7.31") && text.contains("8080 : fd00:70::1f"), "{text}");
    // It is asked for all the same: whoever has it may end.
    assert!(listeners(&assignment, &facts, &local(&assignment)).contains_key(&closed[0]));
}
