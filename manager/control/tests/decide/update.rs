use std::time::Duration;

use shoal_common::{ServiceId, node::Availability, service::UpdatePolicy, task::TaskState};

use crate::lab::{Lab, mib};

fn lab(replicas: u32, parallelism: u32, delay: Duration) -> (Lab, ServiceId) {
    let mut lab = Lab::new(3);
    let web = lab.create("web", replicas, |spec| spec.update = UpdatePolicy { parallelism, delay });
    lab.settle();
    (lab, web)
}

fn new_image(lab: &mut Lab, web: ServiceId) {
    lab.update(web, |spec| spec.container.image.push('x'));
}

fn updated(lab: &Lab, web: ServiceId) -> usize {
    let version = lab.service(web).spec_version;
    lab.running(web).iter().filter(|task| task.spec_version == version).count()
}

#[test]
fn an_update_goes_batch_by_batch_and_stops_before_it_starts() {
    let (mut lab, web) = lab(5, 2, Duration::ZERO);
    new_image(&mut lab, web);
    lab.lead_on();
    assert_eq!((lab.running(web).len(), lab.live(web).len()), (3, 3), "two stop; nothing is created beside them");
    lab.agents();
    lab.lead_on();
    assert_eq!((lab.running(web).len(), lab.live(web).len()), (3, 5), "they have stopped: two start");
    assert!(!lab.lead(), "and no more, until they run");
    lab.agents();
    lab.lead_on();
    assert_eq!((updated(&lab, web), lab.running(web).len()), (2, 3));
    lab.settle();
    assert_eq!(updated(&lab, web), 5);
}

#[test]
fn the_next_batch_waits_for_the_delay() {
    let (mut lab, web) = lab(2, 1, Duration::from_secs(10));
    new_image(&mut lab, web);
    lab.settle();
    assert_eq!(updated(&lab, web), 1);
    assert_eq!(lab.decide().wake_at, Some(lab.now + Duration::from_secs(10)));
    lab.pass(Duration::from_millis(9_999));
    lab.settle();
    assert_eq!(updated(&lab, web), 1);
    lab.pass(Duration::from_millis(1));
    lab.settle();
    assert_eq!(updated(&lab, web), 2);
    assert_eq!(lab.decide().wake_at, None);
}

#[test]
fn parallelism_0_updates_all_at_once() {
    let (mut lab, web) = lab(5, 0, Duration::from_secs(10));
    new_image(&mut lab, web);
    lab.lead_on();
    assert!(lab.running(web).is_empty());
    lab.settle();
    assert_eq!(updated(&lab, web), 5);
}

#[test]
fn a_failing_update_stands_still_and_the_rest_goes_on_serving() {
    let (mut lab, web) = lab(4, 1, Duration::ZERO);
    new_image(&mut lab, web);
    let bad = lab.service(web).spec_version;
    let crash = |lab: &mut Lab| {
        for _ in 0..20 {
            for _ in 0..10 {
                lab.lead_on();
                lab.agents_with(|task| if task.spec_version == bad { TaskState::Failed } else { TaskState::Running });
            }
            lab.pass(Duration::from_secs(5));
        }
    };
    crash(&mut lab);
    assert_eq!(lab.running(web).len(), 3);
    // One that runs for a moment before it fails again does not get the update going either.
    for _ in 0..20 {
        lab.lead_on();
        lab.agents();
        lab.lead_on();
        let flapping: Vec<_> = lab.running(web).iter().filter(|t| t.spec_version == bad).map(|t| t.id).collect();
        for task in flapping {
            lab.report(task, TaskState::Failed);
        }
        lab.pass(Duration::from_secs(5));
    }
    assert!(lab.running(web).len() >= 3);
    lab.update(web, |spec| spec.container.image = "busybox".to_owned());
    lab.settle_in_time();
    assert_eq!(updated(&lab, web), 4, "a good spec gets it moving");
}

#[test]
fn a_new_task_that_recovers_gets_the_update_moving_again() {
    let (mut lab, web) = lab(3, 1, Duration::ZERO);
    new_image(&mut lab, web);
    let version = lab.service(web).spec_version;
    lab.lead_on();
    lab.agents();
    lab.lead_on();
    let first = lab.live(web).into_iter().find(|t| t.spec_version == version).unwrap().id;
    lab.report(first, TaskState::Failed);
    lab.settle_in_time();
    assert_eq!(updated(&lab, web), 3);
}

#[test]
fn scaling_does_not_touch_tasks_that_run() {
    let (mut lab, web) = lab(3, 1, Duration::ZERO);
    let before: Vec<_> = lab.running(web).iter().map(|t| t.id).collect();
    lab.scale(web, 5);
    lab.settle();
    let after: Vec<_> = lab.running(web).iter().map(|t| t.id).collect();
    assert_eq!(after[..3], before);
    assert_eq!(after.len(), 5);
}

#[test]
fn what_waits_for_a_node_is_updated_outside_of_the_batches() {
    let mut lab = Lab::new(1);
    let web = lab.create("web", 3, |spec| spec.placement.max_replicas_per_node = 2);
    lab.settle();
    new_image(&mut lab, web);
    lab.settle();
    assert_eq!(updated(&lab, web), 2);
    let version = lab.service(web).spec_version;
    assert!(lab.live(web).iter().all(|t| t.spec_version == version));
}

#[test]
fn an_update_that_fits_nowhere_stands_still_after_its_first_batch() {
    let (mut lab, web) = lab(4, 1, Duration::ZERO);
    lab.update(web, |spec| spec.resources.reservations = mib(100_000));
    lab.settle_in_time();
    assert_eq!(lab.running(web).len(), 3, "the rest goes on serving");
    assert_eq!(
        lab.in_slot(web, 1).status.message,
        "no node fits: 3 nodes have too little memory (needs 97.6 GiB, at most 1 GiB left)"
    );
    lab.update(web, |spec| spec.resources.reservations = mib(1));
    lab.settle_in_time();
    assert_eq!(updated(&lab, web), 4);
}

#[test]
fn an_old_task_that_must_leave_its_node_stops_before_its_new_one_starts() {
    let (mut lab, web) = lab(3, 1, Duration::ZERO);
    new_image(&mut lab, web);
    lab.availability(3, Availability::Drain);
    lab.lead();
    let version = lab.service(web).spec_version;
    let new = |lab: &Lab| lab.tasks(web).iter().filter(|t| t.spec_version == version).count();
    assert_eq!(new(&lab), 0);
    lab.agents();
    lab.lead();
    assert!(new(&lab) > 0);
    lab.settle();
    assert_eq!(updated(&lab, web), 3);
}
