//! Snapshots: a file each, written aside and renamed when it is durable. Written, sent, received and read in pieces, so
//! that none is ever in memory as a whole beside the state itself.
//!
//! The first [`HEAD_BYTES`] are magic, format, CRC and length of a head that names what the snapshot is of, how long it
//! is, and its SHA-256; the encoded state follows.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shoal_common::Level;
use shoal_state::State;
use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    codec,
    store::{
        Damage,
        disk::{Disk, Handle},
    },
    types::{LogId, SnapshotMeta},
};

/// Room for the head: a membership of hundreds of members.
const HEAD_BYTES: usize = 64 << 10;
const MAGIC: [u8; 8] = *b"SHOALSNP";
/// Of the head. What follows it has a format of its own (`codec.rs`).
const FORMAT: u32 = 1;
const PREFIX: &str = "snapshot-";
/// Read or written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Synced after so much, so that the log's own syncs never wait for a whole snapshot's pages.
const SYNC_BYTES: u64 = 4 << 20;
/// Of a snapshot that another manager sends: a state of 5,000 hosts and 50,000 tasks takes about 50 MiB.
pub(crate) const MAX_RECEIVED_BYTES: u64 = 1 << 30;

pub(crate) fn is_snapshot(name: &str) -> bool {
    index_of(name).is_some()
}

fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    meta: SnapshotMeta,
    bytes: u64,
    sha256: [u8; 32],
}

/// The snapshots of one store: at most one is current. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    disk: Disk,
    current: Arc<Mutex<Option<Current>>>,
    /// Numbers the files that are being written.
    written: Arc<AtomicU64>,
    /// Another manager is sending one.
    receiving: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
struct Current {
    name: String,
    meta: SnapshotMeta,
    data: Data,
}

/// The encoded state, in a file that may have been replaced meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    file: Handle,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
    /// The file's name while it is not a snapshot yet. It is removed with the last of its users.
    aside: Option<Arc<Aside>>,
}

#[derive(Debug)]
struct Aside {
    disk: Disk,
    name: String,
    kept: AtomicBool,
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            // What cannot be removed now is removed when the store is opened.
            let _ = self.disk.remove(&self.name);
        }
    }
}

impl Snapshots {
    /// Finds the newest one and checks it. Blocks.
    pub(crate) fn open(disk: &Disk) -> io::Result<Self> {
        let mut names: Vec<String> = disk.list()?.into_iter().filter(|name| is_snapshot(name)).collect();
        names.sort();
        let current = names.pop().map(|name| Current::open(disk, name)).transpose()?;
        // A newer one is whole: these are left from before it.
        for name in names {
            disk.remove(&name)?;
        }
        Ok(Self {
            disk: disk.clone(),
            current: Arc::new(Mutex::new(current)),
            written: Arc::default(),
            receiving: Arc::default(),
        })
    }

    /// Held while the current one is replaced: one may be built while another is installed.
    fn hold(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.hold().as_ref().and_then(|current| current.meta.last_log_id)
    }

    /// The current one, checked. Blocks.
    pub(crate) fn current(&self) -> io::Result<Option<(SnapshotMeta, Data)>> {
        let Some(current) = self.hold().clone() else { return Ok(None) };
        current.check()?;
        Ok(Some((current.meta, current.data)))
    }

    /// Writes the state down and makes it current. Blocks.
    pub(crate) fn build(&self, meta: &SnapshotMeta, state: &State) -> io::Result<Data> {
        let mut writing = BufWriter::with_capacity(PIECE_BYTES, self.write()?);
        codec::encode_to(&mut writing, state)?;
        let writing = writing.into_inner().map_err(io::IntoInnerError::into_error)?;
        let data = writing.finish()?;
        self.keep(meta, &data)?;
        Ok(data)
    }

    /// Begins one that another manager sends. One at a time.
    pub(crate) fn receive(&self) -> io::Result<Receiving> {
        if self.receiving.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another snapshot is being received"));
        }
        let turn = Turn(Arc::clone(&self.receiving));
        Ok(Receiving { writing: self.write()?, _turn: turn })
    }

    /// Makes it the current one, durably, and removes the one before. Blocks.
    pub(crate) fn keep(&self, meta: &SnapshotMeta, data: &Data) -> io::Result<()> {
        let mut held = self.hold();
        let before = held.as_ref().and_then(|current| current.meta.last_log_id);
        if held.is_some() && before >= meta.last_log_id {
            // It is the current one itself, as at a start, or an older one.
            return Ok(());
        }
        // One that is kept already, here or in another store, is copied.
        let (data, aside) = match data.aside.as_ref().filter(|aside| !aside.kept.load(Ordering::Relaxed)) {
            Some(aside) => (data.clone(), Arc::clone(aside)),
            None => self.copy(data)?,
        };
        let head = Head { meta: meta.clone(), bytes: data.bytes, sha256: data.sha256 };
        data.file.write_at(&encode_head(&head)?, 0)?;
        if !mutant!(PointerBeforePieces) {
            data.file.sync()?;
        }
        let name = format!("{PREFIX}{:020}", meta.last_log_id.map_or(0, |id| id.index));
        self.disk.rename(&aside.name, &name)?;
        aside.kept.store(true, Ordering::Relaxed);
        let data = Data { aside: None, ..data };
        let replaced = held.replace(Current { name, meta: meta.clone(), data });
        if let Some(replaced) = replaced {
            self.disk.remove(&replaced.name)?;
        }
        Ok(())
    }

    fn copy(&self, data: &Data) -> io::Result<(Data, Arc<Aside>)> {
        let mut writing = self.write()?;
        let aside = Arc::clone(&writing.aside);
        io::copy(&mut data.reading(), &mut writing)?;
        let copied = writing.finish()?;
        if copied.sha256 != data.sha256 {
            return Err(Damage::new("a snapshot has another digest than it should, so it is damaged".to_owned()).into());
        }
        Ok((copied, aside))
    }

    fn write(&self) -> io::Result<Writing> {
        let nth = self.written.fetch_add(1, Ordering::Relaxed);
        let name = format!("snapshot-{nth}.new");
        let file = self.disk.create(&name)?;
        let aside = Aside { disk: self.disk.clone(), name, kept: AtomicBool::new(false) };
        Ok(Writing { file, bytes: 0, unsynced: 0, sha256: Sha256::new(), aside: Arc::new(aside) })
    }
}

impl Current {
    fn open(disk: &Disk, name: String) -> io::Result<Self> {
        let file = disk.open(&name)?;
        let head = read_head(&file).ok_or_else(|| Damage::new(format!("{name}: its head is unreadable")))?;
        let data = Data { file, bytes: head.bytes, sha256: head.sha256, aside: None };
        let current = Self { name, meta: head.meta, data };
        current.check()?;
        Ok(current)
    }

    fn check(&self) -> io::Result<()> {
        if self.data.is_whole()? {
            return Ok(());
        }
        Err(Damage::new(format!("{}: its digest is another, so it is damaged", self.name)).into())
    }
}

impl Data {
    /// The next piece from `at` on; empty at the end. Blocks.
    pub(crate) fn piece(&self, at: u64) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        if self.file.read_at(&mut piece, HEAD_BYTES as u64 + at)? != piece.len() {
            return Err(Damage::new(format!("a snapshot ends before its {} bytes", self.bytes)).into());
        }
        Ok(piece)
    }

    fn is_whole(&self) -> io::Result<bool> {
        let mut reading = self.reading();
        io::copy(&mut reading, &mut io::sink())?;
        Ok(reading.ends_well())
    }

    fn reading(&self) -> Reading<'_> {
        Reading { data: self, at: 0, sha256: Sha256::new() }
    }

    /// The state, if it is whole. Blocks.
    pub(crate) fn decode(&self) -> io::Result<State> {
        let mut reading = BufReader::with_capacity(PIECE_BYTES, self.reading());
        let state: State = codec::decode_from(&mut reading)?;
        // Zeros or more behind the state would be damage too.
        let rest = io::copy(&mut reading, &mut io::sink())?;
        if rest > 0 || !reading.into_inner().ends_well() {
            return Err(Damage::new("a snapshot has another digest than it should, so it is damaged".to_owned()).into());
        }
        if state.level > Level::KNOWN {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the snapshot is at feature level {}, and this version of Shoal knows level {}: install a newer one",
                    state.level,
                    Level::KNOWN
                ),
            ));
        }
        Ok(state)
    }
}

struct Reading<'a> {
    data: &'a Data,
    at: u64,
    sha256: Sha256,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.data.bytes - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.data.file.read_at(&mut buffer[..wanted], HEAD_BYTES as u64 + self.at)?;
        self.sha256.update(&buffer[..read]);
        self.at += read as u64;
        Ok(read)
    }
}

impl Reading<'_> {
    fn ends_well(self) -> bool {
        self.at == self.data.bytes && <[u8; 32]>::from(self.sha256.finalize()) == self.data.sha256
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(crate) struct Writing {
    file: Handle,
    bytes: u64,
    unsynced: u64,
    sha256: Sha256,
    aside: Arc<Aside>,
}

impl Writing {
    fn finish(self) -> io::Result<Data> {
        if !mutant!(PointerBeforePieces) {
            self.file.sync()?;
        }
        Ok(Data { file: self.file, bytes: self.bytes, sha256: self.sha256.finalize().into(), aside: Some(self.aside) })
    }
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, HEAD_BYTES as u64 + self.bytes)?;
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A snapshot that another manager sends. All calls block.
#[derive(Debug)]
pub(crate) struct Receiving {
    writing: Writing,
    _turn: Turn,
}

#[derive(Debug)]
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Receiving {
    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.writing.bytes + piece.len() as u64 > MAX_RECEIVED_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("a snapshot of more than {MAX_RECEIVED_BYTES} bytes is not taken"),
            ));
        }
        self.writing.write_all(piece)
    }

    /// What came, if it is a whole state with this digest (which an earlier release does not send).
    pub(crate) fn finish(self, sha256: Option<[u8; 32]>) -> io::Result<Data> {
        let data = self.writing.finish()?;
        if sha256.is_some_and(|sent| sent != data.sha256) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot has another digest than was sent"));
        }
        // openraft ends with a panic on what no leader can send: what does not decode must not get that far.
        data.decode()?;
        Ok(data)
    }
}

fn encode_head(head: &Head) -> io::Result<Vec<u8>> {
    let body = codec::encode(head)?;
    if 20 + body.len() > HEAD_BYTES {
        return Err(io::Error::other(format!("a snapshot's head of {} bytes is too long", body.len())));
    }
    let mut bytes = Vec::with_capacity(20 + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn read_head(file: &Handle) -> Option<Head> {
    let mut bytes = vec![0; HEAD_BYTES];
    let read = file.read_at(&mut bytes, 0).ok()?;
    let bytes = &bytes[..read];
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(..8)? != MAGIC || word(8)? != FORMAT {
        return None;
    }
    let body = bytes.get(20..)?.get(..word(16)? as usize)?;
    (crc32c::crc32c(body) == word(12)?).then(|| codec::decode(body).ok())?
}
