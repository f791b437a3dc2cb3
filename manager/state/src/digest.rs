//! One short string for the whole state: managers that differ have diverged.

use sha2::{Digest, Sha256};

use crate::state::State;

/// SHA-256, hex, of the state's encoding. Tables are ordered and numbers have one form, so equal states are equal bytes.
pub fn digest(state: &State) -> String {
    let bytes = rmp_serde::to_vec_named(state).expect("a state has no value that MessagePack lacks");
    format!("{:x}", Sha256::digest(bytes))
}
