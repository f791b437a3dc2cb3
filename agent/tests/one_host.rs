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
    assignment::{Assignment, TaskAssignment},
    task::{DesiredState, TaskState},
};
use shoal_plan::Ns;
use std::{sync::Arc, time::Duration};

const SANDBOX: Ns = Ns::Sandbox(NETWORK);

fn task(assignment: &mut Assignment, id: u64) -> &mut TaskAssignment {
    Arc::make_mut(assignment.tasks.get_mut(&TaskId(id)).unwrap())
}

fn running(generation: u64, tasks: &[u64], script: &str) -> Assignment {
    let mut assignment = told::assignment(generation, tasks);
    for task in assignment.tasks.values_mut().map(Arc::make_mut) {
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

    // It runs before its program has said all this.
    let deadline = tokio::time::Instant::now() + fixture::PATIENCE;
    loop {
        let lines = daemon.host.runtime().logs("task-1", shoal_runtime::LogOptions::default()).unwrap();
        let said: Vec<String> =
            futures::StreamExt::collect::<Vec<_>>(lines).await.into_iter().map(|l| l.unwrap().text).collect();
        let said = said.join("\n");
        let missing =
            ["10.0.1.11/24", "10.0.1.12", "found", "10.0.1.11\tweb-1"].into_iter().find(|p| !said.contains(p));
        let Some(missing) = missing else { break };
        assert!(tokio::time::Instant::now() < deadline, "{missing:?} in {said}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
    record.change(|a| task(a, 1).desired = DesiredState::Shutdown);
    eventually("the end is told", || record.last(1) == Some(TaskState::Shutdown)).await;
    eventually("nothing is left of it", || {
        !daemon.has(Ns::Task(TaskId(1))) && daemon.host.runtime().status("task-1").is_err()
    })
    .await;
    assert!(daemon.runs(2) && daemon.has(SANDBOX));
    assert_eq!(daemon.names(2, "web.1"), "");

    record.change(|a| task(a, 2).desired = DesiredState::Shutdown);
    eventually("the network is gone from the host", || !daemon.has(SANDBOX) && !daemon.has(Ns::Task(TaskId(2)))).await;
    let links = String::from_utf8(daemon.inside(Ns::Host, "ip -o link; nft list tables").stdout).unwrap();
    assert!(!links.contains("shx") && !links.contains("shoal"), "{links}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_underlays_mtu_is_followed_while_the_daemon_runs_and_the_managers_are_told() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    let carries = |mtu: u32| {
        daemon.inside(Ns::Task(TaskId(1)), &format!("ip link show eth0 | grep -q 'mtu {mtu} '")).status.success()
    };
    assert!(carries(1450) && record.underlay_mtu() == 1500);
    for (underlay, inside) in [(1400, 1350), (1500, 1450)] {
        assert!(daemon.inside(Ns::Host, &format!("ip link set wire0 mtu {underlay}")).status.success());
        eventually("the links follow", || carries(inside)).await;
        eventually("the managers are told", || record.underlay_mtu() == underlay).await;
    }
    // The hosts that are on the network agree on the least.
    record.change(|a| a.networks.values_mut().for_each(|n| n.underlay = Some(1400.try_into().unwrap())));
    eventually("the links follow another host", || carries(1350)).await;
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
    assert_eq!(daemon.names(1, "web.1"), "10.0.1.11\n");
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
    // The other one's log may stay a while: it ended by itself.
    let is_left = || daemon.host.runtime().status("task-1").is_ok() || daemon.has(Ns::Task(TaskId(1)));
    eventually("it is gone", || !is_left()).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_answered_while_no_daemon_runs_and_after_the_resolver_was_killed() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1, 2], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("both run", || [1, 2].iter().all(|t| record.last(*t) == Some(TaskState::Running))).await;
    eventually("a name is known", || daemon.names(1, "web.2") == "10.0.1.12\n").await;

    // The process that answers is none of the daemon's.
    daemon.stop().await;
    let names = |task, name| machine.names(task, name);
    assert_eq!((names(1, "web.2").as_str(), names(2, "web.1").as_str()), ("10.0.1.12\n", "10.0.1.11\n"));
    let daemon = machine.daemon(manager.addr).await;
    let resolver = machine.resolver();
    nix::sys::signal::kill(resolver, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("another one answers", || daemon.names(1, "web.2") == "10.0.1.12\n").await;
    assert_ne!(machine.resolver(), resolver);

    // Who has ended is not served any more.
    record.change(|a| {
        a.tasks.clear();
        a.endpoints.clear();
    });
    eventually("both are gone", || daemon.host.runtime().list().is_empty() && !daemon.has(Ns::Task(TaskId(1)))).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_stands_still_is_replaced_and_holds_up_no_wiring_meanwhile() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    let resolver = machine.resolver();
    nix::sys::signal::kill(resolver, nix::sys::signal::Signal::SIGSTOP).unwrap();
    record.change(|a| {
        let mut second = running(0, &[2], "exec sleep 1000");
        a.tasks.append(&mut second.tasks);
        a.endpoints.append(&mut second.endpoints);
    });
    let is_wired = || {
        let ns = Ns::Task(TaskId(2));
        daemon.has(ns) && daemon.inside(ns, "ip -4 addr show eth0 | grep -q 10.0.1.12/24").status.success()
    };
    eventually("the second one is wired", is_wired).await;
    assert_eq!(machine.find_resolver(), Some(resolver), "the resolver was replaced before this test looked");
    let took = eventually("the second one runs", || record.last(2) == Some(TaskState::Running)).await;
    eprintln!("replaced after {took:?}");
    assert_ne!(machine.resolver(), resolver);
    eventually("both are answered names", || {
        daemon.names(1, "web.2") == "10.0.1.12\n" && daemon.names(2, "web.1") == "10.0.1.11\n"
    })
    .await;
    daemon.stop().await;
}

/// Answers as a resolver of version 0.1.0 did, and quits when it is asked to.
const YESTERDAYS: &str = r#"
    use Socket;
    socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un($ARGV[0])); listen(S, 8);
    my $hello = pack("H*", "81a5") . "Hello" . pack("H*", "82a7") . "version" . pack("H*", "a5") . "0.1.0"
        . pack("H*", "a7") . "serving" . pack("H*", "90");
    while (accept(C, S)) {
        while ((sysread(C, my $length, 4) // 0) == 4) {
            sysread(C, my $asked, unpack("N", $length));
            exit if $asked =~ /Quit/ and $ARGV[1] eq "quits";
            syswrite(C, pack("N", length $hello) . $hello);
        }
    }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_of_another_build_is_replaced_whether_it_quits_or_not() {
    let ca = Authority::new();
    for how in ["quits", "stays"] {
        let machine = Machine::new(&ca);
        let run = machine.dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let socket = run.join("resolver.sock");
        let mut yesterdays =
            std::process::Command::new("perl").args(["-e", YESTERDAYS]).arg(&socket).arg(how).spawn().unwrap();
        eventually("it listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        let record = Record::new(running(5, &[1], "exec sleep 1000"));
        let manager = record.serve(ca.credentials(ELSEWHERE)).await;
        let daemon = machine.daemon(manager.addr).await;
        eventually("a task runs", || record.last(1) == Some(TaskState::Running)).await;
        assert_eq!(daemon.names(1, "web.1"), "10.0.1.11\n");
        let ended = yesterdays.try_wait().unwrap().expect("it has ended");
        assert_eq!(ended.success(), how == "quits", "{ended}");
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_keeps_for_its_run_is_for_root_alone() {
    use std::os::unix::fs::MetadataExt as _;

    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    let run = machine.dir.path().join("run");
    for path in [run.clone(), run.join("attach"), run.join("resolver.sock")] {
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_run_is_told_with_its_reason() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let mut assignment = running(5, &[1, 2], "exit 0");
    task(&mut assignment, 1).container.image = "127.0.0.1:1/nowhere:1".to_owned();
    task(&mut assignment, 2).container.args = vec!["/bin/nothing".to_owned()];
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
async fn a_task_that_waits_says_what_for() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    // A registry that takes connections and never answers.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/slow:1", registry.local_addr().unwrap());
    let mut assignment = running(5, &[1], "exec sleep 1000");
    task(&mut assignment, 1).container.image.clone_from(&image);
    let record = Record::new(assignment);
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it is being prepared", || record.last(1) == Some(TaskState::Preparing)).await;
    eventually("it says why", || record.explained(1) == format!("fetching the image {image}")).await;
    assert_eq!(record.last(1), Some(TaskState::Preparing));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_removed_says_so_and_ends_what_ran_for_its_cluster() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    let beats = record.heartbeats();
    eventually("it is heard from", || record.heartbeats() > beats + 2).await;

    // Neither a refusal for some other reason nor the word about another node ends anything.
    let addr = manager.addr;
    record.deny_as(0);
    manager.kill();
    let _manager = record.serve_at(ca.credentials(ELSEWHERE), addr).await;
    for other in [0, 7] {
        record.deny_as(other);
        let refusals = record.refusals();
        eventually("it was refused several times", || record.refusals() > refusals + 3).await;
        assert!(!daemon.agent.status().removed && daemon.host.runtime().list().len() == 1);
    }
    record.deny_as(1);
    eventually("it knows", || daemon.agent.status().removed).await;
    eventually("nothing is left", || !daemon.has(SANDBOX) && daemon.host.runtime().list().is_empty()).await;
    daemon.stop().await;
    // What it remembers says the same.
    let daemon = machine.daemon(addr).await;
    eventually("it is told again", || daemon.agent.status().removed).await;
    assert!(!daemon.has(SANDBOX) && daemon.host.runtime().list().is_empty());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_manager_dies_a_host_goes_to_the_next_one_well_within_the_node_timeout() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1], "exec sleep 1000"));
    let others = [ELSEWHERE, fixture::node(3)];
    let mut managers = Vec::new();
    for node in others {
        managers.push((node, record.serve(ca.credentials(node)).await));
    }
    let told = managers.iter().map(|(node, m)| (*node, m.addr)).collect();
    record.change(|a| a.node.as_mut().unwrap().managers = told);
    let daemon = machine.daemon(managers[0].1.addr).await;
    eventually("it runs", || record.last(1) == Some(TaskState::Running)).await;
    assert_eq!(record.streams(), 1);

    // The one that it knew at first, and is at.
    managers.remove(0).1.kill();
    let took = eventually("it has another one", || record.streams() == 2 && daemon.agent.status().connected).await;
    let beats = record.heartbeats();
    let took = took + eventually("it is heard from", || record.heartbeats() > beats).await;
    eprintln!("heard from again after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    record.change(|a| task(a, 1).desired = DesiredState::Shutdown);
    eventually("it obeys the other one", || record.last(1) == Some(TaskState::Shutdown)).await;
    daemon.stop().await;
}

/// `SHOAL_TASKS=50 cargo test -p shoal-agent --test one_host cost -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_many_tasks() {
    let count: u64 = std::env::var("SHOAL_TASKS").map_or(40, |n| n.parse().unwrap());
    let tasks: Vec<u64> = (1..=count).collect();
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[], "exec sleep 1000"));
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it is there", || daemon.agent.status().connected).await;
    let cpu = || {
        let of = |who| {
            let usage = nix::sys::resource::getrusage(who).unwrap();
            let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
            seconds(usage.user_time()) + seconds(usage.system_time())
        };
        [of(nix::sys::resource::UsageWho::RUSAGE_SELF), of(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)]
    };
    let before = cpu();
    record.change(|a| *a = Assignment { generation: a.generation, ..running(0, &tasks, "exec sleep 1000") });
    let took = eventually("all run", || tasks.iter().all(|t| record.last(*t) == Some(TaskState::Running))).await;
    let after = cpu();
    eprintln!(
        "{count} tasks in {took:?}; CPU per task: this process {:.4} s, its children {:.4} s; generation {}",
        (after[0] - before[0]) / count as f64,
        (after[1] - before[1]) / count as f64,
        record.generation(),
    );
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    eprintln!("10 s of rest: {:.3} s of CPU", cpu()[0] - before[0]);
    record.change(|a| a.tasks.values_mut().map(Arc::make_mut).for_each(|t| t.desired = DesiredState::Shutdown));
    let took = eventually("all have ended", || daemon.host.runtime().list().is_empty()).await;
    eprintln!("all ended in {took:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_a_container_that_failed_outlive_its_task() {
    let ca = Authority::new();
    let machine = Machine::new(&ca);
    let record = Record::new(running(5, &[1, 2], "exec sleep 1000"));
    record.change(|a| {
        let container = &mut task(a, 1).container;
        container.args = ["sh", "-c", "echo last words; exit 3"].map(String::from).to_vec();
    });
    let manager = record.serve(ca.credentials(ELSEWHERE)).await;
    let daemon = machine.daemon(manager.addr).await;
    eventually("it has failed", || record.last(1) == Some(TaskState::Failed)).await;
    eventually("its namespace is gone", || !daemon.has(Ns::Task(TaskId(1)))).await;
    let options = shoal_runtime::LogOptions::default();
    let mut lines = daemon.host.runtime().logs("task-1", options).unwrap();
    assert_eq!(futures::StreamExt::next(&mut lines).await.unwrap().unwrap().text, "last words");
    daemon.stop().await;
}
