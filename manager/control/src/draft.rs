//! The decision while it is being made: a bounded batch of changes.

use shoal_common::Timestamp;
use shoal_state::{Command, TaskChange};

use crate::Decision;

/// Changes in one log entry. A change is some 100 bytes, so an entry stays well below a megabyte and is applied in
/// milliseconds: heartbeats are not held up, and 10,000 replicas are still only five entries.
pub const BATCH_CHANGES: usize = 2_000;

#[derive(Debug, Default)]
pub(crate) struct Draft {
    changes: Vec<TaskChange>,
    /// Forgetting is never urgent: it takes what room the others leave.
    forget: Vec<TaskChange>,
    wake_at: Option<Timestamp>,
}

impl Draft {
    /// No more changes fit. Callers stop here, lest a change be made without the one that it builds on.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() >= BATCH_CHANGES
    }

    /// Drops the change when the batch is full: the state will ask for it again.
    pub(crate) fn push(&mut self, change: TaskChange) {
        if !self.is_full() {
            self.changes.push(change);
        }
    }

    pub(crate) fn forget(&mut self, change: TaskChange) {
        if self.forget.len() < BATCH_CHANGES {
            self.forget.push(change);
        }
    }

    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn into_decision(mut self) -> Decision {
        let left = BATCH_CHANGES.saturating_sub(self.changes.len());
        self.changes.extend(self.forget.into_iter().take(left));
        let commands =
            if self.changes.is_empty() { vec![] } else { vec![Command::Orchestrate { changes: self.changes }] };
        Decision { commands, wake_at: self.wake_at }
    }
}
