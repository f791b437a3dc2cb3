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
