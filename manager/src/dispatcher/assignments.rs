//! One agent's stream: everything once, then what changed.

use shoal_common::{
    NodeId,
    assignment::{Assignment, AssignmentDelta},
};
use shoal_proto::pb::{self, assignments_reply::Kind};
use shoal_state::{State, assignment};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tonic::Status;

/// Messages that an agent has not read yet. While it is full, changes gather into the next one.
pub(super) const UNREAD: usize = 4;

/// What was sent last, which is what the agent holds.
#[derive(Debug, Default)]
pub(super) struct Sent(Option<Assignment>);

impl Sent {
    /// The next message that this state asks for, if any.
    pub(super) fn next(&mut self, state: &State, node: NodeId) -> Result<Option<Kind>, Status> {
        let Some(now) = assignment(state, node) else {
            return Err(Status::permission_denied(format!("{node} was removed from the cluster")));
        };
        let kind = match &self.0 {
            None => Kind::Complete(now.clone().into()),
            Some(before) => {
                let delta = AssignmentDelta::between(before, &now);
                if delta.changes_nothing(before) {
                    return Ok(None);
                }
                Kind::Incremental(delta.into())
            }
        };
        self.0 = Some(now);
        Ok(Some(kind))
    }
}

/// Sends until the agent hangs up, the node is removed, or this host is no manager any more.
pub(super) async fn send(
    node: NodeId,
    mut states: watch::Receiver<Arc<State>>,
    ended: impl Future<Output = ()>,
    agent: mpsc::Sender<Result<pb::AssignmentsReply, Status>>,
) {
    tokio::pin!(ended);
    let mut sent = Sent::default();
    loop {
        // First room, then the state: what is sent is never older than it must be.
        let Ok(room) = agent.reserve().await else { return };
        let state = states.borrow_and_update().clone();
        match sent.next(&state, node) {
            Ok(Some(kind)) => room.send(Ok(pb::AssignmentsReply { kind: Some(kind) })),
            Ok(None) => drop(room),
            Err(status) => return room.send(Err(status)),
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = agent.closed() => return,
            () = &mut ended => return,
        }
    }
}
