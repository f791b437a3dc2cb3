//! Services with one task on every node that fits.
//!
//! A node that is down keeps its slot empty; one that is paused, or not heard from yet, keeps what it has; one that
//! is drained, or does not meet a constraint, has none. Resources do not exempt a node: its task waits and says so.

use shoal_common::{
    node::{Availability, Liveness},
    task::Slot,
};
use shoal_state::Service;

use super::{Place, Slots};
use crate::{board::Board, scheduler::filter};

pub(super) fn slots<'s, 'a>(
    service: &Service,
    places: impl Iterator<Item = Place<'s, 'a>>,
    board: &Board<'a>,
) -> Slots<'s, 'a> {
    let mut slots = Slots::default();
    let mut places = places.peekable();
    // Slots sort replicas first.
    while let Some(place) = places.next_if(|place| matches!(place.slot(), Slot::Replica(_))) {
        slots.surplus.push((place, "the service is global now".to_owned()));
    }
    for seat in &board.seats {
        let node = seat.node;
        let slot = Slot::Node(node.id);
        while let Some(gone) = places.next_if(|place| place.slot() < slot) {
            slots.surplus.push((gone, NODE_GONE.to_owned()));
        }
        let place = places.next_if(|place| place.slot() == slot);
        let unmet = filter::unmet(node, &service.spec.placement);
        let usable = node.liveness == Liveness::Ready && node.availability == Availability::Active;
        match (place, unmet) {
            (None, None) if usable => slots.fresh.push(slot),
            (None, _) => {}
            (Some(place), Some(index)) => {
                let what = service.spec.placement.constraints.get(index);
                let what = what.map_or_else(String::new, |constraint| constraint.to_string());
                slots.vacated.push((place, format!("{} does not meet {what}", node.id)));
            }
            (Some(place), None) if node.availability == Availability::Drain => {
                slots.vacated.push((place, format!("{} is drained", node.id)));
            }
            (Some(place), None) if usable => slots.filled.push(place),
            // What sat there is lost; what waited to sit there does not wait on.
            (Some(place), None) if node.liveness == Liveness::Down && place.current().is_some() => {
                slots.vacated.push((place, format!("{} is down", node.id)));
            }
            (Some(place), None) => slots.held.push(place),
        }
    }
    slots.surplus.extend(places.map(|place| (place, NODE_GONE.to_owned())));
    slots
}

const NODE_GONE: &str = "its node was removed from the cluster";
