//! One agent on the real kernel with real containers, told by managers of the test's own over real TLS. Needs root,
//! `ip`, `nsenter`, `dig`, `nft` and a static busybox.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod fixture;

use fixture::{
    Machine, eventually,
    managers::{Authority, Record},
    told::{self, ELSEWHERE, NETWORK},
};
use shoal_common::{
    TaskId,
    assignment::Assignment,
    task::{DesiredState, TaskState},
};
use shoal_plan::Ns;
use std::time::Duration;

const SANDBOX: Ns = Ns::Sandbox(NETWORK);

fn running(generation: u64, tasks: &[u64], script: &str) -> Assignment {
    let mut assignment = told::assignment(generation, tasks);
    for task in assignment.tasks.values_mut() {
        task.container.args = ["sh", "-c", script].map(String::from).to_vec();
        task.container.stop_grace = Duration::from_millis(200);
    }
    // Where the managers listen is the test's matter: the agent goes on with those it was started with.
    assignment.node.as_mut().unwrap().managers.clear();
    assignment
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_wired_and_named_before_it_starts_repaired_while_it_runs_and_gone_after_its_end() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    // The first thing that the container does needs the link, the address and the resolver.
    let script = "ip -4 addr show eth0; nslookup web.2 && echo found; cat /etc/hosts; exec sleep 1000";
    let record = Record::new(running(5, &[1, 2], script));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    let took = eventually("both run", || [1, 2].iter().all(|t| record.last(*t) == Some(TaskState::Running))).await;
    eprintln!("running after {took:?}");
    assert_eq!(daemon.names(1, "web.2"), "10.0.1.12\n");

    let lines = daemon.host.runtime().logs("task-1", shoal_runtime::LogOptions::default()).unwrap();
    let said: Vec<String> =
        futures::StreamExt::collect::<Vec<_>>(lines).await.into_iter().map(|l| l.unwrap().text).collect();
    let said = said.join("\n");
    for part in ["10.0.1.11/24", "10.0.1.12", "found", "10.0.1.11\tweb.1"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert!(daemon.inside(Ns::Task(TaskId(1)), "ping -c1 -W1 10.0.1.12").status.success());
    eventually("converged", || daemon.agent.status().converged_generation == record.generation()).await;

    // Somebody else pulls the plug.
    let before = fixture::inode(&daemon.host.kernel().netns_path(Ns::Task(TaskId(1))));
    assert!(daemon.inside(SANDBOX, "ip link del t1").status.success());
    let took = eventually("the link is repaired", || {
        daemon
            .inside(Ns::Task(TaskId(1)), "ip -4 addr show eth0 | grep -q 10.0.1.11/24 && ip route | grep -q default")
            .status
            .success()
    });
    let took = took.await;
    eprintln!("repaired after {took:?}");
    assert!(daemon.inside(Ns::Task(TaskId(1)), "ping -c1 -W1 10.0.1.12").status.success());
    assert_eq!(before, fixture::inode(&daemon.host.kernel().netns_path(Ns::Task(TaskId(1)))));

    // One is told to end; the other one does not notice.
    record.change(|a| a.tasks.get_mut(&TaskId(1)).unwrap().desired = DesiredState::Shutdown);
    eventually("the end is told", || record.last(1) == Some(TaskState::Shutdown)).await;
    eventually("nothing is left of it", || {
        !daemon.has(Ns::Task(TaskId(1))) && daemon.host.runtime().status("task-1").is_err()
    })
    .await;
    assert!(daemon.runs(2) && daemon.has(SANDBOX));
    assert_eq!(daemon.names(2, "web.1"), "");

    record.change(|a| a.tasks.get_mut(&TaskId(2)).unwrap().desired = DesiredState::Shutdown);
    eventually("the network is gone from the host", || !daemon.has(SANDBOX) && !daemon.has(Ns::Task(TaskId(2)))).await;
    let links = String::from_utf8(daemon.inside(Ns::Host, "ip -o link; nft list tables").stdout).unwrap();
    assert!(!links.contains("shx") && !links.contains("shoal"), "{links}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_comes_back_with_no_manager_goes_on_from_memory_and_tells_later_what_ended_meanwhile() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    record.change(|a| {
        let mut short = running(0, &[2], "while [ ! -e /stop ]; do sleep 0.05; done; exit 7");
        a.tasks.append(&mut short.tasks);
        a.endpoints.append(&mut short.endpoints);
    });
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("both run", || [1, 2].iter().all(|t| record.last(*t) == Some(TaskState::Running))).await;
    eventually("both are told as running", || daemon.agent.status().generation == record.generation()).await;
    let held = daemon.agent.status().generation;
    let addr = manager.addr;
    manager.kill();
    let pid = |daemon: &fixture::Daemon| match daemon.host.runtime().status("task-1").unwrap().state {
        shoal_runtime::ContainerState::Running { pid, .. } => pid,
        other => panic!("{other:?}"),
    };
    let before = pid(&daemon);
    let root = format!(
        "/proc/{}/root/stop",
        match daemon.host.runtime().status("task-2").unwrap().state {
            shoal_runtime::ContainerState::Running { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    );
    daemon.stop().await;
    std::fs::write(root, "").unwrap();

    let daemon = machine.daemon(addr).await;
    assert_eq!(daemon.agent.status().generation, held);
    assert_eq!(pid(&daemon), before);
    eventually("names are served again", || daemon.names(1, "web.1") == "10.0.1.11\n").await;
    assert!(!daemon.agent.status().connected);

    let manager = record.serve_at(ca.credentials(ELSEWHERE), addr).await;
    eventually("the end is told", || record.last(2) == Some(TaskState::Failed)).await;
    let report = record.history(2).pop().unwrap();
    assert_eq!((report.exit_code, report.message.as_str()), (Some(7), "exit code 7"));
    assert_eq!(pid(&daemon), before);
    assert_eq!(record.last(1), Some(TaskState::Running));

    // It was replaced elsewhere meanwhile: exactly that one ends.
    manager.kill();
    daemon.stop().await;
    record.change(|a| {
        a.tasks.clear();
        a.endpoints.clear();
    });
    let daemon = machine.daemon(addr).await;
    assert!(daemon.runs(1));
    let _manager = record.serve_at(ca.credentials(ELSEWHERE), addr).await;
    eventually("it is gone", || daemon.host.runtime().list().is_empty() && !daemon.has(Ns::Task(TaskId(1)))).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_is_told_with_its_reason() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let mut assignment = running(5, &[1, 2], "exit 0");
    assignment.tasks.get_mut(&TaskId(1)).unwrap().container.image = "127.0.0.1:1/nowhere:1".to_owned();
    assignment.tasks.get_mut(&TaskId(2)).unwrap().container.args = vec!["/bin/nothing".to_owned()];
    let record = Record::new(assignment);
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("the first is rejected", || record.last(1) == Some(TaskState::Rejected)).await;
    eventually("the second has failed", || record.last(2) == Some(TaskState::Failed)).await;
    let why = |task| record.history(task).pop().unwrap().message;
    assert!(why(1).contains("127.0.0.1:1/nowhere"), "{}", why(1));
    assert!(why(2).contains("/bin/nothing"), "{}", why(2));
    eventually("nothing is left", || !daemon.has(SANDBOX) && daemon.host.runtime().list().is_empty()).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_removed_says_so_and_ends_nothing() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    let beats = record.heartbeats();
    eventually("it is heard from", || record.heartbeats() > beats + 2).await;

    record.deny(true);
    let addr = manager.addr;
    manager.kill();
    let _manager = record.serve_at(ca.credentials(ELSEWHERE), addr).await;
    eventually("it knows", || daemon.agent.status().removed).await;
    assert!(daemon.runs(1) && !daemon.agent.status().connected);
    assert_eq!(daemon.names(1, "web.1"), "10.0.1.11\n");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leaves_is_empty_afterwards() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1, 2], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("both run", || [1, 2].iter().all(|t| record.last(*t) == Some(TaskState::Running))).await;
    let host = daemon.host.clone();
    daemon.stop().await;
    assert_eq!(host.runtime().list().len(), 2);
    host.runtime().kill("task-1", 9).await.unwrap();
    host.runtime().kill("task-2", 9).await.unwrap();
    host.clear().await.unwrap();
    assert!(host.runtime().list().is_empty());
    assert_eq!(host.kernel().namespaces().unwrap(), [Ns::Host].into());
    let daemon = machine.daemon("127.0.0.1:1".parse().unwrap()).await;
    assert_eq!(daemon.agent.status().generation.0, 0);
    daemon.stop().await;
}
