//! One slot, with all the tasks on record that were or are in it.

use shoal_common::task::Slot;

use crate::board::Seen;

/// Never empty; ascending by task id, which is by age.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'s, 'a> {
    history: &'s [Seen<'a>],
}

impl<'s, 'a> Place<'s, 'a> {
    pub(crate) fn new(history: &'s [Seen<'a>]) -> Self {
        assert!(!history.is_empty(), "a slot is on record because a task is");
        Self { history }
    }

    pub(crate) fn slot(&self) -> Slot {
        self.newest().task.slot
    }

    pub(crate) fn history(&self) -> &'s [Seen<'a>] {
        self.history
    }

    pub(crate) fn newest(&self) -> Seen<'a> {
        *self.history.last().expect("a place has a task")
    }

    /// The live task: `apply` admits one at most.
    pub(crate) fn current(&self) -> Option<Seen<'a>> {
        self.history.iter().rev().find(|seen| seen.is_live()).copied()
    }
}
