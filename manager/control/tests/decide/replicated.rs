use shoal_common::task::TaskState;
use shoal_control::BATCH_CHANGES;
use shoal_state::{Command, TaskChange};

use crate::lab::Lab;

#[test]
fn a_new_service_gets_a_task_in_every_slot_spread_over_the_nodes() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 6, |_| {});
    assert_eq!(lab.lead_on(), 1, "one entry for all");
    let live = lab.where_live(web);
    assert_eq!(live.iter().map(|(slot, _)| slot.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6"]);
    for node in 1..=3 {
        assert_eq!(live.iter().filter(|(_, n)| *n == node).count(), 2, "{live:?}");
    }
    lab.settle();
    assert_eq!(lab.running(web).len(), 6);
    assert_eq!(lab.decide(), Default::default(), "nothing to do, and nothing to wait for");
}

#[test]
fn ten_thousand_replicas_cost_a_handful_of_entries() {
    let mut lab = Lab::new(10);
    let web = lab.create("web", 10_000, |_| {});
    assert_eq!(lab.lead_on(), 10_000 / BATCH_CHANGES);
    assert_eq!(lab.live(web).len(), 10_000);
}

#[test]
fn scaling_down_ends_what_is_not_running_first() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 4, |_| {});
    lab.lead_on();
    for slot in [1, 3, 4] {
        let task = lab.in_slot(web, slot).id;
        lab.report(task, TaskState::Running);
    }
    lab.scale(web, 3);
    lab.lead_on();
    assert_eq!(lab.where_live(web).iter().map(|(s, _)| s.clone()).collect::<Vec<_>>(), ["1", "3", "4"]);
}

#[test]
fn scaling_down_ends_tasks_on_the_most_crowded_node_then_the_highest_slots() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 3, |_| {});
    lab.settle();
    let second = lab.add_node(2);
    lab.ready();
    lab.scale(web, 4);
    lab.settle();
    assert_eq!(lab.where_live(web)[3], ("4".to_owned(), second.0));
    lab.scale(web, 2);
    lab.settle();
    assert_eq!(lab.where_live(web), [("1".to_owned(), 1), ("4".to_owned(), second.0)]);
    lab.scale(web, 1);
    lab.settle();
    assert_eq!(lab.where_live(web), [("1".to_owned(), 1)]);
    lab.scale(web, 3);
    lab.settle();
    assert_eq!(lab.where_live(web).len(), 3);
    assert_eq!(lab.tasks(web).len(), 3, "what was scaled away and has ended is forgotten");
}

#[test]
fn the_tasks_of_a_removed_service_end_and_are_forgotten() {
    let mut lab = Lab::new(2);
    let web = lab.create("web", 3, |_| {});
    lab.settle();
    lab.propose(Command::RemoveService { service: web }).unwrap();
    lab.lead_on();
    assert!(lab.live(web).is_empty());
    lab.settle();
    assert!(lab.tasks(web).is_empty());
}

#[test]
fn a_batch_that_was_cut_off_is_continued() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 2_500, |_| {});
    let first = lab.decide().commands;
    let [Command::Orchestrate { changes }] = first.as_slice() else { panic!("{first:?}") };
    assert_eq!(changes.len(), BATCH_CHANGES);
    assert!(changes.iter().all(|change| matches!(change, TaskChange::Create { .. })));
    lab.settle();
    assert_eq!(lab.running(web).len(), 2_500);
}

/// Replica counts of 2 with the slots 1 and 4.
fn with_a_gap(change: impl FnOnce(&mut shoal_common::service::ServiceSpec)) -> (Lab, shoal_common::ServiceId) {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 3, change);
    lab.settle();
    lab.add_node(2);
    lab.ready();
    lab.scale(web, 4);
    lab.settle();
    lab.scale(web, 2);
    lab.settle();
    assert_eq!(slots(&lab, web), ["1", "4"]);
    (lab, web)
}

fn slots(lab: &Lab, service: shoal_common::ServiceId) -> Vec<String> {
    lab.where_live(service).into_iter().map(|(slot, _)| slot).collect()
}

#[test]
fn what_follows_a_task_above_the_replica_count_gets_a_number_within() {
    for end in 0..4 {
        let (mut lab, web) = with_a_gap(|_| {});
        let high = lab.in_slot(web, 4).id;
        let node = lab.in_slot(web, 4).node.unwrap().0;
        match end {
            0 => lab.report(high, TaskState::Failed),
            1 => lab.liveness(node, shoal_common::node::Liveness::Down),
            2 => lab.availability(node, shoal_common::node::Availability::Drain),
            3 => lab.update(web, |spec| spec.container.image = "busybox:2".to_owned()),
            _ => unreachable!("four ways to end"),
        }
        lab.lead_on();
        assert_eq!(slots(&lab, web).len(), if end == 0 || end == 3 { 1 } else { 2 }, "way {end}");
        lab.settle_in_time();
        assert_eq!(slots(&lab, web), ["1", "2"], "way {end}");
        assert_eq!(lab.running(web).len(), 2);
    }
}

#[test]
fn a_task_above_the_replica_count_that_is_done_is_not_done_again() {
    let (mut lab, web) = with_a_gap(|spec| spec.restart.condition = shoal_common::service::RestartCondition::None);
    let high = lab.in_slot(web, 4).id;
    lab.report(high, TaskState::Complete);
    lab.settle_in_time();
    assert_eq!(slots(&lab, web), ["1"]);
}
