//! Unpacking one layer: an archive from anywhere becomes a directory that overlayfs can lie on another.
//!
//! Archives mark what a layer removes by files named `.wh.NAME`; overlayfs by character devices 0/0 and an
//! attribute on directories. Nothing an archive says may lead out of the directory, whatever its names and links.

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, lsetxattr, mknodat},
    io::Errno,
};
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    fs,
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Entry, EntryType};

use super::bounds::{Bounds, Unpacked, check_disk};
use crate::{
    Error,
    ids::Ids,
    rootfs::{opaque_attribute, open_inside},
};

const WHITEOUT: &str = ".wh.";
/// Other files of the file system that all this comes from; they mean nothing here.
const AUFS: &str = ".wh..wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// Reads an archive that is plain or compressed by gzip or zstd, told by how it begins.
pub(crate) fn decompress<'a>(archive: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut archive = BufReader::with_capacity(64 << 10, archive);
    let mut magic = [0_u8; 4];
    let mut got = 0;
    while got < magic.len() {
        match archive.read(&mut magic[got..])? {
            0 => break,
            n => got += n,
        }
    }
    let whole = io::Cursor::new(magic[..got].to_vec()).chain(archive);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Hashes what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    sha256: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, sha256: Sha256::new() }
    }

    /// Reads to the end; the digest of all.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(name(self.sha256))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..n]);
        Ok(n)
    }
}

/// `sha256:…`
pub(crate) fn digest(bytes: &[u8]) -> String {
    name(Sha256::new_with_prefix(bytes))
}

fn name(sha256: Sha256) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha256.finalize()))
}

/// Unpacks into `root`, which is empty; the digest of the uncompressed archive.
pub(crate) fn unpack(archive: impl Read, root: &Path, layer: &str, ids: &Ids) -> Result<String, Error> {
    let fail = |entry: &str, source| Error::Unpack { layer: layer.to_owned(), entry: entry.to_owned(), source };
    check_disk(root).map_err(|e| fail("the beginning", e))?;
    let bounds = RefCell::new(Bounds::new(root));
    let packed = bounds.borrow().packed(archive);
    let inner = decompress(packed).map_err(|e| fail("the beginning", e))?;
    let mut hashing = Hashing::new(Unpacked { inner, bounds: &bounds });
    let mut archive = Archive::new(&mut hashing);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(!ids.are_roots_alone());
    // Not all that are in the archive: see `is_kept`.
    archive.set_unpack_xattrs(false);
    archive.set_overwrite(true);
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(|e| fail("the beginning", e))? {
        let mut entry = entry.map_err(|e| fail("a damaged entry", e))?;
        let path = entry.path().map_err(|e| fail("a damaged name", e))?.into_owned();
        let mut unpack = || {
            bounds.borrow_mut().file()?;
            unpack_entry(&mut entry, &path, root, ids)?;
            if entry.header().entry_type().is_dir() {
                directories.push((path.clone(), entry.header().mtime()?));
            }
            Ok(())
        };
        unpack().map_err(|e| fail(&path.display().to_string(), e))?;
    }
    // In the end: each entry that is made in a directory changes its time.
    for (path, mtime) in directories {
        give_time(root, &path, mtime).map_err(|e| fail(&path.display().to_string(), e))?;
    }
    hashing.finish().map_err(|e| fail("the end", e))
}

/// A directory that something else took the place of since is left alone.
fn give_time(root: &Path, path: &Path, mtime: u64) -> io::Result<()> {
    let names: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
    let names = if names.as_os_str().is_empty() { Path::new(".") } else { &names };
    match open_inside(root, names, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
        Ok(directory) => Ok(rustix::fs::futimens(directory, &times(mtime)?)?),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => Ok(()),
        Err(e) => Err(e),
    }
}

fn times(mtime: u64) -> io::Result<Timestamps> {
    let tv_sec = i64::try_from(mtime).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let time = Timespec { tv_sec, tv_nsec: 0 };
    Ok(Timestamps { last_access: time, last_modification: time })
}

/// In an archive's extended headers: the attribute of that name.
const XATTR: &str = "SCHILY.xattr.";

/// What an image may say of its files: capabilities of programs, access lists, and what is the user's. The rest is
/// the kernel's or this host's: `trusted.overlay.redirect` and `user.overlay.metacopy` of an image would have overlayfs
/// show other files than those of its layers.
fn is_kept(name: &str) -> bool {
    let acl = ["system.posix_acl_access", "system.posix_acl_default"].contains(&name);
    name == "security.capability" || acl || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// After the owner, whose change takes a program's capabilities.
fn give_attributes<R: Read>(entry: &mut Entry<'_, R>, path: &Path, root: &Path) -> io::Result<()> {
    let mut wanted = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let name = extension.key().ok().and_then(|key| key.strip_prefix(XATTR)).filter(|name| is_kept(name));
        wanted.extend(name.map(|name| (name.to_owned(), extension.value_bytes().to_vec())));
    }
    let Some(file_name) = path.file_name().filter(|_| !wanted.is_empty()) else { return Ok(()) };
    let place = parent_inside(root, path)?.join(file_name);
    for (name, value) in wanted {
        match lsetxattr(&place, name.as_str(), &value, XattrFlags::empty()) {
            // The file system has none, or a user namespace may not say so.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn unpack_entry<R: Read>(entry: &mut Entry<'_, R>, path: &Path, root: &Path, ids: &Ids) -> io::Result<()> {
    let file_name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if file_name == OPAQUE {
        let parent = parent_inside(root, path)?;
        lsetxattr(&parent, opaque_attribute(ids), b"y", XattrFlags::empty())?;
        return Ok(());
    }
    if file_name.starts_with(AUFS) {
        return Ok(());
    }
    if let Some(hidden) = file_name.strip_prefix(WHITEOUT) {
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a whiteout of nothing"));
        }
        return node(&parent_inside(root, path)?.join(hidden), FileType::CharacterDevice, 0o600, 0);
    }
    match entry.header().entry_type() {
        // Nobody says which devices of the host an image may have. Containers get a /dev of their own.
        EntryType::Char | EntryType::Block => return Ok(()),
        EntryType::Fifo => {}
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Directory => {
            unpack_plain(entry, path, root)?;
            return give_attributes(entry, path, root);
        }
        _ => return unpack_plain(entry, path, root),
    }
    let header = entry.header();
    let (mode, owner) = (header.mode()?, (id(header.uid()?)?, id(header.gid()?)?));
    let place = parent_inside(root, path)?.join(file_name);
    let times = times(header.mtime()?)?;
    node(&place, FileType::Fifo, mode, 0)?;
    if !ids.are_roots_alone() {
        std::os::unix::fs::lchown(&place, Some(owner.0), Some(owner.1))?;
    }
    rustix::fs::utimensat(CWD, &place, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn unpack_plain<R: Read>(entry: &mut Entry<'_, R>, path: &Path, root: &Path) -> io::Result<()> {
    // Something of another kind may be there from earlier in the same archive; the later one counts.
    if !entry.header().entry_type().is_dir()
        && let Some(name) = path.file_name()
        && path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir | Component::RootDir))
    {
        let place = parent_inside(root, path)?.join(name);
        match fs::symlink_metadata(&place) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(&place)?,
            Ok(_) => fs::remove_file(&place)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if entry.unpack_in(root)? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the name leads out of the layer"))
    }
}

fn id(id: u64) -> io::Result<u32> {
    u32::try_from(id).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// The directory an entry lies in, made if it is not there, with no symbolic link on the way.
fn parent_inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut at = root.to_owned();
    for component in path.parent().unwrap_or(Path::new("")).components() {
        match component {
            Component::Normal(name) => at.push(name),
            Component::CurDir | Component::RootDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the name leads out of the layer"));
            }
        }
        match fs::symlink_metadata(&at) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return follow_inside(root, path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}

/// A link on the way is taken if what it leads to is a directory inside.
fn follow_inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let relative: PathBuf =
        path.parent().into_iter().flat_map(Path::components).filter(|c| matches!(c, Component::Normal(_))).collect();
    let (real, real_root) = (fs::canonicalize(root.join(relative))?, fs::canonicalize(root)?);
    if real.starts_with(&real_root) && real.is_dir() {
        Ok(real)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a symbolic link on the way leads out of the layer"))
    }
}

fn node(place: &Path, kind: FileType, mode: u32, device: u64) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(place)?,
        Ok(_) => fs::remove_file(place)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    mknodat(CWD, place, kind, Mode::from_raw_mode(mode & 0o7777), device)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    use tar::{Builder, Header};

    /// A device, a file of user 42 that is setuid, one that hides another, and a directory that nothing shows through.
    fn archive() -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        let entries: [(&str, EntryType); 5] = [
            ("null", EntryType::Char),
            ("su", EntryType::Regular),
            (".wh.gone", EntryType::Regular),
            ("opaque", EntryType::Directory),
            ("opaque/.wh..wh..opq", EntryType::Regular),
        ];
        for (path, kind) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_size(0);
            header.set_uid(42);
            header.set_gid(42);
            if kind == EntryType::Char {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            tar.append_data(&mut header, path, io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn devices_are_left_out_and_in_a_user_namespace_what_only_root_of_the_machine_may_say() {
        for (ids, owner, opaque) in
            [(Ids::all(), 42, "trusted.overlay.opaque"), (Ids::roots_alone(), 0, "user.overlay.opaque")]
        {
            let dir = tempfile::tempdir().unwrap();
            unpack(&archive()[..], dir.path(), "test", &ids).unwrap();
            let found = |name: &str| fs::symlink_metadata(dir.path().join(name));
            let su = found("su").unwrap();
            assert_eq!((su.uid(), su.gid(), su.mode() & 0o7777), (owner, owner, 0o4755), "{ids:?}");
            assert!(found("null").is_err(), "{ids:?}");
            assert!(found("gone").unwrap().file_type().is_char_device(), "overlayfs's sign in both cases");
            let mut value = [0; 8];
            let place = dir.path().join("opaque");
            assert_eq!(rustix::fs::lgetxattr(&place, opaque, &mut value), Ok(1), "{ids:?}");
        }
    }

    #[test]
    fn what_overlayfs_takes_for_its_own_is_not_an_images_to_say() {
        let mut tar = Builder::new(Vec::new());
        let mut capability = vec![1, 0, 0, 2];
        capability.resize(20, 0);
        let attributes: [(&str, &[u8]); 6] = [
            ("trusted.overlay.redirect", b"/etc"),
            ("trusted.mine", b"x"),
            ("user.overlay.opaque", b"y"),
            ("user.overlay.metacopy", b""),
            ("user.mine", b"kept"),
            ("security.capability", &capability),
        ];
        let names: Vec<String> = attributes.iter().map(|(name, _)| format!("{XATTR}{name}")).collect();
        for (path, kind) in [("file", EntryType::Regular), ("dir", EntryType::Directory)] {
            let has = |name: &str| kind == EntryType::Regular || name != "SCHILY.xattr.security.capability";
            let mut pax = Vec::new();
            for (name, (_, value)) in names.iter().zip(&attributes).filter(|(name, _)| has(name)) {
                // "LENGTH NAME=VALUE\n", and the length counts itself.
                let rest = name.len() + value.len() + 3;
                let length = (rest + 1..).find(|n| n.to_string().len() + rest == *n).unwrap();
                pax.extend(format!("{length} {name}=").into_bytes());
                pax.extend_from_slice(value);
                pax.push(b'\n');
            }
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(pax.len() as u64);
            tar.append_data(&mut header, "pax", pax.as_slice()).unwrap();
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_mtime(1_000_000_000);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, path, io::empty()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        unpack(&tar.into_inner().unwrap()[..], dir.path(), "test", &Ids::all()).unwrap();
        for (path, kept) in [("file", &["security.capability", "user.mine"][..]), ("dir", &["user.mine"])] {
            let mut names = [0; 512];
            let length = rustix::fs::llistxattr(dir.path().join(path), &mut names).unwrap();
            let mut names: Vec<&str> = str::from_utf8(&names[..length]).unwrap().split_terminator('\0').collect();
            names.retain(|name| *name != "security.selinux");
            names.sort_unstable();
            assert_eq!(names, kept, "{path}");
            assert_eq!(fs::metadata(dir.path().join(path)).unwrap().mtime(), 1_000_000_000, "{path}");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        // 64 MiB of nothing in 64 KiB; it is the first bytes past the free ones that end it.
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut header = Header::new_gnu();
        header.set_size(64 << 20);
        header.set_path("bomb").unwrap();
        header.set_mode(0o644);
        header.set_cksum();
        io::Write::write_all(&mut packed, header.as_bytes()).unwrap();
        io::copy(&mut io::repeat(0).take(64 << 20), &mut packed).unwrap();
        let packed = packed.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let refused = unpack(&packed[..], dir.path(), "bomb", &Ids::all()).unwrap_err();
        assert!(crate::supervise::chain(&refused).contains("100 times its size"), "{refused:?}");
        let written = fs::metadata(dir.path().join("bomb")).unwrap().len();
        assert!(written <= 9 << 20, "{written}");
    }
}
