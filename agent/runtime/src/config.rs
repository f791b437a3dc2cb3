//! What the agent says about a container, and what it hears back.

use serde::{Deserialize, Serialize};
use shoal_common::{
    health::Probe,
    name::Labels,
    service::{ContainerSpec, Resources},
};
use std::path::PathBuf;

/// Where a runtime lives. Two runtimes on one host differ in all of these.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Images, and the directories and logs of containers. Survives a reboot.
    pub data_dir: PathBuf,
    /// Locks of living supervisors. May be on a tmpfs.
    pub run_dir: PathBuf,
    /// The cgroup above those of the containers, from the root of each hierarchy: `/shoal/m1`.
    pub cgroup_parent: String,
    /// The program that calls [`crate::supervise()`] when started as `PROGRAM supervise DIR`.
    pub supervisor: PathBuf,
}

/// A container to be started. The network namespace is there and wired before.
#[derive(Debug, Clone)]
pub struct ContainerConfig {
    /// Unique on the host among containers that were not removed: `task-12`.
    pub id: String,
    pub spec: ContainerSpec,
    pub resources: Resources,
    /// Kept with the container and told by `list`; for those who start containers to know their own.
    pub labels: Labels,
    /// A bind-mounted network namespace to join.
    pub netns: PathBuf,
    /// What the UTS namespace and `/etc/hostname` say.
    pub hostname: String,
    /// Lines of `/etc/hosts` after those for localhost.
    pub hosts: Vec<String>,
    /// The whole of `/etc/resolv.conf`.
    pub resolv_conf: String,
    pub options: Options,
}

/// What a service never asks for and one container may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// A terminal of its own as its standard streams; its output is then one stream.
    pub tty: bool,
    /// Of that terminal at the start; none: whoever attaches will tell.
    pub size: Option<Size>,
    /// Standard input stays open for those who attach; else it is empty.
    pub stdin: bool,
    pub mounts: Vec<Mount>,
    /// `NET_ADMIN`, `CAP_NET_ADMIN`, `ALL`: beyond those that every container has.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// All capabilities and devices; no system call refused and no part of `/proc` and `/sys` hidden.
    pub privileged: bool,
    /// Writing is possible in mounts only.
    pub read_only: bool,
    /// `SIGQUIT`, `QUIT` or `3`; default the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// The supervisor's network namespace, which is the host's, instead of `netns`.
    pub host_network: bool,
    /// What it writes into its root file system survives a power cut once synced. Without, its syncs are not heard,
    /// which is faster: for containers that are replaced rather than started again.
    pub durable: bool,
}

/// Of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Something of the host's in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Where it is seen in the container: absolute. Made where the image has nothing there.
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, which must be there.
    Bind(PathBuf),
    /// A named volume, made on demand. An empty one is filled with what the image has at the target.
    Volume(String),
    /// Memory, at most `size` bytes; by default half of the host's.
    Tmpfs { size: Option<u64> },
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell would tell it: 128 and the signal for a container that was killed.
    pub code: i32,
    /// The kernel killed a process of the container because it was over its memory limit.
    pub oom: bool,
    pub finished_at_ms: u64,
    /// Why it ended, where that was not the container's own doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was wrong with a process that could not be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// There is no such program.
    NotFound,
    /// There is, and it is none, or not for that user.
    NotExecutable,
    /// It was not the program's.
    #[default]
    Other,
}

impl Fault {
    /// As a shell would tell it, and Docker does.
    pub fn exit_code(self) -> i32 {
        match self {
            Fault::NotFound => 127,
            Fault::NotExecutable => 126,
            Fault::Other => 125,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Its supervisor is at work; the first process does not run yet.
    Created,
    Running {
        pid: i32,
        started_at_ms: u64,
    },
    Exited(Exit),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: String,
    pub image: String,
    pub state: ContainerState,
    pub labels: Labels,
    pub hostname: String,
    pub options: Options,
    pub created_at_ms: u64,
    /// Of the last start, also when it has ended since. `None` if it never ran.
    pub started_at_ms: Option<u64>,
    /// How its health is to be looked at.
    pub probe: Option<Probe>,
}
