//! The cgroups of a lab's containers, in every hierarchy that is mounted: version 1, 2, or both.

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    process::{Pid, Signal, kill_process},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::layout::cannot;
use crate::failure::Failure;

const ROOT: &str = "/sys/fs/cgroup";
/// Above the cgroups of all labs.
const ABOVE_LABS: &str = "shoal";

/// A cgroup of killed processes empties when the kernel is done with them; this long it is waited for.
const EMPTY_TRIES: u32 = 400;
const EMPTY_PAUSE: Duration = Duration::from_millis(5);

/// Whether this user may make cgroups: in every hierarchy, since a container is to be in all of them.
pub(super) fn are_ours() -> bool {
    hierarchies().iter().all(|root| accessat(CWD, root, Access::WRITE_OK, AtFlags::EACCESS).is_ok())
}

/// Kills what is in the cgroup and below, and removes both, wherever they are.
pub(super) fn remove(cgroup: &str) -> Result<(), Failure> {
    let mut first = Ok(());
    for root in hierarchies() {
        let dir = root.join(cgroup.trim_start_matches('/'));
        if let Err(e) = remove_tree(&dir) {
            first = first.and(Err(cannot("remove the cgroup", &dir, &e)));
        }
        // Other labs may need it still: then it stays.
        let _ = fs::remove_dir(root.join(ABOVE_LABS));
    }
    first
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path()).filter(|dir| dir.is_dir()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    // The usual cases: it is not there, or nothing is in it.
    if gone(fs::remove_dir(dir)).is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let mut last = Ok(());
    for _ in 0..EMPTY_TRIES {
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) {
                // What cannot be killed keeps the directory busy, and that is told.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        last = gone(fs::remove_dir(dir));
        if last.is_ok() {
            break;
        }
        thread::sleep(EMPTY_PAUSE);
    }
    last
}
