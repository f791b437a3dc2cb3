//! What this member has promised: its vote, and how far it has acknowledged the log. Kept apart from the log, so that a
//! log that has lost something is noticed.
//!
//! Two slots in one file. A new mark goes to the slot that is older, so that a torn write leaves the other. A vote is
//! written to both before it counts: a flipped bit in either then costs nothing, and in both it is noticed.

use serde::{Deserialize, Serialize};
use std::io;

use super::{
    Damage, Owner,
    disk::{Disk, Handle},
};
use crate::{
    codec,
    types::{LogId, Vote},
};

pub(super) const NAME: &str = "mark";
const NEW: &str = "mark.new";
const MAGIC: [u8; 8] = *b"SHOALMRK";
/// A block of the disk each, so that no write of one touches the other.
const SLOT_BYTES: usize = 4096;
const HEAD_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Counts the marks.
    seq: u64,
    pub(crate) owner: Owner,
    pub(crate) vote: Option<Vote>,
    /// The last entry that was acknowledged, and the number of its record.
    pub(crate) acked: Option<LogId>,
    pub(crate) acked_seq: u64,
    /// The last entry that is only in the snapshot.
    pub(crate) purged: Option<LogId>,
    /// The first record of the oldest segment of the log that is needed.
    pub(crate) kept_from: u64,
    /// The last entry that is known to be committed. It may lag.
    pub(crate) committed: Option<LogId>,
}

#[derive(Debug)]
pub(crate) struct MarkFile {
    file: Handle,
    pub(crate) mark: Mark,
    /// Where the next one goes. What the other slot holds is durable.
    slot: usize,
    /// The mark in `slot` was written after the last sync.
    unsynced: bool,
}

impl MarkFile {
    /// The last step of a new store: with it, the store is there.
    pub(super) fn create(disk: &Disk, owner: Owner) -> io::Result<()> {
        let mark =
            Mark { seq: 1, owner, vote: None, acked: None, acked_seq: 0, purged: None, kept_from: 1, committed: None };
        let file = disk.create(NEW)?;
        file.allocate(2 * SLOT_BYTES as u64)?;
        for slot in [0, 1] {
            file.write_at(&encode(&mark)?, slot * SLOT_BYTES as u64)?;
        }
        file.sync()?;
        disk.rename(NEW, NAME)
    }

    pub(super) fn open(disk: &Disk) -> io::Result<Self> {
        let file = disk.open(NAME)?;
        let mut found: Vec<(usize, Mark)> = Vec::new();
        for slot in [0, 1] {
            let mut bytes = vec![0; SLOT_BYTES];
            let read = file.read_at(&mut bytes, (slot * SLOT_BYTES) as u64)?;
            found.extend(decode(&bytes[..read]).map(|mark| (slot, mark)));
        }
        let Some((newest, mark)) = found.into_iter().max_by_key(|(_, mark)| mark.seq) else {
            return Err(Damage::new("no mark of what was acknowledged can be read".to_owned()).into());
        };
        let mut opened = Self { file, mark, slot: 1 - newest, unsynced: false };
        // It may have been written without a sync, and one slot may be unreadable: from here on both hold it.
        opened.keep()?;
        Ok(opened)
    }

    /// Notes it. Survives the end of the process, but a power cut only after [`Self::sync`].
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.mark.seq += 1;
        self.file.write_at(&encode(&self.mark)?, (self.slot * SLOT_BYTES) as u64)?;
        self.unsynced = true;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync()?;
            self.unsynced = false;
            self.slot = 1 - self.slot;
        }
        Ok(())
    }

    /// As a vote needs it: durable in both slots.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        for _slot in [0, 1] {
            self.write()?;
            self.sync()?;
        }
        Ok(())
    }
}

fn encode(mark: &Mark) -> io::Result<Vec<u8>> {
    let body = codec::encode(mark)?;
    if HEAD_BYTES + body.len() > SLOT_BYTES {
        return Err(io::Error::other(format!("the mark takes {} bytes, more than {SLOT_BYTES}", body.len())));
    }
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend_from_slice(&MAGIC);
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(..8)? != MAGIC {
        return None;
    }
    let body = bytes.get(HEAD_BYTES..)?.get(..word(8)? as usize)?;
    (crc32c::crc32c(body) == word(12)?).then(|| codec::decode(body).ok())?
}
