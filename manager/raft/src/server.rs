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
    lines::{Kind, MAX_MESSAGE_BYTES},
    types::{Logged, Snapshot, SnapshotMeta, Vote},
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
    fn member<T>(&self, request: &Request<T>) -> Result<(Consensus, NodeId), Status> {
        let node = sender(request)?;
        let member = (self.member)().ok_or_else(|| Status::unavailable("this host is not a manager"))?;
        Ok((member, node))
    }

    async fn reply(&self, kind: Kind, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let (member, from) = self.member(&request)?;
        let payload = answer(&member, from, kind, &request.into_inner().payload).await?;
        Ok(Response::new(RaftMessage { payload }))
    }
}

/// The node whose certificate, a manager's, the other end holds.
fn sender<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|p| p.identity);
    let manager = peer.filter(|p| p.role == Role::Manager);
    Ok(manager.ok_or_else(|| Status::permission_denied("only managers speak Raft"))?.node)
}

/// Whoever was removed is not heard.
fn hear(member: &Consensus, from: NodeId) -> Result<(), Status> {
    if member.state().borrow().was_removed(from) {
        return Err(Status::permission_denied(format!("{from} was removed from the cluster")));
    }
    Ok(())
}

/// For what a leader is asked, whose state is the newest.
fn hear_as_leader(member: &Consensus, from: NodeId) -> Result<(), Status> {
    hear(member, from)?;
    // Else it refuses by itself, in words that make the other look for the leader.
    if member.leadership().borrow().is_self && !member.state().borrow().is_manager(from) {
        return Err(Status::permission_denied(format!("{from} is not a manager any more")));
    }
    Ok(())
}

/// What this member answers to that one's question.
pub(crate) async fn answer(member: &Consensus, from: NodeId, kind: Kind, payload: &[u8]) -> Result<Vec<u8>, Status> {
    match kind {
        Kind::Propose => hear_as_leader(member, from)?,
        Kind::AppendEntries | Kind::Vote | Kind::PreVote | Kind::TransferLeader => hear(member, from)?,
    }
    let raft = member.raft();
    let failed = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
    match kind {
        Kind::AppendEntries => encode(&raft.append_entries(decode(payload)?).await.map_err(|e| failed(&e))?),
        Kind::Vote => encode(&raft.vote(decode(payload)?).await.map_err(|e| failed(&e))?),
        Kind::PreVote => encode(&raft.pre_vote(decode(payload)?).await.map_err(|e| failed(&e))?),
        Kind::TransferLeader => encode(&raft.handle_transfer_leader(decode(payload)?).await.map_err(|e| failed(&e))?),
        Kind::Propose => encode(&member.propose_as_leader(decode::<Logged>(payload)?).await.map_err(refusal)?),
    }
}

pub(crate) async fn read_index(member: &Consensus, from: NodeId) -> Result<u64, Status> {
    hear_as_leader(member, from)?;
    member.read_index_as_leader().await.map_err(refusal)
}

/// Installs what came in pieces, of which `head` says which snapshot it is.
pub(crate) async fn install_snapshot(
    member: &Consensus,
    from: NodeId,
    head: &[u8],
    snapshot: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    hear(member, from)?;
    let (vote, meta): (Vote, SnapshotMeta) = decode(head)?;
    // openraft panics on what no leader can send; a snapshot that does not decode must not get that far.
    crate::snapshot::decode(&snapshot).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let answer = member.raft().install_full_snapshot(vote, Snapshot { meta, snapshot: snapshot.into() }).await;
    encode(&answer.map_err(|e| Status::unavailable(e.to_string()))?)
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    codec::decode(payload).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    codec::encode(value).map_err(|e| Status::internal(e.to_string()))
}

#[tonic::async_trait]
impl RaftService for Server {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.reply(Kind::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.reply(Kind::Vote, request).await
    }

    async fn pre_vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.reply(Kind::PreVote, request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let (member, from) = self.member(&request)?;
        hear(&member, from)?;
        let mut messages = request.into_inner();
        let head = messages.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let mut snapshot = Vec::new();
        while let Some(piece) = messages.message().await? {
            snapshot.extend_from_slice(&piece.payload);
        }
        let payload = install_snapshot(&member, from, &head.payload, snapshot).await?;
        Ok(Response::new(RaftMessage { payload }))
    }

    async fn transfer_leader(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.reply(Kind::TransferLeader, request).await
    }

    async fn propose(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.reply(Kind::Propose, request).await
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let (member, from) = self.member(&request)?;
        Ok(Response::new(ReadIndexReply { index: read_index(&member, from).await? }))
    }
}

fn refusal(error: LeaderError) -> Status {
    match error {
        LeaderError::NotLeader => Status::failed_precondition("this member does not lead"),
        LeaderError::Unsure(why) => Status::unavailable(why),
    }
}
