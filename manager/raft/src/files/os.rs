//! A directory of the operating system.

use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Failure, File, Files, Job, Space};

/// A sync that failed is remembered by directory, so that opening it again in this process does not trust pages that
/// the kernel has dropped.
static FAILURES: Mutex<BTreeMap<PathBuf, Failure>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
pub struct Os {
    dir: PathBuf,
    failure: Failure,
}

impl Os {
    /// Creates the directory if it is missing, durably.
    pub fn open(dir: &Path) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        let dir = dir.canonicalize()?;
        let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failures.entry(dir.clone()).or_default().clone();
        drop(failures);
        Ok(Self { dir, failure })
    }

    /// With the file's path: an error of the operating system does not name it.
    fn at(&self, name: &str) -> (PathBuf, impl Fn(io::Error) -> io::Error + use<>) {
        let path = self.dir.join(name);
        let shown = path.clone();
        (path, move |e| named(&shown, e))
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Files for Os {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| named(&self.dir, e))? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let (path, named) = self.at(name);
        let file = fs::File::options().read(true).write(true).open(&path).map_err(named)?;
        Ok(Arc::new(OsFile { file, path }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let (path, named) = self.at(name);
        let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(named)?;
        Ok(Arc::new(OsFile { file, path }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, named) = self.at(from);
        fs::rename(from, self.dir.join(to)).map_err(named)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (path, named) = self.at(name);
        fs::remove_file(path).map_err(named)
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all().map_err(|e| named(&self.dir, e))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(|e| named(&self.dir, e.into()))?;
        Ok(Space { total_bytes: stat.f_blocks * stat.f_frsize, free_bytes: stat.f_bavail * stat.f_frsize })
    }

    fn failure(&self) -> Failure {
        self.failure.clone()
    }

    fn work(&self, job: Job) -> BoxFuture<'static, ()> {
        let run = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            if let Err(error) = run.await {
                tracing::error!(%error, "work on the disk has panicked");
            }
        })
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(named(&self.path, e)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| named(&self.path, e))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| named(&self.path, e))?.len())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let size = size.max(self.size()?);
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // Some file systems cannot promise space (NFS, ZFS): a full disk is met when writing there.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(size).map_err(|e| named(&self.path, e)),
            Err(e) => Err(named(&self.path, e.into())),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| named(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_beyond_the_end_renamed_over_others_and_read_after_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = Os::open(&dir.path().join("raft")).unwrap();
        let one = files.create("one.new").unwrap();
        one.allocate(4096).unwrap();
        one.write_at(b"tail", 5000).unwrap();
        one.sync().unwrap();
        assert_eq!(one.size().unwrap(), 5004);
        let mut read = [9; 16];
        assert_eq!(one.read_at(&mut read, 4998).unwrap(), 6);
        assert_eq!(&read[..6], b"\0\0tail");
        files.create("one").unwrap().write_at(b"old", 0).unwrap();
        let old = files.open("one").unwrap();
        files.rename("one.new", "one").unwrap();
        files.sync_names().unwrap();
        assert_eq!(files.list().unwrap(), ["one"]);
        files.remove("one").unwrap();
        assert_eq!(old.read_at(&mut read, 0).unwrap(), 3);
        assert!(files.open("one").unwrap_err().to_string().contains("raft/one"));
        assert!(files.space().unwrap().free_bytes > 0);
    }

    #[test]
    fn a_failed_sync_is_remembered_when_the_directory_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        Os::open(dir.path()).unwrap().failure().note("EIO".to_owned());
        assert_eq!(Os::open(dir.path()).unwrap().failure().get().unwrap(), "EIO");
    }
}
