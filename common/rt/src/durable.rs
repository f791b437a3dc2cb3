//! Small files that survive a power cut: replaced whole, removed for good, or moved aside when they cannot be read.
//!
//! - A reader sees the old content or the new one, never half of either, also after a power cut.
//! - When a function returns `Ok`, the change is on disk: the data and the directory entry are synced.
//! - Writers of the same directory take turns, in this process and in others: two of them never mix their bytes in
//!   one temporary file.
//! - **A failed fsync is final for the process.** The kernel reports a writeback error once and then forgets the dirty
//!   pages (<https://lwn.net/Articles/752063/>): a later `fsync` on the same file returns 0 although the data is lost.
//!   So the first failure is kept, and each later call fails with it, on whichever thread. The daemon ends then
//!   ([`failed`]); its successor reads from the disk what is really there.
//! - What cannot be read is never deleted: [`set_aside`] keeps it for an operator.

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use time::OffsetDateTime;
use tokio::sync::watch;

/// These files hold keys, and the environment of containers with passwords in it: no other user reads any of them.
const MODE: u32 = 0o600;
/// Two things of one name can be set aside in one second; more than this is a loop.
const SAME_SECOND: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Error {
    /// What the kernel said. `StorageFull` can pass; see [`failed`] for what cannot.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    pub fn into_io(self) -> io::Error {
        io::Error::new(self.kind(), self)
    }
}

/// The content of a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail("read", path)(e)),
    }
}

/// Makes `bytes` the content of the file, which may or may not exist.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let dir = Locked::of(path)?;
    let new = beside(path, ".new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(MODE).open(&new).map_err(fail("create", &new))?;
    // `mode` says nothing about a file that a writer left behind when it died.
    file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(fail("protect", &new))?;
    file.write_all(bytes).map_err(fail("write", &new))?;
    sync(&file, &new)?;
    fs::rename(&new, path).map_err(fail("replace", path))?;
    dir.sync()
}

/// Removes the file, if there is one: it does not come back after a power cut.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Locked::of(path)?.sync(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(fail("remove", path)(e)),
    }
}

/// Creates the directory and those above it; each new one is synced into the one above.
pub fn create_dir(path: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail("create the directory", dir)(e)),
            Ok(()) | Err(_) => Locked::of(dir)?.sync()?,
        }
    }
    Ok(())
}

/// Moves a file or a directory that cannot be read out of the way, to `NAME.unreadable-TIME` beside it, and returns
/// where it is. The caller reports that.
pub fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    set_aside_in(path, parent(path))
}

/// Like [`set_aside`], but into another directory of the same file system, which is created if need be. For places in
/// which everything is taken for something.
pub fn set_aside_in(path: &Path, dir: &Path) -> Result<PathBuf, Error> {
    create_dir(dir)?;
    let now = OffsetDateTime::now_utc();
    let time = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    );
    let place = |n: u32| {
        let suffix = if n == 0 { format!(".unreadable-{time}") } else { format!(".unreadable-{time}-{n}") };
        dir.join(beside(path, &suffix).file_name().unwrap_or_default())
    };
    for n in 0..SAME_SECOND {
        let to = place(n);
        match renameat_with(CWD, path, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                Locked::of(&to)?.sync()?;
                if parent(path) != dir {
                    Locked::of(path)?.sync()?;
                }
                return Ok(to);
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(fail("set aside", path)(e.into())),
        }
    }
    Err(fail("set aside", path)(io::ErrorKind::AlreadyExists.into()))
}

/// Syncs a file that was written. The only way to call fsync: the result cannot be forgotten by another thread.
pub fn sync(file: &File, path: &Path) -> Result<(), Error> {
    final_if_failed(path, file.sync_all())
}

/// Completes, with the reason, once an fsync of this process has failed. The process has to end then.
pub async fn failed() -> String {
    let mut failure = FAILURE.subscribe();
    match failure.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        // The sender is static.
        Err(_) => std::future::pending().await,
    }
}

static FAILURE: std::sync::LazyLock<watch::Sender<Option<String>>> = std::sync::LazyLock::new(Default::default);

/// The rule about a failed fsync, for whatever was synced.
fn final_if_failed(path: &Path, synced: io::Result<()>) -> Result<(), Error> {
    if let Some(first) = FAILURE.borrow().clone() {
        return Err(fail("sync", path)(io::Error::other(format!("an earlier sync failed: {first}"))));
    }
    let Err(error) = synced else { return Ok(()) };
    // No space: the kernel refuses before it has dropped anything, and the temporary file is not renamed. It can pass.
    if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let first = format!("cannot sync {}: {error}", path.display());
        FAILURE.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(first);
            is_first
        });
    }
    Err(fail("sync", path)(error))
}

/// The directory that holds a path, locked against other writers until dropped.
struct Locked {
    dir: File,
    path: PathBuf,
}

impl Locked {
    fn of(path: &Path) -> Result<Self, Error> {
        let path = parent(path).to_owned();
        let dir = File::open(&path).map_err(fail("open the directory", &path))?;
        while let Err(e) = flock(&dir, FlockOperation::LockExclusive) {
            if e != rustix::io::Errno::INTR {
                return Err(fail("lock the directory", &path)(e.into()));
            }
        }
        Ok(Self { dir, path })
    }

    fn sync(self) -> Result<(), Error> {
        sync(&self.dir, &self.path)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A child that was forked meanwhile has the descriptor too, so closing ours would not unlock.
        let _ = flock(&self.dir, FlockOperation::Unlock);
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// `path` with `suffix` behind its whole name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn fail(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    #[test]
    fn a_file_is_replaced_whole_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read(&path).unwrap(), None);
        // A writer that died left its temporary file, readable by all and longer than what comes.
        fs::write(dir.path().join("a.json.new"), "something that is longer").unwrap();
        for text in ["first", "2"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), text.as_bytes());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn two_writers_of_one_path_never_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let texts: Vec<String> = (0..4).map(|n| n.to_string().repeat(10_000 * (n + 1))).collect();
        let barrier = Barrier::new(texts.len());
        thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..20 {
                        replace(&path, text.as_bytes()).unwrap();
                        let now = String::from_utf8(read(&path).unwrap().unwrap()).unwrap();
                        assert!(texts.contains(&now), "{} bytes of {:?}", now.len(), now.get(..1));
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_set_aside_is_kept_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("assignment");
        let mut places = Vec::new();
        for text in ["one", "two", "three"] {
            fs::write(&path, text).unwrap();
            places.push((set_aside(&path).unwrap(), text));
            assert!(!path.exists());
        }
        for (place, text) in places {
            assert_eq!(fs::read_to_string(&place).unwrap(), text);
            assert!(place.file_name().unwrap().to_str().unwrap().starts_with("assignment.unreadable-2"), "{place:?}");
        }
        let container = dir.path().join("task-1");
        fs::create_dir_all(container.join("upper")).unwrap();
        let place = set_aside_in(&container, &dir.path().join("aside/here")).unwrap();
        assert!(place.starts_with(dir.path().join("aside/here")) && place.join("upper").is_dir());
        let missing = set_aside(&path).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// nextest gives each test a process of its own, and this one spoils its process.
    #[tokio::test]
    async fn a_failed_fsync_is_final_for_the_process() {
        if std::env::var_os("NEXTEST").is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace(&path, b"old").unwrap();
        let full = final_if_failed(&path, Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        replace(&path, b"a full disk can get space again").unwrap();
        final_if_failed(Path::new("/x/log"), Err(rustix::io::Errno::IO.into())).unwrap_err();
        let later = thread::spawn(move || replace(&path, b"new")).join().unwrap().unwrap_err();
        assert!(std::error::Error::source(&later).unwrap().to_string().contains("/x/log"), "{later:?}");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"a full disk can get space again");
        assert!(failed().await.contains("/x/log"));
    }
}
