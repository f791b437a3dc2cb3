//! Named volumes: directories that outlive containers.

use rustix::{
    fs::{AtFlags, CWD, FileType, FlockOperation, Gid, OFlags, Timespec, Timestamps, Uid, flock},
    io::Errno,
};
use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use crate::{Error, rootfs};

/// Where a volume is filled before its content is put into place, and where it goes to be removed.
const ASIDE: &str = ".aside";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Where it is on this host.
    pub path: PathBuf,
    /// Containers that it is mounted in, whether they run or not.
    pub used_by: Vec<String>,
}

/// A name is that of a directory.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let fits = (1..=255).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(Error::VolumeName(name.to_owned())) }
}

/// Makes the directory of all volumes, and takes away what an earlier daemon was about to.
pub(crate) fn open(dir: &Path) -> Result<(), Error> {
    let aside = dir.join(ASIDE);
    match fs::remove_dir_all(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("empty", aside)(e)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(dir).map_err(Error::file("make the directory", dir))
}

pub(crate) fn make(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    check(name)?;
    let path = dir.join(name);
    fs::create_dir_all(&path).map_err(Error::file("make the volume", &path))?;
    Ok(path)
}

/// All names, in order.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read", dir))? {
        let entry = entry.map_err(Error::file("read", dir))?;
        names.extend(entry.file_name().into_string().ok().filter(|name| check(name).is_ok()));
    }
    names.sort();
    Ok(names)
}

/// Puts a volume where nobody finds it; it is removed from disk when that is dropped.
pub(crate) fn remove(dir: &Path, name: &str) -> Result<tempfile::TempDir, Error> {
    check(name)?;
    let path = dir.join(name);
    let aside = aside(dir).map_err(Error::file("make a directory in", dir))?;
    match fs::rename(&path, aside.path().join(name)) {
        Ok(()) => Ok(aside),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoSuchVolume(name.to_owned())),
        Err(e) => Err(Error::file("remove the volume", path)(e)),
    }
}

fn aside(dir: &Path) -> io::Result<tempfile::TempDir> {
    let aside = dir.join(ASIDE);
    fs::create_dir_all(&aside)?;
    tempfile::tempdir_in(aside)
}

/// Gives an empty volume the content, owner and mode that the image has at `target`.
pub(crate) fn fill(dir: &Path, name: &str, rootfs: &Path, target: &Path) -> io::Result<()> {
    let volume = dir.join(name);
    // Two containers that begin with the same new volume fill it once.
    let lock = File::open(&volume)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if fs::read_dir(&volume)?.next().is_some() {
        return Ok(());
    }
    let image = match rootfs::open_inside(rootfs, target, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(fd) => fd,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e),
    };
    // The path of the handle: no symbolic link of the image leads away from it.
    let image = PathBuf::from(format!("/proc/self/fd/{}/.", image.as_raw_fd()));
    let new = aside(dir)?;
    copy_below(&image, new.path())?;
    // Whole or not at all, but for a power cut between two of these.
    for entry in fs::read_dir(new.path())? {
        let entry = entry?;
        fs::rename(entry.path(), volume.join(entry.file_name()))?;
    }
    give_likeness(&fs::metadata(&image)?, &volume)
}

fn copy_below(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy_below(from, to)?;
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_fifo() {
        rustix::fs::mknodat(CWD, to, FileType::Fifo, metadata.mode().into(), 0)?;
    } else {
        // A device or a socket. Nobody listens at the one, and the other is the host's.
        return Ok(());
    }
    copy_attributes(from, to)?;
    give_likeness(&metadata, to)
}

/// Extended attributes hold the capabilities of programs. Where the file system has none, there are none to lose.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0_u8; XATTR_NAMES_MAX_BYTES];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut value = vec![0_u8; XATTR_MAX_BYTES];
    for name in
        names[..length].split(|b| *b == 0).filter(|name| name.starts_with(b"security.") || name.starts_with(b"user."))
    {
        let length = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        rustix::fs::lsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// The kernel's own limits, xattr(7).
const XATTR_NAMES_MAX_BYTES: usize = 64 << 10;
const XATTR_MAX_BYTES: usize = 64 << 10;

/// Owner, mode and time. The owner first: a change of owner takes the set-user-id bit.
fn give_likeness(metadata: &Metadata, to: &Path) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, PermissionsExt::from_mode(metadata.mode() & 0o7777))?;
    }
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_is_filled_and_one_with_content_is_left_alone() {
        let host = tempfile::tempdir().unwrap();
        let (volumes, image) = (host.path().join("volumes"), host.path().join("image"));
        fs::create_dir_all(image.join("srv/data/below")).unwrap();
        fs::write(image.join("srv/data/below/file"), "first").unwrap();
        fs::set_permissions(image.join("srv/data/below/file"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", image.join("srv/data/link")).unwrap();
        open(&volumes).unwrap();
        make(&volumes, "v").unwrap();

        fill(&volumes, "v", &image, Path::new("/srv/data")).unwrap();
        assert_eq!(fs::read_to_string(volumes.join("v/below/file")).unwrap(), "first");
        assert_eq!(fs::metadata(volumes.join("v/below/file")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_link(volumes.join("v/link")).unwrap(), Path::new("/etc/passwd"));

        fs::write(volumes.join("v/below/file"), "second").unwrap();
        fill(&volumes, "v", &image, Path::new("/srv/data")).unwrap();
        assert_eq!(fs::read_to_string(volumes.join("v/below/file")).unwrap(), "second");

        make(&volumes, "other").unwrap();
        fill(&volumes, "other", &image, Path::new("/not/there")).unwrap();
        assert_eq!(names(&volumes).unwrap(), ["other", "v"]);
        drop(remove(&volumes, "v").unwrap());
        assert!(matches!(remove(&volumes, "v"), Err(Error::NoSuchVolume(_))));
        assert_eq!(names(&volumes).unwrap(), ["other"]);
    }

    #[test]
    fn an_image_cannot_have_a_volume_filled_from_the_host() {
        let host = tempfile::tempdir().unwrap();
        let (volumes, image) = (host.path().join("volumes"), host.path().join("image"));
        fs::create_dir_all(&image).unwrap();
        fs::create_dir_all(host.path().join("secret/inner")).unwrap();
        symlink(host.path().join("secret"), image.join("data")).unwrap();
        open(&volumes).unwrap();
        make(&volumes, "v").unwrap();
        fill(&volumes, "v", &image, Path::new("/data")).unwrap();
        assert_eq!(fs::read_dir(volumes.join("v")).unwrap().count(), 0);
    }
}
