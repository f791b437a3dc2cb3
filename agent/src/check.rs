//! Whether the kernel agrees with what this host was told about one network, asked for by somebody. The reconciler
//! answers, between two of its looks, so nothing that it is about to do is taken for a disagreement.

use shoal_common::{Generation, NetworkId};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for the reconciler. Who comes later waits for room.
const WAITING: usize = 16;

#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) network: NetworkId,
    pub(crate) answer: oneshot::Sender<Result<Checked, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Of what the kernel was compared with.
    pub(crate) generation: Generation,
    /// What would have to be done, as commands.
    pub(crate) differences: Vec<String>,
}

/// The way to the reconciler, while there is one.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<Option<mpsc::Sender<Check>>>);

impl Checks {
    pub(crate) fn open(&self) -> mpsc::Receiver<Check> {
        let (tx, rx) = mpsc::channel(WAITING);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tx);
        rx
    }

    /// `None`: this host is in no cluster.
    pub(crate) async fn ask(&self, network: NetworkId) -> Option<Result<Checked, String>> {
        let to = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (answer, answered) = oneshot::channel();
        to.send(Check { network, answer }).await.ok()?;
        answered.await.ok()
    }
}
