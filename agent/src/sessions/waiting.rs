//! Those who are attached to a container before it runs, so that they miss nothing of what it says.

use shoal_common::TaskId;
use shoal_runtime::{Session, Size};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

type Waiters = BTreeMap<TaskId, Vec<Waiter>>;

#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) session: oneshot::Sender<Session>,
    /// Of the terminal that it is seen in.
    pub(crate) size: Option<Size>,
}

/// Clones are the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Waiters>>);

impl Waiting {
    /// Resolves when the container is started the next time; to an error if somebody else came first, or it could not
    /// be started.
    pub(crate) fn wait(&self, container: TaskId, size: Option<Size>) -> oneshot::Receiver<Session> {
        let (tx, rx) = oneshot::channel();
        self.waiters().entry(container).or_default().push(Waiter { session: tx, size });
        rx
    }

    /// Who waits for this start, and is still there. All others are turned away.
    pub(crate) fn take(&self, container: TaskId) -> Option<Waiter> {
        self.waiters().remove(&container).into_iter().flatten().find(|waiter| !waiter.session.is_closed())
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, all| all.iter().any(|waiter| !waiter.session.is_closed()));
        waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_waits_no_more() {
        let waiting = Waiting::default();
        let gone = waiting.wait(TaskId(1), None);
        let there = waiting.wait(TaskId(1), Some(Size { rows: 2, columns: 3 }));
        drop(gone);
        assert!(waiting.take(TaskId(1)).is_some_and(|waiter| !waiter.session.is_closed() && waiter.size.is_some()));
        assert!(waiting.take(TaskId(1)).is_none());
        drop(there);
        drop(waiting.wait(TaskId(2), None));
        assert!(waiting.take(TaskId(2)).is_none());
    }
}
