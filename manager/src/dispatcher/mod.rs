//! Agents to managers: assignments down, heartbeats and reports up. Any manager serves any agent.

mod assignments;
mod heard;
mod intake;
mod reports;
mod streams;

use shoal_common::{
    Invalid, NodeId,
    node::{Availability, NodeDescription, Role},
};
use shoal_proto::pb::{
    self,
    dispatcher_server::{Dispatcher, DispatcherServer},
};
use shoal_rt::{Tasks, clock, tasks};
use shoal_state::{Command, Proposal, State};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{Manager, Seat, claims, peer, refused, removed};
use intake::Intake;
use reports::Reports;
use streams::Streams;

pub use heard::Heard;

/// How often an agent speaks: several times within the node timeout.
const HEARTBEAT_PERIOD_MS: u64 = 1000;
/// A host's whole assignment.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub struct Dispatch {
    seat: Seat,
    heard: Heard,
    reports: Reports,
    intake: Intake,
    streams: Streams,
}

pub fn service(seat: Seat, heard: Heard, tasks: &Tasks) -> DispatcherServer<Dispatch> {
    let reports = Reports::new(seat.clone(), tasks);
    // Requests have the limits of `shoal_proto::access`; what is sent is a host's whole assignment.
    DispatcherServer::new(Dispatch { seat, heard, reports, intake: Intake::default(), streams: Streams::default() })
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

#[tonic::async_trait]
impl Dispatcher for Dispatch {
    type AssignmentsStream = ReceiverStream<Result<pb::AssignmentsReply, Status>>;

    async fn assignments(
        &self,
        request: Request<pb::AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let from = peer::address(&request)?;
        let r = request.into_inner();
        let description: NodeDescription = r
            .description
            .ok_or_else(|| Status::invalid_argument("description: it is missing"))?
            .try_into()
            .map_err(refused::<Invalid>)?;
        let applied = manager.consensus.state().borrow().applied;
        if applied.0 < r.have_generation {
            return Err(Status::unavailable(format!(
                "this manager is at {applied}, behind what the host has seen ({})",
                r.have_generation
            )));
        }
        let place = assignments::Place::new(description.vtep);
        describe(&manager, node, from, description).await?;
        self.alive(&manager, node)?;
        let (tx, rx) = mpsc::channel(assignments::UNREAD);
        let (seat, mut stream) = (self.seat.clone(), self.streams.open(node, from));
        let ended = async move {
            tokio::select! {
                () = seat.vacated() => None,
                replaced = stream.replaced() => Some(replaced),
            }
        };
        let sending = assignments::send(node, place, manager.consensus.state(), ended, tx);
        tasks::detached("assignments of one agent", sending);
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Result<Response<pb::HeartbeatReply>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let known = |state: &State| state.nodes.contains_key(&node);
        let known_here = known(&manager.consensus.state().borrow());
        // A member that is behind must not call a node removed.
        if !known_here && !known(&*manager.consensus.read().await.map_err(refused)?) {
            return Err(removed(node));
        }
        self.alive(&manager, node)?;
        Ok(Response::new(pb::HeartbeatReply { period_ms: HEARTBEAT_PERIOD_MS }))
    }

    async fn report_status(
        &self,
        request: Request<pb::ReportStatusRequest>,
    ) -> Result<Response<pb::ReportStatusReply>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let _turn = self.intake.begin(node).await?;
        let state = manager.consensus.state().borrow().clone();
        let rows = intake::rows(&state, node, request.into_inner())?;
        if !rows.is_empty() {
            self.reports.submit(rows).await?;
        }
        Ok(Response::new(pb::ReportStatusReply {}))
    }

    async fn leave(&self, request: Request<pb::DepartureRequest>) -> Result<Response<pb::DepartureReply>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let gone = request.into_inner().gone;
        if gone && is_half_a_member(&manager, node) {
            return forget(&manager, node).await;
        }
        let command = if gone {
            Command::LeaveCluster { node }
        } else {
            Command::UpdateNode {
                node,
                availability: Some(Availability::Drain),
                role: None,
                labels_add: BTreeMap::new(),
                labels_remove: Vec::new(),
            }
        };
        let proposal = Proposal { at: clock::now(), request: None, command };
        manager.consensus.propose(proposal).await.map_err(refused)?.1.map_err(refused)?;
        Ok(Response::new(pb::DepartureReply {}))
    }

    async fn relay_heartbeats(
        &self,
        request: Request<pb::RelayHeartbeatsRequest>,
    ) -> Result<Response<pb::RelayHeartbeatsReply>, Status> {
        let manager = self.seat.manager()?;
        let relaying = peer::manager(&request)?.node;
        if !manager.consensus.leadership().borrow().is_self {
            return Err(Status::failed_precondition("this manager does not lead"));
        }
        // A certificate outlives what it says.
        if !manager.consensus.state().borrow().is_manager(relaying) {
            return Err(Status::permission_denied(format!("{relaying} is not a manager any more")));
        }
        for node in request.into_inner().nodes {
            // What the leader's loop does not take is told by its own nodes' heartbeats.
            let _ = self.heard.tell(NodeId(node));
        }
        Ok(Response::new(pb::RelayHeartbeatsReply {}))
    }
}

impl Dispatch {
    fn alive(&self, manager: &Manager, node: NodeId) -> Result<(), Status> {
        if self.heard.tell(node) {
            return Ok(());
        }
        let leader = manager.consensus.leadership().borrow().leader;
        Err(Status::unavailable(match leader {
            Some(leader) => format!("this manager does not reach {leader}, the leader"),
            None => "this manager knows of no leader".to_owned(),
        }))
    }
}

/// A manager that has never come so far as to vote. As it leaves, nobody need demote and remove it.
fn is_half_a_member(manager: &Manager, node: NodeId) -> bool {
    let votes = manager.consensus.leadership().borrow().voters.contains(&node);
    manager.consensus.state().borrow().is_manager(node) && !votes
}

async fn forget(manager: &Manager, node: NodeId) -> Result<Response<pb::DepartureReply>, Status> {
    let demote = Command::UpdateNode {
        node,
        availability: None,
        role: Some(Role::Worker),
        labels_add: BTreeMap::new(),
        labels_remove: Vec::new(),
    };
    for command in [demote, Command::LeaveCluster { node }, Command::RemoveNode { node, force: true }] {
        let proposal = Proposal { at: clock::now(), request: None, command };
        manager.consensus.propose(proposal).await.map_err(refused)?.1.map_err(refused)?;
    }
    Ok(Response::new(pb::DepartureReply {}))
}

/// The managers' record of the host, brought up to date.
async fn describe(
    manager: &Manager,
    node: NodeId,
    from: SocketAddr,
    description: NodeDescription,
) -> Result<(), Status> {
    let known = |state: &State| state.nodes.get(&node).map(|n| n.description == description);
    let mut same = known(&manager.consensus.state().borrow());
    if same.is_none() {
        // A node that has just joined may not be applied here yet.
        same = known(&*manager.consensus.read().await.map_err(refused)?);
    }
    match same {
        Some(true) => Ok(()),
        Some(false) => {
            let state = manager.consensus.state().borrow().clone();
            claims::check(&state, Some(node), from.ip(), &description).map_err(refused)?;
            let command = Command::DescribeNode { node, description };
            let proposal = Proposal { at: clock::now(), request: None, command };
            let (_, outcome) = manager.consensus.propose(proposal).await.map_err(refused)?;
            outcome.map(drop).map_err(refused)?;
            let state = manager.consensus.state().borrow().clone();
            for (_, link) in state.overlapped_links().into_iter().filter(|(of, _)| *of == node) {
                tracing::warn!(
                    %node,
                    %link,
                    "networks may overlap this link of a host: with it less than half of an address pool would be left"
                );
            }
            Ok(())
        }
        None => Err(removed(node)),
    }
}
