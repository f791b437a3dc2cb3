//! The highest generation that this host has acted on, in a file of its own.
//!
//! The rows of the assignment may be damaged, and a full disk may refuse new ones; then a restarted host must still not
//! take less than it acted on from a manager that is behind. So this file is written before anything is acted on, and
//! it is written in place: two slots in blocks that exist already, which a full disk does not refuse. A write that is
//! torn spoils the lower slot only.

use sha2::{Digest, Sha256};
use shoal_common::{Generation, NodeId};
use shoal_rt::durable;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::Error;

/// Another number, another meaning of what follows: then the slot is not read.
const FORMAT: u64 = 1;
/// A sector: disks write it whole or not at all.
const SLOT_BYTES: usize = 512;
const SLOTS: usize = 2;
/// Format, node, generation; then a digest of these.
const FIELDS: usize = 3;

#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: Option<File>,
    slots: [Option<Slot>; SLOTS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    node: NodeId,
    generation: Generation,
}

impl Mark {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("generation"), file: None, slots: [None; SLOTS] }
    }

    /// The highest that was stored for this node. An error if the file is there and holds nothing that is whole.
    pub(super) fn load(&mut self, node: NodeId) -> Result<Option<Generation>, Error> {
        let Some(bytes) = durable::read(&self.path).map_err(Error::File)? else { return Ok(None) };
        let slots: Vec<Option<Slot>> = bytes.chunks(SLOT_BYTES).map(decode).collect();
        if bytes.len() != SLOTS * SLOT_BYTES || slots.iter().all(Option::is_none) {
            return Err(Error::Damaged { path: self.path.clone(), why: "neither of its slots is whole".to_owned() });
        }
        self.slots.copy_from_slice(&slots);
        self.file = Some(self.open()?);
        Ok(self.slots.iter().flatten().filter(|slot| slot.node == node).map(|slot| slot.generation).max())
    }

    /// On the disk when it returns.
    pub(super) fn store(&mut self, node: NodeId, generation: Generation) -> Result<(), Error> {
        let slot = Slot { node, generation };
        let Some(file) = &self.file else {
            return self.create(slot);
        };
        // The higher slot stays whole whatever becomes of this write.
        let lower = (0..SLOTS).min_by_key(|n| self.slots[*n].map(|s| (s.node == node, s.generation))).unwrap_or(0);
        let written = file.write_all_at(&encode(slot), (lower * SLOT_BYTES) as u64);
        written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        durable::sync(file, &self.path).map_err(Error::File)?;
        self.slots[lower] = Some(slot);
        Ok(())
    }

    fn open(&self) -> Result<File, Error> {
        File::options().write(true).open(&self.path).map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    fn create(&mut self, slot: Slot) -> Result<(), Error> {
        durable::replace(&self.path, &encode(slot).repeat(SLOTS)).map_err(Error::File)?;
        self.file = Some(self.open()?);
        self.slots = [Some(slot); SLOTS];
        Ok(())
    }

    pub(super) fn forget(&mut self) -> Result<(), Error> {
        *self = Self { path: std::mem::take(&mut self.path), file: None, slots: [None; SLOTS] };
        durable::remove(&self.path).map_err(Error::File)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn encode(slot: Slot) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [FORMAT, slot.node.0, slot.generation.0].iter().flat_map(|field| field.to_be_bytes()).collect();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Slot> {
    let (fields, rest) = bytes.split_at_checked(FIELDS * 8)?;
    let number = |nth: usize| fields.get(nth * 8..).and_then(<[u8]>::first_chunk).map(|b| u64::from_be_bytes(*b));
    let whole = rest.get(..32)? == Sha256::digest(fields).as_slice();
    (whole && number(0)? == FORMAT).then_some(())?;
    Some(Slot { node: NodeId(number(1)?), generation: Generation(number(2)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NODE: NodeId = NodeId(3);

    #[test]
    fn a_write_that_is_torn_anywhere_leaves_the_mark_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::new(dir.path());
        assert_eq!(mark.load(NODE).unwrap(), None);
        for generation in 1..=5 {
            mark.store(NODE, Generation(generation)).unwrap();
            assert_eq!(Mark::new(dir.path()).load(NODE).unwrap(), Some(Generation(generation)));
        }
        assert_eq!(Mark::new(dir.path()).load(NodeId(4)).unwrap(), None, "it is another node's");
        let before = fs::read(mark.path()).unwrap();
        mark.store(NODE, Generation(6)).unwrap();
        let after = fs::read(mark.path()).unwrap();
        for cut in 0..after.len() {
            let torn = [&after[..cut], &before[cut..]].concat();
            fs::write(mark.path(), torn).unwrap();
            let found = Mark::new(dir.path()).load(NODE).unwrap().unwrap();
            assert!(found == Generation(5) || found == Generation(6), "{found} after {cut} bytes");
        }
    }

    #[test]
    fn a_mark_that_is_damaged_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Mark::new(dir.path());
        mark.store(NODE, Generation(7)).unwrap();
        for bytes in [vec![], vec![0; 1024], vec![1; 100]] {
            fs::write(mark.path(), bytes).unwrap();
            assert!(matches!(Mark::new(dir.path()).load(NODE), Err(Error::Damaged { .. })));
        }
        // One slot is enough.
        mark.store(NODE, Generation(8)).unwrap();
        mark.forget().unwrap();
        assert_eq!(mark.load(NODE).unwrap(), None);
        mark.store(NODE, Generation(2)).unwrap();
        let mut bytes = fs::read(mark.path()).unwrap();
        bytes[20] ^= 1;
        fs::write(mark.path(), bytes).unwrap();
        assert_eq!(Mark::new(dir.path()).load(NODE).unwrap(), Some(Generation(2)));
    }
}
