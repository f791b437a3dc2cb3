//! Agents to managers: assignments down, heartbeats and reports up. Any manager serves any agent.

mod assignments;
mod heard;
mod reports;

use shoal_common::{
    Invalid, NodeId,
    node::{Availability, NodeDescription},
};
use shoal_proto::{
    convert::{Report, RunReport},
    pb::{
        self,
        dispatcher_server::{Dispatcher, DispatcherServer},
    },
};
use shoal_rt::{Tasks, clock, tasks};
use shoal_state::{Command, ContainerReport, Proposal, State, TaskReport};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{Manager, Seat, peer, refused, removed};
use reports::Reports;

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
}

pub fn service(seat: Seat, heard: Heard, tasks: &Tasks) -> DispatcherServer<Dispatch> {
    let reports = Reports::new(seat.clone(), tasks);
    DispatcherServer::new(Dispatch { seat, heard, reports })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
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
        describe(&manager, node, description).await?;
        self.alive(&manager, node)?;
        let (tx, rx) = mpsc::channel(assignments::UNREAD);
        let seat = self.seat.clone();
        let sending = assignments::send(node, manager.consensus.state(), async move { seat.vacated().await }, tx);
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
        let state = manager.consensus.state().borrow().clone();
        let request = request.into_inner();
        let mut containers = Vec::new();
        for (n, on_wire) in request.containers.into_iter().enumerate() {
            let report: RunReport = on_wire
                .try_into()
                .map_err(|e: Invalid| refused(Invalid { field: format!("containers[{n}].{}", e.field), ..e }))?;
            // One that is another node's, or forgotten meanwhile, is skipped when this is applied.
            containers.push(ContainerReport {
                node,
                container: report.container,
                start: report.start,
                phase: report.phase,
                message: report.message,
                exit_code: report.exit_code,
                restarts: report.restarts,
                health: report.health,
                unstarted: report.unstarted,
            });
        }
        if !containers.is_empty() {
            // Not folded with those of other hosts: people run fewer containers by hand than services do.
            let command = Command::ReportContainers { reports: containers };
            let proposal = Proposal { at: clock::now(), request: None, command };
            manager.consensus.propose(proposal).await.map_err(refused)?.1.map_err(refused)?;
        }
        let mut reports = Vec::new();
        for (n, on_wire) in request.reports.into_iter().enumerate() {
            let report: Report = on_wire
                .try_into()
                .map_err(|e: Invalid| refused(Invalid { field: format!("reports[{n}].{}", e.field), ..e }))?;
            // A node speaks of its own tasks only; one that is forgotten meanwhile needs no report.
            match state.tasks.get(&report.task).map(|t| t.node) {
                Some(Some(owner)) if owner == node => reports.push(TaskReport {
                    node,
                    task: report.task,
                    state: report.state,
                    message: report.message,
                    exit_code: report.exit_code,
                }),
                Some(_) => {
                    return Err(Status::invalid_argument(format!("{} is not a task of {node}", report.task)));
                }
                None => {}
            }
        }
        if !reports.is_empty() {
            self.reports.submit(reports).await?;
        }
        Ok(Response::new(pb::ReportStatusReply {}))
    }

    async fn leave(&self, request: Request<pb::DepartureRequest>) -> Result<Response<pb::DepartureReply>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let command = if request.into_inner().gone {
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

/// The managers' record of the host, brought up to date.
async fn describe(manager: &Manager, node: NodeId, description: NodeDescription) -> Result<(), Status> {
    let known = |state: &State| state.nodes.get(&node).map(|n| n.description == description);
    let mut same = known(&manager.consensus.state().borrow());
    if same.is_none() {
        // A node that has just joined may not be applied here yet.
        same = known(&*manager.consensus.read().await.map_err(refused)?);
    }
    match same {
        Some(true) => Ok(()),
        Some(false) => {
            let command = Command::DescribeNode { node, description };
            let proposal = Proposal { at: clock::now(), request: None, command };
            let (_, outcome) = manager.consensus.propose(proposal).await.map_err(refused)?;
            outcome.map(drop).map_err(refused)
        }
        None => Err(removed(node)),
    }
}
