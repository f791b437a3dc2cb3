//! What one node is told.

use shoal_common::{NodeId, task::TaskState};
use shoal_state::{Command, TaskChange, assignment};

use crate::world::{World, network, service};

#[test]
fn a_node_knows_its_own_tasks_and_everyone_on_their_networks_and_nothing_else() {
    let mut w = World::three_nodes();
    let (blue, red) = (w.network(network("blue", &[])), w.network(network("red", &[])));
    let (web, db) = (w.service(service("web", 2, &[blue])), w.service(service("db", 1, &[red])));
    w.orchestrate(vec![w.create(web, 1, Some(2)), w.create(web, 2, Some(3)), w.create(db, 1, Some(3))]);
    w.report(2, w.task(web, 1), TaskState::Running);

    let two = assignment(&w.state, NodeId(2)).unwrap();
    assert_eq!(two.generation.0, w.state.applied.0);
    assert_eq!(two.networks.keys().copied().collect::<Vec<_>>(), [blue]);
    assert_eq!(two.tasks.keys().copied().collect::<Vec<_>>(), [w.task(web, 1)]);
    let on_blue: Vec<(String, NodeId, bool)> =
        two.endpoints.values().map(|e| (e.task_name.clone(), e.node, e.serving)).collect();
    assert_eq!(on_blue, [("web.1".into(), NodeId(2), true), ("web.2".into(), NodeId(3), false)]);
    assert_eq!(two.services[&(blue, web)].vip4, w.state.services[&web].vips[&blue].v4);
    assert_eq!(assignment(&w.state, NodeId(3)).unwrap().networks.len(), 2);
    assert!(assignment(&w.state, NodeId(1)).unwrap().endpoints.is_empty());
    assert_eq!(assignment(&w.state, NodeId(9)), None);
}

#[test]
fn a_removed_service_leaves_names_at_once_and_its_endpoints_when_they_end() {
    let mut w = World::three_nodes();
    let blue = w.network(network("blue", &[]));
    let mut spec = service("web", 2, &[blue]);
    spec.container.hostname = Some("WWW".into());
    let web = w.service(spec);
    w.orchestrate(vec![w.create(web, 1, Some(2)), w.create(web, 2, Some(3))]);
    let (one, two) = (w.task(web, 1), w.task(web, 2));
    w.report(2, one, TaskState::Running);
    assert_eq!(assignment(&w.state, NodeId(3)).unwrap().endpoints[&(blue, one)].aliases, ["www"]);
    w.apply(Command::RemoveService { service: web }).unwrap();
    let seen = assignment(&w.state, NodeId(3)).unwrap();
    assert!(seen.services.is_empty() && !seen.endpoints[&(blue, one)].serving);
    w.report(2, one, TaskState::Shutdown);
    let seen = assignment(&w.state, NodeId(3)).unwrap();
    assert_eq!(seen.endpoints.keys().copied().collect::<Vec<_>>(), [(blue, two)]);
    w.report(3, two, TaskState::Shutdown);
    assert_eq!(w.orchestrate(vec![TaskChange::Forget { task: two }]), 1);
    assert!(assignment(&w.state, NodeId(3)).unwrap().networks.is_empty());
}
