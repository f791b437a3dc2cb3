//! Every sled tree and key, and what its bytes are. Values stay below [`CHUNK`]: sled puts larger ones into files
//! that it never syncs.

/// Log entries: index and number of the piece, both big endian. Lives until the entry is purged or truncated.
pub(crate) const LOG: &str = "log";
/// Snapshots: number of the snapshot and number of the piece, both big endian. Lives until a newer one is complete.
pub(crate) const SNAPSHOT: &str = "snapshot";
/// The keys below.
pub(crate) const META: &str = "meta";

/// [`crate::types::Vote`].
pub(crate) const VOTE: &str = "vote";
/// `Option<LogId>` of the last entry that is known to be committed.
pub(crate) const COMMITTED: &str = "committed";
/// [`crate::types::LogId`] of the last entry that was purged.
pub(crate) const PURGED: &str = "purged";
/// [`crate::snapshot::Pointer`] to the current snapshot.
pub(crate) const CURRENT_SNAPSHOT: &str = "snapshot";

/// The largest value.
pub(crate) const CHUNK: usize = 48 << 10;

/// A piece of a numbered thing. The value's first byte says whether another piece follows (1) or not (0).
pub(crate) fn piece(number: u64, nth: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&nth.to_be_bytes());
    key
}

/// From the first piece of this number on.
pub(crate) fn first_of(number: u64) -> [u8; 12] {
    piece(number, 0)
}

/// The number in a piece's key.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    key.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
}
