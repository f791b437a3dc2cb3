//! The root file system of a container: its image's layers under one writable directory, by overlayfs.

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change},
};
use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use crate::{
    ids::Ids,
    record::{Dir, Record},
};

/// `/etc/passwd` of a sane image is far below; an insane one shall not fill our memory.
const SMALL_FILE_MAX_BYTES: u64 = 1 << 20;

/// A lowest layer of our own, seen from the directory of layers. See [`make_mount_points`].
const MOUNT_POINTS: &str = "../mount-points";

/// Makes the layer that has what is mounted over in every container. Where an image lacks one of these, it would
/// have to be made in each container's writable directory, which costs time at every start.
pub(crate) fn make_mount_points(images: &Path) -> io::Result<()> {
    let root = images.join("mount-points");
    for dir in ["proc", "dev", "sys", "etc"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for file in ["hosts", "hostname", "resolv.conf"] {
        fs::OpenOptions::new().create(true).append(true).open(root.join("etc").join(file))?;
    }
    // As Docker has it: `df` and `umount` of some images look there.
    match std::os::unix::fs::symlink("/proc/mounts", root.join("etc/mtab")) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Ok(()) | Err(_) => {}
    }
    Ok(())
}

/// Gives the process a mount namespace in which mounts made here stay, while what the host unmounts goes here too.
pub(crate) fn leave_host_mounts() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(())
}

/// Mounts the root file system at `rootfs` in the container's directory.
pub(crate) fn mount_overlay(record: &Record, dir: &Dir, ids: &Ids) -> io::Result<()> {
    // A work directory that was used is not taken again; nothing in it is the container's.
    match fs::remove_dir_all(dir.at("work")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    for name in ["rootfs", "upper", "work"] {
        fs::create_dir_all(dir.at(name))?;
    }
    // The kernel takes one page of options. Short relative names let 128 layers fit in.
    env::set_current_dir(&record.layers_dir)?;
    let layers = record.layers.iter().rev().map(String::as_str);
    let lower = layers.chain([MOUNT_POINTS]).collect::<Vec<_>>().join(":");
    let mut options =
        format!("lowerdir={lower},upperdir={},workdir={}", escape(&dir.at("upper"))?, escape(&dir.at("work"))?);
    if !ids.are_all() {
        // See `opaque_attribute`.
        options.push_str(",userxattr");
    }
    // A device of the host is opened through `/dev` alone, which is the container's own: one that is made anywhere else
    // answers EACCES, whether the device cgroup is there or not.
    let flags = if record.options.privileged { MountFlags::empty() } else { MountFlags::NODEV };
    let mounted = if record.options.durable {
        mount_with(dir, flags, &options)
    } else {
        // Nobody needs the files after a power cut, so they need not be synced at the unmount.
        match mount_with(dir, flags, &format!("{options},volatile")) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EINVAL) => mount_with(dir, flags, &options),
            volatile => volatile,
        }
    };
    env::set_current_dir("/")?;
    mounted
}

/// Before anyone hears of the end: the same directories must not be mounted a second time by the next start.
pub(crate) fn unmount(dir: &Dir) -> io::Result<()> {
    Ok(rustix::mount::unmount(dir.at("rootfs"), UnmountFlags::DETACH)?)
}

/// The attribute by which overlayfs knows that nothing shows through a directory. `trusted` ones are for root of the
/// machine only; in a user namespace overlayfs takes `user` ones, if told so at the mount.
pub(crate) fn opaque_attribute(ids: &Ids) -> &'static str {
    if ids.are_all() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

fn mount_with(dir: &Dir, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    mount("overlay", dir.at("rootfs"), "overlay", flags, options.as_c_str())?;
    Ok(())
}

/// In overlay's options `,`, `:` and `\` part things.
fn escape(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path that is not UTF-8"))?;
    Ok(text.chars().fold(String::new(), |mut out, c| {
        if matches!(c, ',' | ':' | '\\') {
            out.push('\\');
        }
        out.push(c);
        out
    }))
}

/// A file inside, or an empty text if there is none. Symbolic links lead nowhere but inside.
pub(crate) fn read_small(root: &Path, path: &str) -> io::Result<String> {
    let file = match open_inside(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => File::from(fd),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the working directory and those above it, where the image has none.
pub(crate) fn make_directory(dir: &Dir, path: &Path) -> io::Result<()> {
    let root = dir.at("rootfs");
    let mut so_far = PathBuf::from("/");
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let parent = so_far.clone();
        so_far.push(name);
        match open_inside(&root, &so_far, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = open_inside(&root, &parent, OFlags::PATH | OFlags::DIRECTORY)?;
                mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A handle on a path inside of `root`, whatever symbolic links say.
pub(crate) fn open_inside(root: &Path, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let root = openat2(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())?;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?)
}
