//! What one node must know: a projection of the state, with no memory of its own.

use shoal_common::{NodeId, assignment::Assignment};

use crate::state::State;

/// `None` for a node that is not, or no longer, of the cluster.
pub fn assignment(state: &State, node: NodeId) -> Option<Assignment> {
    state.nodes.get(&node)?;
    Some(Assignment {
        generation: state.applied.into(),
        ..Assignment::default()
    })
}
