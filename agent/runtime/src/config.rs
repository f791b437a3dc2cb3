//! What the agent says about a container, and what it hears back.

use serde::{Deserialize, Serialize};
use shoal_common::{
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
    /// The program that calls [`crate::supervise`] when started as `PROGRAM supervise DIR`.
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
}
