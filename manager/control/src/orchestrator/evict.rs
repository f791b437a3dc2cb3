//! Which tasks may not stay where they are.

use shoal_common::node::Availability;
use shoal_state::Service;

use crate::{
    board::{Board, Seen},
    scheduler::filter,
};

/// Why a live task must leave its node: it is drained, or a constraint does not hold there (any more).
/// Reservations and `max_replicas_per_node` count when a task is placed, never afterwards.
pub(super) fn reason(service: &Service, seen: &Seen<'_>, board: &Board<'_>) -> Option<String> {
    let node = board.seats.get(seen.seat?)?.node;
    if node.availability == Availability::Drain {
        return Some(format!("{} is drained", node.id));
    }
    let constraint = service.spec.placement.constraints.get(filter::unmet(node, &service.spec.placement)?)?;
    Some(format!("{} does not meet {constraint}", node.id))
}
