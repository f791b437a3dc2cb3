//! All that the rest of the manager sees of Raft.

use futures::FutureExt as _;
use openraft::{
    ChangeMembers, Config, ServerState, SnapshotPolicy,
    async_runtime::{Instant as _, Select2, Select3, WatchReceiver as _},
    errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError},
    impls::BasicNode,
    raft::ReadPolicy,
};
use shoal_common::{Level, LogIndex, NodeId};
use shoal_rt::Backoff;
use shoal_state::{Outcome, Proposal, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tonic::Code;

use crate::{
    Connector, Settings, codec,
    files::{Failure, Files},
    lines::{Connections, Kind, Lines, SendError},
    log_store::{self, LogStore},
    machine::{Machine, Shown},
    open::{OpenError, files_in, on_disk},
    peers::Peers,
    rt::{self, watch},
    snapshot::Snapshots,
    space,
    store::{self, disk::Disk},
    types::{Logged, Raft, TypeConfig},
};

/// A learner that lacks no more entries than this becomes a voter.
const CAUGHT_UP: u64 = 100;
/// How often the leader asks itself whether a majority still answers.
const QUORUM_CHECK: Duration = Duration::from_millis(200);
/// A leader that no majority has answered for this long does not count as one. Longer than an election: a majority
/// whose disks are slow for a moment is no reason to refuse writes.
const QUORUM_PATIENCE: Duration = Duration::from_millis(2500);
/// What a member that was just elected is given to hear from a majority, before a proposal is refused.
const NEW_LEADER: Duration = Duration::from_millis(500);
/// One try at the leader; a proposal tries again until its deadline.
const ONE_TRY: Duration = Duration::from_secs(2);

/// Of one entry. Each is sent to every manager within a second, beside heartbeats, and kept in memory by all of them.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// What the kernel calls ENOSPC; openraft keeps only the words of an error.
const NO_SPACE: &str = "No space left on device";

/// A member that has just started may not have applied yet what raised the level.
const LEVEL_PATIENCE: Duration = Duration::from_secs(1);

type Metrics = openraft::metrics::RaftMetrics<TypeConfig>;

/// One member of the group. Clones are the same member.
#[derive(Clone)]
pub struct Consensus(Arc<Inner>);

struct Inner {
    settings: Settings,
    raft: Raft,
    log: LogStore,
    disk: Disk,
    snapshots: Snapshots,
    peers: Peers,
    shown: Shown,
    leadership: watch::Receiver<Leadership>,
    /// What the leader said of the others last, if that was another.
    told: Mutex<BTreeMap<NodeId, String>>,
    space: watch::Receiver<space::Level>,
    /// Of the tasks above: one of them has panicked.
    defect: Failure,
    /// It was asked to end.
    ending: AtomicBool,
    /// When the leader was heard last.
    led: Mutex<Option<rt::Instant>>,
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consensus").field("node", &self.0.settings.node()).finish_non_exhaustive()
    }
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<NodeId>,
    /// This member leads, and a majority answered it not long ago.
    pub is_self: bool,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
}

/// Why no answer came. The change may nevertheless have been made, unless it says `NotInitialised`: retry with the
/// same request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("this manager has no cluster yet")]
    NotInitialised,
    #[error("the managers have no leader, for want of a majority ({reachable})")]
    NoLeader { reachable: String },
    #[error("the managers have no quorum: no answer within {0:?}; look again before you repeat a change")]
    NoQuorum(Duration),
    #[error(
        "the change takes {bytes} bytes in the managers' log, and an entry of it has at most {MAX_ENTRY_BYTES}: make it smaller, \
         or several of it"
    )]
    TooLarge { bytes: usize },
    #[error("this manager has stopped: {0}")]
    Stopped(String),
    #[error(
        "this needs feature level {needs} of the managers' log, and the cluster is at level {level}, because not every \
         manager runs a version that knows more: upgrade them all (shoal node ls shows the versions), then ask again"
    )]
    AboveLevel { needs: Level, level: Level },
}

/// Why this member could not answer as the leader.
#[derive(Debug)]
pub enum LeaderError {
    /// It does not lead; nothing happened.
    NotLeader,
    /// It may have happened.
    Unsure(String),
}

impl Consensus {
    /// Opens the store that [`crate::create`] has created, and takes part in the group. It never creates one.
    pub async fn open(settings: Settings, connector: Arc<dyn Connector>) -> Result<Self, OpenError> {
        let files = files_in(&settings.dir).await?;
        Self::open_on(settings, files, Arc::new(Connections::new(connector))).await
    }

    /// As [`Self::open`], on these files and over these lines.
    pub(crate) async fn open_on(
        settings: Settings,
        files: Arc<dyn Files>,
        lines: Arc<dyn Lines>,
    ) -> Result<Self, OpenError> {
        let owner = settings.owner.clone();
        let opened = on_disk(&settings.dir, &files, move |files| {
            let opened = store::open(files, &owner)?;
            let inner = log_store::Inner::read(&opened.writer)?;
            Ok((opened, inner))
        });
        let (opened, inner) = opened.await?;
        let log = LogStore::start(opened.disk.clone(), opened.writer, inner);
        let shown = Shown::default();
        let machine = Machine::new(opened.disk.clone(), opened.snapshots.clone(), shown.clone());
        let peers = Peers::new(lines, opened.disk.clone());
        let config = config(&settings).validate().map_err(|e| OpenError::Raft(e.to_string()))?;
        let raft = Raft::new(settings.owner.node, Arc::new(config), peers.clone(), log.clone(), machine)
            .await
            .map_err(|e| OpenError::Raft(e.to_string()))?;
        let defect = Failure::default();
        let leadership = follow(&raft, &settings, &defect);
        rt::owned("candidature", &defect, stand(raft.clone(), settings.stands_from));
        let space = space::watch(raft.clone(), opened.disk.clone(), log.short_of_space(), &defect);
        Ok(Self(Arc::new(Inner {
            settings,
            raft,
            log,
            disk: opened.disk,
            snapshots: opened.snapshots,
            peers,
            shown,
            leadership,
            told: Mutex::default(),
            space,
            defect,
            ending: AtomicBool::new(false),
            led: Mutex::default(),
        })))
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.0.snapshots
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    /// Whether there is a group that this member is or was part of.
    pub fn is_initialised(&self) -> bool {
        !self.0.log.is_pristine()
    }

    /// A group of one, reached at `addr`. Once in the life of a cluster.
    pub async fn bootstrap(&self, addr: SocketAddr) -> Result<(), ProposeError> {
        let me = self.0.settings.owner.node;
        match self.0.raft.initialize(BTreeMap::from([(me, BasicNode::new(addr))])).await {
            Ok(()) => Ok(()),
            // It was done before.
            Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(e)) => Err(stopped(&e)),
        }
    }

    /// Applied on a majority when it returns. Any member takes it; a follower forwards to the leader.
    ///
    /// A try whose fate is not known is repeated: a command that must not happen twice carries a request id.
    pub async fn propose(&self, proposal: Proposal) -> Result<(LogIndex, Outcome), ProposeError> {
        self.is_level(&proposal).await?;
        let logged = Logged(Arc::new(proposal));
        fits(&codec::encode(&logged).map_err(|e| ProposeError::Stopped(e.to_string()))?)?;
        let mut tries = self.tries()?;
        loop {
            let why = match tries.within(self.try_propose(&logged, tries.limit()).boxed()).await {
                Ok(done) => return Ok(done),
                Err(why) => why,
            };
            tries.again(why).await?;
        }
    }

    /// As [`Self::propose`], if this member leads, and tried once.
    pub async fn propose_leading(&self, proposal: Proposal) -> Result<(LogIndex, Outcome), ProposeError> {
        self.is_level(&proposal).await?;
        let limit = self.0.settings.deadline;
        let logged = Logged(Arc::new(proposal));
        fits(&codec::encode(&logged).map_err(|e| ProposeError::Stopped(e.to_string()))?)?;
        match self.propose_as_leader(logged).await {
            Ok(done) => Ok(done),
            Err(LeaderError::NotLeader) => {
                Err(ProposeError::NoLeader { reachable: "this member does not lead any more".to_owned() })
            }
            Err(LeaderError::Unsure(_)) => Err(ProposeError::NoQuorum(limit)),
        }
    }

    /// Every manager can read the entry: what is above the cluster's level is never logged.
    ///
    /// A level is never lowered, so what this member has applied is enough to say yes.
    async fn is_level(&self, proposal: &Proposal) -> Result<(), ProposeError> {
        let needs = proposal.command.level();
        let mut states = self.state();
        let reached = async { states.wait_for(|state| state.level >= needs).await.is_ok() };
        if mutant!(LevelIgnored) {
            return Ok(());
        }
        if let Ok(true) = rt::timeout(LEVEL_PATIENCE, reached).await {
            return Ok(());
        }
        let level = self.state().borrow().level;
        Err(ProposeError::AboveLevel { needs, level })
    }

    /// The state with everything in it that was acknowledged before the call (a linearizable read).
    pub async fn read(&self) -> Result<Arc<State>, ProposeError> {
        let mut tries = self.tries()?;
        loop {
            let why = match tries.within(self.try_read(tries.limit()).boxed()).await {
                Ok(state) => return Ok(state),
                Err(why) => why,
            };
            tries.again(why).await?;
        }
    }

    /// Fails with what is worth telling, if anything.
    async fn try_propose(&self, logged: &Logged, limit: Duration) -> Result<(LogIndex, Outcome), Option<String>> {
        let (leader, addr) = self.leader().ok_or(None)?;
        if leader == self.0.settings.node() {
            return self.propose_as_leader(logged.clone()).await.map_err(LeaderError::because);
        }
        let peer = self.0.peers.peer(leader, &addr);
        let payload = codec::encode(logged).map_err(|e| Some(e.to_string()))?;
        let answer = peer.ask(limit, Kind::Propose, payload).await;
        answer.and_then(|payload| peer.decode(&payload)).map_err(reason)
    }

    async fn try_read(&self, limit: Duration) -> Result<Arc<State>, Option<String>> {
        let (leader, addr) = self.leader().ok_or(None)?;
        let index = if leader == self.0.settings.node() {
            self.read_index_as_leader().await.map_err(LeaderError::because)?
        } else {
            let reply = self.0.peers.peer(leader, &addr).read_index(limit).await.map_err(reason)?;
            let told = reply.faults.into_iter().map(|(node, why)| (NodeId(node), why)).collect();
            *self.0.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
            reply.index
        };
        let mut applied = self.0.shown.applied.subscribe();
        match applied.wait_for(|at| at.is_some_and(|at| at >= index)).await {
            Ok(_) => Ok(self.0.shown.state.borrow().clone()),
            Err(_) => Err(Some("the state machine has ended".to_owned())),
        }
    }

    /// The state as this member has it, and each later one.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.0.shown.state.subscribe()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Members that do not answer the leader as one, and why: as this member sees them if it leads, else as the leader
    /// told at the last [`Self::read`].
    pub fn faults(&self) -> BTreeMap<NodeId, String> {
        let leadership = self.0.leadership.borrow().clone();
        let mut faults = if leadership.is_self {
            self.0.peers.health().faults()
        } else {
            self.0.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        faults.retain(|node, _| leadership.voters.contains(node) || leadership.learners.contains(node));
        faults
    }

    /// How much space there is for the log.
    pub fn space(&self) -> space::Level {
        *self.0.space.borrow()
    }

    /// One step (if any is needed) towards exactly these members; leader only. `true`: membership is as wanted.
    ///
    /// Learners come first and become voters once they have caught up; who is not wanted leaves.
    pub async fn align_membership(&self, wanted: &BTreeMap<NodeId, SocketAddr>) -> Result<bool, ProposeError> {
        let metrics = self.metrics();
        let Some((change, last)) = next_change(&metrics, wanted, self.0.settings.election.1 * 2) else {
            return Ok(metrics.membership_config.voter_ids().eq(wanted.keys().map(|id| id.0)));
        };
        tracing::info!(%change, "the managers' membership changes");
        let work = self.0.raft.change_membership(change, false);
        match rt::timeout(self.0.settings.deadline, work).await {
            Ok(Ok(_)) => Ok(last),
            Ok(Err(RaftError::Fatal(e))) => Err(stopped(&e)),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NoLeader { reachable: "this member does not lead any more".to_owned() })
            }
            Ok(Err(RaftError::APIError(e))) => Err(ProposeError::NoLeader { reachable: e.to_string() }),
            Err(_) => Err(ProposeError::NoQuorum(self.0.settings.deadline)),
        }
    }

    /// Resolves when this member cannot go on (its disk failed, or Raft itself); the daemon ends then.
    pub async fn fatal(&self) -> String {
        // Raft hears of what it does itself. A sync may fail elsewhere: of a snapshot that is received or made.
        if mutant!(FailureUnheard) {
            return self.raft_ended().await;
        }
        let disk = async { format!("a sync of this manager's files has failed: {}", self.0.disk.failed().await) };
        match rt::select3(self.raft_ended(), disk, self.0.defect.happened()).await {
            Select3::First(why) | Select3::Second(why) | Select3::Third(why) => why,
        }
    }

    async fn raft_ended(&self) -> String {
        let mut metrics = self.0.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_and_update().running_state
                && !matches!(fatal, Fatal::Stopped)
            {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                if self.0.ending.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                return "Raft has ended by itself: the log says why".to_owned();
            }
        }
    }

    /// Whether it could not go on for want of space: it may be opened again, and is then whole if there is some.
    pub fn ended_for_space(&self, why: &str) -> bool {
        self.0.disk.is_sound() && (self.0.log.short_of_space().load(Ordering::Relaxed) || why.contains(NO_SPACE))
    }

    pub async fn shutdown(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not end well");
        }
    }

    /// A voter or a learner, in the newest membership that this member has in its log.
    pub(crate) fn is_in_group(&self, node: NodeId) -> bool {
        self.0.raft.metrics().borrow_watched().membership_config.get_node(&node.0).is_some()
    }

    pub(crate) fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Entries of this member were taken. They count as heard from a leader if it leads in this member's eyes.
    pub(crate) fn heard(&self, from: NodeId) {
        if self.0.raft.metrics().borrow_watched().current_leader == Some(from.0) {
            *self.0.led.lock().unwrap_or_else(PoisonError::into_inner) = Some(rt::Instant::now());
        }
    }

    /// How long ago the leader was heard, or this member led with a majority.
    pub(crate) fn led_since(&self) -> Option<Duration> {
        if self.0.leadership.borrow().is_self {
            return Some(Duration::ZERO);
        }
        self.0.led.lock().unwrap_or_else(PoisonError::into_inner).map(|at| rt::Instant::now() - at)
    }

    /// A leader that was heard within this time is not stood against.
    pub(crate) fn lease(&self) -> Duration {
        self.0.settings.election.0
    }

    pub(crate) async fn propose_as_leader(&self, logged: Logged) -> Result<(LogIndex, Outcome), LeaderError> {
        // What is logged without a majority may be committed when one is back, long after it was refused.
        if self.metrics().state == ServerState::Leader && !self.is_answered().await {
            return Err(LeaderError::Unsure("no majority of the managers has answered lately".to_owned()));
        }
        if self.space() == space::Level::Full {
            return Err(LeaderError::Unsure(
                "the disk of the manager that leads is full: free some space there".to_owned(),
            ));
        }
        let work = self.0.raft.client_write(logged);
        match rt::timeout(self.0.settings.deadline, work).await {
            Ok(Ok(done)) => match done.data.0 {
                Some(outcome) => Ok((LogIndex(done.log_id.index), outcome)),
                None => Err(LeaderError::Unsure("the entry has no answer".to_owned())),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(LeaderError::NotLeader),
            Ok(Err(e)) => Err(LeaderError::Unsure(e.to_string())),
            Err(_) => Err(LeaderError::Unsure("no majority of the managers has answered".to_owned())),
        }
    }

    pub(crate) async fn read_index_as_leader(&self) -> Result<u64, LeaderError> {
        let work = self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match rt::timeout(ONE_TRY, work).await {
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => Err(LeaderError::NotLeader),
            Ok(Err(e)) => Err(LeaderError::Unsure(e.to_string())),
            Err(_) => Err(LeaderError::Unsure("no majority of the managers has answered".to_owned())),
        }
    }

    /// Whether a majority answers this leader. A new one hears from it in a moment.
    async fn is_answered(&self) -> bool {
        let mut leadership = self.leadership();
        let answered = async { leadership.wait_for(|now| now.is_self).await.is_ok() };
        matches!(rt::timeout(NEW_LEADER, answered).await, Ok(true))
    }

    fn metrics(&self) -> Metrics {
        self.0.raft.metrics().borrow_watched().clone()
    }

    fn leader(&self) -> Option<(NodeId, String)> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        Some((NodeId(leader), metrics.membership_config.get_node(&leader)?.addr.clone()))
    }

    fn tries(&self) -> Result<Tries<'_>, ProposeError> {
        if !self.is_initialised() {
            return Err(ProposeError::NotInitialised);
        }
        Ok(Tries {
            member: self,
            end: rt::Instant::now() + self.0.settings.deadline,
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(200)),
            asked: None,
            told: None,
        })
    }
}

/// Tries until one works or the deadline is over.
struct Tries<'a> {
    member: &'a Consensus,
    end: rt::Instant,
    backoff: Backoff,
    /// The leader at the last try.
    asked: Option<NodeId>,
    /// The last reason that was worth telling.
    told: Option<String>,
}

impl Tries<'_> {
    fn limit(&self) -> Duration {
        (self.end - rt::Instant::now()).min(ONE_TRY)
    }

    /// A try is over, too, when another member turns out to lead: the one that was asked may never answer.
    async fn within<T: Send>(
        &mut self,
        attempt: impl Future<Output = Result<T, Option<String>>> + Send,
    ) -> Result<T, Option<String>> {
        let mut leadership = self.member.leadership();
        let asked = leadership.borrow().leader;
        self.asked = asked;
        let moved = async {
            if leadership.wait_for(|now| now.leader.is_some() && now.leader != asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match rt::select2(rt::timeout_at(self.end, attempt), moved).await {
            Select2::First(done) => done.unwrap_or(Err(None)),
            Select2::Second(()) => Err(None),
        }
    }

    /// Waits before the next try; fails if there is none.
    async fn again(&mut self, why: Option<String>) -> Result<(), ProposeError> {
        self.told = why.or(self.told.take());
        if let Err(fatal) = &self.member.0.raft.metrics().borrow_watched().running_state {
            return Err(stopped(fatal));
        }
        let limit = self.member.0.settings.deadline;
        if rt::Instant::now() >= self.end {
            return Err(match (self.member.leader(), self.told.take()) {
                (None, told) => ProposeError::NoLeader {
                    reachable: told.unwrap_or_else(|| format!("waited {limit:?} for an election")),
                },
                (Some(_), _) => ProposeError::NoQuorum(limit),
            });
        }
        let rest = rt::sleep_until((rt::Instant::now() + self.backoff.delay_by(rt::chance())).min(self.end));
        let (mut leadership, asked) = (self.member.leadership(), self.asked);
        // A new leader is tried at once: the delay has grown while there was none.
        let moved = async {
            if leadership.wait_for(|now| now.leader.is_some() && now.leader != asked).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        rt::select2(rest, moved).await;
        Ok(())
    }
}

impl LeaderError {
    fn because(self) -> Option<String> {
        match self {
            LeaderError::NotLeader => None,
            LeaderError::Unsure(why) => Some(why),
        }
    }
}

/// Whether an encoded proposal may be logged.
pub(crate) fn fits(encoded: &[u8]) -> Result<(), ProposeError> {
    match encoded.len() {
        bytes if bytes <= MAX_ENTRY_BYTES => Ok(()),
        bytes => Err(ProposeError::TooLarge { bytes }),
    }
}

fn reason(error: SendError) -> Option<String> {
    match &error {
        SendError::Status { status, .. } if status.code() == Code::FailedPrecondition => None,
        _ => Some(error.to_string()),
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

fn config(settings: &Settings) -> Config {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "shoal".to_owned(),
        heartbeat_interval: ms(settings.heartbeat),
        election_timeout_min: ms(settings.election.0),
        election_timeout_max: ms(settings.election.1),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_every),
        max_in_snapshot_log_to_keep: settings.snapshot_every / 5,
        replication_lag_threshold: settings.snapshot_every,
        install_snapshot_timeout: 30_000,
        enable_pre_vote: Some(true),
        // See `stand`.
        enable_elect: settings.stands_from == LogIndex(0),
        // A host that comes back is heard within half a second.
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        // A leader that starts again may lack entries of its own term that the others have made durable: an entry is
        // committed by a majority of syncs, and its own need not be one. If it went on leading without an election, it
        // would give their log ids to other entries, and acknowledged writes would be lost.
        enable_leader_restore: Some(mutant!(LeaderRestored)),
        // A follower whose log got shorter has lost something, which is not to be passed over.
        allow_log_reversion: Some(mutant!(LogReversion)),
        ..Config::default()
    }
}

/// The next step from the present membership, and whether it is the last.
fn next_change(
    metrics: &Metrics,
    wanted: &BTreeMap<NodeId, SocketAddr>,
    lately: Duration,
) -> Option<(ChangeMembers<u64, BasicNode>, bool)> {
    let membership = &metrics.membership_config;
    if wanted.is_empty() {
        return None;
    }
    if membership.get_joint_config().len() > 1 {
        // Whoever began this change may be gone. This adds nobody, and leaves the joint configuration.
        return Some((ChangeMembers::AddVoterIds(BTreeSet::new()), false));
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let present: BTreeMap<u64, &BasicNode> = membership.nodes().map(|(id, node)| (*id, node)).collect();
    let wanted: BTreeMap<u64, BasicNode> = wanted.iter().map(|(id, addr)| (id.0, BasicNode::new(addr))).collect();

    let new: BTreeMap<u64, BasicNode> =
        wanted.iter().filter(|(id, _)| !present.contains_key(id)).map(|(id, n)| (*id, n.clone())).collect();
    if !new.is_empty() {
        return Some((ChangeMembers::AddNodes(new), false));
    }
    let moved: BTreeMap<u64, BasicNode> =
        wanted.iter().filter(|(id, n)| present.get(id) != Some(n)).map(|(id, n)| (*id, n.clone())).collect();
    if !moved.is_empty() {
        return Some((ChangeMembers::SetNodes(moved), false));
    }
    let last = metrics.last_log_index.unwrap_or(0);
    let caught_up = |id: &u64| {
        let matched = metrics.replication.as_ref().and_then(|r| r.get(id).cloned().flatten());
        matched.is_some_and(|at| at.index + CAUGHT_UP >= last)
    };
    let answers = |id: &u64| {
        let heard = metrics.heartbeat.as_ref().and_then(|h| h.get(id).copied().flatten());
        heard.is_some_and(|at| at.elapsed() < lately)
    };
    let joins = |id: &u64| !voters.contains(id) && caught_up(id) && answers(id);
    let ready: BTreeSet<u64> = wanted.keys().copied().filter(joins).collect();
    if !ready.is_empty() {
        let all = voters.len() + ready.len() == wanted.len() && present.len() == wanted.len();
        return Some((ChangeMembers::AddVoterIds(ready), all));
    }
    let gone: BTreeSet<u64> = voters.iter().copied().filter(|id| !wanted.contains_key(id)).collect();
    // Not before a majority of those that stay answers: a joint configuration without it cannot be left again, and two
    // managers of which one is dead are none.
    let stay = voters.difference(&gone);
    let answering = stay.clone().filter(|id| answers(id)).count();
    if !gone.is_empty() && answering * 2 > stay.count() {
        return Some((ChangeMembers::RemoveVoters(gone), false));
    }
    let idle: BTreeSet<u64> =
        present.keys().copied().filter(|id| !wanted.contains_key(id) && !voters.contains(id)).collect();
    (!idle.is_empty()).then_some((ChangeMembers::RemoveNodes(idle), voters.len() == wanted.len()))
}

/// Leadership as it changes. A leader that no majority answers any more does not count as one.
fn follow(raft: &Raft, settings: &Settings, defect: &Failure) -> watch::Receiver<Leadership> {
    let mut metrics = raft.metrics();
    let (tx, rx) = watch::channel(leadership(&metrics.borrow_watched(), settings));
    let settings = settings.clone();
    rt::owned("leadership", defect, async move {
        loop {
            let now = leadership(&metrics.borrow_and_update(), &settings);
            tx.send_if_modified(|shown| {
                let changed = *shown != now;
                if changed {
                    *shown = now;
                }
                changed
            });
            match rt::select3(tx.closed(), metrics.changed(), rt::sleep(QUORUM_CHECK)).await {
                Select3::First(()) => return,
                Select3::Second(Err(_)) => {
                    // Raft has ended. Whoever holds this member learns why by `fatal`; until then nobody leads.
                    tx.send_modify(|shown| (shown.leader, shown.is_self) = (None, false));
                    tx.closed().await;
                    return;
                }
                Select3::Second(Ok(())) | Select3::Third(()) => {}
            }
        }
    });
    rx
}

/// Has the member stand for elections once its log has come so far.
async fn stand(raft: Raft, from: LogIndex) {
    let mut metrics = raft.metrics();
    while metrics.borrow_and_update().last_log_index.unwrap_or(0) < from.0 {
        if metrics.changed().await.is_err() {
            return;
        }
    }
    raft.runtime_config().elect(true);
}

fn leadership(metrics: &Metrics, settings: &Settings) -> Leadership {
    let ids = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId).collect::<BTreeSet<_>>();
    let membership = metrics.membership_config.membership();
    let voters = ids(&mut membership.voter_ids());
    let patience = QUORUM_PATIENCE.max(settings.election.1 * 2);
    let answered = voters.len() == 1 || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < patience);
    Leadership {
        term: metrics.current_term,
        leader: metrics.current_leader.map(NodeId),
        is_self: metrics.state == ServerState::Leader && answered,
        voters,
        learners: ids(&mut membership.learner_ids()),
    }
}
