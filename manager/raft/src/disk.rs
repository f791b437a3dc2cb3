//! sled, made durable.
//!
//! `sled::Db::flush` does not fsync on Linux (0.34: `sync_file_range`), so each flush is followed by an fdatasync of
//! sled's file through a handle of our own. An error of either is fatal: after a failed fsync nobody knows what the
//! disk holds.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    files::{self, Files, Os},
    keys,
};

/// Of sled's page cache. The log is read from our own cache; sled's holds a snapshot at most.
const CACHE_BYTES: u64 = 16 << 20;
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    db: sled::Db,
    pub(crate) log: sled::Tree,
    pub(crate) meta: sled::Tree,
    pub(crate) snapshot: sled::Tree,
    file: Arc<File>,
    snapshots: Arc<Mutex<()>>,
    files: Arc<dyn Files>,
}

impl Disk {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let files: Arc<dyn Files> = Arc::new(Os::open(dir)?);
        let db = open(dir)?;
        let tree = |name: &str| db.open_tree(name).map_err(broken);
        let disk = Self {
            log: tree(keys::LOG)?,
            meta: tree(keys::META)?,
            snapshot: tree(keys::SNAPSHOT)?,
            file: Arc::new(File::open(dir.join("db"))?),
            snapshots: Arc::default(),
            files,
            db,
        };
        disk.sync()?;
        // The names of sled's files, and that of their directory.
        File::open(dir)?.sync_all()?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(disk)
    }

    /// Everything that was written before is on the disk when it returns. Blocks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(broken)?;
        self.file.sync_data()
    }

    /// Blocking work on the disk, away from the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        files::blocking(&self.files, work).await
    }

    /// Held while the current snapshot is read or replaced: one may be built while another is installed.
    pub(crate) fn hold_snapshots(&self) -> MutexGuard<'_, ()> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_meta(&self, key: &str) -> io::Result<Option<sled::IVec>> {
        self.meta.get(key).map_err(broken)
    }

    pub(crate) fn put_meta(&self, key: &str, value: Vec<u8>) -> io::Result<()> {
        self.meta.insert(key, value).map(drop).map_err(broken)
    }
}

/// A member that was just closed lets go of sled's lock when its last thread has ended.
fn open(dir: &Path) -> io::Result<sled::Db> {
    let begin = Instant::now();
    loop {
        let opened = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None)
            .open();
        match opened {
            Err(sled::Error::Io(e)) if e.to_string().contains("lock") && begin.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened.map_err(broken),
        }
    }
}

/// Cuts a value into pieces and adds them to `batch`.
pub(crate) fn write_pieces(batch: &mut sled::Batch, number: u64, value: &[u8]) -> io::Result<()> {
    let count = value.len().div_ceil(keys::CHUNK).max(1);
    for nth in 0..count {
        let part = &value[nth * keys::CHUNK..((nth + 1) * keys::CHUNK).min(value.len())];
        let mut bytes = Vec::with_capacity(part.len() + 1);
        bytes.push(u8::from(nth + 1 < count));
        bytes.extend_from_slice(part);
        let nth = u32::try_from(nth).map_err(io::Error::other)?;
        batch.insert(&keys::piece(number, nth), bytes);
    }
    Ok(())
}

/// The values from number `from` to `to` (exclusive), put together again.
pub(crate) fn read_pieces(tree: &sled::Tree, from: u64, to: Option<u64>) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let range = match to {
        Some(to) => tree.range(keys::first_of(from)..keys::first_of(to)),
        None => tree.range(keys::first_of(from)..),
    };
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut whole = true;
    for item in range {
        let (key, value) = item.map_err(broken)?;
        let number = keys::number_of(&key).ok_or_else(|| damaged("a key is too short"))?;
        let (more, part) = value.split_first().ok_or_else(|| damaged("a piece is empty"))?;
        if whole {
            found.push((number, part.to_vec()));
        } else {
            match found.last_mut() {
                Some((same, bytes)) if *same == number => bytes.extend_from_slice(part),
                _ => return Err(damaged("a piece is missing")),
            }
        }
        whole = *more == 0;
    }
    if whole { Ok(found) } else { Err(damaged("the last piece is missing")) }
}

/// Removes every piece of the numbers from `from` to `to` (exclusive).
pub(crate) fn remove_pieces(tree: &sled::Tree, from: u64, to: Option<u64>) -> io::Result<()> {
    let range = match to {
        Some(to) => tree.range(keys::first_of(from)..keys::first_of(to)),
        None => tree.range(keys::first_of(from)..),
    };
    let mut batch = sled::Batch::default();
    for key in range.keys() {
        batch.remove(key.map_err(broken)?);
    }
    tree.apply_batch(batch).map_err(broken)
}

pub(crate) fn broken(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(e) => e,
        other => io::Error::other(other),
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the store is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_come_back_whole_and_none_is_larger_than_a_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(&dir.path().join("raft")).unwrap();
        let sizes = [0, 1, keys::CHUNK - 1, keys::CHUNK, keys::CHUNK + 1, 5 * keys::CHUNK];
        let mut batch = sled::Batch::default();
        for (number, size) in (10..).zip(sizes) {
            write_pieces(&mut batch, number, &vec![u8::try_from(number).unwrap(); size]).unwrap();
        }
        disk.log.apply_batch(batch).unwrap();
        assert!(disk.log.iter().values().all(|v| v.unwrap().len() <= keys::CHUNK + 1));
        let found = read_pieces(&disk.log, 0, None).unwrap();
        assert_eq!(found.iter().map(|(n, v)| (*n, v.len())).collect::<Vec<_>>(), (10..).zip(sizes).collect::<Vec<_>>());
        remove_pieces(&disk.log, 12, Some(14)).unwrap();
        let left: Vec<u64> = read_pieces(&disk.log, 11, None).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(left, [11, 14, 15]);
    }

    #[test]
    fn a_missing_piece_is_damage_and_no_shorter_value() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let mut batch = sled::Batch::default();
        write_pieces(&mut batch, 1, &vec![1; 3 * keys::CHUNK]).unwrap();
        disk.log.apply_batch(batch).unwrap();
        disk.log.remove(keys::piece(1, 2)).unwrap();
        assert!(read_pieces(&disk.log, 0, None).unwrap_err().to_string().contains("last piece is missing"));
    }
}
