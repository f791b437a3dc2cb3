use std::time::Duration;

use shoal_common::{
    NodeId, ServiceId,
    service::{RestartCondition, RestartPolicy},
    task::TaskState,
};
use shoal_control::HISTORY_PER_SLOT;

use crate::lab::Lab;

const DELAY: Duration = Duration::from_secs(5);

fn policy(condition: RestartCondition, max_attempts: u32, window_s: u64) -> RestartPolicy {
    RestartPolicy { condition, delay: DELAY, max_attempts, window: Duration::from_secs(window_s) }
}

fn lab(restart: RestartPolicy) -> (Lab, ServiceId) {
    let mut lab = Lab::new(2);
    let web = lab.create("web", 1, |spec| spec.restart = restart);
    lab.settle();
    (lab, web)
}

fn end(lab: &mut Lab, web: ServiceId, state: TaskState) {
    let task = lab.in_slot(web, 1).id;
    lab.report(task, state);
}

#[test]
fn the_condition_says_whether_a_task_that_ended_is_replaced() {
    use {RestartCondition as C, TaskState as T};
    for (condition, ended, replaced) in [
        (C::None, T::Failed, false),
        (C::None, T::Complete, false),
        (C::None, T::Rejected, false),
        (C::OnFailure, T::Complete, false),
        (C::OnFailure, T::Failed, true),
        (C::OnFailure, T::Rejected, true),
        (C::OnFailure, T::Shutdown, true),
        (C::Any, T::Complete, true),
        (C::Any, T::Failed, true),
        (C::Any, T::Shutdown, true),
        (C::Any, T::Rejected, true),
    ] {
        let (mut lab, web) = lab(policy(condition, 0, 0));
        end(&mut lab, web, ended);
        lab.settle_in_time();
        assert_eq!(lab.running(web).len(), usize::from(replaced), "{condition} {ended}");
    }
}

#[test]
fn one_that_is_unhealthy_is_replaced_once_it_has_ended() {
    let (mut lab, web) = lab(policy(RestartCondition::OnFailure, 0, 0));
    let task = lab.in_slot(web, 1).id;
    lab.report(task, TaskState::Unhealthy);
    assert_eq!(lab.decide().commands, vec![], "its host ends it");
    assert!(!lab.in_slot(web, 1).is_serving());
    lab.report(task, TaskState::Failed);
    lab.settle_in_time();
    assert_eq!(lab.running(web).len(), 1);
    assert_ne!(lab.in_slot(web, 1).id, task);
}

#[test]
fn a_replacement_waits_for_the_delay() {
    let (mut lab, web) = lab(policy(RestartCondition::Any, 0, 0));
    end(&mut lab, web, TaskState::Failed);
    let ended = lab.now;
    lab.pass(DELAY - Duration::from_millis(1));
    let decision = lab.decide();
    assert_eq!((decision.commands, decision.wake_at), (vec![], Some(ended + DELAY)));
    lab.pass(Duration::from_millis(1));
    lab.settle();
    assert_eq!(lab.running(web).len(), 1);
}

#[test]
fn a_time_from_a_leader_whose_clock_was_far_ahead_is_not_waited_for() {
    let (mut lab, web) = lab(policy(RestartCondition::Any, 0, 0));
    end(&mut lab, web, TaskState::Failed);
    lab.now = shoal_common::Timestamp(lab.now.0 - 3_600_000);
    lab.settle();
    assert_eq!(lab.running(web).len(), 1);
}

#[test]
fn after_so_many_attempts_it_is_given_up_until_the_service_is_updated() {
    let (mut lab, web) = lab(policy(RestartCondition::Any, 7, 0));
    for _ in 0..8 {
        assert_eq!(lab.running(web).len(), 1);
        end(&mut lab, web, TaskState::Failed);
        lab.settle_in_time();
    }
    assert_eq!((lab.live(web).len(), lab.tasks(web).len()), (0, 8), "one start and seven restarts, all on record");
    lab.pass(Duration::from_secs(1_000_000));
    lab.settle_in_time();
    assert!(lab.live(web).is_empty());
    lab.update(web, |spec| spec.container.image = "busybox:2".to_owned());
    lab.settle_in_time();
    assert_eq!(lab.running(web).len(), 1);
}

#[test]
fn only_attempts_within_the_window_count() {
    let (mut lab, web) = lab(policy(RestartCondition::Any, 2, 60));
    for _ in 0..10 {
        lab.pass(Duration::from_secs(30));
        end(&mut lab, web, TaskState::Failed);
        lab.settle_in_time();
        assert_eq!(lab.running(web).len(), 1, "one restart in 60 s is within two");
    }
    lab.pass(Duration::from_secs(100));
    for _ in 0..3 {
        end(&mut lab, web, TaskState::Failed);
        lab.settle_in_time();
    }
    assert!(lab.live(web).is_empty(), "three in a row are not");
}

#[test]
fn the_last_few_tasks_of_a_slot_stay_on_record() {
    let (mut lab, web) = lab(policy(RestartCondition::Any, 0, 0));
    for _ in 0..20 {
        end(&mut lab, web, TaskState::Failed);
        lab.settle_in_time();
    }
    let ended: Vec<_> = lab.tasks(web).iter().filter(|t| !t.is_live()).map(|t| t.id).collect();
    assert_eq!(ended.len(), HISTORY_PER_SLOT);
    assert_eq!(lab.running(web).len(), 1);
}

#[test]
fn a_finished_slot_counts_as_a_replica() {
    let mut lab = Lab::new(1);
    let job = lab.create("job", 3, |spec| spec.restart.condition = RestartCondition::OnFailure);
    lab.settle();
    let task = lab.in_slot(job, 2).id;
    lab.report(task, TaskState::Complete);
    lab.settle_in_time();
    assert_eq!(lab.where_live(job).iter().map(|(s, _)| s.clone()).collect::<Vec<_>>(), ["1", "3"]);
}

#[test]
fn the_wake_up_is_for_the_first_of_several_delays() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 3, |_| {});
    lab.settle();
    let first = lab.now;
    for slot in [2, 1, 3] {
        let task = lab.in_slot(web, slot).id;
        lab.report(task, TaskState::Failed);
        lab.pass(Duration::from_secs(1));
    }
    assert_eq!(lab.decide().wake_at, Some(first + DELAY));
}

/// What is asked for is assigned, and refused by the hosts that `refuses`.
fn try_to_start(lab: &mut Lab, web: ServiceId, refuses: impl Fn(NodeId) -> bool) -> NodeId {
    lab.lead_on();
    let node = lab.in_slot(web, 1).node.unwrap();
    lab.agents_with(|task| if task.node.is_some_and(&refuses) { TaskState::Rejected } else { TaskState::Running });
    node
}

#[test]
fn a_task_that_a_host_cannot_start_is_tried_on_another() {
    let mut lab = Lab::new(3);
    let web = lab.create("web", 1, |spec| spec.restart = policy(RestartCondition::Any, 0, 0));
    let first = try_to_start(&mut lab, web, |_| true);
    lab.pass(DELAY);
    let second = try_to_start(&mut lab, web, |node| node != first);
    lab.pass(DELAY * 2);
    let third = try_to_start(&mut lab, web, |_| false);
    assert!(second != first && third != first && third != second, "{first} {second} {third}");
    assert_eq!(lab.running(web).len(), 1);
    // A task that has run clears the record: the next one goes where there is most room.
    assert_eq!(lab.in_slot(web, 1).node, Some(third));
}

#[test]
fn a_task_that_cannot_start_anywhere_is_tried_less_and_less_often_and_its_limit_holds() {
    for (most, pauses) in [(0, vec![5, 10, 20, 40, 60, 60, 60]), (3, vec![5, 10, 20])] {
        let mut lab = Lab::new(2);
        // The window is shorter than what the pauses come to.
        let web = lab.create("web", 1, |spec| spec.restart = policy(RestartCondition::Any, most, 16));
        let mut seen = Vec::new();
        for _ in 0..7 {
            try_to_start(&mut lab, web, |_| true);
            lab.lead_on();
            let Some(at) = lab.decide().wake_at else { break };
            seen.push((at.0 - lab.now.0) / 1000);
            lab.now = at;
        }
        assert_eq!(seen, pauses, "at most {most}");
        assert_eq!(lab.live(web).len(), 0);
    }
}
