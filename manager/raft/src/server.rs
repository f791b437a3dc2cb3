//! Messages from other members. Only a manager's certificate is listened to, and a certificate outlives what it says:
//! a node that was removed is refused by everyone who knows of it. Whoever asks for what only a leader does must be a
//! manager in the leader's eyes. Raft's own messages are heard from any other holder, for a member that was away may
//! have a leader that it does not know yet.

use serde::{Serialize, de::DeserializeOwned};
use shoal_common::{NodeId, node::Role};
use shoal_proto::pb::{
    RaftMessage, ReadIndexReply, ReadIndexRequest,
    raft_server::{Raft as RaftService, RaftServer},
};
use shoal_rt::Peer;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    codec,
    consensus::{Consensus, LeaderError},
    peers::MAX_MESSAGE_BYTES,
    types::{Logged, Raft, Snapshot, SnapshotMeta, Vote},
};

/// The member that this host is at the moment, if any.
pub type Member = Arc<dyn Fn() -> Option<Consensus> + Send + Sync>;

pub struct Server {
    member: Member,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// What to add to the daemon's server.
pub fn service(member: Member) -> RaftServer<Server> {
    RaftServer::new(Server { member })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Server {
    fn member<T>(&self, request: &Request<T>) -> Result<Consensus, Status> {
        let node = sender(request)?;
        let member = (self.member)().ok_or_else(|| Status::unavailable("this host is not a manager"))?;
        if member.state().borrow().was_removed(node) {
            return Err(Status::permission_denied(format!("{node} was removed from the cluster")));
        }
        Ok(member)
    }

    /// For what a leader is asked, whose state is the newest.
    fn leader<T>(&self, request: &Request<T>) -> Result<Consensus, Status> {
        let member = self.member(request)?;
        let node = sender(request)?;
        // Else it refuses by itself, in words that make the other look for the leader.
        if member.leadership().borrow().is_self && !member.state().borrow().is_manager(node) {
            return Err(Status::permission_denied(format!("{node} is not a manager any more")));
        }
        Ok(member)
    }

    /// Decodes, asks, encodes.
    async fn answer<Q, A, E, F>(
        &self,
        request: Request<RaftMessage>,
        ask: impl FnOnce(Raft, Q) -> F,
    ) -> Result<Response<RaftMessage>, Status>
    where
        Q: DeserializeOwned,
        A: Serialize,
        E: std::fmt::Display,
        F: Future<Output = Result<A, E>>,
    {
        let raft = self.member(&request)?.raft().clone();
        let question = decode(&request.into_inner())?;
        reply(&ask(raft, question).await.map_err(|e| Status::unavailable(e.to_string()))?)
    }
}

/// The node whose certificate, a manager's, the other end holds.
fn sender<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|p| p.identity);
    let manager = peer.filter(|p| p.role == Role::Manager);
    Ok(manager.ok_or_else(|| Status::permission_denied("only managers speak Raft"))?.node)
}

fn decode<T: DeserializeOwned>(message: &RaftMessage) -> Result<T, Status> {
    codec::decode(&message.payload).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn reply<T: Serialize>(value: &T) -> Result<Response<RaftMessage>, Status> {
    let payload = codec::encode(value).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(RaftMessage { payload }))
}

#[tonic::async_trait]
impl RaftService for Server {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.answer(request, |raft, q| async move { raft.append_entries(q).await }).await
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.answer(request, |raft, q| async move { raft.vote(q).await }).await
    }

    async fn pre_vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.answer(request, |raft, q| async move { raft.pre_vote(q).await }).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let raft = self.member(&request)?.raft().clone();
        let mut messages = request.into_inner();
        let head = messages.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let (vote, meta): (Vote, SnapshotMeta) = decode(&head)?;
        let mut bytes = Vec::new();
        while let Some(piece) = messages.message().await? {
            bytes.extend_from_slice(&piece.payload);
        }
        // openraft panics on what no leader can send; a snapshot that does not decode must not get that far.
        crate::snapshot::decode(&bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let answer = raft.install_full_snapshot(vote, Snapshot { meta, snapshot: bytes.into() }).await;
        reply(&answer.map_err(|e| Status::unavailable(e.to_string()))?)
    }

    async fn transfer_leader(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.answer(request, |raft, q| async move { raft.handle_transfer_leader(q).await }).await
    }

    async fn propose(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let member = self.leader(&request)?;
        let proposal: Logged = decode(&request.into_inner())?;
        reply(&member.propose_as_leader(proposal).await.map_err(refusal)?)
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let member = self.leader(&request)?;
        let index = member.read_index_as_leader().await.map_err(refusal)?;
        Ok(Response::new(ReadIndexReply { index }))
    }
}

fn refusal(error: LeaderError) -> Status {
    match error {
        LeaderError::NotLeader => Status::failed_precondition("this member does not lead"),
        LeaderError::Unsure(why) => Status::unavailable(why),
    }
}
