//! Services of N replicas: which slots are theirs.
//!
//! A slot belongs to the service while it has a live task, while what was in it ended by itself (it may be
//! restarted, or it is done), and while an update is between its old and its new task. Too few: the lowest free
//! numbers are added, so that a new service has 1 to N. Too many: those that stay are chosen, by
//!
//! 1. what is running before what is not yet, and that before an empty slot;
//! 2. what is alone on its node before the second there, that before the third …: the most crowded nodes lose first;
//! 3. the lower slot number.
//!
//! So after scaling down some numbers may lie above the replica count. They stay while their tasks do; the state
//! admits no new task there, so what follows one of them gets the lowest free number, which is always within.

use std::collections::{BTreeMap, BTreeSet};

use shoal_common::{
    Timestamp,
    task::{DesiredState, Slot},
};
use shoal_state::Service;

use super::{
    Place, Slots,
    restart::{self, Refill},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Running,
    OnItsWay,
    Empty,
}

pub(super) fn slots<'s, 'a>(
    service: &Service,
    places: impl Iterator<Item = Place<'s, 'a>>,
    replicas: u32,
    now: Timestamp,
) -> Slots<'s, 'a> {
    let mut slots = Slots::default();
    let wanted = replicas as usize;
    let mut ours: Vec<(Rank, Place<'s, 'a>)> = Vec::new();
    for place in places {
        match (place.slot(), rank(service, &place, replicas, now)) {
            (Slot::Replica(_), Some(rank)) => ours.push((rank, place)),
            (Slot::Replica(_), None) => slots.surplus.push((place, String::new())),
            (Slot::Node(_), _) => slots.surplus.push((place, "the service is not global any more".to_owned())),
        }
    }
    if ours.len() > wanted {
        for (place, _) in surplus(&mut ours, wanted) {
            slots.surplus.push((place, format!("the service was scaled down to {replicas}")));
        }
    }
    let taken: BTreeSet<Slot> =
        if ours.len() < wanted { ours.iter().map(|(_, place)| place.slot()).collect() } else { BTreeSet::new() };
    slots.fresh = (1..=u32::MAX)
        .map(Slot::Replica)
        .filter(|slot| !taken.contains(slot))
        .take(wanted.saturating_sub(ours.len()))
        .collect();
    slots.filled = ours.into_iter().map(|(_, place)| place).collect();
    slots.filled.sort_by_key(Place::slot);
    slots
}

/// `None` for a slot that is not, or no longer, the service's.
fn rank(service: &Service, place: &Place<'_, '_>, replicas: u32, now: Timestamp) -> Option<Rank> {
    if let Some(current) = place.current() {
        return Some(if current.is_running() { Rank::Running } else { Rank::OnItsWay });
    }
    let newest = place.newest().task;
    let awaits = newest.desired == DesiredState::Running || newest.spec_version != service.spec_version;
    let moves = !is_within(place.slot(), replicas) && restart::refill(service, place, now) == Refill::Now;
    (awaits && !moves).then_some(Rank::Empty)
}

/// Whether a new task may get this number.
pub(super) fn is_within(slot: Slot, replicas: u32) -> bool {
    match slot {
        Slot::Replica(n) => n <= replicas,
        Slot::Node(_) => false,
    }
}

/// Cuts `ours` down to the best `wanted` and answers the rest.
fn surplus<'s, 'a>(ours: &mut Vec<(Rank, Place<'s, 'a>)>, wanted: usize) -> Vec<(Place<'s, 'a>, usize)> {
    ours.sort_by_key(|(rank, place)| (*rank, place.slot()));
    let mut on_node: BTreeMap<Option<usize>, usize> = BTreeMap::new();
    let mut ordered: Vec<(Rank, usize, Place<'s, 'a>)> = ours
        .drain(..)
        .map(|(rank, place)| {
            let nth = on_node.entry(place.current().and_then(|seen| seen.seat)).or_default();
            *nth += 1;
            (rank, *nth, place)
        })
        .collect();
    ordered.sort_by_key(|(rank, nth, place)| (*rank, *nth, place.slot()));
    let rest = ordered.split_off(wanted);
    ours.extend(ordered.into_iter().map(|(rank, _, place)| (rank, place)));
    rest.into_iter().map(|(_, nth, place)| (place, nth)).collect()
}
