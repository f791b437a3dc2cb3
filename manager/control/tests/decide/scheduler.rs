use shoal_common::{
    NodeId,
    network::{Driver, MacvlanOptions},
    node::{Availability, Liveness},
    service::{Publish, PublishMode},
    task::TaskState,
};

use crate::lab::{Lab, mib};

fn reason(lab: &Lab, service: shoal_common::ServiceId, slot: u32) -> String {
    let task = lab.in_slot(service, slot);
    assert_eq!((task.status.state, task.node), (TaskState::Pending, None));
    task.status.message.clone()
}

#[test]
fn a_task_that_fits_nowhere_says_why_with_a_count_per_reason() {
    let mut lab = Lab::new(7);
    lab.liveness(1, Liveness::Down);
    lab.availability(2, Availability::Drain);
    lab.availability(3, Availability::Drain);
    lab.availability(4, Availability::Pause);
    for node in [5, 7] {
        lab.label(node, "disk", "ssd");
    }
    let fill = lab.create("fill", 2, |spec| {
        spec.resources.reservations = mib(900);
        spec.placement.constraints = vec!["node.labels.disk==ssd".parse().unwrap()];
    });
    lab.settle();
    assert_eq!(lab.running(fill).len(), 2);
    let web = lab.create("web", 1, |spec| {
        spec.resources.reservations = mib(512);
        spec.placement.constraints =
            vec!["node.labels.disk==ssd".parse().unwrap(), "node.hostname!=host-7".parse().unwrap()];
    });
    lab.settle();
    assert_eq!(
        reason(&lab, web, 1),
        "no node fits: 1 node is down, 2 are drained, 1 is paused, 1 lacks node.labels.disk==ssd, \
         1 is excluded by node.hostname!=host-7, 1 has too little memory (needs 512 MiB, has 124 MiB left)"
    );
}

#[test]
fn a_node_without_a_parent_for_a_macvlan_gets_none_of_its_tasks() {
    let mut lab = Lab::new(3);
    let parents = [(NodeId(2), "eth0".parse().unwrap())].into();
    let driver = Driver::Macvlan(MacvlanOptions { parent: None, parents, mode: Default::default() });
    let lan = lab.network_by(driver, "lan", "10.0.7.0/24");
    let web = lab.create("web", 2, |spec| spec.networks = vec![lan.clone()]);
    lab.settle();
    assert_eq!(lab.running(web).iter().map(|t| t.node).collect::<Vec<_>>(), [Some(NodeId(2)); 2]);
    lab.availability(2, Availability::Pause);
    lab.scale(web, 3);
    lab.settle();
    let expected = format!(
        "no node fits: 1 node is paused, 2 have no parent for the macvlan network {} (--opt parent@HOST=LINK)",
        lan.network
    );
    assert_eq!(reason(&lab, web, 3), expected);
}

#[test]
fn a_pending_task_gets_its_node_when_there_is_one() {
    let mut lab = Lab::new(1);
    lab.availability(1, Availability::Pause);
    let web = lab.create("web", 1, |_| {});
    lab.settle();
    assert_eq!(reason(&lab, web, 1), "no node fits: 1 node is paused");
    let task = lab.in_slot(web, 1).id;
    lab.availability(1, Availability::Drain);
    lab.settle();
    assert_eq!(reason(&lab, web, 1), "no node fits: 1 node is drained");
    lab.availability(1, Availability::Active);
    lab.settle();
    assert_eq!((lab.in_slot(web, 1).id, lab.running(web).len()), (task, 1), "the same task");
}

#[test]
fn no_node_gets_more_than_its_most_replicas_or_its_memory() {
    let mut lab = Lab::new(2);
    let web = lab.create("web", 5, |spec| spec.placement.max_replicas_per_node = 2);
    lab.settle();
    assert_eq!(lab.running(web).len(), 4);
    assert_eq!(reason(&lab, web, 5), "no node fits: 2 nodes have 2 of its tasks already, which is the most per node");
    let big = lab.create("big", 5, |spec| spec.resources.reservations = mib(400));
    lab.settle();
    assert_eq!(lab.running(big).len(), 4);
    assert_eq!(
        reason(&lab, big, 5),
        "no node fits: 2 nodes have too little memory (needs 400 MiB, at most 224 MiB left)"
    );
}

#[test]
fn a_task_waits_for_an_address_and_gets_one_when_there_is_one() {
    let mut lab = Lab::new(2);
    let blue = lab.network("blue", "10.9.0.0/29");
    let web = lab.create("web", 8, |spec| spec.networks = vec![blue]);
    lab.settle();
    let running = lab.running(web).len();
    assert!((1..8).contains(&running), "{running}");
    let waiting = lab.live(web).into_iter().find(|task| task.node.is_none()).unwrap();
    assert!(waiting.status.message.contains("network blue has no free address"), "{}", waiting.status.message);
    assert!(!lab.lead(), "it does not try again and again");
    lab.scale(web, u32::try_from(running).unwrap());
    lab.settle();
    assert_eq!(lab.running(web).len(), running, "those that waited were ended, not those that ran");
}

#[test]
fn services_of_one_task_do_not_pile_up_on_the_first_node() {
    let mut lab = Lab::new(4);
    for n in 0..8 {
        lab.create(&format!("s{n}"), 1, |_| {});
        lab.settle();
    }
    lab.settle();
    for node in lab.state.nodes.keys() {
        assert_eq!(lab.state.tasks.values().filter(|t| t.node == Some(*node)).count(), 2);
    }
}

#[test]
fn what_ends_in_the_same_batch_makes_a_node_less_busy() {
    let mut lab = Lab::new(2);
    let on = |host: &str| vec![format!("node.hostname=={host}").parse().unwrap()];
    let leaving = lab.create("leaving", 2, |spec| spec.placement.constraints = on("host-1"));
    lab.create("staying", 1, |spec| spec.placement.constraints = on("host-2"));
    lab.settle();
    lab.scale(leaving, 0);
    let web = lab.create("web", 1, |_| {});
    lab.lead();
    assert_eq!(lab.where_live(web), [("1".to_owned(), 1)]);
}

#[test]
fn reserved_cores_are_counted_too() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 3, |spec| spec.resources.reservations.nano_cpus = 1_500_000_000);
    lab.settle();
    assert_eq!(lab.running(web).len(), 2);
    assert_eq!(reason(&lab, web, 3), "no node fits: 1 node has too little CPU (needs 1.5 cores, has 1 core left)");
}

#[test]
fn a_port_of_the_nodes_own_is_had_once_on_each() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 4, |spec| {
        let (protocol, mode) = (Default::default(), PublishMode::Host);
        spec.publish = vec![Publish { published: Some(80), target: 8080, protocol, mode }];
    });
    lab.settle();
    assert_eq!(lab.running(web).len(), 3);
    assert_eq!(reason(&lab, web, 4), "no node fits: 3 nodes have port 80/tcp in use");
    lab.add_node(4);
    lab.ready();
    lab.settle();
    assert_eq!(lab.running(web).len(), 4);
}
