//! One short string for the whole state: managers that differ have diverged.

use sha2::{Digest, Sha256};

use crate::state::State;

/// SHA-256, hex, of the state's encoding, which is not held in memory as a whole. Tables are ordered and numbers have one form, so equal states are equal bytes.
pub fn digest(state: &State) -> String {
    let mut hash = Sha256::new();
    rmp_serde::encode::write_named(&mut hash, state).expect("a state has no value that MessagePack lacks");
    format!("{:x}", hash.finalize())
}
