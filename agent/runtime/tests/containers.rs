//! Real containers: needs root, `ip` and a static busybox.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, output, within};
use futures::StreamExt;
use rustix::fs::{FlockOperation, flock};
use shoal_common::service::{Amount, Resources};
use shoal_runtime::{ContainerState, Error, LogOptions, LogStream, Runtime};
use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

/// Starts it, waits for its end and returns what it said and how it ended.
async fn run(runtime: &Runtime, config: shoal_runtime::ContainerConfig) -> (Vec<String>, i32) {
    let id = config.id.clone();
    runtime.start(config).await.unwrap();
    let exit = within(runtime.wait(&id)).await.unwrap();
    (output(runtime, &id).await, exit.code)
}

#[tokio::test]
async fn a_container_runs_in_its_network_and_leaves_its_words_and_its_code() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let config = host.container(
        "t1",
        "hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname; ls -l /proc/self/ns/net; echo oops >&2; exit 3",
    );
    let (said, code) = run(&runtime, config).await;
    assert_eq!(code, 3, "{said:?}");
    assert_eq!(said[0], "host-of-t1");
    for line in ["127.0.0.1\tlocalhost", "10.1.2.3\tfriend", "nameserver 127.0.0.11", "oops"] {
        assert!(said.iter().any(|l| l == line), "{line}: {said:?}");
    }
    let netns = std::fs::metadata(Path::new("/run/netns").join(&host.name)).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&netns);
    assert!(said.iter().any(|l| l.contains(&format!("net:[{inode}]"))), "{said:?}");
    let lines: Vec<_> = runtime.logs("t1", LogOptions::default()).unwrap().map(Result::unwrap).collect().await;
    assert_eq!(lines.iter().find(|l| l.text == "oops").unwrap().stream, LogStream::Stderr);
    runtime.remove("t1").await.unwrap();
}

#[tokio::test]
async fn removing_a_running_container_leaves_nothing_of_it() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "sleep 1000")).await.unwrap();
    assert!(host.cgroups().iter().any(|c| c.join("t1").is_dir()));
    within(runtime.remove("t1")).await.unwrap();
    assert!(runtime.list().is_empty());
    assert!(host.cgroups().iter().all(|c| !c.join("t1").exists()), "a cgroup is left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(host.dir.path().to_str().unwrap()), "a mount is left");
    assert!(!host.config().data_dir.join("containers/t1").exists());
    assert!(!host.config().run_dir.join("live/t1").exists());
    runtime.remove("t1").await.unwrap();
    // The id is free again.
    assert_eq!(run(&runtime, host.container("t1", "true")).await.1, 0);
}

#[tokio::test]
async fn a_container_that_will_not_stop_is_killed_after_its_grace() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("deaf", "trap '' TERM; echo ready; while true; do sleep 1; done")).await.unwrap();
    runtime
        .start(host.container("good", "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done"))
        .await
        .unwrap();
    for id in ["deaf", "good"] {
        let mut lines = runtime.logs(id, LogOptions { follow: true, ..LogOptions::default() }).unwrap();
        assert_eq!(within(lines.next()).await.unwrap().unwrap().text, "ready");
    }
    assert_eq!(within(runtime.stop("good", Duration::from_secs(15))).await.unwrap().code, 7);
    assert_eq!(within(runtime.stop("deaf", Duration::from_millis(200))).await.unwrap().code, 137);
}

#[tokio::test]
async fn a_change_is_told_when_a_container_ends_by_itself() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "sleep 0.3; exit 9")).await.unwrap();
    let mut changes = runtime.changes();
    changes.mark_unchanged();
    within(changes.changed()).await.unwrap();
    let ContainerState::Exited(exit) = &runtime.list()[0].state else { panic!("{:?}", runtime.list()) };
    assert_eq!((exit.code, exit.oom), (9, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_seen_also_by_who_is_told_of_it_before_the_lock_is_given_back() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    runtime.start(host.container("t1", "sleep 1000")).await.unwrap();
    let lock = File::open(host.config().run_dir.join("live/t1")).unwrap();
    let waits = format!(":{} ", lock.metadata().unwrap().ino());
    // The kernel does so for a moment; here it is a longer one, and we are next after the supervisor.
    let next = std::thread::spawn(move || {
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    });
    let is_next = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&waits))
    };
    within(async {
        while !is_next() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    runtime.kill("t1", 9).await.unwrap();
    assert_eq!(within(runtime.wait("t1")).await.unwrap().code, 137);
    next.join().unwrap();
    within(runtime.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn limits_are_in_force_and_running_out_of_memory_is_told() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let limited = |id: &str, script: &str| {
        let mut config = host.container(id, script);
        let limits = Amount { nano_cpus: 500_000_000, memory_bytes: 32 << 20 };
        config.resources = Resources { limits, pids_limit: 20, ..Resources::default() };
        config
    };
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max";
    let (said, _) = run(&runtime, limited("look", look)).await;
    assert_eq!(said[0], (32 << 20).to_string());
    assert!(said[1].starts_with("50000"), "{said:?}");
    assert_eq!(said[2], "20");

    runtime.start(limited("eat", "dd if=/dev/zero of=/dev/null bs=100M count=1")).await.unwrap();
    let exit = within(runtime.wait("eat")).await.unwrap();
    assert!(exit.oom && exit.code == 137, "{exit:?}");
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let mut config = host.container("t1", "");
    config.spec.args = vec!["/no/such/program".into()];
    let told = runtime.start(config).await.unwrap_err().to_string();
    assert!(told.contains("/no/such/program"), "{told}");
    assert!(runtime.list().is_empty(), "it was removed again");

    let mut config = host.container("t1", "true");
    config.spec.user = Some("stranger".into());
    let told = runtime.start(config).await.unwrap_err().to_string();
    assert!(told.contains("stranger"), "{told}");

    let mut config = host.container("t1", "true");
    config.spec.image = "127.0.0.1:1/none".into();
    let told = runtime.start(config).await.unwrap_err().to_string();
    assert!(
        told.contains("127.0.0.1:1/none:latest is not on this host") && told.contains("shoal image load"),
        "{told}"
    );

    assert!(matches!(runtime.start(host.container("../x", "true")).await, Err(Error::Id(_))));
}

#[tokio::test]
async fn a_user_is_looked_up_in_the_image_and_has_little_power() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let mut config = host.container("t1", "id -u; id -g; id -G; pwd; grep Cap /proc/self/status");
    config.spec.user = Some("web".into());
    config.spec.workdir = Some("/made/for/me".into());
    let (said, _) = run(&runtime, config).await;
    assert_eq!(said[..4], ["33", "34", "34 70", "/made/for/me"]);
    assert!(said.contains(&"CapEff:\t0000000000000000".to_string()), "{said:?}");

    let forbidden = "mount -t tmpfs x /tmp 2>&1; unshare -n true 2>&1; echo 1 > /proc/sys/kernel/panic; cat /proc/kcore | head -c 1; grep Seccomp: /proc/self/status";
    let (said, _) = run(&runtime, host.container("t2", forbidden)).await;
    let said = said.join("\n");
    assert!(said.contains("permitted") && said.contains("Read-only file system"), "{said}");
    assert!(said.contains("Seccomp:\t2"), "{said}");
}

#[tokio::test]
async fn an_image_in_use_is_not_removed() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    run(&runtime, host.container("t1", "true")).await;
    assert!(
        matches!(runtime.remove_image("busybox").await, Err(Error::ImageInUse { container, .. }) if container == "t1")
    );
    runtime.remove("t1").await.unwrap();
    runtime.remove_image("busybox").await.unwrap();
    assert!(runtime.images().ls().await.unwrap().is_empty());
    let layers = host.config().data_dir.join("images/layers");
    assert_eq!(std::fs::read_dir(layers).unwrap().count(), 0);
}

/// As the lab has it: daemons in PID, mount, network and UTS namespaces of their own, with the host's cgroups.
#[test]
fn containers_run_also_below_a_daemon_in_child_namespaces() {
    let inner =
        ["removing_a_running_container_leaves_nothing_of_it", "limits_are_in_force_and_running_out_of_memory_is_told"];
    let exe = std::env::current_exe().unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--mount-proc", "--net", "--uts"])
        .arg(exe)
        .args(["--exact", "--test-threads=1"])
        .args(inner)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
}

#[tokio::test]
async fn output_that_comes_fast_arrives_whole() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let (said, _) = run(&runtime, host.container("t1", "seq 1 20000; echo -n end")).await;
    assert_eq!(said.len(), 20001);
    assert!(said[..20000].iter().enumerate().all(|(n, l)| *l == (n + 1).to_string()));
    assert_eq!(said[20000], "end");
}

#[tokio::test]
async fn an_image_may_have_many_layers() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    // Docker's limit is 127; the names of so many must fit into one page of mount options.
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = common::root_owned();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    let mut layers = vec![common::busybox()];
    for n in 1..127 {
        let mut layer = tar::Builder::new(Vec::new());
        let mut header = common::root_owned();
        header.set_size(0);
        layer.append_data(&mut header, format!("file{n}"), std::io::empty()).unwrap();
        layers.push(layer.into_inner().unwrap());
    }
    let digest = |bytes: &[u8]| {
        use sha2::Digest;
        format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes)))
    };
    let names: Vec<_> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    for (name, layer) in names.iter().zip(&layers) {
        put(name, layer);
    }
    let diff_ids: Vec<_> = layers.iter().map(|l| digest(l)).collect();
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    put("config.json", config.to_string().as_bytes());
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": ["tall"], "Layers": names }]);
    put("manifest.json", manifest.to_string().as_bytes());
    runtime.images().load(std::io::Cursor::new(tar.into_inner().unwrap())).await.unwrap();
    let mut container = host.container("t1", "ls -d /file* | grep -c file");
    container.spec.image = "tall".into();
    assert_eq!(run(&runtime, container).await.0, ["126"]);
}

/// A container that is removed the moment it ends must not be buried by whoever notices its supervisor's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_short_containers_at_once_come_and_go() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let tasks: Vec<_> = (0..8)
        .map(|k| {
            let (runtime, name) = (runtime.clone(), host.name.clone());
            tokio::spawn(async move {
                for n in 0..6 {
                    let id = format!("p{k}-{n}");
                    runtime.start(common::container(&name, &id, "exit 3")).await.unwrap();
                    let exit = within(runtime.wait(&id)).await.unwrap();
                    assert_eq!((exit.code, exit.reason), (3, None));
                    within(runtime.remove(&id)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(runtime.list().is_empty());
    assert_eq!(std::fs::read_dir(host.config().data_dir.join("containers")).unwrap().count(), 0);
}
