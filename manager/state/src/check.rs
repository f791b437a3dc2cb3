//! The invariants as a function.

use crate::state::State;

/// What must never be, in sentences; empty in every state that `apply` can reach.
pub fn violations(state: &State) -> Vec<String> {
    let _ = state;
    Vec::new()
}
