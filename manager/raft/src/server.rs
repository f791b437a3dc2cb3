//! Messages from other members. Only a manager's certificate is listened to, and a certificate outlives what it says:
//! a node that was removed is refused by everyone who knows of it. Whoever asks for what only a leader does must be a
//! manager in the leader's eyes. Raft's own messages are heard as [`crate::sender`] says.

use futures::{Stream, StreamExt as _};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::{Serialize, de::DeserializeOwned};
use shoal_common::{NodeId, node::Role};
use shoal_proto::pb::{
    RaftMessage, ReadIndexReply, ReadIndexRequest,
    raft_server::{Raft as RaftService, RaftServer},
};
use shoal_rt::Peer;
use std::{io, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    codec,
    consensus::{Consensus, LeaderError, fits},
    lines::{Kind, MAX_MESSAGE_BYTES},
    rt,
    sender::Sender,
    types::{Logged, Snapshot, SnapshotMeta, TypeConfig, Vote},
};

/// Nobody else may send a snapshot meanwhile.
const PIECE_PATIENCE: Duration = Duration::from_secs(20);

/// The member that this host is at the moment, or why it is none.
pub type Member = Arc<dyn Fn() -> Result<Consensus, String> + Send + Sync>;

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
        let member = (self.member)().map_err(Status::unavailable)?;
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

/// For Raft's own messages: who sends one, if it is heard at all.
fn hear_raft(member: &Consensus, from: NodeId) -> Result<Sender, Status> {
    hear(member, from)?;
    let state = member.state();
    let is_worker = state.borrow().nodes.get(&from).is_some_and(|n| n.role == Role::Worker);
    let sender = Sender { node: from, in_group: member.is_in_group(from), is_worker, led_since: member.led_since() };
    sender.is_heard(member.lease())?;
    Ok(sender)
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
    let raft = member.raft();
    let failed = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
    match kind {
        Kind::AppendEntries => {
            let sender = hear_raft(member, from)?;
            let entries: AppendEntriesRequest<TypeConfig> = decode(payload)?;
            sender.may_claim(&entries.vote, member.term())?;
            let answer = raft.append_entries(entries).await.map_err(|e| failed(&e))?;
            member.heard(from);
            encode(&answer)
        }
        Kind::Vote | Kind::PreVote => {
            let sender = hear_raft(member, from)?;
            let asked: VoteRequest<TypeConfig> = decode(payload)?;
            sender.may_claim(&asked.vote, member.term())?;
            let answer = if kind == Kind::Vote { raft.vote(asked).await } else { raft.pre_vote(asked).await };
            encode(&answer.map_err(|e| failed(&e))?)
        }
        Kind::TransferLeader => {
            let sender = hear_raft(member, from)?;
            let asked: TransferLeaderRequest<TypeConfig> = decode(payload)?;
            sender.may_claim(asked.from_leader(), member.term())?;
            encode(&raft.handle_transfer_leader(asked).await.map_err(|e| failed(&e))?)
        }
        Kind::Propose => {
            hear_as_leader(member, from)?;
            fits(payload).map_err(|e| Status::invalid_argument(e.to_string()))?;
            encode(&member.propose_as_leader(decode::<Logged>(payload)?).await.map_err(refusal)?)
        }
    }
}

pub(crate) async fn read_index(member: &Consensus, from: NodeId) -> Result<ReadIndexReply, Status> {
    hear_as_leader(member, from)?;
    let index = member.read_index_as_leader().await.map_err(refusal)?;
    let faults = member.faults().into_iter().map(|(node, why)| (node.0, why)).collect();
    Ok(ReadIndexReply { index, faults })
}

/// Installs a snapshot that comes in pieces, of which the first says which one it is. It goes to the disk as it comes.
pub(crate) async fn install_snapshot<S>(member: &Consensus, from: NodeId, mut pieces: S) -> Result<Vec<u8>, Status>
where
    S: Stream<Item = Result<Vec<u8>, Status>> + Send + Unpin,
{
    let sender = hear_raft(member, from)?;
    let Some(head) = pieces.next().await else { return Err(Status::invalid_argument("an empty stream")) };
    let (vote, meta, sha256) = snapshot_head(&head?)?;
    sender.may_claim(&vote, member.term())?;
    let (disk, snapshots) = (member.disk().clone(), member.snapshots().clone());
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge => Status::invalid_argument(e.to_string()),
        _other => Status::unavailable(e.to_string()),
    };
    let mut receiving = disk.blocking(move || snapshots.receive()).await.map_err(failed)?;
    let late = |_| Status::deadline_exceeded(format!("no piece of the snapshot came within {PIECE_PATIENCE:?}"));
    while let Some(piece) = rt::timeout(PIECE_PATIENCE, pieces.next()).await.map_err(late)? {
        let piece = piece?;
        receiving = disk
            .blocking(move || {
                receiving.push(&piece)?;
                Ok(receiving)
            })
            .await
            .map_err(failed)?;
    }
    let snapshot = disk.blocking(move || receiving.finish(sha256)).await.map_err(failed)?;
    let answer = member.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
    encode(&answer.map_err(|e| Status::unavailable(e.to_string()))?)
}

/// The digest is missing in what a manager of 0.1.0 sends.
fn snapshot_head(head: &[u8]) -> Result<(Vote, SnapshotMeta, Option<[u8; 32]>), Status> {
    match decode::<(Vote, SnapshotMeta, [u8; 32])>(head) {
        Ok((vote, meta, sha256)) => Ok((vote, meta, Some(sha256))),
        Err(_) => decode::<(Vote, SnapshotMeta)>(head).map(|(vote, meta)| (vote, meta, None)),
    }
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
        let pieces = request.into_inner().map(|piece| piece.map(|piece| piece.payload));
        let payload = install_snapshot(&member, from, pieces).await?;
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
        Ok(Response::new(read_index(&member, from).await?))
    }
}

fn refusal(error: LeaderError) -> Status {
    match error {
        LeaderError::NotLeader => Status::failed_precondition("this member does not lead"),
        LeaderError::Unsure(why) => Status::unavailable(why),
    }
}
