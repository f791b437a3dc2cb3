//! One slot, with all the tasks on record that were or are in it.

use shoal_common::task::{Slot, TaskState};
use shoal_state::Service;

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

    /// The newest tasks in a row that ended by themselves, at the present version, before their first process ran.
    pub(crate) fn unstarted(&self, service: &Service) -> impl Iterator<Item = Seen<'a>> + use<'s, 'a> {
        let version = service.spec_version;
        let unstarted = move |seen: &&Seen<'a>| {
            let failed = match seen.task.status.state {
                TaskState::Failed | TaskState::Rejected => true,
                TaskState::Pending
                | TaskState::Assigned
                | TaskState::Preparing
                | TaskState::Starting
                | TaskState::Running
                | TaskState::Unhealthy
                | TaskState::Complete
                | TaskState::Shutdown
                | TaskState::Orphaned => false,
            };
            // An exit code means that a process ran, if only for a moment.
            let ran = seen.task.started.is_some() || seen.task.status.exit_code.is_some();
            failed && !ran && seen.ended_by_itself() && seen.task.spec_version == version
        };
        self.history.iter().rev().take_while(unstarted).copied()
    }

    /// The live task: `apply` admits one at most.
    pub(crate) fn current(&self) -> Option<Seen<'a>> {
        self.history.iter().rev().find(|seen| seen.is_live()).copied()
    }
}
