//! The files, with one rule added: after one failed sync nothing is written or synced any more, by any thread.
//!
//! The kernel reports a failed write-back to one caller and then forgets it: the next fdatasync returns `Ok` although
//! the pages are lost. So another thread's success after that failure must not acknowledge anything.

use std::{io, sync::Arc};

use crate::files::{self, Failure, File, Files, Space};

/// Clones are the same directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    files: Arc<dyn Files>,
    failure: Failure,
}

/// An open file of it.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    file: Arc<dyn File>,
    failure: Failure,
}

fn sound(failure: &Failure) -> io::Result<()> {
    match failure.get() {
        None => Ok(()),
        Some(why) => Err(io::Error::other(format!("nothing is written after a sync that failed: {why}"))),
    }
}

fn noted<T>(failure: &Failure, done: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &done {
        tracing::error!(%error, "a sync has failed: what was written before it may be lost");
        failure.note(error.to_string());
    }
    done
}

impl Disk {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        let failure = files.failure();
        Self { files, failure }
    }

    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    pub(crate) fn open(&self, name: &str) -> io::Result<Handle> {
        Ok(self.handle(self.files.open(name)?))
    }

    pub(crate) fn create(&self, name: &str) -> io::Result<Handle> {
        sound(&self.failure)?;
        Ok(self.handle(self.files.create(name)?))
    }

    fn handle(&self, file: Arc<dyn File>) -> Handle {
        Handle { file, failure: self.failure.clone() }
    }

    /// Durable when it returns.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        sound(&self.failure)?;
        self.files.rename(from, to)?;
        noted(&self.failure, self.files.sync_names())
    }

    pub(crate) fn sync_names(&self) -> io::Result<()> {
        sound(&self.failure)?;
        noted(&self.failure, self.files.sync_names())
    }

    /// Not durable: what is removed may be back after a power cut.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        sound(&self.failure)?;
        self.files.remove(name)
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        self.files.space()
    }

    /// Resolves when a sync has failed. Whoever holds the disk must end then: nothing more is written here.
    pub(crate) async fn failed(&self) -> String {
        self.failure.happened().await
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.failure.get().is_none()
    }

    /// Runs what blocks away from the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        files::blocking(&self.files, work).await
    }
}

impl Handle {
    /// All of the file.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.size()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        let read = self.file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Fewer bytes only at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        sound(&self.failure)?;
        self.file.write_at(bytes, offset)
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    pub(crate) fn allocate(&self, size: u64) -> io::Result<()> {
        sound(&self.failure)?;
        self.file.allocate(size)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        if mutant!(NoSync) {
            return Ok(());
        }
        sound(&self.failure)?;
        noted(&self.failure, self.file.sync())
    }
}
