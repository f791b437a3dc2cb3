//! Containers that are run by hand, and the networks of one host.

use shoal_common::{
    NetworkId, NodeId, TaskId,
    container::{Attachment, ContainerLink, Networking, Phase, PortSpec, RunSpec, Wanted},
    network::{BridgeOptions, Driver, MacvlanOptions, NetworkSpec},
    node::{DefaultBridge, Liveness, NodeDescription},
    service::{HostAddress, Mount, MountSource},
};
use shoal_state::{Command, ContainerReport, Outcome, Rejection, Reply, assignment};
use std::net::IpAddr;

use crate::world::{World, description, network, run, service};

/// Three nodes; the first two have a default bridge, the third has opted out.
fn world() -> World {
    let mut w = World::three_nodes();
    for n in 1..=2 {
        let described =
            NodeDescription { default_bridge: Some(DefaultBridge::default()), ..description(&format!("w{n}")) };
        w.apply(Command::DescribeNode { node: NodeId(n), description: described }).unwrap();
    }
    w
}

fn create(w: &mut World, node: u64, spec: RunSpec) -> Result<TaskId, Rejection> {
    match w.apply(Command::CreateContainer { node: NodeId(node), spec: Box::new(spec) })? {
        Reply::Container(id, 0) => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn start(w: &mut World, container: TaskId) -> Outcome {
    w.apply(Command::StartContainer { container, again: false })
}

fn running(w: &World, container: TaskId) -> ContainerReport {
    let row = &w.state.containers[&container];
    ContainerReport {
        node: row.node,
        container,
        start: row.start,
        phase: Phase::Running,
        message: String::new(),
        exit_code: Some(0),
        restarts: 0,
        health: None,
        unstarted: false,
    }
}

fn report(w: &mut World, container: TaskId, phase: Phase) {
    let report = ContainerReport { phase, ..running(w, container) };
    w.apply(Command::ReportContainers { reports: vec![report] }).unwrap();
}

fn bridge(w: &mut World, node: u64, name: &str, subnets: &[&str]) -> Result<NetworkId, Rejection> {
    let mut spec = network(name, subnets);
    spec.driver = Driver::Bridge(BridgeOptions::on(NodeId(node)));
    match w.apply(Command::CreateNetwork { spec })? {
        Reply::Network(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn address(w: &World, container: TaskId) -> String {
    let endpoints = &w.state.containers[&container].endpoints;
    endpoints.iter().flat_map(|e| e.addresses()).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
}

fn publish(host_port: Option<u16>, container_port: u16) -> PortSpec {
    PortSpec { host_ip: None, host_port, container_port, protocol: Default::default(), host_port_last: None }
}

#[test]
fn a_container_without_a_network_is_on_its_hosts_default_bridge() {
    let mut w = world();
    let a = create(&mut w, 1, run("a", vec![])).unwrap();
    let b = create(&mut w, 2, run("a", vec![])).unwrap();
    // Two hosts, two bridges that never meet: the same subnet, and Docker's.
    assert_eq!((address(&w, a).as_str(), address(&w, b).as_str()), ("172.17.0.2", "172.17.0.2"));
    let cut = assignment(&w.state, NodeId(1)).unwrap();
    assert_eq!(cut.containers.keys().collect::<Vec<_>>(), [&a]);
    assert_eq!(cut.endpoints.len(), 1);
    // The bridge is there for a host also when nobody is on it.
    w.apply(Command::RemoveContainer { container: b, force: false, volumes: false }).unwrap();
    report(&mut w, b, Phase::Removed);
    assert_eq!(assignment(&w.state, NodeId(2)).unwrap().networks.len(), 1);
    assert!(matches!(create(&mut w, 3, run("a", vec![])), Err(Rejection::Invalid(why)) if why.field == "network"));
}

#[test]
fn a_default_bridge_is_made_anew_as_its_daemon_wants_it_unless_somebody_is_on_it() {
    let mut w = world();
    let a = create(&mut w, 1, run("a", vec![])).unwrap();
    let wants = |w: &mut World, default_bridge: Option<DefaultBridge>| {
        let description = NodeDescription { default_bridge, ..description("w1") };
        w.apply(Command::DescribeNode { node: NodeId(1), description }).unwrap();
        let networks = w.state.networks.values().filter(|n| n.spec.driver.node() == Some(NodeId(1)));
        let subnets =
            networks.map(|n| n.pools.iter().map(|p| p.subnet().net.to_string()).collect::<Vec<_>>().join(" "));
        subnets.collect::<Vec<_>>()
    };
    let v6 =
        || DefaultBridge { ipv6: true, fixed_cidr_v6: Some("2001:db8:1::/64".parse().unwrap()), ..Default::default() };
    assert_eq!(wants(&mut w, Some(v6())), ["172.17.0.0/16"], "a container is on it");
    w.apply(Command::RemoveContainer { container: a, force: false, volumes: false }).unwrap();
    report(&mut w, a, Phase::Removed);
    assert_eq!(wants(&mut w, Some(v6())), ["172.17.0.0/16 2001:db8:1::/64"]);
    let before = w.state.networks.clone();
    wants(&mut w, Some(v6()));
    assert_eq!(w.state.networks, before, "it is as wanted");
    // What cannot be had changes nothing.
    let much = DefaultBridge { bip: Some("172.17.0.1/31".parse().unwrap()), ..v6() };
    assert_eq!(wants(&mut w, Some(much)), ["172.17.0.0/16 2001:db8:1::/64"]);
    assert!(wants(&mut w, None).is_empty());
}

#[test]
fn names_are_of_one_host_and_on_a_network_of_the_cluster_of_all() {
    let mut w = world();
    let mut shared = network("shared", &[]);
    shared.attachable = true;
    let shared = w.network(shared);
    let closed = w.network(network("closed", &[]));
    create(&mut w, 1, run("a", vec![])).unwrap();
    assert!(matches!(create(&mut w, 1, run("a", vec![])), Err(Rejection::NameTaken { .. })));
    create(&mut w, 2, run("a", vec![Attachment::to(shared)])).unwrap();
    let twin = create(&mut w, 1, run("b", vec![Attachment::to(shared)])).unwrap();
    let rename = Command::RenameContainer { container: twin, name: "c".parse().unwrap() };
    w.apply(rename).unwrap();
    let other = create(&mut w, 3, run("a", vec![Attachment::to(shared)]));
    assert!(matches!(other, Err(Rejection::NameTaken { holder, .. }) if holder.contains("network shared")));
    let refused = create(&mut w, 3, run("d", vec![Attachment::to(closed)]));
    assert!(matches!(refused, Err(Rejection::NotAttachable { .. })));
}

#[test]
fn bridges_are_of_one_host_and_meet_what_is_there() {
    let mut w = world();
    let mine = bridge(&mut w, 1, "mine", &[]).unwrap();
    // As another host's: they cannot be mistaken for one another.
    bridge(&mut w, 2, "mine", &[]).unwrap();
    assert!(matches!(bridge(&mut w, 1, "mine", &[]), Err(Rejection::NameTaken { .. })));
    assert_eq!(w.state.find_network("mine", Some(NodeId(1))).map(|n| n.id), Some(mine));
    assert!(w.state.find_network("mine", Some(NodeId(3))).is_none());
    // A network of the cluster would be everywhere.
    assert!(matches!(w.apply(Command::CreateNetwork { spec: network("mine", &[]) }), Err(Rejection::NameTaken { .. })));
    assert!(matches!(bridge(&mut w, 1, "over", &["172.18.5.0/24"]), Err(Rejection::SubnetOverlap { .. })));
    bridge(&mut w, 3, "over", &["172.18.5.0/24"]).unwrap();
    for reserved in ["bridge", "host", "none"] {
        assert!(matches!(bridge(&mut w, 1, reserved, &[]), Err(Rejection::Invalid(_))), "{reserved}");
    }
    let elsewhere = create(&mut w, 2, run("a", vec![Attachment::to(mine)]));
    assert!(matches!(elsewhere, Err(Rejection::NetworkElsewhere { .. })));
    let default = w.state.find_network("bridge", Some(NodeId(1))).unwrap().id;
    let kept = w.apply(Command::RemoveNetwork { network: default });
    assert!(matches!(kept, Err(Rejection::PredefinedNetwork { .. })));

    let a = create(&mut w, 1, run("a", vec![Attachment::to(mine)])).unwrap();
    let in_use = w.apply(Command::RemoveNetwork { network: mine });
    assert!(matches!(in_use, Err(Rejection::NetworkInUse { users, .. }) if users.contains("container a")));
    w.apply(Command::DisconnectContainer { container: a, network: mine }).unwrap();
    w.apply(Command::RemoveNetwork { network: mine }).unwrap();
}

#[test]
fn a_container_joins_and_leaves_networks_and_keeps_its_links() {
    let mut w = world();
    let (one, two, three) = (
        bridge(&mut w, 1, "one", &[]).unwrap(),
        bridge(&mut w, 1, "two", &[]).unwrap(),
        bridge(&mut w, 1, "three", &[]).unwrap(),
    );
    let c = create(&mut w, 1, run("c", vec![Attachment::to(one)])).unwrap();
    let connect = |network, gw_priority| Command::ConnectContainer {
        container: c,
        attachment: Attachment { gw_priority, ..Attachment::to(network) },
    };
    w.apply(connect(two, 0)).unwrap();
    assert!(matches!(w.apply(connect(two, 0)), Err(Rejection::ConnectedAlready { .. })));
    w.apply(Command::DisconnectContainer { container: c, network: one }).unwrap();
    let gone = w.apply(Command::DisconnectContainer { container: c, network: one });
    assert!(matches!(gone, Err(Rejection::NotConnected { .. })));
    w.apply(connect(three, 7)).unwrap();
    let cut = assignment(&w.state, NodeId(1)).unwrap();
    let endpoints = &cut.containers[&c].endpoints;
    // The way out over the highest priority; eth1 stayed eth1, and eth0 was free.
    assert_eq!(endpoints.iter().map(|e| (e.network, e.link)).collect::<Vec<_>>(), [(three, 0), (two, 1)]);
}

#[test]
fn a_host_is_told_what_a_link_is_to_say_and_what_it_leads_to_on_a_network() {
    let mut w = world();
    let net = bridge(&mut w, 1, "net", &[]).unwrap();
    let exposed = ["79/udp".parse().unwrap()].into();
    let db = create(&mut w, 1, RunSpec { exposed, ports: vec![publish(None, 80)], ..run("db", vec![]) }).unwrap();
    let link = |alias: &str| ContainerLink { container: "db".parse().unwrap(), alias: alias.parse().unwrap() };
    let web = create(&mut w, 1, RunSpec { links: vec![link("a")], ..run("web", vec![]) }).unwrap();
    let attachment = Attachment { links: vec![link("b")], ..Attachment::to(net) };
    w.apply(Command::ConnectContainer { container: web, attachment }).unwrap();
    let told = assignment(&w.state, NodeId(1)).unwrap().containers[&web].clone();
    let ports: Vec<String> = told.links[0].exposed.iter().map(ToString::to_string).collect();
    assert_eq!((ports, told.links[0].image.as_str()), (vec!["79/udp".to_owned(), "80/tcp".to_owned()], "page"));
    // A link follows its container, whatever that is called.
    w.apply(Command::ConnectContainer { container: db, attachment: Attachment::to(net) }).unwrap();
    w.apply(Command::RenameContainer { container: db, name: "base".parse().unwrap() }).unwrap();
    let told = assignment(&w.state, NodeId(1)).unwrap().containers[&web].clone();
    assert_eq!((told.links[0].alias.as_str(), told.links[0].name.as_str()), ("a", "base"));
    let there = told.spec.attachments().iter().find(|a| a.network == net).unwrap();
    assert_eq!((there.links[0].container.as_str(), there.links[0].alias.as_str()), ("base", "b"));
    w.apply(Command::DisconnectContainer { container: web, network: net }).unwrap();
    let told = assignment(&w.state, NodeId(1)).unwrap().containers[&web].clone();
    assert!(told.spec.attachments().iter().all(|a| a.network != net));
}

#[test]
fn a_macvlan_is_of_the_hosts_that_have_a_parent() {
    let mut w = world();
    let parents = [(NodeId(1), "eth0".parse().unwrap())].into();
    let driver = Driver::Macvlan(MacvlanOptions { parent: None, parents, mode: Default::default() });
    let lan = w.network(NetworkSpec { driver, ..network("lan", &[]) });
    let a = create(&mut w, 1, run("a", vec![Attachment::to(lan)])).unwrap();
    assert_eq!(w.state.containers[&a].endpoints.len(), 1);
    let refused = create(&mut w, 2, run("b", vec![Attachment::to(lan)])).unwrap_err();
    assert!(matches!(refused, Rejection::NoParent { .. }), "{refused}");
    assert!(refused.to_string().contains("parent@w2=LINK"), "{refused}");
    let web = w.service(service("web", 1, &[lan]));
    w.orchestrate(vec![w.create(web, 1, Some(2))]);
    let waiting = &w.state.tasks[&w.task(web, 1)];
    assert!(waiting.node.is_none() && waiting.status.message.contains("parent@w2=LINK"), "{:?}", waiting.status);
}

#[test]
fn the_hosts_own_address_is_to_a_container_that_of_its_default_bridge() {
    let mut w = world();
    let mut spec = run("a", vec![]);
    spec.container.extra_hosts = vec![("up".to_owned(), HostAddress::Gateway)];
    let a = create(&mut w, 1, spec.clone()).unwrap();
    let told = assignment(&w.state, NodeId(1)).unwrap().containers[&a].clone();
    let bridge: IpAddr = [172, 17, 0, 1].into();
    assert_eq!((&told.spec.container, &told.gateways), (&spec.container, &vec![bridge]));
    spec.networking = Networking::None;
    let refused = create(&mut w, 3, spec);
    assert!(matches!(refused, Err(Rejection::Invalid(why)) if why.field == "add-host"), "that host has no such bridge");
}

#[test]
fn one_that_is_started_again_runs_since_then() {
    let mut w = world();
    let a = create(&mut w, 1, run("a", vec![])).unwrap();
    start(&mut w, a).unwrap();
    report(&mut w, a, Phase::Running);
    let first = w.state.containers[&a].status.since;
    w.apply(Command::StartContainer { container: a, again: true }).unwrap();
    let mut again = ContainerReport { start: 1, ..running(&w, a) };
    again.message = "healthy".to_owned();
    w.apply(Command::ReportContainers { reports: vec![again] }).unwrap();
    assert_eq!(w.state.containers[&a].status.since, first, "that is the start before");
    report(&mut w, a, Phase::Running);
    assert!(w.state.containers[&a].status.since > first);
}

#[test]
fn a_container_without_a_stack_of_its_own_is_connected_to_nothing() {
    let mut w = world();
    let net = bridge(&mut w, 1, "net", &[]).unwrap();
    for (networking, stack) in [
        (Networking::None, "its loopback alone (--network none)"),
        (Networking::Host, "the network stack of its host (--network host)"),
    ] {
        let name = format!("a{}", w.state.containers.len());
        let a = create(&mut w, 1, RunSpec { networking, ..run(&name, vec![]) }).unwrap();
        let connect = Command::ConnectContainer { container: a, attachment: Attachment::to(net) };
        let refused = w.apply(connect).unwrap_err().to_string();
        assert_eq!(refused, format!("container {name} has {stack} and can join no other network"));
    }
}

#[test]
fn addresses_are_as_wished_or_it_is_said_who_has_them() {
    let mut w = world();
    let net = bridge(&mut w, 1, "net", &["192.0.2.0/24"]).unwrap();
    let wish = |ip: &str| vec![Attachment { v4: Some(ip.parse().unwrap()), ..Attachment::to(net) }];
    let a = create(&mut w, 1, run("a", wish("192.0.2.77"))).unwrap();
    assert_eq!(address(&w, a), "192.0.2.77");
    let taken = create(&mut w, 1, run("b", wish("192.0.2.77")));
    assert!(matches!(taken, Err(Rejection::AddressTaken { holder, .. }) if holder == "container a"));
    for bad in ["192.0.2.1", "192.0.2.0", "192.0.2.255", "192.0.3.1"] {
        assert!(
            matches!(create(&mut w, 1, run("b", wish(bad))), Err(Rejection::Invalid(why)) if why.field == "ip"),
            "{bad}"
        );
    }
    let v6 = vec![Attachment { v6: Some("fd00::9".parse().unwrap()), ..Attachment::to(net) }];
    assert!(matches!(create(&mut w, 1, run("b", v6)), Err(Rejection::Invalid(why)) if why.field == "ip6"));
    // Freed a moment ago, and wished for again.
    w.apply(Command::RemoveContainer { container: a, force: false, volumes: false }).unwrap();
    report(&mut w, a, Phase::Removed);
    let again = create(&mut w, 1, run("a", wish("192.0.2.77"))).unwrap();
    assert_eq!(address(&w, again), "192.0.2.77");
}

#[test]
fn ports_are_taken_by_a_start_and_given_back_by_an_end() {
    let mut w = world();
    let with = |name: &str, ports: &[PortSpec]| RunSpec { ports: ports.to_vec(), ..run(name, vec![]) };
    let a = create(&mut w, 1, with("a", &[publish(Some(8000), 80), publish(None, 81)])).unwrap();
    let b = create(&mut w, 1, with("b", &[publish(Some(8000), 80)])).unwrap();
    let elsewhere = create(&mut w, 2, with("b", &[publish(Some(8000), 80)])).unwrap();
    start(&mut w, a).unwrap();
    start(&mut w, elsewhere).unwrap();
    let ports: Vec<String> = w.state.containers[&a].ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8000->80/tcp", "32768->81/tcp"]);
    assert!(matches!(start(&mut w, b), Err(Rejection::PortTaken { holder, .. }) if holder == "container a"));
    assert_eq!(w.state.containers[&b].wanted, Wanted::Created);
    report(&mut w, a, Phase::Running);
    report(&mut w, a, Phase::Exited);
    assert_eq!(w.state.containers[&a].wanted, Wanted::Stopped);
    start(&mut w, b).unwrap();
    let host = RunSpec { networking: Networking::Host, ..with("h", &[publish(Some(1), 1)]) };
    assert!(matches!(create(&mut w, 1, host), Err(Rejection::Invalid(why)) if why.field == "publish"));
}

#[test]
fn a_range_of_ports_is_handed_out_at_once_and_a_port_given_twice_is_told() {
    let mut w = world();
    let with = |name: &str, ports: Vec<PortSpec>| RunSpec { ports, ..run(name, vec![]) };
    let a = create(&mut w, 1, with("a", vec![publish(Some(32_770), 80)])).unwrap();
    start(&mut w, a).unwrap();
    // Looking at every port that is taken for each candidate of each port, this would take minutes.
    let many = create(&mut w, 1, with("many", (1..=4_000).map(|port| publish(None, port)).collect())).unwrap();
    start(&mut w, many).unwrap();
    let ports: std::collections::BTreeSet<u16> = w.state.containers[&many].ports.iter().map(|p| p.host_port).collect();
    let first: Vec<u16> = ports.iter().copied().take(3).collect();
    assert_eq!((ports.len(), first.as_slice()), (4_000, &[32_768, 32_769, 32_771][..]));
    let twice = create(&mut w, 1, with("twice", vec![publish(Some(8500), 80), publish(Some(8500), 81)])).unwrap();
    assert!(matches!(start(&mut w, twice), Err(Rejection::Invalid(why)) if why.to_string().contains("twice")));
}

#[test]
fn of_a_range_of_the_hosts_ports_the_first_that_is_free_is_taken() {
    let mut w = world();
    let among = |first, last| PortSpec { host_port_last: Some(last), ..publish(Some(first), 80) };
    let mut shown = |name: &str, ports: &[PortSpec]| {
        let id = create(&mut w, 1, RunSpec { ports: ports.to_vec(), ..run(name, vec![]) }).unwrap();
        start(&mut w, id).map(|_| w.state.containers[&id].ports.iter().map(|p| p.host_port).collect::<Vec<_>>())
    };
    assert_eq!(shown("a", &[among(7000, 7003)]).unwrap(), [7000]);
    // What must have 7001 is not robbed of it by what need not.
    assert_eq!(shown("b", &[among(7000, 7003), publish(Some(7001), 81)]).unwrap(), [7001, 7002]);
    assert_eq!(shown("c", &[among(7000, 7003)]).unwrap(), [7003]);
    let full = shown("d", &[among(7000, 7003)]).unwrap_err().to_string();
    assert_eq!(full, "port 7000-7003/tcp of the host is in use by container a, container b, container c");
}

#[test]
fn a_running_container_is_removed_by_its_host_and_one_of_a_lost_host_at_once() {
    let mut w = world();
    let a = create(&mut w, 1, run("a", vec![])).unwrap();
    start(&mut w, a).unwrap();
    let plain = w.apply(Command::RemoveContainer { container: a, force: false, volumes: false });
    assert!(matches!(plain, Err(Rejection::ContainerRuns { .. })));
    w.apply(Command::RemoveContainer { container: a, force: true, volumes: false }).unwrap();
    assert_eq!(w.state.containers[&a].wanted, Wanted::Removed);
    assert!(matches!(start(&mut w, a), Err(Rejection::NotFound { .. })));
    report(&mut w, a, Phase::Removed);
    assert!(w.state.containers.is_empty());

    let (b, c) = (create(&mut w, 2, run("b", vec![])).unwrap(), create(&mut w, 2, run("c", vec![])).unwrap());
    start(&mut w, c).unwrap();
    w.apply(Command::SetLiveness { nodes: vec![(NodeId(2), Liveness::Down)] }).unwrap();
    // Nothing that is asked of it would be done.
    let before = w.state.containers.clone();
    let stop = w.apply(Command::StopContainer { container: c, grace: None });
    for refused in [start(&mut w, b).map(drop), stop.map(drop), create(&mut w, 2, run("d", vec![])).map(drop)] {
        assert!(matches!(refused, Err(Rejection::NodeDown { node }) if node == "w2"));
    }
    assert_eq!(w.state.containers, before);
    w.apply(Command::RemoveContainer { container: b, force: false, volumes: false }).unwrap();
    assert_eq!(w.state.containers.len(), 1);
    // With the host go its bridges and what was on them.
    w.apply(Command::RemoveNode { node: NodeId(2), force: false }).unwrap();
    assert!(w.state.containers.is_empty() && w.state.find_network("bridge", Some(NodeId(2))).is_none());
}

#[test]
fn an_anonymous_volume_goes_with_its_container_where_that_is_meant() {
    let mut w = world();
    for (auto_remove, volumes, goes) in [(false, false, false), (false, true, true), (true, false, true)] {
        let mut spec = RunSpec { auto_remove, ..run("a", vec![]) };
        let source = MountSource::Anonymous("0123".parse().unwrap());
        spec.container.mounts = vec![Mount { source, target: "/data".to_owned(), read_only: false }];
        let a = create(&mut w, 1, spec).unwrap();
        w.apply(Command::RemoveContainer { container: a, force: false, volumes }).unwrap();
        let told = assignment(&w.state, NodeId(1)).unwrap().containers[&a].spec.container.mounts[0].source.clone();
        assert_eq!(matches!(told, MountSource::Anonymous(_)), goes, "{auto_remove} {volumes}");
        report(&mut w, a, Phase::Removed);
    }
}

#[test]
fn one_that_is_to_go_with_its_end_goes() {
    let mut w = world();
    let a = create(&mut w, 1, RunSpec { auto_remove: true, ..run("a", vec![]) }).unwrap();
    start(&mut w, a).unwrap();
    report(&mut w, a, Phase::Running);
    report(&mut w, a, Phase::Exited);
    assert_eq!(w.state.containers[&a].wanted, Wanted::Removed);
}

#[test]
fn a_report_that_comes_after_a_later_one_changes_nothing() {
    let mut w = world();
    let a = create(&mut w, 1, run("a", vec![])).unwrap();
    start(&mut w, a).unwrap();
    let of_the_first = running(&w, a);
    for phase in [Phase::Running, Phase::Exited] {
        report(&mut w, a, phase);
    }
    let ended = w.state.containers[&a].clone();
    w.apply(Command::ReportContainers { reports: vec![of_the_first.clone()] }).unwrap();
    assert_eq!(w.state.containers[&a], ended);
    // By its policy, or by its user, it runs again.
    w.apply(Command::ReportContainers { reports: vec![ContainerReport { restarts: 1, ..of_the_first }] }).unwrap();
    assert_eq!(w.state.containers[&a].status.phase, Phase::Running);
    report(&mut w, a, Phase::Exited);
    start(&mut w, a).unwrap();
    report(&mut w, a, Phase::Running);
    assert_eq!(w.state.containers[&a].status.phase, Phase::Running);
}
