use shoal_common::{
    ServiceId,
    node::{Availability, Liveness},
    service::Mode,
    task::Slot,
};

use crate::lab::{Lab, mib};

fn lab(nodes: u64) -> (Lab, ServiceId) {
    let mut lab = Lab::new(nodes);
    let agent = lab.create("agent", 0, |spec| spec.mode = Mode::Global);
    lab.settle();
    (lab, agent)
}

fn nodes(lab: &Lab, service: ServiceId) -> Vec<u64> {
    lab.where_live(service)
        .into_iter()
        .map(|(slot, node)| {
            assert_eq!(slot, format!("node-{node}"));
            node
        })
        .collect()
}

#[test]
fn every_node_has_one_also_one_that_joins_later() {
    let (mut lab, agent) = lab(3);
    assert_eq!(nodes(&lab, agent), [1, 2, 3]);
    let new = lab.add_node(4);
    lab.settle();
    assert_eq!(nodes(&lab, agent), [1, 2, 3], "it was not heard from yet");
    lab.ready();
    lab.settle();
    assert_eq!(nodes(&lab, agent), [1, 2, 3, new.0]);
}

#[test]
fn drained_nodes_have_none_paused_ones_keep_theirs_and_down_ones_wait() {
    let (mut lab, agent) = lab(4);
    lab.availability(2, Availability::Drain);
    lab.availability(3, Availability::Pause);
    lab.liveness(4, Liveness::Down);
    lab.settle();
    assert_eq!(nodes(&lab, agent), [1, 3]);
    lab.update(agent, |spec| spec.container.image = "busybox:2".to_owned());
    lab.settle();
    let version = lab.service(agent).spec_version;
    let of = |lab: &Lab, n| lab.live(agent).into_iter().find(|t| t.node.unwrap().0 == n).unwrap().spec_version;
    assert_eq!((of(&lab, 1) == version, of(&lab, 3) == version), (true, false), "a paused node is left alone");
    lab.availability(2, Availability::Active);
    lab.availability(3, Availability::Active);
    lab.liveness(4, Liveness::Ready);
    lab.settle();
    assert_eq!(nodes(&lab, agent), [1, 2, 3, 4]);
    assert_eq!(of(&lab, 3), version);
}

#[test]
fn constraints_choose_the_nodes() {
    let (mut lab, agent) = lab(3);
    lab.update(agent, |spec| spec.placement.constraints = vec!["node.role==worker".parse().unwrap()]);
    lab.settle();
    assert_eq!(nodes(&lab, agent), [2, 3]);
}

#[test]
fn a_node_without_room_has_a_task_that_waits_and_says_so() {
    let mut lab = Lab::new(2);
    lab.create("big", 1, |spec| spec.resources.reservations = mib(1000));
    lab.settle();
    let agent = lab.create("agent", 0, |spec| {
        spec.mode = Mode::Global;
        spec.resources.reservations = mib(100);
    });
    lab.settle();
    assert_eq!((lab.running(agent).len(), lab.live(agent).len()), (1, 2));
    let waiting = lab.live(agent).into_iter().find(|t| t.node.is_none()).unwrap();
    assert_eq!(waiting.status.message, "no node fits: 1 node has too little memory (needs 100 MiB, has 24 MiB left)");
    let Slot::Node(node) = waiting.slot else { panic!("{waiting:?}") };
    lab.liveness(node.0, Liveness::Down);
    lab.settle();
    assert_eq!(lab.live(agent).len(), 1, "a node that is down has nothing that waits");
}
