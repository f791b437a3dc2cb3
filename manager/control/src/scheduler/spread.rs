//! Where a task should go: where fewest of its service could not start, then fewest tasks of its service, then fewest
//! tasks at all, then nodes in turn.
//!
//! A heap of the nodes that fit; each placed task costs one pop and one push. While one service is being placed
//! nodes only get fuller, so a node that refuses once is out until the next call.

use std::{cmp::Reverse, collections::BinaryHeap};

use shoal_common::{NodeId, task::Slot};
use shoal_state::Service;

use super::{
    filter::{self, Refusal},
    sentence::Refusals,
};
use crate::board::{Board, Seen};

/// Compared field by field: less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Choice {
    /// Tasks of this service that could not start here: the reason may be the host's.
    unstarted: u32,
    of_service: u32,
    of_all: u32,
    /// Distance from where this service begins counting, so that equal nodes get the first tasks of different
    /// services in turn.
    turn: u64,
    seat: usize,
}

/// The placing of one service's tasks in one call.
#[derive(Debug)]
pub(crate) struct Spread<'b, 'a> {
    board: &'b mut Board<'a>,
    service: &'a Service,
    choices: BinaryHeap<Reverse<Choice>>,
    refusals: Refusals,
    /// The sentence, once no node was left.
    nowhere: Option<String>,
}

impl<'b, 'a> Spread<'b, 'a> {
    /// `staying`: the service's live tasks that were not decided to end. `unstarted`: the seats of those that could not
    /// start lately.
    pub(crate) fn new(
        board: &'b mut Board<'a>,
        service: &'a Service,
        staying: impl Iterator<Item = Seen<'a>>,
        unstarted: impl Iterator<Item = usize>,
    ) -> Self {
        let mut of_service = vec![0u32; board.seats.len()];
        let mut failed = vec![0u32; board.seats.len()];
        for seat in unstarted {
            if let Some(count) = failed.get_mut(seat) {
                *count += 1;
            }
        }
        for seen in staying {
            if let Some(count) = seen.seat.and_then(|i| of_service.get_mut(i)) {
                *count += 1;
            }
        }
        let mut refusals = Refusals::default();
        let mut choices = Vec::with_capacity(board.seats.len());
        let nodes = board.seats.len().max(1) as u64;
        for (i, (seat, (of_service, unstarted))) in
            board.seats.iter().zip(of_service.into_iter().zip(failed)).enumerate()
        {
            match filter::standing(seat.node, &service.spec.placement) {
                Ok(()) => choices.push(Reverse(Choice {
                    unstarted,
                    of_service,
                    of_all: seat.live,
                    turn: (i as u64 + nodes - service.id.0 % nodes) % nodes,
                    seat: i,
                })),
                Err(refusal) => refusals.note(refusal, seat.left()),
            }
        }
        Self { board, service, choices: choices.into(), refusals, nowhere: None }
    }

    /// The node for one more task, which is counted in at once; or why there is none.
    pub(crate) fn place(&mut self, slot: Slot) -> Result<NodeId, String> {
        match slot {
            Slot::Replica(_) => self.best(),
            Slot::Node(node) => self.only(node),
        }
    }

    fn best(&mut self) -> Result<NodeId, String> {
        let most = self.service.spec.placement.max_replicas_per_node;
        while let Some(Reverse(choice)) = self.choices.pop() {
            let seat = &mut self.board.seats[choice.seat];
            let full = most != 0 && choice.of_service >= most;
            match if full { Err(Refusal::Full) } else { filter::room(seat, &self.service.spec) } {
                Ok(()) => {
                    seat.take(&self.service.spec);
                    self.choices.push(Reverse(Choice {
                        of_service: choice.of_service + 1,
                        of_all: choice.of_all + 1,
                        ..choice
                    }));
                    return Ok(seat.node.id);
                }
                Err(refusal) => self.refusals.note(refusal, seat.left()),
            }
        }
        Err(self.nowhere.get_or_insert_with(|| self.refusals.sentence(self.service)).clone())
    }

    fn only(&mut self, node: NodeId) -> Result<NodeId, String> {
        let mut refusals = Refusals::default();
        if let Some(seat) = self.board.index(node).and_then(|i| self.board.seats.get_mut(i)) {
            match filter::standing(seat.node, &self.service.spec.placement)
                .and_then(|()| filter::room(seat, &self.service.spec))
            {
                Ok(()) => {
                    seat.take(&self.service.spec);
                    return Ok(node);
                }
                Err(refusal) => refusals.note(refusal, seat.left()),
            }
        }
        Err(refusals.sentence(self.service))
    }
}
