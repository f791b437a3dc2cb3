//! What makes a first process's namespaces look like a host: its name, /proc, /sys, and a /run that is lost with the
//! power.

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root, sethostname},
};
use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Where the machine's cgroups wait while /sys is mounted over.
const ASIDE: &str = "/run/cgroup";
/// Where a root of the host's own is put together. What the machine has there no host sees.
const NEW_ROOT: &str = "/run";
/// What of the machine's / a host has of its own.
const OWN: [&str; 3] = ["proc", "run", "sys"];

const NONE: Option<&str> = None;
const HARDENED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// A host with the machine's cgroups, and with all of its files.
pub(super) fn with_cgroups(name: &OsStr) -> io::Result<()> {
    begin(name)?;
    mount_run(Path::new("/run"))?;
    // A new sysfs shows the links of the namespace it was mounted in, and has no cgroups: those are moved over.
    fs::create_dir(ASIDE)?;
    mount(Some("/sys/fs/cgroup"), ASIDE, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(doing("set the cgroups aside"))?;
    mount(NONE, ASIDE, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(doing("keep the cgroups apart"))?;
    // Otherwise the mount table would name every cgroup hierarchy twice. EINVAL: none was mounted.
    match umount2("/sys", MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(e) => return Err(doing("unmount the machine's /sys")(e)),
    }
    mount(Some("sysfs"), "/sys", Some("sysfs"), HARDENED, NONE).map_err(doing("mount /sys"))?;
    mount(Some(ASIDE), "/sys/fs/cgroup", NONE, MsFlags::MS_MOVE, NONE).map_err(doing("put the cgroups back"))?;
    fs::remove_dir(ASIDE)?;
    mount(Some("proc"), "/proc", Some("proc"), HARDENED, NONE).map_err(doing("mount /proc"))?;
    chdir("/").map_err(doing("change to /"))
}

/// A host without cgroups, since its root may not make any. The machine's /sys cannot be unmounted in a user
/// namespace, and as long as its cgroups are in the mount table, container runtimes take them for the host's. So the
/// host gets a new root, which has all that the machine's has except [`OWN`].
pub(super) fn without_cgroups(name: &OsStr) -> io::Result<()> {
    let at = |name: &str| PathBuf::from(NEW_ROOT).join(name);
    begin(name)?;
    let hardly = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), NEW_ROOT, Some("tmpfs"), hardly, Some("mode=755")).map_err(doing("mount a root"))?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if !OWN.iter().any(|own| entry.file_name() == *own) {
            show(&entry, &Path::new(NEW_ROOT).join(entry.file_name()))?;
        }
    }
    for own in OWN {
        fs::create_dir(at(own))?;
    }
    mount_run(&at("run"))?;
    // Both while the machine's can be seen: whoever sees none of a kind may mount none in a user namespace.
    for (kind, place) in [("sysfs", "sys"), ("proc", "proc")] {
        mount(Some(kind), &at(place), Some(kind), HARDENED, NONE).map_err(|e| match e {
            Errno::EPERM => io::Error::other(format!(
                "cannot mount /{place}: without root the kernel allows it only where all of the machine's /{place} can be \
                 seen, and something is mounted over a part of it (as in most containers)"
            )),
            e => doing(&format!("mount /{place}"))(e),
        })?;
    }
    // Empty, and so of cgroup version 1 with no controller: what needs one says so.
    mount(Some("tmpfs"), &at("sys/fs/cgroup"), Some("tmpfs"), HARDENED | MsFlags::MS_RDONLY, Some("mode=755"))
        .map_err(doing("mount /sys/fs/cgroup"))?;
    chdir(NEW_ROOT).map_err(doing("change to the new root"))?;
    // pivot_root(2): the old root is then on top of the new one, and goes.
    pivot_root(".", ".").map_err(doing("change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(doing("unmount the machine's root"))?;
    chdir("/").map_err(doing("change to /"))
}

fn begin(name: &OsStr) -> io::Result<()> {
    sethostname(name).map_err(doing("set the host's name"))?;
    // The machine's later unmounts reach hosts, so that they keep nothing busy; never the other way.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).map_err(doing("detach from the machine's mounts"))
}

fn mount_run(at: &Path) -> io::Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
        .map_err(doing("mount /run"))
}

/// Shows what is in the machine's / in the new root.
fn show(entry: &fs::DirEntry, place: &Path) -> io::Result<()> {
    let (kind, path) = (entry.file_type()?, entry.path());
    if kind.is_symlink() {
        return symlink(fs::read_link(&path)?, place);
    }
    if kind.is_dir() {
        fs::create_dir(place)?;
    } else {
        fs::File::create(place)?;
    }
    mount(Some(&path), place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(doing(&format!("show the machine's {} in the host", path.display())))
}

fn doing(what: &str) -> impl Fn(Errno) -> io::Error {
    move |e| io::Error::other(format!("cannot {what}: {}", e.desc()))
}
