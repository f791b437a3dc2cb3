//! Messages to other members.

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use openraft::{
    OptionalSend,
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
use shoal_proto::pb::{RaftMessage, raft_client::RaftClient};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tonic::{Status, transport::Channel};

use crate::{
    Connector, codec,
    types::{Snapshot, SnapshotBytes, TypeConfig, Vote},
};

/// A batch of entries, or a piece of a snapshot, is smaller than this.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Of a snapshot, in one message.
const SNAPSHOT_PIECE: usize = 256 << 10;

/// Heartbeats have a deadline of their own, far below this; entries and votes may wait for a disk that is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// Channels to other members, made when first needed. A channel that failed is made anew, for the certificate or the
/// address may have changed.
#[derive(Clone)]
pub(crate) struct Peers {
    connector: Arc<dyn Connector>,
    channels: Arc<Mutex<BTreeMap<(NodeId, SocketAddr), Connecting>>>,
}

/// A connection that is being made, or was. It goes on also when whoever asked for it has given up waiting, so that a
/// short deadline cannot keep it from ever being made.
type Connecting = Shared<BoxFuture<'static, Result<Channel, String>>>;

/// Why a message was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("{node} has an address that is none: {addr}")]
    Address { node: NodeId, addr: String },
    #[error("cannot reach {node} at {addr}: {why}")]
    Connect { node: NodeId, addr: SocketAddr, why: String },
    #[error("{node} did not answer within {0:?}", limit)]
    Timeout { node: NodeId, limit: Duration },
    #[error("{node}: {}", status.message())]
    Status { node: NodeId, status: Status },
    #[error("{node} answers what is not understood: {why}")]
    Codec { node: NodeId, why: String },
}

/// One member, as another sees it.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    addr: String,
    peers: Peers,
}

impl Peers {
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, channels: Arc::default() }
    }

    pub(crate) fn peer(&self, node: NodeId, addr: &str) -> Peer {
        Peer { node, addr: addr.to_owned(), peers: self.clone() }
    }

    fn channel(&self, node: NodeId, addr: SocketAddr) -> Connecting {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = channels.get(&(node, addr)).filter(|c| !matches!(c.peek(), Some(Err(_))));
        if let Some(known) = known {
            return known.clone();
        }
        let connector = Arc::clone(&self.connector);
        let made = async move { connector.connect(node, addr).await.map_err(|e| root_cause(&*e)) };
        let connecting = made.boxed().shared();
        tokio::spawn(connecting.clone());
        channels.insert((node, addr), connecting.clone());
        connecting
    }

    fn forget(&self, node: NodeId, addr: SocketAddr) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&(node, addr));
    }
}

impl Peer {
    /// Sends by `call`, connecting first where needed, all within `limit`.
    pub(crate) async fn call<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<T, SendError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let node = self.node;
        let addr = self.addr.parse().map_err(|_| SendError::Address { node, addr: self.addr.clone() })?;
        let work = async {
            let channel = self.peers.channel(node, addr).await;
            let channel = channel.map_err(|why| SendError::Connect { node, addr, why })?;
            let client = RaftClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            call(client).await.map(tonic::Response::into_inner).map_err(|status| {
                // What the member itself answered has no source.
                if std::error::Error::source(&status).is_some() {
                    self.peers.forget(node, addr);
                }
                SendError::Status { node, status }
            })
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(SendError::Timeout { node, limit }))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, message: &RaftMessage) -> Result<T, SendError> {
        codec::decode(&message.payload).map_err(|e| SendError::Codec { node: self.node, why: e.to_string() })
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned, F>(
        &self,
        question: &Q,
        option: &RPCOption,
        call: impl FnOnce(RaftClient<Channel>, RaftMessage) -> F,
    ) -> Result<A, RPCError<TypeConfig>>
    where
        F: Future<Output = Result<tonic::Response<RaftMessage>, Status>>,
    {
        let payload = codec::encode(question).map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        let limit = option.soft_ttl().max(PATIENCE);
        let answer = self.call(limit, |client| call(client, RaftMessage { payload })).await;
        answer.and_then(|message| self.decode(&message)).map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    shoal_rt::connect::root_cause(error)
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
        self.exchange(&rpc, &option, |mut client, m| async move { client.append_entries(m).await }).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(&rpc, &option, |mut client, m| async move { client.vote(m).await }).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(&rpc, &option, |mut client, m| async move { client.pre_vote(m).await }).await
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
        let messages = std::iter::once(head).chain(pieces).map(|payload| RaftMessage { payload });
        let sending = self.call(option.soft_ttl(), |mut client| async move {
            client.install_snapshot(tokio_stream::iter(messages.collect::<Vec<_>>())).await
        });
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = sending => {
                answer.and_then(|message| self.decode(&message)).map_err(|e| unreachable(&e))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange(&request, &option, |mut client, m| async move { client.transfer_leader(m).await }).await
    }
}
