//! Containers that are started again in place, and what of the host they may have: mounts, volumes, power.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, output, within};
use shoal_runtime::{ContainerConfig, ContainerState, Error, Mount, MountSource, Options, Runtime};
use std::{fs, path::Path};

async fn run(runtime: &Runtime, config: ContainerConfig) -> (Vec<String>, i32) {
    let id = config.id.clone();
    runtime.start(config).await.unwrap();
    let exit = within(runtime.wait(&id)).await.unwrap();
    (output(runtime, &id).await, exit.code)
}

fn mount(source: MountSource, target: &str, read_only: bool) -> Mount {
    Mount { source, target: target.into(), read_only }
}

fn volume(name: &str, target: &str) -> Mount {
    mount(MountSource::Volume(name.into()), target, false)
}

fn with(mut config: ContainerConfig, options: Options) -> ContainerConfig {
    config.options = options;
    config
}

#[tokio::test]
async fn a_container_is_started_again_with_what_it_wrote_and_its_log_goes_on() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    for durable in [false, true] {
        let id = format!("t-{durable}");
        let options = || Options { durable, ..Options::default() };
        let config = |script: &str| with(host.container(&id, script), options());
        let (_, code) = run(&runtime, config("echo first; echo kept > /file; exit 4")).await;
        assert_eq!(code, 4);
        let before = runtime.status(&id).unwrap();

        let mut next = config("cat /file /etc/hosts; echo second; exit 5");
        next.hosts = vec!["10.9.9.9\tstranger".into()];
        let (said, code) = run(&runtime, next).await;
        assert_eq!(code, 5);
        assert_eq!(said[..2], ["first", "kept"], "{said:?}");
        assert!(said.contains(&"10.9.9.9\tstranger".to_owned()) && !said.contains(&"10.1.2.3\tfriend".to_owned()));
        assert_eq!(said.last().unwrap(), "second");

        let after = runtime.status(&id).unwrap();
        assert_eq!(before.created_at_ms, after.created_at_ms);
        assert!(before.started_at_ms < after.started_at_ms, "{before:?} {after:?}");
        within(runtime.remove(&id)).await.unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(host.dir.path().to_str().unwrap()), "a mount is left");
}

#[tokio::test]
async fn a_new_start_that_fails_leaves_the_earlier_end_and_one_that_runs_is_not_started_again() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    run(&runtime, host.container("t1", "exit 4")).await;
    let end = runtime.status("t1").unwrap().state;

    let mut config = host.container("t1", "");
    config.spec.args = vec!["/no/such/program".into()];
    let told = runtime.start(config).await.unwrap_err().to_string();
    assert!(told.contains("/no/such/program"), "{told}");
    assert_eq!(runtime.status("t1").unwrap().state, end);
    let missing =
        Options { mounts: vec![mount(MountSource::Bind("/no/path".into()), "/x", true)], ..Options::default() };
    let told = runtime.start(with(host.container("t1", "true"), missing)).await.unwrap_err().to_string();
    assert!(told.contains("/no/path") && told.contains("t1"), "{told}");
    assert_eq!(runtime.status("t1").unwrap().state, end);
    assert_eq!(host.open().await.status("t1").unwrap().state, end, "another daemon sees the same");
    let mut config = host.container("t1", "true");
    config.spec.image = "other".into();
    assert!(matches!(runtime.start(config).await, Err(Error::OtherImage { .. })));

    runtime.start(host.container("t1", "sleep 1000")).await.unwrap();
    assert!(matches!(runtime.status("t1").unwrap().state, ContainerState::Running { .. }));
    assert!(matches!(runtime.start(host.container("t1", "true")).await, Err(Error::Exists(_))));
    within(runtime.remove("t1")).await.unwrap();
}

#[tokio::test]
async fn a_container_that_an_earlier_daemon_started_is_started_again_by_the_next() {
    let host = Host::new();
    let first = host.open_with_busybox().await;
    run(&first, host.container("t1", "echo one > /file; exit 1")).await;
    drop(first);
    let second = host.open().await;
    for n in 2..6 {
        let (said, code) = run(&second, host.container("t1", &format!("cat /file; echo {n} >> /file; exit {n}"))).await;
        assert_eq!(
            (said.last().unwrap().as_str(), code),
            (if n == 2 { "one".into() } else { (n - 1).to_string() }.as_str(), n)
        );
    }
}

#[tokio::test]
async fn what_is_mounted_read_only_cannot_be_written() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let (dir, file) = (host.dir.path().join("shared"), host.dir.path().join("file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "hello\n").unwrap();
    let mounts = vec![
        mount(MountSource::Tmpfs { size: Some(64 << 10) }, "/in/tmp", false),
        mount(MountSource::Bind(dir.clone()), "/rw", false),
        mount(MountSource::Bind(dir.clone()), "/in/ro", true),
        mount(MountSource::Bind(file), "/etc/motd", true),
    ];
    let script = "cat /etc/motd; echo x > /rw/made && echo rw; echo x > /in/ro/made2 || echo ro; \
                  dd if=/dev/zero of=/in/tmp/big bs=1k count=100 || echo full; echo x > /etc/motd || echo ro2";
    let (said, _) = run(&runtime, with(host.container("t1", script), Options { mounts, ..Options::default() })).await;
    for word in ["hello", "rw", "ro", "full", "ro2"] {
        assert!(said.iter().any(|l| l == word), "{word}: {said:?}");
    }
    assert!(dir.join("made").exists() && !dir.join("made2").exists());

    let options = Options { read_only: true, mounts: vec![volume("v", "/data")], ..Options::default() };
    let script = "echo x > /file || echo ro; echo x > /data/file && echo rw; echo x > /dev/shm/x && echo shm";
    let (said, _) = run(&runtime, with(host.container("t2", script), options)).await;
    assert!(["ro", "rw", "shm"].iter().all(|word| said.iter().any(|l| l == word)), "{said:?}");
}

#[tokio::test]
async fn a_volume_begins_as_the_image_has_it_and_survives_its_containers() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let options = |name: &str| Options { mounts: vec![volume(name, "/etc")], ..Options::default() };
    let script = "grep web: /etc/passwd; ls -ld /etc/passwd; cat /etc/hosts; echo more > /etc/more";
    let (said, _) = run(&runtime, with(host.container("t1", script), options("conf"))).await;
    assert!(said[0].starts_with("web:x:33") && said[1].contains("-rw-r--r--"), "{said:?}");
    assert!(matches!(
        runtime.remove_volume("conf").await,
        Err(Error::VolumeInUse { container, .. }) if container == "t1"
    ));
    assert_eq!(runtime.volumes().await.unwrap()[0].used_by, ["t1"]);
    within(runtime.remove("t1")).await.unwrap();

    let (said, _) = run(&runtime, with(host.container("t2", "cat /etc/more"), options("conf"))).await;
    assert_eq!(said, ["more"]);
    within(runtime.remove("t2")).await.unwrap();
    let volumes = host.open().await.volumes().await.unwrap();
    assert_eq!((volumes[0].name.as_str(), volumes[0].used_by.len()), ("conf", 0));
    assert!(Path::new(&volumes[0].path).join("more").exists());
    runtime.remove_volume("conf").await.unwrap();
    assert!(matches!(runtime.remove_volume("conf").await, Err(Error::NoSuchVolume(_))));
    assert!(runtime.volumes().await.unwrap().is_empty());
}

#[tokio::test]
async fn power_is_added_and_taken_away() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let caps = "grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted; unshare -n true && echo unshared";
    let options = Options { cap_drop: list(&["ALL"]), cap_add: list(&["chown"]), ..Options::default() };
    let (said, _) = run(&runtime, with(host.container("t1", caps), options)).await;
    assert!(said.contains(&"CapEff:\t0000000000000001".to_owned()), "{said:?}");
    assert!(!said.contains(&"mounted".to_owned()), "{said:?}");

    let options = Options { cap_add: list(&["SYS_ADMIN"]), ..Options::default() };
    let (said, _) = run(&runtime, with(host.container("t2", caps), options)).await;
    assert!(said.contains(&"mounted".to_owned()) && said.contains(&"unshared".to_owned()), "{said:?}");

    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find(|l| l.starts_with("CapEff")).unwrap().to_owned();
    let options = Options { privileged: true, ..Options::default() };
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -o remount,ro /tmp; mount -t tmpfs x /tmp && echo mounted; \
                  ls /dev/kmsg; cat /proc/sys/kernel/panic > /proc/sys/kernel/panic && echo wrote; \
                  mknod /dev/tty77 c 4 77 && echo made";
    let (said, _) = run(&runtime, with(host.container("t3", script), options)).await;
    for word in [&all, "Seccomp:\t0", "mounted", "/dev/kmsg", "wrote", "made"] {
        assert!(said.iter().any(|l| l == word), "{word}: {said:?}");
    }
    let options = Options { cap_add: list(&["FLY"]), ..Options::default() };
    assert!(matches!(runtime.start(with(host.container("t4", "true"), options)).await, Err(Error::Capability(_))));
}

#[tokio::test]
async fn a_stop_signal_of_its_own_is_sent() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let options = Options { stop_signal: Some("USR1".into()), ..Options::default() };
    let script = "trap 'exit 9' USR1; echo ready; while true; do sleep 0.05; done";
    runtime.start(with(host.container("t1", script), options)).await.unwrap();
    within(async {
        while output(&runtime, "t1").await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(within(runtime.stop("t1", common::PATIENCE)).await.unwrap().code, 9);
    let options = Options { stop_signal: Some("NOPE".into()), ..Options::default() };
    assert!(matches!(runtime.start(with(host.container("t2", "true"), options)).await, Err(Error::StopSignal(_))));
}
