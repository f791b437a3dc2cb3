//! Whether this host is a manager now: it may become one, and cease to be one, while its daemon serves.

use shoal_common::NodeId;
use shoal_proto::pb::raft_server::RaftServer;
use shoal_raft::Consensus;
use shoal_rt::Credentials;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tonic::Status;

/// Between a host's new certificate and its log being open; 0.4 s were seen.
const SEAT_PATIENCE: Duration = Duration::from_secs(3);

/// What every part of a manager works with. Clones are the same manager.
#[derive(Debug, Clone)]
pub struct Manager {
    pub node: NodeId,
    pub consensus: Consensus,
    pub credentials: Credentials,
}

/// Held by every service of the manager's side, so that serving never has to be restarted.
#[derive(Debug, Clone)]
pub struct Seat {
    manager: watch::Receiver<Option<Manager>>,
    fault: Arc<watch::Sender<Option<Fault>>>,
    /// Whether it is known what this host is: a daemon that begins reads its files first.
    known: Arc<watch::Sender<bool>>,
}

/// Why a host that should be a manager is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// With an error code where there is one, and the way back.
    pub why: String,
    /// It does not pass by itself: somebody has to do something.
    pub lasting: bool,
}

/// An empty seat, and what fills it. Nobody knows yet whether it stays empty ([`Seat::set_known`]).
pub fn seat() -> (watch::Sender<Option<Manager>>, Seat) {
    let (tx, rx) = watch::channel(None);
    (tx, Seat { manager: rx, fault: Arc::new(watch::Sender::new(None)), known: Arc::new(watch::Sender::new(false)) })
}

impl Seat {
    /// For other managers; a host that is none answers that it is not there.
    pub fn raft_service(&self) -> RaftServer<shoal_raft::Server> {
        let seat = self.clone();
        shoal_raft::service(Arc::new(move || match seat.manager.borrow().as_ref() {
            Some(manager) => Ok(manager.consensus.clone()),
            None => Err(seat.fault().map_or_else(|| "this host is not a manager".to_owned(), |fault| fault.why)),
        }))
    }

    /// Tells users here, and the other managers, why this host is no manager although it should be one.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    pub fn fault(&self) -> Option<Fault> {
        self.fault.borrow().clone()
    }

    /// Resolves when this host is a manager, or it is known why it is not.
    pub async fn settled(&self) {
        let (mut manager, mut fault) = (self.manager.clone(), self.fault.subscribe());
        // An error means that the daemon is ending.
        tokio::select! {
            _ = manager.wait_for(Option::is_some) => {}
            _ = fault.wait_for(Option::is_some) => {}
        }
    }

    /// What this host is counts from now on.
    pub fn set_known(&self) {
        self.known.send_replace(true);
    }

    /// For the host's own users, who may ask before the daemon has read what this host is: they wait, and do not hear
    /// that it is no manager.
    pub async fn manager_once_known(&self) -> Result<Manager, Status> {
        let mut known = self.known.subscribe();
        // An error means that the daemon is ending.
        tokio::select! {
            () = self.settled() => {}
            _ = known.wait_for(|known| *known) => {}
        }
        self.manager()
    }

    /// Resolves when the manager of now has left.
    pub async fn vacated(&self) {
        let mut seat = self.manager.clone();
        // An error means that the daemon is ending, and the manager with it.
        let _ = seat.wait_for(Option::is_none).await;
    }

    /// For who may ask before this host has opened its log: one that was just made a manager is one in a moment.
    pub async fn manager_soon(&self) -> Option<Manager> {
        let mut seat = self.manager.clone();
        let seated = tokio::time::timeout(SEAT_PATIENCE, seat.wait_for(Option::is_some)).await;
        seated.ok()?.ok().and_then(|seat| seat.clone())
    }

    pub fn manager(&self) -> Result<Manager, Status> {
        self.manager.borrow().clone().ok_or_else(|| match self.fault() {
            Some(fault) => Status::failed_precondition(format!("this host is not a manager at the moment: {}", fault.why)),
            None => Status::failed_precondition(
                "this host is not a manager (see shoal info), and only managers answer this: run the command on one, or have \
                 this host promoted there (shoal node promote)",
            ),
        })
    }
}
