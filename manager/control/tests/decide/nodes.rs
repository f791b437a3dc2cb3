use shoal_common::{
    Level, NodeId,
    node::{Availability, Liveness},
    task::TaskState,
};
use shoal_control::decide;
use shoal_state::Command;

use crate::lab::Lab;

#[test]
fn a_drained_nodes_tasks_move_in_one_batch() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 6, |_| {});
    lab.settle();
    lab.availability(2, Availability::Drain);
    assert_eq!(lab.lead_on(), 1);
    let live = lab.where_live(web);
    assert_eq!(live.len(), 6);
    assert!(live.iter().all(|(_, node)| *node != 2), "{live:?}");
    assert_eq!(live.iter().map(|(s, _)| s.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6"]);
    lab.settle();
    assert_eq!(lab.running(web).len(), 6);
}

#[test]
fn a_paused_node_keeps_what_it_has_and_gets_nothing_new() {
    let mut lab = Lab::new(2);
    let web = lab.create("web", 2, |_| {});
    lab.settle();
    lab.availability(2, Availability::Pause);
    assert!(!lab.lead());
    lab.scale(web, 6);
    lab.settle();
    assert_eq!(lab.where_live(web).iter().filter(|(_, node)| *node == 2).count(), 1);
}

#[test]
fn a_down_nodes_tasks_are_orphaned_and_replaced_at_once_whatever_the_restart_policy() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 6, |spec| spec.restart.condition = shoal_common::service::RestartCondition::None);
    lab.settle();
    lab.liveness(3, Liveness::Down);
    assert_eq!(lab.lead_on(), 1);
    assert_eq!(lab.tasks(web).iter().filter(|t| t.status.state == TaskState::Orphaned).count(), 2);
    let live = lab.where_live(web);
    assert_eq!(live.len(), 6);
    assert!(live.iter().all(|(_, node)| *node != 3));
    lab.liveness(3, Liveness::Ready);
    lab.settle();
    assert_eq!(lab.where_live(web), live, "nothing moves back by itself");
}

#[test]
fn a_removed_nodes_tasks_are_replaced() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 3, |_| {});
    lab.settle();
    lab.propose(Command::RemoveNode { node: NodeId(3), force: true }).unwrap();
    lab.settle();
    let live = lab.where_live(web);
    assert_eq!(live.len(), 3);
    assert!(live.iter().all(|(_, node)| *node != 3));
}

#[test]
fn a_task_whose_node_no_longer_meets_a_constraint_moves() {
    let mut lab = Lab::new(3);
    lab.label(1, "disk", "ssd");
    lab.label(2, "disk", "ssd");
    let web = lab.create("web", 2, |spec| {
        spec.placement.constraints = vec!["node.labels.disk==ssd".parse().unwrap()];
    });
    lab.settle();
    assert_eq!(lab.where_live(web).iter().map(|(_, n)| *n).max(), Some(2));
    lab.unlabel(1, "disk");
    lab.label(3, "disk", "ssd");
    lab.settle();
    let mut nodes: Vec<_> = lab.where_live(web).into_iter().map(|(_, n)| n).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [2, 3]);
    lab.update(web, |spec| spec.placement.constraints = vec!["node.hostname==host-1".parse().unwrap()]);
    lab.settle();
    assert!(lab.where_live(web).iter().all(|(_, n)| *n == 1));
    assert_eq!(lab.running(web).len(), 2);
}

#[test]
fn the_level_is_raised_before_anything_else_once_every_manager_knows_it() {
    let mut lab = Lab::new(2);
    lab.create("web", 2, |_| {});
    assert!(!matches!(decide(&lab.state, lab.now).commands[..], [Command::RaiseLevel { .. }]));
    // A version later than this one: it is raised to what this leader knows itself.
    let description =
        shoal_common::node::NodeDescription { level: Level(99), ..lab.state.nodes[&NodeId(1)].description.clone() };
    lab.propose(Command::DescribeNode { node: NodeId(1), description }).unwrap();
    let commands = decide(&lab.state, lab.now).commands;
    assert_eq!(commands, [Command::RaiseLevel { level: Level::KNOWN }]);
    lab.propose(commands[0].clone()).unwrap();
    assert!(matches!(decide(&lab.state, lab.now).commands[..], [Command::Orchestrate { .. }]));
}
