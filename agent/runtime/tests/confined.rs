//! What a container cannot do to its host and its neighbours: devices, cgroups, system calls, processes, attributes of
//! images. Needs root, `ip`, perl and a static busybox.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod common;

use common::{Host, busybox, output, root_owned, run, within};
use shoal_common::service::{Amount, Resources};
use shoal_runtime::{ContainerConfig, PIDS_LIMIT_DEFAULT, Runtime};
use std::{collections::BTreeSet, io::Cursor, path::PathBuf, process::Command};
use tar::EntryType;

/// Starts it, waits for its end and returns what it said.
async fn says(runtime: &Runtime, config: ContainerConfig) -> Vec<String> {
    let id = config.id.clone();
    runtime.start(config).await.unwrap();
    within(runtime.wait(&id)).await.unwrap();
    let said = output(runtime, &id).await;
    runtime.remove(&id).await.unwrap();
    said
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, change: impl FnOnce(&mut tar::Header)) {
    let mut header = root_owned();
    header.set_entry_type(kind);
    header.set_size(0);
    change(&mut header);
    tar.append_data(&mut header, path, std::io::empty()).unwrap();
}

fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // Another archive after it is read as the rest of this one.
    fill(&mut tar);
    let mut out = tar.into_inner().unwrap();
    out.truncate(out.len() - 1024);
    out.extend(busybox());
    out
}

#[tokio::test]
async fn a_device_of_an_image_or_of_the_containers_own_making_is_of_no_use() {
    let host = Host::new();
    let runtime = host.open().await;
    let image = archive(|tar| {
        for (path, kind, major, minor) in [("kmsg", EntryType::Char, 1, 11), ("disk", EntryType::Block, 254, 0)] {
            entry(tar, path, kind, |header| {
                header.set_device_major(major).unwrap();
                header.set_device_minor(minor).unwrap();
            });
        }
        entry(tar, "pipe", EntryType::Fifo, |header| header.set_mtime(1_000_000_000));
        entry(tar, "old/", EntryType::Directory, |header| header.set_mtime(1_000_000_000));
        entry(tar, "old/new", EntryType::Regular, |header| header.set_mtime(1_500_000_000));
    });
    runtime.images().import(Cursor::new(image), "busybox", vec!["CMD [\"sh\"]".into()]).await.unwrap();
    let mut config = host.container(
        "t1",
        "ls -d /kmsg /disk 2>/dev/null; ls -d /pipe; mknod /null c 1 3 && (: < /null) 2>/dev/null && echo opened; \
         mknod /data/null c 1 3 && (: < /data/null) 2>/dev/null && echo opened too; : < /dev/null && echo own; \
         date -u -r /pipe +%s; date -u -r /old +%s; ls -l /etc/mtab | grep -c /proc/mounts",
    );
    config.options.mounts = vec![shoal_runtime::Mount {
        source: shoal_runtime::MountSource::Volume("v".into()),
        target: "/data".into(),
        read_only: false,
    }];
    let said = says(&runtime, config).await;
    assert_eq!(said, ["/pipe", "own", "1000000000", "1000000000", "1"]);
}

#[tokio::test]
async fn a_limit_cannot_be_lifted_from_inside() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let lift = "cd /sys/fs/cgroup; for f in memory/memory.limit_in_bytes pids/pids.max devices/devices.allow \
                memory.max pids.max; do [ ! -e $f ] || { (echo -1 > $f) 2>/dev/null && echo lifted $f; \
                (echo 'a *:* rwm' > $f) 2>/dev/null && echo lifted $f; }; done; \
                for d in . */; do mkdir $d/below 2>/dev/null && echo made in $d; done; \
                cat memory/memory.limit_in_bytes memory.max 2>/dev/null; cat pids/pids.max pids.max 2>/dev/null; true";
    let mut config = host.container("t1", lift);
    let limits = Amount { nano_cpus: 0, memory_bytes: 64 << 20 };
    config.resources = Resources { limits, ..Resources::default() };
    let said = says(&runtime, config).await;
    assert_eq!(said, [(64 << 20).to_string(), PIDS_LIMIT_DEFAULT.to_string()]);
    // What the user mounts there is as the user says.
    let mut own = host.container("own", "mkdir /sys/fs/cgroup/below && echo made");
    let (source, target) = (shoal_runtime::MountSource::Tmpfs { size: None }, "/sys/fs/cgroup".into());
    own.options.mounts = vec![shoal_runtime::Mount { source, target, read_only: false }];
    assert_eq!(says(&runtime, own).await, ["made"]);
    let mut unlimited = host.container("t2", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null");
    unlimited.resources.pids_limit = Resources::PIDS_UNLIMITED;
    assert_eq!(says(&runtime, unlimited).await, ["max"]);
}

/// busybox and perl, by which any system call can be made.
fn image_with_perl() -> Vec<u8> {
    let listed = Command::new("ldd").arg("/usr/bin/perl").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    archive(|tar| {
        for file in [PathBuf::from("/usr/bin/perl")].into_iter().chain(libraries) {
            let bytes = std::fs::read(&file).unwrap();
            let mut header = root_owned();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, file.strip_prefix("/").unwrap(), bytes.as_slice()).unwrap();
        }
    })
}

/// Calls with harmless arguments, by their numbers on x86-64; what each answers, 0 for no error.
const PROBE: &str = r#"
    $| = 1;
    # Of one that makes a process: the new one ends at once.
    sub spawn { my ($name, $flags) = @_; my $got = syscall(56, $flags, 0, 0, 0, 0); syscall(231, 0) if $got == 0;
                print "$name ", ($got == -1 ? $!+0 : 0), "\n"; }
    sub call { my ($name, @args) = @_; my $got = syscall(shift @args, @args); print "$name ", ($got == -1 ? $!+0 : 0), "\n"; }
    call("getpid", 39); call("epoll_create1", 291, 0); call("eventfd2", 290, 0, 0); call("memfd_create", 319, "x", 0);
    call("pidfd_open", 434, $$, 0); call("close_range", 436, 900, 901, 0); call("clock_adjtime", 305, 0, 0);
    call("accept4", 288, -1, 0, 0, 0); call("epoll_pwait2", 441, -1, 0, 0, 0, 0, 0); call("openat2", 437, -1, 0, 0, 0);
    call("faccessat2", 439, -100, "/", 0, 0); call("statx", 332, -100, "/", 0, 0, 0); call("futex_waitv", 449, 0, 0, 0, 0, 0);
    call("landlock_create_ruleset", 444, 0, 0, 1); call("seccomp", 317, 9, 0, 0);
    call("ptrace", 101, 99, 0, 0, 0); call("chroot", 161, "/"); call("personality", 135, 0xffffffff); call("arch_prctl", 158, 0, 0);
    call("inet", 41, 2, 1, 0); call("unix", 41, 1, 1, 0); call("netlink", 41, 16, 3, 0); spawn("clone", 17);
    call("alg", 41, 38, 5, 0); call("vsock", 41, 40, 1, 0); spawn("clone_newns", 0x00020011);
    spawn("clone_newuser", 0x10000011); call("clone3", 435, 0, 0); call("unshare", 272, 0x10000000);
    call("mount", 165, 0, 0, 0, 0, 0); call("setns", 308, -1, 0); call("bpf", 321, 0, 0, 0); call("keyctl", 250, 0, 0, 0);
    call("add_key", 248, 0, 0, 0, 0, 0); call("io_uring_setup", 425, 1, 0); call("userfaultfd", 323, 0);
    call("perf_event_open", 298, 0, 0, 0, 0, 0); call("open_by_handle_at", 304, -1, 0, 0); call("kexec_load", 246, 0, 0, 0, 0);
    call("init_module", 175, 0, 0, 0); call("pidfd_getfd", 438, -1, 0, 0); call("reboot", 169, 0, 0, 0, 0); call("syslog", 103, 10, 0, 0);
    call("swapon", 167, 0, 0); call("open_tree", 428, -1, 0, 0); call("personality_other", 135, 0x0040000); call("newest", 547);
"#;

#[tokio::test]
#[cfg(target_arch = "x86_64")]
async fn system_calls_are_those_of_docker() {
    const EPERM: i32 = nix::libc::EPERM;
    const ENOSYS: i32 = nix::libc::ENOSYS;
    let answers = |lines: Vec<String>| -> Vec<(String, i32)> {
        let pair = |line: &String| line.split_once(' ').map(|(name, errno)| (name.to_owned(), errno.parse().unwrap()));
        lines.iter().filter_map(pair).collect()
    };
    let host = Host::new();
    let runtime = host.open().await;
    runtime.images().import(Cursor::new(image_with_perl()), "busybox", vec!["CMD [\"sh\"]".into()]).await.unwrap();
    let mut config = host.container("t1", "");
    config.spec.args = ["perl", "-e", PROBE].map(String::from).to_vec();
    let inside = answers(says(&runtime, config.clone()).await);
    // Up to the first one that may do something, this host answers the same.
    let allowed: BTreeSet<&str> = [
        "getpid",
        "epoll_create1",
        "eventfd2",
        "memfd_create",
        "pidfd_open",
        "close_range",
        "clock_adjtime",
        "accept4",
        "epoll_pwait2",
        "openat2",
        "faccessat2",
        "statx",
        "futex_waitv",
        "landlock_create_ruleset",
        "seccomp",
        "ptrace",
        "chroot",
        "personality",
        "arch_prctl",
        "inet",
        "unix",
        "netlink",
        "clone",
    ]
    .into();
    let same = PROBE.split("call(\"alg\"").next().unwrap();
    let outside = Command::new("perl").args(["-e", same]).output().unwrap();
    let outside = answers(String::from_utf8(outside.stdout).unwrap().lines().map(str::to_owned).collect());
    assert_eq!(inside[..outside.len()], outside[..], "what Docker allows is allowed");
    assert_eq!(outside.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(), allowed);
    for (name, errno) in &inside[outside.len()..] {
        let expected = if ["clone3", "personality_other", "newest"].contains(&name.as_str()) { ENOSYS } else { EPERM };
        assert_eq!((name, *errno), (name, expected));
    }
    assert_eq!(inside.last().map(|(name, _)| name.as_str()), Some("newest"), "all were asked");

    // A capability brings its calls, and no others.
    config.options.cap_add = vec!["SYS_ADMIN".into()];
    let admin = answers(says(&runtime, config).await);
    let errno = |name: &str| admin.iter().find(|(own, _)| own == name).unwrap().1;
    assert!(errno("mount") != EPERM && errno("setns") != EPERM && errno("clone_newns") == 0, "{admin:?}");
    assert_eq!((errno("io_uring_setup"), errno("keyctl"), errno("kexec_load")), (EPERM, EPERM, EPERM));
}

/// Servers and tools as people run them, under the same list.
#[tokio::test]
async fn programs_do_their_work_under_the_list() {
    let host = Host::new();
    let runtime = host.open().await;
    runtime.images().import(Cursor::new(image_with_perl()), "busybox", vec!["CMD [\"sh\"]".into()]).await.unwrap();
    run("ip", &["-n", &host.name, "link", "set", "lo", "up"]);
    // A server that waits by epoll for several clients and takes each by accept4; threads of the shell beside it.
    let server = r#"
        my $s = syscall(41, 2, 1, 0); my $a = pack("S n a4 x8", 2, 8080, "\x7f\0\0\1");
        syscall(49, $s, $a, 16) == 0 or die "bind $!"; syscall(50, $s, 16) == 0 or die "listen $!";
        my $e = syscall(291, 0); my $ev = pack("L Q", 1, 7); syscall(233, $e, 1, $s, $ev) == 0 or die "epoll_ctl $!";
        for (1..3) {
            unless (fork) { my $c = syscall(41, 2, 1, 0); syscall(42, $c, $a, 16); my $m = "hi\n"; syscall(1, $c, $m, 3); exit }
            my $b = "\0" x 12; syscall(281, $e, $b, 1, 5000, 0, 8) == 1 or die "epoll_pwait $!";
            my $c = syscall(288, $s, 0, 0, 0); $c >= 0 or die "accept4 $!";
            my $in = "\0" x 3; syscall(0, $c, $in, 3); print "got $in"; wait;
        }
    "#;
    let mut config = host.container("t1", "");
    config.spec.args = ["perl", "-e", server].map(String::from).to_vec();
    assert_eq!(says(&runtime, config).await, ["got hi", "got hi", "got hi"]);
    let tools = "seq 1 3000 | tail -n 1; dd if=/dev/urandom of=/tmp/x bs=1k count=64 2>/dev/null && ls -l /tmp/x | grep -c 65536; \
                 (sleep 0.1; echo slept) & wait; mkdir -p /tmp/a/b && touch /tmp/a/b/c && ls /tmp/a/b; kill -0 $$ && echo alive";
    assert_eq!(says(&runtime, host.container("t2", tools)).await, ["3000", "1", "slept", "c", "alive"]);
}

/// A fork bomb, one that fills its memory, and one that fills its disk: none of them is felt next door.
#[tokio::test]
async fn a_container_that_runs_wild_leaves_its_neighbours_alone() {
    let host = Host::new();
    let runtime = host.open_with_busybox().await;
    let mut neighbour = host.container("neighbour", "while read line; do (echo heard $line); done");
    neighbour.options.stdin = true;
    runtime.start(neighbour).await.unwrap();
    let mut session = runtime.attach("neighbour").await.unwrap();

    let mut bomb = host.container("bomb", "f() { f | f & }; f; sleep 1000");
    bomb.resources =
        Resources { limits: Amount { nano_cpus: 250_000_000, memory_bytes: 512 << 20 }, ..Resources::default() };
    bomb.resources.pids_limit = 200;
    runtime.start(bomb).await.unwrap();
    let full = host.container("full", "dd if=/dev/zero of=/disk/x bs=1M 2>/dev/null; echo full; sleep 1000");
    let full = ContainerConfig {
        options: shoal_runtime::Options {
            mounts: vec![shoal_runtime::Mount {
                source: shoal_runtime::MountSource::Tmpfs { size: Some(8 << 20) },
                target: "/disk".into(),
                read_only: false,
            }],
            ..Default::default()
        },
        ..full
    };
    runtime.start(full).await.unwrap();
    within(async {
        while runtime.stats("bomb").await.unwrap().pids < 190 || output(&runtime, "full").await != ["full"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for n in 0..10 {
        use futures::StreamExt as _;
        use tokio::io::AsyncWriteExt as _;
        session.stdin.write_all(format!("{n}\n").as_bytes()).await.unwrap();
        assert_eq!(within(session.output.next()).await.unwrap().1, format!("heard {n}\n"), "the neighbour can fork");
    }
    assert!(runtime.stats("bomb").await.unwrap().pids <= 200);
    for id in ["bomb", "full", "neighbour"] {
        within(runtime.remove(id)).await.unwrap();
    }
    assert!(host.cgroups().iter().all(|c| !c.join("bomb").exists()), "a cgroup is left");
}
