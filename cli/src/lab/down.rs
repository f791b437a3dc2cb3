//! `lab down`: goes by what is there, not by what should be, so that it works after any crash.

use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    cgroup,
    host::end,
    init,
    layout::{self, Layout, cannot, init_pid},
    state::{Lock, no_lab},
};
use crate::failure::Failure;

const KILLED_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn down(layout: &Layout) -> Result<(), Failure> {
    // Looked at before the lock, which would make a file.
    if !layout.dir().exists() {
        return Err(no_lab(layout));
    }
    let lock = Lock::take(layout)?;
    if !layout.dir().exists() {
        lock.remove()?;
        return Err(no_lab(layout));
    }
    remove(layout, lock)
}

/// Every step is tried. The directory goes last, and only if all else went: it is what knows of the rest.
pub(super) fn remove(layout: &Layout, lock: Lock) -> Result<(), Failure> {
    let hosts = layout.hosts();
    let names = layout::names(&hosts)?;
    // Until the directory is gone, so that a command that was killed in the middle of its work starts nothing more.
    let dirs = names.iter().map(|name| hosts.join(name)).chain([layout.switch()]);
    let held: Result<Vec<_>, Failure> = dirs.filter(|dir| dir.exists()).map(|dir| Ok(init::hold(&dir)?)).collect();
    let _held = held?;
    let ended = super::each(names, |name| end(&init_pid(&hosts.join(&name)), Signal::KILL, KILLED_WITHIN, &name));
    let switch = end(&init_pid(&layout.switch()), Signal::KILL, KILLED_WITHIN, "the switch");
    ended.and(switch)?;
    let cgroups = layout.lab_cgroup().map_or(Ok(()), |cgroup| cgroup::remove(&cgroup));
    let mounts = unmount_below(&layout.dir());
    cgroups.and(mounts)?;
    let dir = layout.dir();
    fs::remove_dir_all(&dir).map_err(|e| cannot("remove", &dir, &e))?;
    lock.remove()?;
    // The last lab takes the directory of all with it; otherwise it is not empty.
    if let Some(root) = dir.parent() {
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

/// Hosts mount in namespaces of their own, so there is seldom anything to do here.
fn unmount_below(dir: &Path) -> Result<(), Failure> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(|e| cannot("read", table, &e))?;
    let mut first = Ok(());
    // The later ones may lie on the earlier ones.
    for point in mount_points(&text).into_iter().rev().filter(|point| point.starts_with(dir)) {
        if let Err(e) = umount2(&point, MntFlags::MNT_DETACH) {
            first = first.and(Err(cannot("unmount", &point, &e.into())));
        }
    }
    first
}

/// proc(5): the fifth field, with blanks and the like as three octal digits behind a backslash.
fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    let field = |line: &[u8]| line.split(|b| *b == b' ').nth(4).map(unescape);
    mountinfo.split(|b| *b == b'\n').filter_map(field).collect()
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_blanks_in_them() {
        let text =
            b"36 35 98:0 / /var/lib/a\\040b rw - ext3 /dev/root rw\n37 36 0:1 / /var/lib/a\\040b/c rw - tmpfs t rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/var/lib/a b"), PathBuf::from("/var/lib/a b/c")]);
    }
}
