use super::*;
use pb::{DesiredState as D, TaskState as S};

const T0: Timestamp = Timestamp(1_000_000);

fn task(id: u64, slot: u32, spec: u64, desired: D, state: S, message: &str) -> pb::Task {
    pb::Task {
        id,
        name: format!("web.{slot}"),
        slot: Some(pb::Slot { slot: Some(pb::slot::Slot::Replica(slot)) }),
        desired: desired.into(),
        status: Some(pb::TaskStatus { state: state.into(), message: message.into(), ..Default::default() }),
        spec_version: spec,
        node_name: "n1".into(),
        ..Default::default()
    }
}

fn reply(version: u64, spec_version: u64, wanted: u32, restart: &str, tasks: Vec<pb::Task>) -> pb::WatchServiceReply {
    let restart = pb::RestartPolicy { condition: restart.into(), ..Default::default() };
    let spec = pb::ServiceSpec { name: "web".into(), restart: Some(restart), ..Default::default() };
    pb::WatchServiceReply {
        service: Some(pb::Service { id: 1, version, spec_version, wanted, spec: Some(spec), ..Default::default() }),
        tasks,
        index: 0,
    }
}

fn after(ms: u64) -> Timestamp {
    Timestamp(T0.0 + ms)
}

/// Replies at their times; then what is said at the last of them.
fn story(version: u64, replies: &[(u64, pb::WatchServiceReply)], at: u64) -> Verdict {
    let mut w = Watch::new(version, Some(Duration::from_secs(60)), T0);
    for (ms, r) in replies {
        w.observe(r, after(*ms));
    }
    w.verdict(after(at))
}

fn waits(v: &Verdict) -> bool {
    matches!(v, Verdict::Waiting { .. })
}

#[test]
fn a_service_has_converged_once_all_its_tasks_have_run_for_a_moment() {
    use D::Running as R;
    let starting = reply(5, 5, 2, "any", vec![task(1, 1, 5, R, S::Running, ""), task(2, 2, 5, R, S::Starting, "")]);
    let running = reply(5, 5, 2, "any", vec![task(1, 1, 5, R, S::Running, ""), task(2, 2, 5, R, S::Running, "")]);
    assert!(waits(&story(5, &[(0, starting.clone())], 5000)));
    assert!(waits(&story(5, &[(0, starting.clone()), (100, running.clone())], 100)));
    assert_eq!(story(5, &[(0, starting), (100, running.clone())], 1100), Verdict::Converged);
    assert!(waits(&story(9, &[(0, running)], 5000)), "of before the change");
    assert_eq!(story(5, &[(0, reply(5, 5, 0, "any", vec![]))], 1000), Verdict::Converged);
}

#[test]
fn what_runs_for_an_instant_only_has_not_converged() {
    let up = reply(5, 5, 1, "any", vec![task(1, 1, 5, D::Running, S::Running, "")]);
    let down = reply(5, 5, 1, "any", vec![task(1, 1, 5, D::Running, S::Failed, "exit 1")]);
    assert!(waits(&story(5, &[(0, up.clone()), (500, down.clone())], 1500)));
    let again = reply(
        5,
        5,
        1,
        "any",
        vec![task(1, 1, 5, D::Shutdown, S::Failed, ""), task(2, 1, 5, D::Running, S::Running, "")],
    );
    assert!(waits(&story(5, &[(0, up), (500, down), (900, again)], 1100)));
}

#[test]
fn an_update_has_not_converged_while_an_old_task_lives() {
    let new = || task(9, 1, 7, D::Running, S::Running, "");
    for old in [
        task(1, 1, 5, D::Shutdown, S::Running, ""),
        task(1, 1, 5, D::Running, S::Running, ""),
        task(1, 2, 7, D::Shutdown, S::Running, ""),
    ] {
        assert!(waits(&story(7, &[(0, reply(7, 7, 1, "any", vec![new(), old]))], 5000)));
    }
    let ended = task(1, 1, 5, D::Shutdown, S::Shutdown, "");
    assert_eq!(story(7, &[(0, reply(7, 7, 1, "any", vec![new(), ended]))], 1000), Verdict::Converged);
}

#[test]
fn a_task_that_completes_is_done_where_that_is_the_end_of_it() {
    let complete = |restart| reply(5, 5, 1, restart, vec![task(1, 1, 5, D::Running, S::Complete, "")]);
    assert_eq!(story(5, &[(0, complete("none"))], 1000), Verdict::Converged);
    assert_eq!(story(5, &[(0, complete("on-failure"))], 1000), Verdict::Converged);
    assert!(waits(&story(5, &[(0, complete("any"))], 1000)));
}

#[test]
fn tasks_that_keep_failing_end_the_wait_with_their_reason() {
    let failed = |id: u64| reply(5, 5, 1, "any", vec![task(id, 1, 5, D::Shutdown, S::Failed, "no such image: nope")]);
    // One at a time, the earlier ones already forgotten.
    assert!(waits(&story(5, &[(0, failed(1)), (1000, failed(2))], 1000)));
    let v = story(5, &[(0, failed(1)), (1000, failed(2)), (2000, failed(3))], 2000);
    assert_eq!(v, Verdict::Failing { task: "web.1".into(), failures: 3, why: "no such image: nope".into() });
    // Without restarts one is enough.
    let once = reply(5, 5, 1, "none", vec![task(1, 1, 5, D::Running, S::Rejected, "no")]);
    assert!(matches!(story(5, &[(0, once)], 0), Verdict::Failing { failures: 1, .. }));
}

#[test]
fn failures_of_before_a_scaling_are_not_held_against_it() {
    let old = (1..=3).map(|i| task(i, 1, 5, D::Shutdown, S::Failed, "old"));
    let mut tasks: Vec<_> = old.collect();
    tasks.push(task(4, 1, 5, D::Running, S::Running, ""));
    assert_eq!(story(8, &[(0, reply(8, 5, 1, "any", tasks))], 1000), Verdict::Converged);
    let tasks = (1..=3).map(|i| task(i, 1, 5, D::Shutdown, S::Failed, "old")).collect();
    assert!(waits(&story(8, &[(0, reply(8, 5, 1, "any", tasks))], 1000)));
}

#[test]
fn a_task_that_cannot_be_placed_ends_the_wait_with_its_reason() {
    let full = |left: u32| {
        let why = format!("no address left in net app ({left} s more)");
        reply(
            5,
            5,
            2,
            "any",
            vec![task(1, 1, 5, D::Running, S::Running, ""), task(2, 2, 5, D::Running, S::Pending, &why)],
        )
    };
    // The message counts down: that is no progress.
    let told = [(0, full(9)), (4000, full(5)), (8000, full(1))];
    assert!(waits(&story(5, &told, 9999)));
    assert_eq!(
        story(5, &told, 10_000),
        Verdict::Stuck { why: vec!["web.2: no address left in net app (1 s more)".into()] }
    );
    // While another task is on its way, there is hope.
    let hope =
        vec![task(1, 1, 5, D::Running, S::Preparing, ""), task(2, 2, 5, D::Running, S::Pending, "no address left")];
    assert!(waits(&story(5, &[(0, reply(5, 5, 2, "any", hope))], 30_000)));
}

#[test]
fn the_summary_says_who_waits_and_why() {
    let mut w = Watch::new(5, None, T0);
    let why = "no address left in net app (254 of 254)";
    w.observe(
        &reply(
            5,
            5,
            2,
            "any",
            vec![task(1, 1, 5, D::Running, S::Running, ""), task(2, 2, 5, D::Running, S::Pending, why)],
        ),
        T0,
    );
    let s = w.summary();
    assert_eq!((s.name.as_str(), s.done, s.wanted), ("web", 1, 2));
    assert_eq!((s.tasks[1].name.as_str(), s.tasks[1].message.as_str()), ("web.2", why));
}

#[test]
fn patience_and_removal_end_the_wait_too() {
    let starting = reply(5, 5, 1, "any", vec![task(1, 1, 5, D::Running, S::Starting, "")]);
    assert_eq!(story(5, &[(0, starting.clone())], 60_000), Verdict::TimedOut);
    assert_eq!(story(5, &[(0, starting), (1, pb::WatchServiceReply::default())], 1), Verdict::Removed);
}
