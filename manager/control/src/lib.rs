//! What to propose next: a pure function of the state and the time.
//!
//! The leader calls [`decide`] whenever the state has changed or [`Decision::wake_at`] has come, proposes what it
//! answers, and calls it again. Nothing is remembered between calls, so a new leader goes on where the old one
//! stopped, and a command that was lost or refused is simply decided again. [`Liveness`] is the one thing with a
//! memory: who was heard from, by this leader's own clock.
//!
//! Start reading at [`decide`], then `orchestrator` (which tasks should be) and `scheduler` (on which node).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod board;
mod draft;
pub mod liveness;
mod orchestrator;
mod reaper;
mod scheduler;

use shoal_common::{Level, Timestamp, service::Placement};
use shoal_state::{Command, Node, State};

pub use draft::BATCH_CHANGES;
pub use liveness::Liveness;
pub use reaper::HISTORY_PER_SLOT;

use crate::{board::Board, draft::Draft};

/// What the leader should do now, and when to ask again if nothing happens until then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// At most one, of at most [`BATCH_CHANGES`] changes. When there is more to do, the next call says it.
    pub commands: Vec<Command>,
    /// A delay of a restart or of an update ends here. Nothing else depends on time.
    pub wake_at: Option<Timestamp>,
}

/// Whether the node meets every constraint.
pub fn meets_constraints(node: &Node, placement: &Placement) -> bool {
    scheduler::filter::unmet(node, placement).is_none()
}

/// Decides which tasks are created, placed, ended and forgotten.
///
/// `now` is the wall clock: it is compared with the times that the log gave to what happened. Order matters where
/// the batch is cut off: first what is lost, then the services by age, then what no service wants, then the reaper.
pub fn decide(state: &State, now: Timestamp) -> Decision {
    // First of all: what is decided below may need the level.
    let known = state.known_by_all().min(Level::KNOWN);
    if known > state.level {
        return Decision { commands: vec![Command::RaiseLevel { level: known }], wake_at: None };
    }
    let mut draft = Draft::default();
    let (mut board, mut tasks) = Board::survey(state, &mut draft);
    for service in state.services.values() {
        let mut own = tasks.remove(&service.id).unwrap_or_default();
        orchestrator::decide(state, service, &mut own, &mut board, now, &mut draft);
    }
    reaper::clear_removed_services(tasks, &mut draft);
    draft.into_decision()
}
