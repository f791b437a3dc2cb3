//! Snapshots on the disk: cut into pieces, and not current before every piece is durable.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shoal_state::State;
use std::io;

use crate::{
    codec,
    disk::{self, Disk, read_pieces, remove_pieces, write_pieces},
    keys,
    types::{Snapshot, SnapshotBytes, SnapshotMeta},
};

/// Which snapshot is the current one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pointer {
    number: u64,
    meta: SnapshotMeta,
    sha256: [u8; 32],
}

pub(crate) fn encode(state: &State) -> io::Result<SnapshotBytes> {
    codec::encode(state).map(SnapshotBytes::from)
}

pub(crate) fn decode(bytes: &[u8]) -> io::Result<State> {
    codec::decode(bytes)
}

/// Blocks.
pub(crate) fn current(disk: &Disk) -> io::Result<Option<Snapshot>> {
    let _held = disk.hold_snapshots();
    let Some(pointer) = pointer(disk)? else { return Ok(None) };
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the snapshot is damaged: {why}"));
    let (_, bytes) = read_pieces(&disk.snapshot, pointer.number, Some(pointer.number + 1))?
        .pop()
        .ok_or_else(|| damaged("it is missing"))?;
    if <[u8; 32]>::from(Sha256::digest(&bytes)) != pointer.sha256 {
        return Err(damaged("its digest is another"));
    }
    Ok(Some(Snapshot { meta: pointer.meta, snapshot: bytes.into() }))
}

/// Makes it the current one, and removes all others. Blocks.
pub(crate) fn store(disk: &Disk, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
    let _held = disk.hold_snapshots();
    let before = pointer(disk)?;
    if before.as_ref().is_some_and(|p| p.meta.last_log_id >= meta.last_log_id && p.meta.last_log_id.is_some()) {
        // Also what is installed at a start: it was read from here.
        return Ok(());
    }
    let number = before.map_or(1, |p| p.number + 1);
    // What a crash has left half-written.
    remove_pieces(&disk.snapshot, number, None)?;
    let mut batch = sled::Batch::default();
    write_pieces(&mut batch, number, bytes)?;
    disk.snapshot.apply_batch(batch).map_err(disk::broken)?;
    disk.sync()?;
    let pointer = Pointer { number, meta: meta.clone(), sha256: Sha256::digest(bytes).into() };
    disk.put_meta(keys::CURRENT_SNAPSHOT, codec::encode(&pointer)?)?;
    disk.sync()?;
    remove_pieces(&disk.snapshot, 0, Some(number))
}

fn pointer(disk: &Disk) -> io::Result<Option<Pointer>> {
    disk.get_meta(keys::CURRENT_SNAPSHOT)?.map(|b| codec::decode(&b)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogId;
    use openraft::{impls::leader_id_std::LeaderId, vote::RaftLeaderId as _};

    fn meta(index: u64) -> SnapshotMeta {
        let term = LeaderId { term: 1, voted_for: 1 }.to_committed();
        SnapshotMeta { last_log_id: Some(LogId::new(term, index)), ..SnapshotMeta::default() }
    }

    #[test]
    fn one_that_is_built_while_another_is_installed_leaves_the_newer_whole() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let bytes = |index: u64| vec![u8::try_from(index % 251).unwrap(); 3 * keys::CHUNK];
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (disk, bytes) = (&disk, &bytes);
                scope.spawn(move || {
                    for round in 0..10 {
                        let index = 1 + round * 4 + writer;
                        store(disk, &meta(index), &bytes(index)).unwrap();
                        let found = current(disk).unwrap().unwrap();
                        let index = found.meta.last_log_id.unwrap().index;
                        assert_eq!(found.snapshot.as_ref(), bytes(index));
                    }
                });
            }
        });
        assert_eq!(current(&disk).unwrap().unwrap().meta.last_log_id.unwrap().index, 40);
    }
}
