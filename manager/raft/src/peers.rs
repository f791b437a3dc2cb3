//! Messages to other members, as openraft sends them.

use openraft::{
    OptionalSend,
    async_runtime::Select2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use shoal_common::NodeId;
use std::{sync::Arc, time::Duration};

use crate::{
    codec,
    lines::{Kind, Lines, SendError},
    rt,
    types::{Snapshot, SnapshotBytes, TypeConfig, Vote},
};

/// Of a snapshot, in one message.
const SNAPSHOT_PIECE: usize = 256 << 10;

/// Heartbeats have a deadline of their own, far below this; entries and votes may wait for a disk that is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// All other members.
#[derive(Clone)]
pub(crate) struct Peers(Arc<dyn Lines>);

/// One member, as another sees it.
#[derive(Clone)]
pub(crate) struct Peer {
    node: NodeId,
    addr: String,
    lines: Arc<dyn Lines>,
}

impl Peers {
    pub(crate) fn new(lines: Arc<dyn Lines>) -> Self {
        Self(lines)
    }

    pub(crate) fn peer(&self, node: NodeId, addr: &str) -> Peer {
        Peer { node, addr: addr.to_owned(), lines: Arc::clone(&self.0) }
    }
}

impl Peer {
    /// The answer of this member, still encoded.
    pub(crate) async fn ask(&self, limit: Duration, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, SendError> {
        self.within(limit, self.lines.ask(self.node, &self.addr, kind, payload)).await
    }

    pub(crate) async fn read_index(&self, limit: Duration) -> Result<u64, SendError> {
        self.within(limit, self.lines.read_index(self.node, &self.addr)).await
    }

    async fn within<T: Send>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, SendError>> + Send,
    ) -> Result<T, SendError> {
        rt::timeout(limit, work).await.unwrap_or(Err(SendError::Timeout { node: self.node, limit }))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, SendError> {
        codec::decode(payload).map_err(|e| SendError::Codec { node: self.node, why: e.to_string() })
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        question: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let payload = codec::encode(question).map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        let answer = self.ask(option.soft_ttl().max(PATIENCE), kind, payload).await;
        answer.and_then(|payload| self.decode(&payload)).map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(NodeId(target), &node.addr)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(Kind::AppendEntries, &rpc, &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(Kind::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(Kind::PreVote, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |e: &dyn std::error::Error| StreamingError::Unreachable(Unreachable::from_string(e));
        let head = codec::encode(&(vote, &snapshot.meta)).map_err(|e| unreachable(&e))?;
        let bytes = snapshot.snapshot;
        let pieces = (0..bytes.len().div_ceil(SNAPSHOT_PIECE)).map(move |nth| {
            let end = ((nth + 1) * SNAPSHOT_PIECE).min(bytes.len());
            bytes.slice(nth * SNAPSHOT_PIECE..end).to_vec()
        });
        let pieces = std::iter::once(head).chain(pieces).collect();
        let sending = self.within(option.soft_ttl(), self.lines.install_snapshot(self.node, &self.addr, pieces));
        match rt::select2(cancel, sending).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(answer) => answer.and_then(|payload| self.decode(&payload)).map_err(|e| unreachable(&e)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(Kind::TransferLeader, &request, &option).await
    }
}
