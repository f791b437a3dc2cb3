//! How much an archive may become on this host's disk, which also bears the managers' log: a small file can be packed
//! so that it unpacks to thousands of times its size.

use std::{
    cell::Cell,
    io::{self, Read},
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;

/// Of one archive, uncompressed. The largest layers in use hold machine learning models: tens of GiB.
const UNPACKED_MAX_BYTES: u64 = 128 << 30;

/// Entries of one archive. A whole distribution with its sources has some hundred thousand.
const FILES_MAX: u64 = 2_000_000;

/// Uncompressed bytes for each compressed one. Programs and text come to 10; gzip can reach 1,032, zstd far more.
const RATIO_MAX: u64 = 100;

/// What may be unpacked whatever the ratio: an empty file system image of this size is worth no suspicion. Tests do with
/// less, as they would have to write it.
const RATIO_FREE_BYTES: u64 = if cfg!(test) { 8 << 20 } else { 1 << 30 };

/// Left free on the disk, for what else is on it: the managers' log, the records of containers. On a small disk one
/// part in [`RESERVE_PART`] of it.
const RESERVE_BYTES: u64 = 512 << 20;
const RESERVE_PART: u64 = 20;

/// Between two looks at how much is free.
const LOOK_BYTES: u64 = 16 << 20;

/// Which bound an archive goes past.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error("it is larger than {} GiB uncompressed, the most that is unpacked", UNPACKED_MAX_BYTES >> 30)]
    Bytes,
    #[error("it has more than {FILES_MAX} entries, the most that are unpacked")]
    Files,
    #[error(
        "it unpacks to more than {RATIO_MAX} times its size, which only an archive does that is made to fill a disk \
         (up to {} GiB any ratio is accepted)",
        RATIO_FREE_BYTES >> 30
    )]
    Ratio,
    #[error(
        "only {free} MiB are free in {path}, and {reserve} MiB are kept for the rest of this host: free some space \
         (shoal image rm, shoal volume rm)"
    )]
    Disk { path: PathBuf, free: u64, reserve: u64 },
}

impl From<Excess> for io::Error {
    fn from(excess: Excess) -> Self {
        let kind = match excess {
            Excess::Disk { .. } => io::ErrorKind::StorageFull,
            Excess::Bytes | Excess::Files | Excess::Ratio => io::ErrorKind::FileTooLarge,
        };
        io::Error::new(kind, excess)
    }
}

/// Refuses to fill the disk that `path` is on.
pub(crate) fn check_disk(path: &Path) -> io::Result<()> {
    let disk = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let (free, reserve) = (bytes(disk.f_bavail), RESERVE_BYTES.min(bytes(disk.f_blocks) / RESERVE_PART));
    if free < reserve {
        return Err(Excess::Disk { path: path.to_owned(), free: free >> 20, reserve: reserve >> 20 }.into());
    }
    Ok(())
}

/// What one archive has become so far.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Where it is unpacked.
    path: PathBuf,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
    files: u64,
    looked_at: u64,
}

impl Bounds {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), packed: Rc::default(), unpacked: 0, files: 0, looked_at: 0 }
    }

    /// Counts what is read before it is decompressed.
    pub(crate) fn packed<R>(&self, inner: R) -> Packed<R> {
        Packed { inner, bytes: Rc::clone(&self.packed) }
    }

    /// One more entry.
    pub(crate) fn file(&mut self) -> io::Result<()> {
        self.files += 1;
        if self.files > FILES_MAX { Err(Excess::Files.into()) } else { Ok(()) }
    }

    fn bytes(&mut self, n: usize) -> io::Result<()> {
        self.unpacked += n as u64;
        if self.unpacked > UNPACKED_MAX_BYTES {
            return Err(Excess::Bytes.into());
        }
        if self.unpacked > RATIO_FREE_BYTES && self.unpacked / RATIO_MAX > self.packed.get() {
            return Err(Excess::Ratio.into());
        }
        if self.unpacked - self.looked_at >= LOOK_BYTES {
            self.looked_at = self.unpacked;
            check_disk(&self.path)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Packed<R> {
    inner: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes.set(self.bytes.get() + n as u64);
        Ok(n)
    }
}

/// Counts what is read after it was decompressed, and ends where it is too much.
#[derive(Debug)]
pub(crate) struct Unpacked<'a, R> {
    pub(crate) inner: R,
    pub(crate) bounds: &'a std::cell::RefCell<Bounds>,
}

impl<R: Read> Read for Unpacked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bounds.borrow_mut().bytes(n)?;
        Ok(n)
    }
}

/// A place for so many bytes and no more, whatever a registry sends.
#[derive(Debug)]
pub(crate) struct Capped<W> {
    inner: W,
    left: u64,
}

impl<W> Capped<W> {
    pub(crate) fn new(inner: W, max_bytes: u64) -> Self {
        Self { inner, left: max_bytes }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Capped<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            let why = "the registry sends more bytes than its manifest says";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, why)));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = written {
            self.left -= n as u64;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn counted(packed: u64, unpacked: u64) -> Result<(), io::ErrorKind> {
        let dir = tempfile::tempdir().unwrap();
        let mut bounds = Bounds::new(dir.path());
        bounds.packed.set(packed);
        // Near the end, as if all before had been read.
        bounds.unpacked = unpacked - 1;
        bounds.looked_at = unpacked;
        bounds.bytes(1).map_err(|e| e.kind())
    }

    #[test]
    fn each_bound_is_told_by_name() {
        const BIG: u64 = 10 << 30;
        assert_eq!(counted(1, RATIO_FREE_BYTES), Ok(()), "little is unpacked whatever the ratio");
        assert_eq!(counted(BIG / 10, BIG), Ok(()));
        assert_eq!(counted(BIG / 101, BIG), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(counted(UNPACKED_MAX_BYTES, UNPACKED_MAX_BYTES + 1), Err(io::ErrorKind::FileTooLarge));
        let mut bounds = Bounds::new(Path::new("/"));
        bounds.files = FILES_MAX;
        assert_eq!(bounds.file().map_err(|e| e.to_string()), Err(Excess::Files.to_string()));
        for (excess, says) in
            [(Excess::Bytes, "128 GiB"), (Excess::Files, "2000000 entries"), (Excess::Ratio, "100 times its size")]
        {
            assert!(excess.to_string().contains(says), "{excess}");
        }
    }

    #[tokio::test]
    async fn a_registry_fills_no_more_than_was_announced() {
        let mut place = Capped::new(Vec::new(), 5);
        place.write_all(b"1234").await.unwrap();
        assert_eq!(place.write_all(b"56").await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        place.write_all(b"5").await.unwrap();
        assert_eq!(place.inner, b"12345");
    }
}
