//! Ports of services, on every host and on each task's own.

use shoal_common::{
    NodeId, ServiceId,
    node::{DefaultBridge, NodeDescription},
    service::{Publish, PublishMode, ServiceSpec},
    task::TaskState,
};
use shoal_state::{Command, Outcome, Rejection, Reply, TaskChange, assignment};

use crate::world::{World, description, network, service};

fn at(published: Option<u16>, mode: PublishMode) -> Publish {
    Publish { published, target: 80, protocol: Default::default(), mode }
}

fn publishing(name: &str, publish: &[Publish]) -> ServiceSpec {
    ServiceSpec { publish: publish.to_vec(), ..service(name, 2, &[]) }
}

fn update(w: &mut World, id: ServiceId, publish: &[Publish]) -> Outcome {
    let (version, mut spec) = (w.state.services[&id].version, w.state.services[&id].spec.clone());
    spec.publish = publish.to_vec();
    w.apply(Command::UpdateService { service: id, version, spec: Box::new(spec) })
}

fn shown(w: &World, id: ServiceId) -> Vec<String> {
    w.state.services[&id].ingress.iter().map(ToString::to_string).collect()
}

fn create(w: &mut World, spec: ServiceSpec) -> Result<ServiceId, Rejection> {
    match w.apply(Command::CreateService { spec: Box::new(spec) })? {
        Reply::Service(id, _) => Ok(id),
        other => panic!("{other:?}"),
    }
}

use PublishMode::{Host, Ingress};

#[test]
fn a_port_of_the_cluster_has_one_owner_and_one_that_nobody_named_stays() {
    let mut w = World::three_nodes();
    let web = create(&mut w, publishing("web", &[at(None, Ingress), at(Some(8080), Ingress)])).unwrap();
    assert_eq!(shown(&w, web), ["*:8080->80/tcp", "*:30000->80/tcp"]);
    let taken = |outcome: Result<ServiceId, Rejection>, by: &str| match outcome {
        Err(Rejection::PortTaken { port, holder }) => assert_eq!((port.as_str(), holder.as_str()), ("8080/tcp", by)),
        other => panic!("{other:?}"),
    };
    taken(create(&mut w, publishing("api", &[at(Some(8080), Ingress)])), "service web");
    taken(create(&mut w, publishing("api", &[at(Some(8080), Host), at(Some(8080), Ingress)])), "service web");
    let udp = Publish { protocol: "udp".parse().unwrap(), ..at(Some(8080), Ingress) };
    create(&mut w, publishing("udp", &[udp])).unwrap();
    let api = create(&mut w, publishing("api", &[at(None, Ingress)])).unwrap();
    assert_eq!(shown(&w, api), ["*:30001->80/tcp"]);
    let spec_version = w.state.services[&web].spec_version;
    update(&mut w, web, &[at(None, Ingress), at(Some(9000), Ingress)]).unwrap();
    assert_eq!(shown(&w, web), ["*:9000->80/tcp", "*:30000->80/tcp"]);
    assert_eq!(w.state.services[&web].spec_version, spec_version, "no task is made anew for it");
    update(&mut w, web, &[at(Some(9000), Host)]).unwrap();
    assert!(shown(&w, web).is_empty() && w.state.services[&web].spec_version > spec_version);
    let twice = create(&mut w, publishing("late", &[at(Some(8080), Ingress), at(Some(8080), Ingress)]));
    assert!(matches!(twice, Err(Rejection::Invalid(why)) if why.to_string().contains("given twice")));
}

#[test]
fn a_port_of_a_tasks_own_host_is_its_until_it_ends() {
    let mut w = World::three_nodes();
    let own = create(&mut w, publishing("own", &[at(Some(8080), Host), at(None, Host)])).unwrap();
    assert_eq!(w.orchestrate(vec![w.create(own, 1, Some(2)), w.create(own, 2, Some(2))]), 2);
    let (one, two) = (w.task(own, 1), w.task(own, 2));
    let ports: Vec<String> = w.state.tasks[&one].ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["8080->80/tcp", "32768->80/tcp"]);
    let waiting = &w.state.tasks[&two];
    assert_eq!((waiting.status.state, waiting.node), (TaskState::Pending, None));
    assert!(waiting.status.message.contains("8080/tcp of the host is in use by task own.1"), "{:?}", waiting.status);
    assert_eq!(assignment(&w.state, NodeId(2)).unwrap().tasks[&one].ports.len(), 2);
    assert!(matches!(
        create(&mut w, publishing("web", &[at(Some(32768), Ingress)])),
        Err(Rejection::PortTaken { holder, .. }) if holder == "task own.1"
    ));
    w.report(2, one, TaskState::Failed);
    assert!(w.state.tasks[&one].ports.is_empty());
}

#[test]
fn every_host_is_told_where_the_ports_of_the_cluster_lead() {
    let mut w = World::three_nodes();
    let reached = NodeDescription {
        addresses: vec!["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
        ..description("w2")
    };
    w.apply(Command::DescribeNode { node: NodeId(2), description: reached }).unwrap();
    let web = create(&mut w, publishing("web", &[at(Some(8080), Ingress)])).unwrap();
    w.orchestrate(vec![w.create(web, 1, Some(2)), w.create(web, 2, Some(3))]);
    let changed = |w: &World| w.state.changed_at(NodeId(1), [].into_iter());
    let before = changed(&w);
    w.report(2, w.task(web, 1), TaskState::Starting);
    assert_eq!(changed(&w), before, "nobody but its own host cares");
    w.report(2, w.task(web, 1), TaskState::Running);
    assert_eq!(changed(&w), w.state.applied);
    let told = assignment(&w.state, NodeId(1)).unwrap().ingress[&web].clone();
    assert_eq!(told.ports, w.state.services[&web].ingress);
    let (node, host) = told.hosts.clone().into_iter().next().unwrap();
    assert_eq!((node, host.tasks), (NodeId(2), 1));
    assert_eq!((host.v4, host.v6), (Some([192, 0, 2, 2].into()), Some("2001:db8::2".parse().unwrap())));
    let hosts = |w: &World| assignment(&w.state, NodeId(1)).unwrap().ingress[&web].hosts.clone();
    w.orchestrate(vec![TaskChange::Shutdown { task: w.task(web, 1), why: String::new() }]);
    assert_eq!((hosts(&w)[&NodeId(2)].tasks, changed(&w)), (0, w.state.applied), "what is under way goes on");
    w.report(2, w.task(web, 1), TaskState::Shutdown);
    assert_eq!((hosts(&w).len(), changed(&w)), (0, w.state.applied), "it is reset");
    w.apply(Command::RemoveService { service: web }).unwrap();
    assert_eq!(changed(&w), w.state.applied);
    assert!(assignment(&w.state, NodeId(1)).unwrap().ingress.is_empty());
}

#[test]
fn a_task_without_a_network_is_on_its_hosts_default_bridge() {
    let mut w = World::three_nodes();
    let described = NodeDescription { default_bridge: Some(DefaultBridge::default()), ..description("w2") };
    w.apply(Command::DescribeNode { node: NodeId(2), description: described }).unwrap();
    let plain = create(&mut w, service("plain", 2, &[])).unwrap();
    w.orchestrate(vec![w.create(plain, 1, Some(2)), w.create(plain, 2, Some(3))]);
    let there = w.state.tasks[&w.task(plain, 1)].endpoints.clone();
    let bridge = w.state.networks.values().find(|n| n.spec.driver.node() == Some(NodeId(2))).unwrap().id;
    assert_eq!(there.iter().map(|e| e.network).collect::<Vec<_>>(), [bridge]);
    assert!(w.state.tasks[&w.task(plain, 2)].endpoints.is_empty(), "that host has none");
}

#[test]
fn ports_need_a_way_out() {
    let mut w = World::three_nodes();
    let mut quiet = network("quiet", &[]);
    quiet.internal = true;
    let quiet = w.network(quiet);
    let spec = ServiceSpec { publish: vec![at(Some(80), Ingress)], ..service("web", 1, &[quiet]) };
    assert!(matches!(create(&mut w, spec), Err(Rejection::Invalid(why)) if why.field == "publish"));
}
