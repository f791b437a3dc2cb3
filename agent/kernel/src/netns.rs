//! Network namespaces as files: made, found, entered and deleted.
//!
//! A namespace lives as long as something refers to it. What we make is bind-mounted onto a file, as `ip netns`
//! does, so it outlives the daemon and the next one finds it.

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        stat::stat,
        statfs::{FsType, statfs},
    },
};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

/// NSFS_MAGIC of `linux/magic.h`: the file is a namespace, not what is left of one.
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The namespace of the calling thread; `/proc/self` would be that of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Which namespace it is, however it is reached: the device and inode number of nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

/// Runs `f` in a namespace, on a thread of its own that ends with it: a thread that lives on in the wrong namespace
/// would poison whatever runs on it next.
#[allow(clippy::disallowed_methods, reason = "this is the one place, and the thread is its own")]
pub(crate) fn enter<T: Send>(ns: impl AsFd + Send, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(move || {
        setns(ns, CloneFlags::CLONE_NEWNET)?;
        Ok(f())
    })
}

fn on_a_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match thread::Builder::new().name("netns".into()).spawn_scoped(scope, f)?.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// A handle on the calling thread's namespace.
pub(crate) fn own() -> io::Result<OwnedFd> {
    Ok(fs::File::open(OWN)?.into())
}

/// Opens the namespace at `path`; nothing if there is none, be it that a file is.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    if identity(path)?.is_none() {
        return Ok(None);
    }
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which namespace is at `path`.
pub(crate) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match statfs(path) {
        Ok(found) if found.filesystem_type() == FsType(NSFS_MAGIC) => {}
        Ok(_) | Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    match stat(path) {
        Ok(found) => Ok(Some(Identity(found.st_dev, found.st_ino))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes `directory` a mount of its own whose mounts and unmounts reach other mount namespaces too. Otherwise a
/// mount namespace that was copied from ours keeps every network namespace of that moment alive.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let share = || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL) => {
            mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            Ok(share()?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a namespace at `path`, and gives what `f` gave in it. A namespace that is there stays; a file that is left
/// of one is used.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    if identity(path)?.is_some() {
        return Ok(());
    }
    fs::OpenOptions::new().create(true).append(true).open(path)?;
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    })
}

/// Deletes the namespace at `path` and the file. Whoever is in it stays in it; the kernel ends it after them.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            // There may be several mounts on top of each other, if two of us were at it.
            Ok(()) | Err(Errno::EINTR) => {}
            // No mount, or no file.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names of the namespaces in `directory`, without what is left of others.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|n| n.to_str())
            && identity(&path)?.is_some()
        {
            found.push((name.to_owned(), path.clone()));
        }
    }
    found.sort();
    Ok(found)
}
