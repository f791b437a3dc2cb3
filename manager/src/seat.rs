//! Whether this host is a manager now: it may become one, and cease to be one, while its daemon serves.

use shoal_common::NodeId;
use shoal_raft::Consensus;
use shoal_rt::Credentials;
use tokio::sync::watch;
use tonic::Status;

/// What every part of a manager works with. Clones are the same manager.
#[derive(Debug, Clone)]
pub struct Manager {
    pub node: NodeId,
    pub consensus: Consensus,
    pub credentials: Credentials,
}

/// Held by every service of the manager's side, so that serving never has to be restarted.
#[derive(Debug, Clone)]
pub struct Seat(watch::Receiver<Option<Manager>>);

/// An empty seat, and what fills it.
pub fn seat() -> (watch::Sender<Option<Manager>>, Seat) {
    let (tx, rx) = watch::channel(None);
    (tx, Seat(rx))
}

impl Seat {
    pub fn manager(&self) -> Result<Manager, Status> {
        self.0.borrow().clone().ok_or_else(|| {
            Status::failed_precondition(
                "this host is not a manager: run the command on a manager, or promote this node there (shoal node promote)",
            )
        })
    }
}
