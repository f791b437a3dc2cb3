//! How a question gets to another member, and its answer back: encoded, over whatever leads there.

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::{BoxFuture, Shared},
    stream::BoxStream,
};
use shoal_common::NodeId;
use shoal_proto::pb::{RaftMessage, ReadIndexReply, ReadIndexRequest, raft_client::RaftClient};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{Connector, rt};

/// A batch of entries, or a piece of a snapshot, is smaller than this.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What is asked in one message and answered in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AppendEntries,
    Vote,
    PreVote,
    TransferLeader,
    Propose,
}

/// Of a snapshot, read as they are sent.
pub(crate) struct Pieces(BoxStream<'static, Vec<u8>>);

impl Pieces {
    pub(crate) fn new(pieces: impl Stream<Item = Vec<u8>> + Send + 'static) -> Self {
        Self(pieces.boxed())
    }
}

impl Stream for Pieces {
    type Item = Vec<u8>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.0.poll_next_unpin(context)
    }
}

/// The way to every other member. Limits of time are the caller's.
#[async_trait::async_trait]
pub(crate) trait Lines: Send + Sync + 'static {
    async fn ask(&self, to: NodeId, addr: &str, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, SendError>;

    async fn read_index(&self, to: NodeId, addr: &str) -> Result<ReadIndexReply, SendError>;

    /// The first piece says which snapshot it is; the others are the snapshot.
    async fn install_snapshot(&self, to: NodeId, addr: &str, pieces: Pieces) -> Result<Vec<u8>, SendError>;
}

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

impl SendError {
    /// In the words of the member itself, if it said anything.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Status { status, .. } if std::error::Error::source(status).is_none() => status.message().to_owned(),
            Self::Address { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Status { .. }
            | Self::Codec { .. } => self.to_string(),
        }
    }
}

/// gRPC. Channels are made when first needed. A channel that failed is replaced, for the certificate or the address
/// may have changed.
pub(crate) struct Connections {
    connector: Arc<dyn Connector>,
    channels: Mutex<BTreeMap<(NodeId, SocketAddr), Connecting>>,
}

/// A connection that is being made, or was. It goes on also when whoever asked for it has given up waiting, so that a
/// short deadline cannot keep it from ever being made.
type Connecting = Shared<BoxFuture<'static, Result<Channel, String>>>;

impl Connections {
    pub(crate) fn new(connector: Arc<dyn Connector>) -> Self {
        Self { connector, channels: Mutex::default() }
    }

    fn channel(&self, node: NodeId, addr: SocketAddr) -> Connecting {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = channels.get(&(node, addr)).filter(|c| !matches!(c.peek(), Some(Err(_))));
        if let Some(known) = known {
            return known.clone();
        }
        let connector = Arc::clone(&self.connector);
        let made = async move {
            let connected = shoal_rt::tasks::caught(connector.connect(node, addr)).await.map_err(|e| e.to_string())?;
            connected.map_err(|e| shoal_rt::connect::root_cause(&*e))
        };
        let connecting = made.boxed().shared();
        rt::spawn(connecting.clone());
        channels.insert((node, addr), connecting.clone());
        connecting
    }

    fn forget(&self, node: NodeId, addr: SocketAddr) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&(node, addr));
    }

    /// Sends by `call`, connecting first where needed.
    async fn call<T, F>(
        &self,
        node: NodeId,
        addr: &str,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<T, SendError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let addr = addr.parse().map_err(|_| SendError::Address { node, addr: addr.to_owned() })?;
        let channel = self.channel(node, addr).await;
        let channel = channel.map_err(|why| SendError::Connect { node, addr, why })?;
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        call(client).await.map(Response::into_inner).map_err(|status| {
            // What the member itself answered has no source.
            if std::error::Error::source(&status).is_some() {
                self.forget(node, addr);
            }
            SendError::Status { node, status }
        })
    }
}

fn message(payload: Vec<u8>) -> RaftMessage {
    RaftMessage { payload }
}

#[async_trait::async_trait]
impl Lines for Connections {
    async fn ask(&self, to: NodeId, addr: &str, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, SendError> {
        let request = Request::new(RaftMessage { payload });
        let sent = self.call(to, addr, |mut client| async move {
            match kind {
                Kind::AppendEntries => client.append_entries(request).await,
                Kind::Vote => client.vote(request).await,
                Kind::PreVote => client.pre_vote(request).await,
                Kind::TransferLeader => client.transfer_leader(request).await,
                Kind::Propose => client.propose(request).await,
            }
        });
        Ok(sent.await?.payload)
    }

    async fn read_index(&self, to: NodeId, addr: &str) -> Result<ReadIndexReply, SendError> {
        self.call(to, addr, |mut client| async move { client.read_index(ReadIndexRequest {}).await }).await
    }

    async fn install_snapshot(&self, to: NodeId, addr: &str, pieces: Pieces) -> Result<Vec<u8>, SendError> {
        let messages = pieces.map(message);
        let sent = self.call(to, addr, |mut client| async move { client.install_snapshot(messages).await });
        Ok(sent.await?.payload)
    }
}
