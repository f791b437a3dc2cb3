//! The files that log, vote and snapshots are kept in, behind a trait: the real ones ([`Os`]), and in a simulation
//! model files that lose unsynced writes in any subset, tear and flip.
//!
//! What an implementation promises, and no more:
//! - A write is visible to every reader at once. It survives a power cut only after a later [`File::sync`] of that
//!   file returned `Ok`. Without one, any subset of the 512-byte sectors of the writes since the last sync may survive.
//! - A created, renamed or removed name survives a power cut only after a later [`Files::sync_names`] returned `Ok`.
//! - A rename is atomic: after a power cut the name leads to the old file or to the new one, whole.
//! - A failed sync is final for the process ([`Files::failure`]): the kernel reports it once, and then forgets the
//!   pages that it could not write (errseq, "fsyncgate").

use futures::future::BoxFuture;
use std::{fmt, io, sync::Arc};

use crate::rt::watch;

mod os;

pub use os::Os;

/// One directory without subdirectories. All calls block.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// The names of the files, in order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file that is there, to read and to write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// A new and empty file. One of this name that is there is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Replaces `to`, if it is there. Handles of what was `to` go on reading it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Handles of the file go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, rename and removal before it durable.
    fn sync_names(&self) -> io::Result<()>;

    /// What the file system has in all, and what of that can still be written.
    fn space(&self) -> io::Result<Space>;

    /// Once for all handles on this directory, and for the life of the process.
    fn failure(&self) -> Failure;

    /// Runs what blocks: on a thread for that in production, in place in a simulation (which may let time pass first).
    fn work(&self, job: Job) -> BoxFuture<'static, ()>;
}

/// What went wrong first, for good: of a directory the first failed sync. Clones are the same.
#[derive(Debug, Clone)]
pub struct Failure(Arc<watch::Sender<Option<String>>>);

impl Default for Failure {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Failure {
    pub(crate) fn note(&self, why: String) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(why);
            is_first
        });
    }

    pub fn get(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Resolves when it has happened, in whichever thread.
    pub(crate) async fn happened(&self) -> String {
        let mut noted = self.0.subscribe();
        loop {
            let first = noted.borrow_and_update().clone();
            if let Some(why) = first {
                return why;
            }
            if noted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

pub type Job = Box<dyn FnOnce() + Send>;

/// An open file. All calls block.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads up to the buffer's length; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it, beyond the end too; what is between is zero.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    fn size(&self) -> io::Result<u64>;

    /// Makes the file at least so long, with space for all of it: a write below this size does not fail for a full
    /// disk. New bytes are zero.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Makes every write before it durable.
    fn sync(&self) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// Runs what blocks through [`Files::work`] and returns its result.
pub(crate) async fn blocking<T: Send + 'static>(
    files: &Arc<dyn Files>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (tx, rx) = futures::channel::oneshot::channel();
    files
        .work(Box::new(move || {
            // Nobody waits for it any more if this fails.
            let _ = tx.send(work());
        }))
        .await;
    rx.await.unwrap_or_else(|_| Err(io::Error::other("what blocks was not run to its end")))
}
