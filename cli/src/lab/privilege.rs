//! Who works on a lab: root, or a user who becomes root of a user namespace that is the lab's.
//!
//! In it 0 is the user and nobody else is there, so neither root nor `newuidmap` has to help. What a lab needs root
//! for (namespaces, links, mounts) the kernel grants to the owner of the namespace they belong to. The namespace
//! lives as long as a process of the lab does; whoever comes later joins it by one of them. With none left, a new one
//! does as well: the files are the user's own, and there is nothing else.

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    unistd::{getegid, geteuid},
};
use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use super::{
    host::living,
    layout::{self, Layout, cannot, init_pid},
    process::Process,
};
use crate::failure::{Exit, Failure};

/// Settings by which a machine refuses user namespaces, the value that does, and one that does not.
const SWITCHES: &[(&str, &str, &str)] = &[
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
];

/// Whose the lab is, is who it obeys: its records name processes to be killed, and paths to be removed.
pub(super) fn check_owner(layout: &Layout) -> Result<(), Failure> {
    let dir = layout.dir();
    let owner = match fs::metadata(&dir) {
        Ok(found) => found.uid(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot("look at", &dir, &e)),
    };
    if owner == geteuid().as_raw() {
        return Ok(());
    }
    let message = format!("lab {} in {} is of user {owner}: only that user may touch it", layout.lab(), dir.display());
    Err(Failure::new(Exit::NotAllowed, message))
}

/// Makes of a user the root of the lab's namespace; nothing to do for root. The caller has one thread.
pub(super) fn become_root(layout: &Layout) -> Result<(), Failure> {
    if geteuid().is_root() {
        return Ok(());
    }
    match member(layout)? {
        Some(member) => join(&member).map_err(|e| {
            let message = format!("cannot join the user namespace of lab {}: {e}", layout.lab());
            Failure::new(Exit::NotAllowed, message)
        }),
        None => make().map_err(|e| refused(&e)),
    }
}

/// A process that is in the lab's namespace.
fn member(layout: &Layout) -> Result<Option<Process>, Failure> {
    let hosts = layout::names(&layout.hosts())?.into_iter().map(|name| layout.hosts().join(name));
    for dir in [layout.switch()].into_iter().chain(hosts) {
        if let Some(process) = living(&init_pid(&dir))? {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

#[allow(clippy::disallowed_methods, reason = "in a process of one thread, without an async runtime")]
fn join(member: &Process) -> io::Result<()> {
    let handle = member.open()?.ok_or_else(|| io::Error::other("its last process has just ended"))?;
    Ok(setns(handle, CloneFlags::CLONE_NEWUSER)?)
}

fn make() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // user_namespaces(7): whoever cannot set groups may map their own; otherwise they could drop one that denies.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1\n"))
}

/// What the kernel said, why it may have, and what would do.
fn refused(e: &io::Error) -> Failure {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok();
    Failure::new(Exit::NotAllowed, refusal(e, read))
}

fn refusal(e: &io::Error, sysctl: impl Fn(&str) -> Option<String>) -> String {
    let off = SWITCHES.iter().filter(|(name, off, _)| sysctl(name).is_some_and(|value| value.trim() == *off));
    let off: Vec<String> =
        off.map(|(name, off, on)| format!("{name} is {off}; 'sysctl {name}={on}' by root")).collect();
    let why = match e.raw_os_error().map(Errno::from_raw) {
        _ if !off.is_empty() => format!("{} allows it", off.join(", ")),
        Some(Errno::ENOSPC) => "there are too many of them already, or they are nested too deep".to_owned(),
        Some(Errno::EINVAL | Errno::ENOSYS) => "it was built without them (CONFIG_USER_NS)".to_owned(),
        Some(Errno::EPERM | Errno::EACCES) => {
            "a security module, a seccomp filter (that of a container, say) or a chroot forbids it".to_owned()
        }
        Some(_) | None => "why is not known".to_owned(),
    };
    format!(
        "a lab without root needs a user namespace, and the kernel refuses one ({e}): {why}; or run the command as root"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_setting_that_refuses_and_what_would_do() {
        let said = |errno: Errno, set: &[(&str, &str)]| {
            let sysctl = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| format!("{value}\n"));
            refusal(&errno.into(), sysctl)
        };
        let none = said(Errno::ENOSPC, &[("user.max_user_namespaces", "0")]);
        assert!(none.contains("sysctl user.max_user_namespaces=15000"), "{none}");
        let debian =
            said(Errno::EPERM, &[("user.max_user_namespaces", "999"), ("kernel.unprivileged_userns_clone", "0")]);
        assert!(debian.contains("kernel.unprivileged_userns_clone=1") && !debian.contains("max_user"), "{debian}");
        let nothing = said(Errno::EPERM, &[("kernel.unprivileged_userns_clone", "1")]);
        assert!(nothing.contains("security module") && nothing.contains("as root"), "{nothing}");
    }
}
