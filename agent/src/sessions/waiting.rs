//! Those who are attached to a container before it runs, so that they miss nothing of what it says.

use shoal_common::TaskId;
use shoal_runtime::Session;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

type Waiters = BTreeMap<TaskId, Vec<oneshot::Sender<Session>>>;

/// Clones are the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Waiters>>);

impl Waiting {
    /// Resolves when the container is started the next time; to an error if somebody else came first, or it could not
    /// be started.
    pub(crate) fn wait(&self, container: TaskId) -> oneshot::Receiver<Session> {
        let (tx, rx) = oneshot::channel();
        self.waiters().entry(container).or_default().push(tx);
        rx
    }

    /// Who waits for this start, and is still there. All others are turned away.
    pub(crate) fn take(&self, container: TaskId) -> Option<oneshot::Sender<Session>> {
        self.waiters().remove(&container).into_iter().flatten().find(|waiter| !waiter.is_closed())
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, all| all.iter().any(|waiter| !waiter.is_closed()));
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_waits_no_more() {
        let waiting = Waiting::default();
        let gone = waiting.wait(TaskId(1));
        let there = waiting.wait(TaskId(1));
        drop(gone);
        assert!(waiting.take(TaskId(1)).is_some_and(|waiter| !waiter.is_closed()));
        assert!(waiting.take(TaskId(1)).is_none());
        drop(there);
        drop(waiting.wait(TaskId(2)));
        assert!(waiting.take(TaskId(2)).is_none());
    }
}
