//! Which tasks should be: per service, its slots against what is in them.
//!
//! [`replicated`] and [`global`] say which slots there should be; [`restart`] when an empty one is filled again;
//! [`update`] which tasks make way for a newer spec; [`evict`] which ones may not stay where they are.

mod evict;
mod global;
mod place;
mod replicated;
mod restart;
mod update;

use std::collections::BTreeSet;

use shoal_common::{TaskId, Timestamp, service::Mode, task::Slot};
use shoal_state::{Service, State, TaskChange};

use crate::{
    board::{Board, Seen},
    draft::Draft,
    reaper,
    scheduler::Spread,
};
pub(crate) use place::Place;
use restart::Refill;
pub(crate) use restart::counts;

/// A slot that should be filled now.
#[derive(Debug, Clone, Copy)]
struct Want<'a> {
    slot: Slot,
    /// The task that waits in it; `None` when there is none yet.
    pending: Option<Seen<'a>>,
}

/// What a mode makes of a service's slots.
#[derive(Debug, Default)]
struct Slots<'s, 'a> {
    /// Should have a task.
    filled: Vec<Place<'s, 'a>>,
    /// Left as they are: what is there stays, nothing new comes.
    held: Vec<Place<'s, 'a>>,
    /// Should be empty for now, and why; the history stays.
    vacated: Vec<(Place<'s, 'a>, String)>,
    /// Should not be, and why.
    surplus: Vec<(Place<'s, 'a>, String)>,
    /// Never had any task that is on record, and should have one.
    fresh: Vec<Slot>,
}

pub(crate) fn decide<'a>(
    state: &'a State,
    service: &'a Service,
    tasks: &mut [Seen<'a>],
    board: &mut Board<'a>,
    now: Timestamp,
    draft: &mut Draft,
) {
    tasks.sort_by_key(|seen| (seen.task.slot, seen.task.id));
    let places = tasks.chunk_by(|a, b| a.task.slot == b.task.slot).map(Place::new);
    let slots = match service.spec.mode {
        Mode::Replicated { replicas } => replicated::slots(service, places, replicas, now),
        Mode::Global => global::slots(service, places, board),
    };

    let mut ending: Vec<(Seen<'a>, String)> = Vec::new();
    let mut wants: Vec<Want<'a>> = Vec::new();
    for (place, why) in slots.surplus.iter().chain(&slots.vacated) {
        ending.extend(place.current().map(|seen| (seen, why.clone())));
    }
    for place in &slots.held {
        // So that it says what it waits for.
        let waiting = place.current().filter(Seen::is_pending);
        wants.extend(waiting.map(|seen| Want { slot: place.slot(), pending: Some(seen) }));
    }
    // A slot that is created now may take over from one above the replica count: it must run first.
    let settled = slots.fresh.is_empty() || service.spec.update.parallelism == 0;
    let update = if settled { update::next_batch(service, &slots.filled, now, draft) } else { BTreeSet::new() };
    for place in &slots.filled {
        match place.current() {
            Some(seen) => {
                let stale = seen.task.spec_version != service.spec_version;
                if let Some(why) = evict::reason(service, &seen, board) {
                    ending.push((seen, why));
                    // A stale one stops first, as in an update.
                    if !stale {
                        wants.push(Want { slot: place.slot(), pending: None });
                    }
                } else if seen.is_pending() && stale {
                    ending.push((seen, UPDATED.to_owned()));
                    wants.push(Want { slot: place.slot(), pending: None });
                } else if seen.is_pending() {
                    wants.push(Want { slot: place.slot(), pending: Some(seen) });
                } else if update.contains(&seen.task.id) {
                    ending.push((seen, UPDATED.to_owned()));
                }
            }
            None => match restart::refill(service, place, now) {
                Refill::Now => wants.push(Want { slot: place.slot(), pending: None }),
                Refill::At(at) => draft.wake(at),
                Refill::AfterItsEnd | Refill::Never => {}
            },
        }
    }
    wants.extend(slots.fresh.iter().map(|&slot| Want { slot, pending: None }));
    wants.retain(|want| want.pending.is_some() || is_open(service, want.slot));
    wants.sort_by_key(|want| want.slot);

    for (seen, why) in &ending {
        draft.push(TaskChange::Shutdown { task: seen.task.id, why: why.clone() });
        board.leave(seen);
    }
    if !wants.is_empty() && !draft.is_full() {
        let gone: BTreeSet<TaskId> = ending.iter().map(|(seen, _)| seen.task.id).collect();
        let staying = tasks.iter().filter(|seen| seen.is_live() && !gone.contains(&seen.task.id)).copied();
        let refused = tasks
            .chunk_by(|a, b| a.task.slot == b.task.slot)
            .flat_map(|slot| Place::new(slot).unstarted(service))
            .filter_map(|seen| seen.seat);
        fill(state, service, &wants, Spread::new(board, service, staying, refused), draft);
    }

    let kept = slots.filled.iter().chain(&slots.held).chain(slots.vacated.iter().map(|(place, _)| place));
    reaper::clear(service, kept, slots.surplus.iter().map(|(place, _)| place), draft);
}

/// Whether the state admits a new task in the slot.
fn is_open(service: &Service, slot: Slot) -> bool {
    match service.spec.mode {
        Mode::Replicated { replicas } => replicated::is_within(slot, replicas),
        Mode::Global => matches!(slot, Slot::Node(_)),
    }
}

/// Why a task is ended by an update, for people.
const UPDATED: &str = "replaced by a newer version of its service";

/// Gives each slot a node, or the reason why there is none.
fn fill<'a>(state: &State, service: &Service, wants: &[Want<'a>], mut spread: Spread<'_, 'a>, draft: &mut Draft) {
    let room = state.room(&service.spec.networks).map_err(|rejection| rejection.to_string());
    for want in wants {
        if draft.is_full() {
            return;
        }
        let placed = room.clone().and_then(|()| spread.place(want.slot));
        match (want.pending, placed) {
            (None, placed) => {
                let (node, why_pending) = match placed {
                    Ok(node) => (Some(node), String::new()),
                    Err(why) => (None, why),
                };
                draft.push(TaskChange::Create {
                    service: service.id,
                    spec_version: service.spec_version,
                    slot: want.slot,
                    node,
                    why_pending,
                });
            }
            (Some(seen), Ok(node)) => draft.push(TaskChange::Assign { task: seen.task.id, node }),
            (Some(seen), Err(why)) => {
                if seen.task.status.message != why {
                    draft.push(TaskChange::Pend { task: seen.task.id, why });
                }
            }
        }
    }
}
