//! Noticing that supervisors ended, all of them by one inotify watch.
//!
//! A supervisor keeps `live/ID` open for writing and locked. When it ends, however it ends, the kernel closes the
//! file and says so.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::{
    fs::{File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};
use tokio::io::unix::AsyncFd;

/// Room for the names of some hundred supervisors.
const BUFFER_BYTES: usize = 16 << 10;

/// The directory of locks.
#[derive(Debug, Clone)]
pub(crate) struct Locks(pub(crate) PathBuf);

impl Locks {
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Takes the lock that the supervisor is to inherit. `None` if another one lives.
    pub(crate) fn take(&self, id: &str) -> io::Result<Option<File>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path(id))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether the supervisor lives. Opens for reading, so that looking is not taken for an end.
    pub(crate) fn is_held(&self, id: &str) -> io::Result<bool> {
        let file = match open(self.path(id), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// What was noticed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    Ended(String),
    /// More happened than the kernel could tell: look at all.
    TooMuch,
}

#[derive(Debug)]
pub(crate) struct Exits(AsyncFd<OwnedFd>);

impl Exits {
    pub(crate) fn watch(locks: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, locks, WatchFlags::CLOSE_WRITE)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; OwnedFd's cannot"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self(fd))
    }

    pub(crate) async fn next(&mut self) -> io::Result<Vec<Noticed>> {
        loop {
            let mut guard = self.0.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
            let mut reader = inotify::Reader::new(self.0.get_ref(), &mut buffer);
            let mut noticed = Vec::new();
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => noticed.push(Noticed::TooMuch),
                    Ok(event) => noticed.extend(
                        event.file_name().and_then(|n| n.to_str().ok()).map(|id| Noticed::Ended(id.to_owned())),
                    ),
                    Err(rustix::io::Errno::WOULDBLOCK) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
                if reader.is_buffer_empty() && !noticed.is_empty() {
                    break;
                }
            }
            if noticed.is_empty() {
                guard.clear_ready();
            } else {
                return Ok(noticed);
            }
        }
    }
}
