//! Who may make a call from another host: the table of [`shoal_proto::access`], enforced before the router.
//!
//! A certificate is valid for months and says what its node was when it was issued. So membership is looked up at each
//! call: in the state, where this host is a manager, and otherwise in what the managers told this host last.

mod body;
mod close;
mod guard;
mod in_flight;
mod pace;

use shoal_common::{NodeId, node::Role};
use shoal_proto::Who;
use shoal_rt::PeerIdentity;
use std::{fmt, sync::Arc};
use tonic::Status;

use crate::{Seat, refused, removed};

pub use close::close_departed;
pub use guard::{Guard, Guarded};

/// Whether a node is among the managers that this host was told of last.
pub type Told = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// What this host knows of who is in the cluster.
#[derive(Clone)]
pub struct Known {
    seat: Seat,
    told: Told,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// What a node is, as far as this host knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Manager,
    /// No manager. To a host that is none itself every node is one of these that is not among its managers.
    Worker,
    Removed,
    /// A manager that is behind does not know yet.
    Unknown,
}

/// Whether a call is admitted.
#[derive(Debug)]
enum Verdict {
    Admitted,
    Refused(Status),
    /// This member may be behind: its leader's state decides.
    Ask,
}

impl Known {
    pub fn new(seat: Seat, told: Told) -> Self {
        Self { seat, told }
    }

    fn standing(&self, node: NodeId) -> Standing {
        let Ok(manager) = self.seat.manager() else {
            return if (self.told)(node) { Standing::Manager } else { Standing::Worker };
        };
        let states = manager.consensus.state();
        let state = states.borrow();
        match state.nodes.get(&node).map(|n| n.role) {
            Some(Role::Manager) => Standing::Manager,
            Some(Role::Worker) => Standing::Worker,
            None if state.was_removed(node) => Standing::Removed,
            None => Standing::Unknown,
        }
    }

    /// As the leader knows it. A host that is no manager has nobody to ask, and keeps to what it was told.
    async fn confirmed(&self, node: NodeId) -> Result<Standing, Status> {
        let Ok(manager) = self.seat.manager() else { return Ok(self.standing(node)) };
        let state = manager.consensus.read().await.map_err(refused)?;
        Ok(match state.nodes.get(&node).map(|n| n.role) {
            Some(Role::Manager) => Standing::Manager,
            Some(Role::Worker) => Standing::Worker,
            None => Standing::Removed,
        })
    }

    /// It votes, or learns in order to. A manager that was demoted does so until the group has let it go.
    fn is_member(&self, node: NodeId) -> bool {
        let Ok(manager) = self.seat.manager() else { return false };
        let leadership = manager.consensus.leadership();
        let leadership = leadership.borrow();
        leadership.voters.contains(&node) || leadership.learners.contains(&node)
    }

    async fn admit(&self, who: Who, identity: Option<PeerIdentity>) -> Result<(), Status> {
        match verdict(who, identity, |node| self.standing(node)) {
            Verdict::Admitted => Ok(()),
            Verdict::Refused(status) => Err(status),
            Verdict::Ask => {
                let Some(identity) = identity else { return Err(no_certificate()) };
                let standing = self.confirmed(identity.node).await?;
                match verdict(who, Some(identity), |_| standing) {
                    Verdict::Admitted => Ok(()),
                    Verdict::Refused(status) => Err(status),
                    Verdict::Ask => Err(no_manager(identity.node)),
                }
            }
        }
    }
}

fn no_certificate() -> Status {
    Status::unauthenticated("a node's certificate is needed for this")
}

fn no_manager(node: NodeId) -> Status {
    Status::permission_denied(format!(
        "{node} is not a manager, as far as this host knows: only managers may ask for this"
    ))
}

fn verdict(who: Who, identity: Option<PeerIdentity>, standing: impl Fn(NodeId) -> Standing) -> Verdict {
    let identity = match (who, identity) {
        (Who::Local, _) => {
            return Verdict::Refused(Status::permission_denied("a host answers this on its own socket only"));
        }
        (Who::Stranger, _) => return Verdict::Admitted,
        (Who::Node | Who::Manager | Who::Member, None) => return Verdict::Refused(no_certificate()),
        (Who::Node | Who::Manager | Who::Member, Some(identity)) => identity,
    };
    let node = identity.node;
    let worker = identity.role == Role::Worker;
    match (who, standing(node)) {
        (_, Standing::Removed) => Verdict::Refused(removed(node)),
        (Who::Manager | Who::Member, _) if worker => Verdict::Refused(no_manager(node)),
        (Who::Local | Who::Stranger | Who::Member, _) => Verdict::Admitted,
        (Who::Node | Who::Manager, Standing::Manager) => Verdict::Admitted,
        (Who::Node, Standing::Worker) => Verdict::Admitted,
        // It may have been promoted since.
        (Who::Manager, Standing::Worker) => Verdict::Ask,
        (Who::Node | Who::Manager, Standing::Unknown) => Verdict::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Manager, Removed, Unknown, Worker};
    use tonic::Code;

    /// The whole table: who may, by certificate and by what this host knows.
    #[test]
    fn a_certificate_alone_opens_nothing() {
        let yes = "yes";
        let told = |who, role: Option<Role>, standing| {
            let identity = role.map(|role| PeerIdentity { node: NodeId(7), role });
            match verdict(who, identity, |_| standing) {
                Verdict::Admitted => yes,
                Verdict::Ask => "ask",
                Verdict::Refused(status) if status.code() == Code::Unauthenticated => "certificate",
                Verdict::Refused(status) if status.code() == Code::PermissionDenied => "no",
                Verdict::Refused(status) => panic!("{status}"),
            }
        };
        let (none, worker, manager) = (None, Some(Role::Worker), Some(Role::Manager));
        for (who, role, [is_manager, is_worker, is_removed, is_unknown]) in [
            (Who::Local, none, ["no"; 4]),
            (Who::Local, manager, ["no"; 4]),
            (Who::Stranger, none, [yes; 4]),
            (Who::Stranger, manager, [yes; 4]),
            (Who::Node, none, ["certificate"; 4]),
            (Who::Node, worker, [yes, yes, "no", "ask"]),
            (Who::Node, manager, [yes, yes, "no", "ask"]),
            (Who::Manager, none, ["certificate"; 4]),
            (Who::Manager, worker, ["no"; 4]),
            (Who::Manager, manager, [yes, "ask", "no", "ask"]),
            (Who::Member, none, ["certificate"; 4]),
            (Who::Member, worker, ["no"; 4]),
            (Who::Member, manager, [yes, yes, "no", yes]),
        ] {
            let answers = [Manager, Worker, Removed, Unknown].map(|standing| told(who, role, standing));
            assert_eq!(answers, [is_manager, is_worker, is_removed, is_unknown], "{who:?} {role:?}");
        }
    }
}
