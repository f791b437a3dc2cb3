//! The network between simulated hosts: every message has a delay of its own, so they overtake each other; some are
//! lost, and some come twice. A way from one host to another may be cut in one direction.

use futures::{StreamExt as _, channel::oneshot};
use openraft::{
    async_runtime::Select2,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteResponse},
};
use shoal_common::NodeId;
use shoal_proto::pb::ReadIndexReply;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tonic::Status;

use super::{dice::Dice, disk::Disk, oracle};
use crate::{
    Consensus, codec,
    lines::{Kind, Lines, Pieces, SendError},
    rt, server,
    store::{self, Owner},
    types::TypeConfig,
};

/// A connection on which nothing comes back is broken after this (`common/rt/src/connect.rs`).
const KEEPALIVE: Duration = Duration::from_secs(4);

/// Clones are the same network.
#[derive(Debug, Clone)]
pub(crate) struct Net(Arc<Mutex<Wires>>);

#[derive(Debug)]
struct Wires {
    dice: Dice,
    hosts: BTreeMap<NodeId, Host>,
    /// Caller, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
}

#[derive(Debug, Clone)]
struct Host {
    disk: Disk,
    life: u64,
    owner: Owner,
    member: Consensus,
}

/// How well messages travel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay: (Duration, Duration),
    /// In a hundred: lost, and sent twice.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
}

impl Weather {
    pub(crate) const FAIR: Weather =
        Weather { delay: (Duration::from_micros(200), Duration::from_millis(2)), lost: 0, twice: 0 };
}

/// Messages between hosts, as one life of one host sends them.
#[derive(Debug, Clone)]
struct Caller {
    net: Net,
    me: NodeId,
    disk: Disk,
    life: u64,
}

impl Net {
    pub(crate) fn new(dice: Dice) -> Self {
        let wires = Wires { dice, hosts: BTreeMap::new(), cut: BTreeSet::new(), weather: Weather::FAIR };
        Self(Arc::new(Mutex::new(wires)))
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lines(&self, me: NodeId, disk: &Disk) -> Arc<dyn Lines> {
        Arc::new(Caller { net: self.clone(), me, disk: disk.clone(), life: disk.life() })
    }

    /// Caller now on this member is reached on this host, in its present life.
    pub(crate) fn join(&self, disk: &Disk, owner: &Owner, member: Consensus) {
        let host = Host { disk: disk.clone(), life: disk.life(), owner: owner.clone(), member };
        self.wires().hosts.insert(NodeId(owner.node), host);
    }

    pub(crate) fn leave(&self, node: NodeId) {
        self.wires().hosts.remove(&node);
    }

    /// Those that are up.
    pub(crate) fn members(&self) -> Vec<(NodeId, Consensus)> {
        let wires = self.wires();
        wires.hosts.iter().filter(|(_, host)| host.is_alive()).map(|(node, h)| (*node, h.member.clone())).collect()
    }

    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.wires().cut.insert((from, to));
    }

    pub(crate) fn mend(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.weather = Weather::FAIR;
    }

    pub(crate) fn weather(&self, weather: Weather) {
        self.wires().weather = weather;
    }

    /// The way of one message: how long it takes, or nothing if it is lost.
    fn way(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut wires = self.wires();
        let Weather { delay: (least, most), lost, twice: _ } = wires.weather;
        let span = u64::try_from((most - least).as_micros()).unwrap_or(0);
        let takes = least + Duration::from_micros(wires.dice.below(span + 1));
        let lost = wires.dice.percent(lost);
        (!lost && !wires.cut.contains(&(from, to))).then_some(takes)
    }

    fn twice(&self) -> bool {
        let mut wires = self.wires();
        let chance = wires.weather.twice;
        wires.dice.percent(chance)
    }

    fn member(&self, node: NodeId) -> Option<Host> {
        self.wires().hosts.get(&node).filter(|host| host.is_alive()).cloned()
    }
}

impl Host {
    fn is_alive(&self) -> bool {
        self.life == self.disk.life() && !self.disk.is_off()
    }
}

/// What a member is asked.
#[derive(Debug, Clone)]
enum Question {
    One(Kind, Vec<u8>),
    ReadIndex,
    Snapshot(Vec<Vec<u8>>),
}

#[derive(Debug)]
enum Answer {
    Payload(Vec<u8>),
    Index(ReadIndexReply),
}

impl Question {
    async fn put(self, to: &Consensus, from: NodeId) -> Result<Answer, Status> {
        match self {
            Question::One(kind, payload) => Ok(Answer::Payload(server::answer(to, from, kind, &payload).await?)),
            Question::ReadIndex => Ok(Answer::Index(server::read_index(to, from).await?)),
            Question::Snapshot(pieces) => {
                let pieces = futures::stream::iter(pieces.into_iter().map(Ok));
                Ok(Answer::Payload(server::install_snapshot(to, from, pieces).await?))
            }
        }
    }
}

impl Caller {
    fn is_alive(&self) -> bool {
        self.life == self.disk.life() && !self.disk.is_off()
    }

    /// The other side goes on with what has reached it, whether or not the asker still waits.
    async fn send(&self, to: NodeId, question: Question) -> Result<Answer, SendError> {
        if !self.is_alive() {
            return std::future::pending().await;
        }
        let is_snapshot = matches!(question, Question::Snapshot(_));
        if self.net.twice() {
            self.deliver(to, question.clone(), None);
        }
        let (tx, rx) = oneshot::channel();
        self.deliver(to, question, Some(tx));
        match rx.await {
            Ok(Ok(answer)) if self.is_alive() => Ok(answer),
            Ok(Err(status)) if self.is_alive() => Err(SendError::Status { node: to, status }),
            Err(_lost) if is_snapshot => {
                // No single message has this limit for itself: the connection's keepalive notices.
                rt::sleep(KEEPALIVE).await;
                Err(SendError::Status { node: to, status: Status::unavailable("the connection broke") })
            }
            // It is lost: only the asker's patience ends this.
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }

    fn deliver(&self, to: NodeId, question: Question, answer: Option<oneshot::Sender<Result<Answer, Status>>>) {
        let (net, me) = (self.net.clone(), self.me);
        let what = matches!(question, Question::Snapshot(_)).then_some("a snapshot");
        let told = move |how: &str| {
            if let Some(what) = what {
                oracle::note(&format!("{what} from {me} to {to} {how}"));
            }
        };
        let Some(takes) = net.way(me, to) else { return told("is lost") };
        rt::spawn(async move {
            rt::sleep(takes).await;
            let Some(host) = net.member(to) else {
                // Nobody listens there, or the host is gone and nothing comes back.
                if let (Some(back), Some(answer)) = (net.way(to, me), answer) {
                    rt::sleep(back).await;
                    let _ = answer.send(Err(Status::unavailable("connection refused")));
                }
                return;
            };
            told("arrives");
            let asked = question.clone();
            let put = Box::pin(question.put(&host.member, me));
            // A host that is gone answers nothing more; its connections break (see [`KEEPALIVE`]).
            let Select2::First(done) = rt::select2(put, gone(&host)).await else { return };
            if !host.is_alive() {
                return;
            }
            told(if done.is_ok() { "is taken" } else { "is refused" });
            if let Ok(answer) = &done {
                promise(&host, &asked, answer);
            }
            if let (Some(back), Some(answer)) = (net.way(to, me), answer) {
                rt::sleep(back).await;
                let _ = answer.send(done);
            }
        });
    }

    async fn payload(&self, to: NodeId, question: Question) -> Result<Vec<u8>, SendError> {
        match self.send(to, question).await? {
            Answer::Payload(payload) => Ok(payload),
            Answer::Index(_) => Err(SendError::Codec { node: to, why: "an index where bytes are due".to_owned() }),
        }
    }
}

async fn gone(host: &Host) {
    while host.is_alive() {
        rt::sleep(KEEPALIVE).await;
    }
}

/// Notes what a member tells another that it holds. What it has voted must be on its disk for certain by then.
fn promise(host: &Host, question: &Question, answer: &Answer) {
    let node = NodeId(host.owner.node);
    let (Question::One(kind, question), Answer::Payload(answer)) = (question, answer) else { return };
    match kind {
        Kind::AppendEntries => {
            let asked = codec::decode::<AppendEntriesRequest<TypeConfig>>(question);
            let said = codec::decode::<AppendEntriesResponse<TypeConfig>>(answer);
            let (Ok(asked), Ok(AppendEntriesResponse::Success)) = (asked, said) else { return };
            if let Some(last) = asked.entries.last().map(|e| e.log_id).or(asked.prev_log_id) {
                oracle::promised(node, last);
            }
        }
        Kind::Vote => {
            let Ok(said) = codec::decode::<VoteResponse<TypeConfig>>(answer) else { return };
            let kept = store::open(&host.disk.certain().files(), &host.owner).ok().and_then(|o| o.writer.mark().vote);
            if said.vote_granted && kept.is_none_or(|kept| kept < said.vote) {
                oracle::wrong(format!("{node} has voted {}, and its disk has {kept:?} for certain", said.vote));
            }
        }
        Kind::PreVote | Kind::TransferLeader | Kind::Propose => {}
    }
}

#[async_trait::async_trait]
impl Lines for Caller {
    async fn ask(&self, to: NodeId, _: &str, kind: Kind, payload: Vec<u8>) -> Result<Vec<u8>, SendError> {
        self.payload(to, Question::One(kind, payload)).await
    }

    async fn read_index(&self, to: NodeId, _: &str) -> Result<ReadIndexReply, SendError> {
        match self.send(to, Question::ReadIndex).await? {
            Answer::Index(reply) => Ok(reply),
            Answer::Payload(_) => Err(SendError::Codec { node: to, why: "bytes where an index is due".to_owned() }),
        }
    }

    async fn install_snapshot(&self, to: NodeId, _: &str, pieces: Pieces) -> Result<Vec<u8>, SendError> {
        let pieces = pieces.collect().await;
        self.payload(to, Question::Snapshot(pieces)).await
    }
}
