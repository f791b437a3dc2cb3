//! Messages to other members, as openraft sends them.

use futures::{Stream, StreamExt as _};
use openraft::{
    OptionalSend,
    async_runtime::Select3,
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
use shoal_proto::pb::ReadIndexReply;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    codec,
    health::Health,
    lines::{Kind, Lines, Pieces, SendError},
    rt,
    snapshot::Data,
    store::disk::Disk,
    types::{LogId, Snapshot, TypeConfig, Vote},
};

/// A snapshot is given up when none of it was taken for so long. There is no limit for all of it: a large one over a
/// slow line would never arrive.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(15);

/// Heartbeats have a deadline of their own, far below this; entries and votes may wait for a disk that is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// All other members.
#[derive(Clone)]
pub(crate) struct Peers {
    lines: Arc<dyn Lines>,
    disk: Disk,
    health: Health,
}

/// One member, as another sees it.
#[derive(Clone)]
pub(crate) struct Peer {
    node: NodeId,
    addr: String,
    lines: Arc<dyn Lines>,
    disk: Disk,
    health: Health,
    /// The last entry that it has acknowledged to this one. Not shared: a member that left and is one again begins anew.
    matched: Option<LogId>,
}

impl Peers {
    /// Snapshots are read from the disk while they are sent.
    pub(crate) fn new(lines: Arc<dyn Lines>, disk: Disk) -> Self {
        Self { lines, disk, health: Health::default() }
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn peer(&self, node: NodeId, addr: &str) -> Peer {
        Peer {
            node,
            addr: addr.to_owned(),
            lines: Arc::clone(&self.lines),
            disk: self.disk.clone(),
            health: self.health.clone(),
            matched: None,
        }
    }
}

impl Peer {
    /// The answer of this member, still encoded.
    pub(crate) async fn ask(&self, limit: Duration, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, SendError> {
        self.within(limit, self.lines.ask(self.node, &self.addr, kind, payload)).await
    }

    pub(crate) async fn read_index(&self, limit: Duration) -> Result<ReadIndexReply, SendError> {
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

    fn acknowledged(&mut self, upto: Option<LogId>) {
        if upto >= self.matched && upto.is_some() {
            self.matched = upto;
            self.health.follows(self.node);
        }
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        question: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let payload = codec::encode(question).map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        let answer = self.ask(option.soft_ttl().max(PATIENCE), kind, payload).await;
        if let (Err(error), Kind::AppendEntries) = (&answer, kind) {
            self.health.fails(self.node, error.told());
        }
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
    type SnapshotData = Data;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let sent = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let answer: Result<AppendEntriesResponse<TypeConfig>, _> =
            self.exchange(Kind::AppendEntries, &rpc, &option).await;
        if let Ok(answered) = &answer {
            self.health.answers(self.node);
            match answered {
                AppendEntriesResponse::Success => self.acknowledged(sent),
                AppendEntriesResponse::PartialSuccess(upto) => self.acknowledged(*upto),
                AppendEntriesResponse::Conflict => {
                    if let Some(matched) = self.matched.filter(|matched| rpc.prev_log_id <= Some(*matched)) {
                        self.health.has_lost(self.node, matched);
                    }
                }
                AppendEntriesResponse::HigherVote(_) => {}
            }
        }
        answer
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
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |e: &dyn std::error::Error| StreamingError::Unreachable(Unreachable::from_string(e));
        let head = codec::encode(&(vote, &snapshot.meta, snapshot.snapshot.sha256)).map_err(|e| unreachable(&e))?;
        let taken = Arc::new(AtomicU64::new(0));
        let rest = pieces(self.disk.clone(), snapshot.snapshot, Arc::clone(&taken));
        let pieces = Pieces::new(futures::stream::iter([head]).chain(rest));
        let sending = self.lines.install_snapshot(self.node, &self.addr, pieces);
        match rt::select3(cancel, sending, stuck(&taken)).await {
            Select3::First(closed) => Err(closed.into()),
            Select3::Second(answer) => answer.and_then(|payload| self.decode(&payload)).map_err(|e| unreachable(&e)),
            Select3::Third(()) => Err(unreachable(&SendError::Timeout { node: self.node, limit: SNAPSHOT_PATIENCE })),
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

/// Reads a snapshot as fast as it is taken. If it cannot be read it ends early, which the receiver sees by its digest.
fn pieces(disk: Disk, data: Data, taken: Arc<AtomicU64>) -> impl Stream<Item = Vec<u8>> + Send + 'static {
    futures::stream::unfold(0, move |at| {
        let (disk, data, taken) = (disk.clone(), data.clone(), Arc::clone(&taken));
        async move {
            let piece = disk.blocking(move || data.piece(at)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a snapshot that is being sent cannot be read");
                Vec::new()
            });
            taken.fetch_add(1, Ordering::Relaxed);
            let next = at + piece.len() as u64;
            (!piece.is_empty()).then_some((piece, next))
        }
    })
}

/// Resolves when nothing more was taken for too long. What was taken last is given its time too: it is checked and
/// made durable on the other side.
async fn stuck(taken: &AtomicU64) {
    let mut before = None;
    loop {
        let now = taken.load(Ordering::Relaxed);
        if before.replace(now) == Some(now) {
            return;
        }
        rt::sleep(SNAPSHOT_PATIENCE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{entry::RaftEntry as _, impls::leader_id_std::LeaderId, vote::RaftLeaderId as _};
    use std::sync::Mutex;

    use crate::{files::Os, types::Entry};

    /// Answers from a list.
    struct Told(Mutex<Vec<AppendEntriesResponse<TypeConfig>>>);

    #[async_trait::async_trait]
    impl Lines for Told {
        async fn ask(&self, to: NodeId, _: &str, _: Kind, _: Vec<u8>) -> Result<Vec<u8>, SendError> {
            match self.0.lock().unwrap().pop() {
                Some(answer) => Ok(codec::encode(&answer).unwrap()),
                None => Err(SendError::Timeout { node: to, limit: PATIENCE }),
            }
        }

        async fn read_index(&self, _: NodeId, _: &str) -> Result<ReadIndexReply, SendError> {
            unreachable!("nobody reads")
        }

        async fn install_snapshot(&self, _: NodeId, _: &str, _: Pieces) -> Result<Vec<u8>, SendError> {
            unreachable!("there is no snapshot")
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, voted_for: 1 }.to_committed(), index)
    }

    fn request(prev: u64, upto: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(prev)),
            entries: (prev + 1..=upto).map(|index| Entry::new_blank(log_id(index))).collect(),
            leader_commit: None,
        }
    }

    /// A log that went back behind what it had acknowledged was `Reachable` for as long as the same leader led (B1).
    #[tokio::test]
    async fn a_member_that_refuses_what_follows_an_entry_that_it_had_acknowledged_has_lost_it() {
        use AppendEntriesResponse::{Conflict, Success};
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(Arc::new(Os::open(dir.path()).unwrap()));
        // The last one first.
        let answers = Mutex::new(vec![Success, Conflict, Success, Conflict]);
        let peers = Peers::new(Arc::new(Told(answers)), disk);
        let mut peer = peers.peer(NodeId(2), "");
        let option = || RPCOption::new(PATIENCE);
        // The leader looks for where it stands: that is no fault.
        peer.append_entries(request(9, 9), option()).await.unwrap();
        peer.append_entries(request(4, 9), option()).await.unwrap();
        assert!(peers.health().faults().is_empty());
        peer.append_entries(request(9, 9), option()).await.unwrap();
        let told = peers.health().faults();
        assert!(told[&NodeId(2)].contains("E-LOG-BEHIND") && told[&NodeId(2)].contains("entry 9"), "{told:?}");
        // A heartbeat that it answers changes nothing, but what it has again does.
        peers.health().answers(NodeId(2));
        assert_eq!(peers.health().faults(), told);
        peer.append_entries(request(9, 10), option()).await.unwrap();
        assert!(peers.health().faults().is_empty());
        // Silence is told after a second.
        assert!(peer.append_entries(request(10, 10), option()).await.is_err());
        assert!(peers.health().faults().is_empty());
        rt::sleep(Duration::from_millis(1100)).await;
        assert!(peers.health().faults()[&NodeId(2)].contains("did not answer"));
    }
}
