//! What a container uses, as its cgroup counts it. Both versions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::cgroup;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Time on processors since the container's start, over all of them.
    pub cpu_nanos: u64,
    /// Without the file cache that could go at once, as Docker counts.
    pub memory_bytes: u64,
    /// `None` if only the host's memory is the limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// `None` if there is no such cgroup.
pub(crate) fn of(cgroup: &str) -> Option<Stats> {
    let dirs = cgroup::directories(cgroup);
    let cpu = number(&dirs, "cpuacct.usage").or_else(|| Some(field(&dirs, "cpu.stat", "usage_usec")? * 1000));
    let memory = number(&dirs, "memory.usage_in_bytes").or_else(|| number(&dirs, "memory.current"));
    let cache =
        field(&dirs, "memory.stat", "total_inactive_file").or_else(|| field(&dirs, "memory.stat", "inactive_file"));
    let limit = number(&dirs, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_BYTES);
    (!dirs.is_empty()).then(|| Stats {
        cpu_nanos: cpu.unwrap_or(0),
        memory_bytes: memory.unwrap_or(0).saturating_sub(cache.unwrap_or(0)),
        memory_limit_bytes: limit.or_else(|| number(&dirs, "memory.max")),
        pids: number(&dirs, "pids.current").unwrap_or_else(|| processes(cgroup).len() as u64),
    })
}

/// Version 1 says "no limit" by the largest number of whole pages.
const UNLIMITED_BYTES: u64 = 1 << 62;

/// The pids of all processes in it and below, as they are seen here.
pub(crate) fn processes(cgroup: &str) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    for dir in cgroup::directories(cgroup) {
        collect(&dir, &mut pids);
    }
    pids
}

fn collect(dir: &Path, pids: &mut BTreeSet<i32>) {
    let here = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(here.lines().filter_map(|pid| pid.parse().ok()).filter(|pid: &i32| *pid > 0));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

/// The whole of a file in the first hierarchy that has it; `None` also for `max`.
fn number(dirs: &[PathBuf], file: &str) -> Option<u64> {
    text(dirs, file)?.trim().parse().ok()
}

fn field(dirs: &[PathBuf], file: &str, name: &str) -> Option<u64> {
    text(dirs, file)?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn text(dirs: &[PathBuf], file: &str) -> Option<String> {
    dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_kernel_is_read_in_both_its_shapes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu.stat"), "usage_usec 5\nuser_usec 3\n").unwrap();
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("memory.current"), "4096\n").unwrap();
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        assert_eq!(field(&dirs, "cpu.stat", "usage_usec"), Some(5));
        assert_eq!(field(&dirs, "cpu.stat", "usage"), None);
        assert_eq!((number(&dirs, "memory.max"), number(&dirs, "memory.current")), (None, Some(4096)));
    }
}
