//! A runtime of its own on this host, with everything it made removed in the end.

#![allow(dead_code, clippy::unwrap_used, reason = "not every test needs all; in tests a panic is the report")]

use shoal_common::service::{ContainerSpec, Resources};
use shoal_runtime::{ContainerConfig, Options, Runtime, RuntimeConfig};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Longer than anything here takes, so that a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) name: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "containers need root");
        // In a child PID namespace pids are small and the same each time; the clock tells runs apart.
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() % 0xffff_ffff;
        let name = format!("shrt{}-{now:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        Self { dir: tempfile::tempdir().unwrap(), name }
    }

    pub(crate) fn config(&self) -> RuntimeConfig {
        RuntimeConfig {
            data_dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            cgroup_parent: self.cgroup(),
            supervisor: supervisor(),
        }
    }

    pub(crate) async fn open(&self) -> Runtime {
        Runtime::open(self.config()).await.unwrap()
    }

    /// With an image `busybox`.
    pub(crate) async fn open_with_busybox(&self) -> Runtime {
        let runtime = self.open().await;
        runtime.images().import(std::io::Cursor::new(busybox()), "busybox", vec!["CMD [\"sh\"]".into()]).await.unwrap();
        runtime
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    pub(crate) fn container(&self, id: &str, script: &str) -> ContainerConfig {
        container(&self.name, id, script)
    }

    /// All directories below the hierarchies that bear our name.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(|r| r.join(&self.name)).filter(|p| p.is_dir()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Supervisors go with their containers; those are found by their cgroup.
        for cgroup in self.cgroups() {
            let inner: Vec<_> = std::fs::read_dir(&cgroup).into_iter().flatten().flatten().map(|e| e.path()).collect();
            for dir in inner.iter().filter(|p| p.is_dir()).chain([&cgroup]) {
                for _ in 0..200 {
                    for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap_or(0));
                        pid.map(|p| rustix::process::kill_process(p, rustix::process::Signal::KILL));
                    }
                    if std::fs::remove_dir(dir).is_ok() || !dir.exists() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub(crate) fn container(netns: &str, id: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        id: id.into(),
        spec: ContainerSpec {
            image: "busybox".into(),
            args: ["sh", "-c", script].map(String::from).to_vec(),
            ..ContainerSpec::default()
        },
        resources: Resources::default(),
        labels: [("task".to_string(), id.to_string())].into(),
        netns: Path::new("/run/netns").join(netns),
        hostname: format!("host-of-{id}"),
        hosts: vec!["10.1.2.3\tfriend".into()],
        resolv_conf: "nameserver 127.0.0.11\n".into(),
        options: Options::default(),
    }
}

pub(crate) fn supervisor() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().parent().unwrap().join("examples/supervisor")
}

pub(crate) fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn root_owned() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o755);
    header
}

/// The archive of a root file system: busybox under all its usual names.
pub(crate) fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let dir = |tar: &mut tar::Builder<Vec<u8>>, path: &str, mode| {
        let mut header = root_owned();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    };
    for (path, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777)] {
        dir(&mut tar, path, mode);
    }
    let mut file = |path: &str, bytes: &[u8], mode| {
        let mut header = root_owned();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    file("bin/busybox", &std::fs::read("/bin/busybox").unwrap(), 0o755);
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n", 0o644);
    file("etc/group", b"root:x:0:\nweb:x:34:\nlogs:x:70:web\n", 0o644);
    for name in [
        "sh", "cat", "echo", "sleep", "id", "hostname", "mount", "umount", "ls", "dd", "head", "true", "date", "kill",
        "seq", "mknod", "test", "grep", "unshare", "pwd", "tail", "stty", "touch", "mkdir", "tty", "ps", "yes",
    ] {
        let mut header = root_owned();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) async fn output(runtime: &Runtime, id: &str) -> Vec<String> {
    use futures::StreamExt;
    let lines = runtime.logs(id, shoal_runtime::LogOptions::default()).unwrap();
    lines.map(|l| l.unwrap().text).collect().await
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
