//! The daemon dies by SIGKILL; containers do not care. The daemon is this test program, run again as a child.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in tests a panic is the report")]

mod common;

use common::{Host, output, supervisor, within};
use futures::StreamExt;
use shoal_runtime::{ContainerState, ExecConfig, Runtime, RuntimeConfig};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

const DAEMON: &str = "SHOAL_TEST_DAEMON";

/// Not a test of its own: what the child does, when asked to by the environment.
#[tokio::test]
async fn daemon() {
    let Ok(dir) = std::env::var(DAEMON) else {
        return;
    };
    let (dir, name) = dir.split_once(' ').unwrap();
    let config = RuntimeConfig {
        data_dir: PathBuf::from(dir).join("data"),
        run_dir: PathBuf::from(dir).join("run"),
        cgroup_parent: format!("/{name}"),
        supervisor: supervisor(),
    };
    let runtime = Runtime::open(config).await.unwrap();
    for (id, script) in [
        ("long", "trap 'echo bye; exit 5' TERM; echo hello; while true; do sleep 0.05; done"),
        ("short", "echo first; sleep 1; echo second; exit 42"),
        ("orphan", "sleep 1000"),
    ] {
        runtime.start(common::container(name, id, script)).await.unwrap();
    }
    let mut talk = common::container(name, "talk", "cat");
    talk.options.stdin = true;
    let (_, attached) = runtime.start_attached(talk).await.unwrap();
    let sleep = ExecConfig { args: ["sleep", "1000"].map(String::from).to_vec(), ..ExecConfig::default() };
    let added = runtime.exec("talk", sleep).await.unwrap();
    println!("STARTED");
    tokio::time::sleep(Duration::from_secs(60)).await;
    drop((attached, added));
}

fn daemon_of(host: &Host) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["daemon", "--exact", "--nocapture"])
        .env(DAEMON, format!("{} {}", host.dir.path().display(), host.name))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().contains("STARTED")), "the daemon could not start its containers");
    child
}

/// The supervisor of a container, by its command line.
fn supervisor_pid(dir: &Path) -> i32 {
    let argument = dir.as_os_str().as_encoded_bytes();
    let is = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.split(|b| *b == 0).any(|a| a == argument))
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse().ok()).find(is).unwrap()
}

#[tokio::test]
async fn containers_outlive_their_daemon_and_their_exit_codes_are_known() {
    let host = Host::new();
    drop(host.open_with_busybox().await);
    let mut daemon = daemon_of(&host);
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    // A host with a thousand containers has a thousand supervisors.
    let long = supervisor_pid(&host.config().data_dir.join("containers/long"));
    let status = std::fs::read_to_string(format!("/proc/{long}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon")).unwrap();
    let own_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(own_kib < 2048, "{status}");

    // One ends while there is no daemon; one loses its supervisor, which nobody should do.
    let orphan = host.config().data_dir.join("containers/orphan");
    let pid = rustix::process::Pid::from_raw(supervisor_pid(&orphan)).unwrap();
    let supervisor = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&supervisor, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + common::PATIENCE;
    while !host.config().data_dir.join("containers/short/exit.json").exists() {
        assert!(Instant::now() < deadline, "nobody wrote down how it ended");
        std::thread::sleep(Duration::from_millis(20));
    }

    let runtime = host.open().await;
    let list = runtime.list();
    let state = |id: &str| list.iter().find(|c| c.id == id).unwrap().state.clone();
    assert!(matches!(state("long"), ContainerState::Running { .. }), "{list:?}");
    assert!(matches!(state("short"), ContainerState::Exited(e) if e.code == 42 && e.reason.is_none()), "{list:?}");
    assert!(matches!(state("orphan"), ContainerState::Exited(e) if e.code == 137 && e.reason.is_some()), "{list:?}");
    assert_eq!(output(&runtime, "short").await, ["first", "second"]);

    // The adopted one is ours as if we had started it.
    assert_eq!(within(runtime.stop("long", Duration::from_secs(15))).await.unwrap().code, 5);
    assert_eq!(output(&runtime, "long").await, ["hello", "bye"]);

    // Whoever was attached is gone; the container is not, and hears the next one.
    let mut session = runtime.attach("talk").await.unwrap();
    session.stdin.write_all(b"hello\n").await.unwrap();
    assert_eq!(within(session.output.next()).await.unwrap().1, "hello\n");
    session.stdin.shutdown().await.unwrap();
    assert_eq!(within(session.exit).await.unwrap(), 0);
    for id in ["long", "short", "orphan", "talk"] {
        within(runtime.remove(id)).await.unwrap();
    }
    assert!(host.cgroups().iter().all(|c| { std::fs::read_dir(c).unwrap().flatten().all(|e| !e.path().is_dir()) }));
}

/// A supervisor that takes its time, so that there is a meanwhile: until the second file is there.
fn slow_supervisor(host: &Host) -> (PathBuf, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (slow, go) = (host.dir.path().join("slow"), host.dir.path().join("go"));
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.05; done\nexec {} \"$@\"\n",
        go.display(),
        supervisor().display()
    );
    std::fs::write(&slow, script).unwrap();
    std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
    (slow, go)
}

#[tokio::test]
async fn a_start_that_was_under_way_when_the_daemon_died_is_seen_to_its_end() {
    let host = Host::new();
    drop(host.open_with_busybox().await);
    let (slow, go) = slow_supervisor(&host);
    let first = Runtime::open(RuntimeConfig { supervisor: slow, ..host.config() }).await.unwrap();
    let start = tokio::spawn({
        let (first, config) = (first.clone(), host.container("t1", "sleep 1000"));
        async move { first.start(config).await }
    });
    let record = host.config().data_dir.join("containers/t1/container.json");
    within(async {
        while !record.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    let second = host.open().await;
    assert_eq!(second.list()[0].state, ContainerState::Created);
    let mut changes = second.changes();
    std::fs::write(go, "").unwrap();
    within(changes.changed()).await.unwrap();
    assert!(matches!(second.list()[0].state, ContainerState::Running { .. }), "{:?}", second.list());
    start.await.unwrap().unwrap();
    within(second.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn a_second_start_that_was_under_way_is_seen_to_its_end_and_until_then_the_first_end_is_told() {
    let host = Host::new();
    let zero = host.open_with_busybox().await;
    zero.start(host.container("t1", "exit 4")).await.unwrap();
    within(zero.wait("t1")).await.unwrap();
    drop(zero);
    let (slow, go) = slow_supervisor(&host);
    let first = Runtime::open(RuntimeConfig { supervisor: slow, ..host.config() }).await.unwrap();
    let start = tokio::spawn({
        let (first, config) = (first.clone(), host.container("t1", "sleep 1000"));
        async move { first.start(config).await }
    });
    let record = host.config().data_dir.join("containers/t1/container.json");
    within(async {
        while !std::fs::read_to_string(&record).unwrap().contains("sleep 1000") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The supervisor has its lock from before it runs; this is for its process to be there.
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;

    let second = host.open().await;
    for runtime in [&first, &second] {
        assert!(matches!(&runtime.list()[0].state, ContainerState::Exited(e) if e.code == 4), "{:?}", runtime.list());
    }
    let mut changes = second.changes();
    std::fs::write(go, "").unwrap();
    within(changes.changed()).await.unwrap();
    assert!(matches!(second.list()[0].state, ContainerState::Running { .. }), "{:?}", second.list());
    start.await.unwrap().unwrap();
    within(second.remove("t1")).await.unwrap();
}
