//! The cgroup of a container after libcontainer made it: was it out of memory, and its removal. Both versions.

mod devices;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::Error;
pub(crate) use devices::Filter;

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup of killed processes empties when the kernel is done with them; this long it is waited for.
const EMPTY_TRIES: u32 = 200;
const EMPTY_PAUSE: Duration = Duration::from_millis(5);

/// What a host has of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// So nothing can be limited.
    None,
    /// Perhaps with version 2 beside it, without controllers.
    V1,
    /// Version 2 alone.
    Unified,
}

impl Cgroups {
    pub(crate) fn of_host() -> Self {
        if is_unified() {
            Self::Unified
        } else if hierarchies().is_empty() {
            Self::None
        } else {
            Self::V1
        }
    }
}

fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_unified() {
        vec![PathBuf::from(ROOT)]
    } else {
        fs::read_dir(ROOT).into_iter().flatten().flatten().map(|e| e.path()).collect()
    }
}

/// Where a container sees the hierarchies of version 1. Each is a mount of its own, which has to be made read-only by
/// itself: libcontainer 0.7 leaves out the `ro` of a cgroup mount there, so `-m 64m` could be lifted from inside. The
/// directory above them is first.
pub(crate) fn read_only_paths(cgroups: Cgroups) -> Vec<PathBuf> {
    match cgroups {
        Cgroups::V1 => {
            let is_mount = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|there| there.is_dir());
            [PathBuf::from(ROOT)].into_iter().chain(hierarchies().into_iter().filter(is_mount)).collect()
        }
        // There is one mount, and it is read-only.
        Cgroups::Unified | Cgroups::None => Vec::new(),
    }
}

/// Whether the number of processes can be limited.
pub(crate) fn limits_pids() -> bool {
    if is_unified() {
        let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|one| one == "pids")
    } else {
        Path::new(ROOT).join("pids/cgroup.procs").exists()
    }
}

/// The directories that this cgroup has in all mounted hierarchies.
pub(crate) fn directories(cgroup: &str) -> Vec<PathBuf> {
    let relative = cgroup.trim_start_matches('/');
    if relative.is_empty() {
        return Vec::new();
    }
    hierarchies().into_iter().map(|root| root.join(relative)).filter(|dir| dir.is_dir()).collect()
}

/// Whether the kernel killed something in this cgroup for want of memory.
pub(crate) fn oom_killed(cgroup: &str) -> bool {
    let relative = cgroup.trim_start_matches('/');
    let file = if is_unified() {
        Path::new(ROOT).join(relative).join("memory.events")
    } else {
        Path::new(ROOT).join("memory").join(relative).join("memory.oom_control")
    };
    fs::read_to_string(file).is_ok_and(|text| {
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim().parse().unwrap_or(0_u64) > 0)
    })
}

/// Kills what is in the cgroup and removes it from all hierarchies. Nothing to do if it is gone.
pub(crate) fn remove(cgroup: &str) -> Result<(), Error> {
    let mut first = None;
    for dir in directories(cgroup) {
        if let Err(source) = remove_tree(&dir) {
            first.get_or_insert(Error::File { doing: "remove the cgroup", path: dir, source });
        }
    }
    first.map_or(Ok(()), Err)
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    // The usual case: no process and no cgroup below.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut last = Ok(());
    for _ in 0..EMPTY_TRIES {
        kill_all(dir);
        last = fs::remove_dir(dir);
        match &last {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => thread::sleep(EMPTY_PAUSE),
            Ok(()) => return Ok(()),
        }
    }
    last
}

fn kill_all(dir: &Path) {
    // What cannot be killed keeps the directory busy, and the caller says so.
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().filter(|pid| *pid > 0).and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
