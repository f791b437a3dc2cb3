//! Whether this host is a manager now: it may become one, and cease to be one, while its daemon serves.

use shoal_common::NodeId;
use shoal_proto::pb::raft_server::RaftServer;
use shoal_raft::Consensus;
use shoal_rt::Credentials;
use std::sync::Arc;
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
    /// For other managers; a host that is none answers that it is not there.
    pub fn raft_service(&self) -> RaftServer<shoal_raft::Server> {
        let seat = self.clone();
        shoal_raft::service(Arc::new(move || seat.0.borrow().as_ref().map(|m| m.consensus.clone())))
    }

    /// Resolves when the manager of now has left.
    pub async fn vacated(&self) {
        let mut seat = self.0.clone();
        // An error means that the daemon is ending, and the manager with it.
        let _ = seat.wait_for(Option::is_none).await;
    }

    pub fn manager(&self) -> Result<Manager, Status> {
        self.0.borrow().clone().ok_or_else(|| {
            Status::failed_precondition(
                "this host is not a manager (see shoal info), and only managers answer this: run the command on one, or have \
                 this host promoted there (shoal node promote)",
            )
        })
    }
}
