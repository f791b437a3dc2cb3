//! The hosts of one run: each with a disk, a network, and at times a member of the group.

use futures::future::BoxFuture;
use openraft::{
    ServerState,
    async_runtime::{Instant as _, WatchReceiver as _},
};
use shoal_common::{
    Generation, Level, LogIndex, NodeId,
    assignment::Assignment,
    node::{NodeDescription, Role},
};
use shoal_state::{Command, Node, Proposal, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    commands,
    dice::Dice,
    disk::{Disk, Loss},
    net::Net,
    oracle,
};
use crate::{
    Consensus, OpenError, Settings, rt,
    store::{self, Owner},
};

/// Simulated.
pub(super) fn now() -> rt::Instant {
    rt::Instant::now()
}

/// How often a leader looks whether the members are as they are wanted.
const ALIGN: Duration = Duration::from_millis(150);

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) net: Net,
    pub(super) dice: Dice,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    snapshot_every: u64,
    pub(super) counts: Counts,
}

/// What happened in a run, or in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: u64,
    pub unknown: u64,
    pub reads: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub partitions: u64,
    pub failed_syncs: u64,
    pub rotten: u64,
    pub refusals: u64,
    pub memberships: u64,
    pub snapshots: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.partitions += other.partitions;
        self.failed_syncs += other.failed_syncs;
        self.rotten += other.rotten;
        self.refusals += other.refusals;
        self.memberships += other.memberships;
        self.snapshots += other.snapshots;
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) disk: Disk,
    /// Whose store it has, once it has begun to be a manager.
    owner: Owner,
    pub(super) member: Option<Consensus>,
    /// The member says that it cannot go on.
    ended: Arc<AtomicBool>,
    /// When it is started again.
    pub(super) back: Option<(rt::Instant, Loss)>,
    /// Its disk has lost something that it had synced: the member must not start with it.
    pub(super) rotten: bool,
    /// It refused to start with what it found, and waits to be demoted.
    pub(super) refused: bool,
    /// What the agent of this host acts on.
    assignment: Assignment,
    stands_from: LogIndex,
}

impl Cluster {
    pub(super) fn new(mut dice: Dice) -> Self {
        let net = Net::new(dice.fork(1));
        let snapshot_every = dice.between(15, 60);
        Self { net, dice, hosts: BTreeMap::new(), snapshot_every, counts: Counts::default() }
    }

    /// A host that becomes a manager, with an empty store.
    pub(super) async fn add(&mut self, node: NodeId, level: Level) {
        oracle::knows(node, level);
        let disk = Disk::new(self.dice.fork(node.0));
        let owner = Owner { cluster: "simulated".to_owned(), node: node.0, incarnation: "1".to_owned() };
        let host = Host {
            disk,
            owner,
            member: None,
            ended: Arc::default(),
            back: None,
            rotten: false,
            refused: false,
            assignment: Assignment::default(),
            stands_from: LogIndex(0),
        };
        self.hosts.insert(node, host);
        self.create(node).await;
        self.open(node).await;
    }

    /// It becomes a manager again, and has left the group meanwhile: it begins with nothing.
    pub(super) async fn seat(&mut self, node: NodeId) {
        let state = oracle::state();
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.disk.wipe();
        host.disk.start(Loss::All);
        host.owner.incarnation.push('1');
        (host.rotten, host.refused, host.back) = (false, false, None);
        // Its agent has heard that it is a manager again, and acts on that.
        if let Some(served) = shoal_state::assignment(&state, node) {
            let _ = host.assignment.replace(served);
        }
        host.stands_from = LogIndex(host.assignment.generation.0);
        oracle::released(node);
        self.create(node).await;
        self.open(node).await;
    }

    async fn create(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        if let Err(error) = store::create(&host.disk.files(), host.owner.clone()) {
            oracle::wrong(format!("{node} cannot create a store: {error}"));
        }
    }

    fn settings(&self, host: &Host) -> Settings {
        let mut settings = Settings::new(host.owner.clone(), PathBuf::from(format!("host-{}", host.owner.node)));
        settings.stands_from = host.stands_from;
        settings.snapshot_every = self.snapshot_every;
        settings.deadline = Duration::from_secs(3);
        settings
    }

    /// Opens the member with what is there.
    async fn open(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        let (disk, settings) = (host.disk.clone(), self.settings(host));
        if mutant!(EmptyAccepted) {
            // What is missing is created, as if the host had never been a member.
            let _ = store::create(&disk.files(), host.owner.clone());
        }
        let opened = Consensus::open_on(settings, disk.files(), self.net.lines(node, &disk)).await;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        match opened {
            Ok(member) => {
                oracle::note(&format!("{node} starts"));
                // Often a daemon starts because a newer version was installed.
                if oracle::level_of(node) < Level::KNOWN && self.dice.percent(30) {
                    oracle::knows(node, Level::KNOWN);
                }
                if let Some(owed) = oracle::owes(node)
                    && !holds(&host.disk, &host.owner, owed)
                {
                    oracle::wrong(format!("{node} starts, and has lost {owed}, which it told others to hold"));
                }
                host.rotten = false;
                host.member = Some(member.clone());
                host.ended = Arc::default();
                let (ended, ending) = (Arc::clone(&host.ended), member.clone());
                rt::spawn(async move {
                    let why = ending.fatal().await;
                    oracle::note(&format!("{node} ends: {why}"));
                    ended.store(true, Ordering::Relaxed);
                });
                self.net.join(&host.disk, &host.owner, member.clone());
                rt::spawn(align(member, host.disk.clone()));
            }
            Err(OpenError::Refused { refusal, .. }) => {
                oracle::note(&format!("{node} refuses to start: {refusal}"));
                self.counts.refusals += 1;
                if !host.rotten {
                    oracle::wrong(format!("{node} refuses to start, and its disk is sound: {refusal}"));
                }
                host.refused = true;
            }
            Err(error) => {
                // The power was cut while it was opened, or the disk failed then.
                oracle::note(&format!("{node} does not start: {error}"));
                host.disk.stop();
            }
        }
    }

    /// The member is gone at once; the host comes back later.
    pub(super) fn crash(&mut self, node: NodeId, loss: Loss) {
        let after = Duration::from_millis(*self.dice.pick(&[0, 20, 300, 1500, 4000]).unwrap_or(&300));
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.disk.stop();
        host.ended = Arc::default();
        self.net.leave(node);
        if let Some(member) = host.member.take() {
            rt::spawn(async move { member.shutdown().await });
        }
        if !host.refused {
            host.back = Some((now() + after, loss));
        }
        match loss {
            Loss::Nothing => self.counts.kills += 1,
            Loss::All | Loss::Some => self.counts.power_cuts += 1,
        }
        oracle::note(&format!("{node} crashes, losing {loss:?}, back in {after:?}"));
    }

    /// Starts what is due, and notices who has ended by itself.
    pub(super) async fn tend(&mut self) {
        let now = now();
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            if host.disk.is_off() && host.back.is_none() && !host.refused {
                self.crash(node, Loss::Some);
                continue;
            }
            if host.ended.load(Ordering::Relaxed) {
                // A daemon whose disk or Raft has failed ends; systemd starts it again.
                self.crash(node, Loss::Nothing);
                continue;
            }
            if let Some((_, loss)) = host.back.take_if(|(at, _)| *at <= now) {
                host.disk.start(loss);
                self.open(node).await;
            }
        }
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.hosts.get(&node).is_some_and(|host| host.member.is_some() && !host.disk.is_off())
    }

    /// How each member sees itself, for whoever looks for a fault.
    pub(super) fn describe(&self) {
        for (node, host) in &self.hosts {
            oracle::describe(match &host.member {
                Some(member) => format!("{node}: {}", *member.raft().metrics().borrow_watched()),
                None => format!("{node} is down"),
            });
        }
    }

    /// What holds at any moment.
    pub(super) fn look(&mut self) {
        for (node, host) in &mut self.hosts {
            let Some(member) = &host.member else { continue };
            let metrics = member.raft().metrics().borrow_watched().clone();
            if metrics.state == ServerState::Leader {
                oracle::leads(metrics.current_term, *node);
            }
        }
    }

    /// Each host's agent hears from some manager what it is to do.
    pub(super) fn agents(&mut self) {
        let members = self.net.members();
        let Some((_, member)) = self.dice.pick(&members).cloned() else { return };
        let state = member.state().borrow().clone();
        for (node, host) in &mut self.hosts {
            let Some(served) = shoal_state::assignment(&state, *node) else { continue };
            let before = host.assignment.generation;
            if mutant!(OlderGeneration) {
                host.assignment = served;
            } else {
                // An older one is refused: that manager lags, and another one will be asked.
                let _ = host.assignment.replace(served);
            }
            let Generation(now) = host.assignment.generation;
            if host.assignment.generation < before {
                oracle::wrong(format!("{node} acts on generation {now}, and has acted on {before:?}"));
            }
        }
    }

    /// Whether what was just acknowledged survives on a majority even if every power is cut now and nothing more is
    /// written.
    pub(super) fn majority_holds(&self) -> Result<(), String> {
        let Some(id) = oracle::agreed(oracle::floor()) else { return Ok(()) };
        let holding: BTreeSet<u64> = self
            .hosts
            .iter()
            // What a disk has lost since, it had: such a member does not vote, so the others are still enough.
            .filter(|(_, host)| host.rotten || host.refused || holds(&host.disk.certain(), &host.owner, id))
            .map(|(node, _)| node.0)
            .collect();
        let voters = oracle::voters();
        let enough = |config: &BTreeSet<u64>| config.intersection(&holding).count() * 2 > config.len();
        if voters.iter().any(enough) {
            Ok(())
        } else {
            Err(format!("{id} is acknowledged, and is durable on {holding:?} alone, of voters {voters:?}"))
        }
    }

    /// The managers, as the newest state has them.
    pub(super) fn managers(&self) -> BTreeSet<NodeId> {
        oracle::state().managers().map(|m| m.id).collect()
    }

    pub(super) fn snapshots(&self) -> u64 {
        self.hosts
            .values()
            .filter_map(|h| h.member.as_ref())
            .filter(|m| m.raft().metrics().borrow_watched().snapshot.is_some())
            .count() as u64
    }

    /// A change of the managers, made by whichever member does it.
    pub(super) fn change(&mut self, command: Command) -> BoxFuture<'static, bool> {
        let members = self.net.members();
        let chosen = self.dice.pick(&members).map(|(_, m)| m.clone());
        let proposal = commands::proposal(u128::from(self.dice.next()), command);
        self.counts.memberships += 1;
        Box::pin(async move {
            let Some(member) = chosen else { return false };
            let done = member.propose(proposal).await;
            if !matches!(done, Ok((_, Ok(_)))) {
                oracle::note(&format!("a change of the managers failed: {done:?}"));
            }
            done.is_ok_and(|(_, outcome)| outcome.is_ok())
        })
    }

    /// Takes a manager out, and back in.
    pub(super) fn demote(&mut self, node: NodeId) -> BoxFuture<'static, bool> {
        self.change(commands::role(node, Role::Worker))
    }

    /// A newer version is installed first: an old one may not come back.
    pub(super) fn promote(&mut self, node: NodeId) -> BoxFuture<'static, bool> {
        oracle::knows(node, Level::KNOWN);
        self.change(commands::role(node, Role::Manager))
    }
}

/// Whether a disk holds a committed entry, in the log or in a snapshot.
fn holds(disk: &Disk, owner: &Owner, id: crate::types::LogId) -> bool {
    let copy = disk.certain();
    let Ok(opened) = store::open(&copy.files(), owner) else { return false };
    if opened.snapshots.last_log_id().is_some_and(|last| last.index >= id.index) {
        return true;
    }
    let found = opened.writer.places().read(id.index, id.index + 1).unwrap_or_default();
    found.iter().any(|(_, bytes)| crate::codec::decode::<crate::types::Entry>(bytes).is_ok_and(|e| e.log_id == id))
}

/// As daemons say what they are, and as the leader raises the level once all managers know it.
async fn raise(member: &Consensus, state: &State) {
    let news = state.nodes.values().find(|n| n.description.level < oracle::level_of(n.id));
    let command = match news {
        Some(Node { id, description, .. }) => {
            let description = NodeDescription { level: oracle::level_of(*id), ..description.clone() };
            Command::DescribeNode { node: *id, description }
        }
        None if state.known_by_all() > state.level => Command::RaiseLevel { level: state.known_by_all() },
        None => return,
    };
    if let Err(error) = member.propose(Proposal { request: None, ..commands::proposal(0, command) }).await {
        oracle::note(&format!("the level is not raised: {error}"));
    }
}

/// As the daemon's leader does: the members are to be the nodes that are managers.
async fn align(member: Consensus, disk: Disk) {
    let life = disk.life();
    while disk.life() == life && !disk.is_off() {
        rt::sleep(ALIGN).await;
        let leads = member.leadership().borrow().is_self;
        if !leads {
            continue;
        }
        let state = member.state().borrow().clone();
        raise(&member, &state).await;
        let wanted: BTreeMap<NodeId, SocketAddr> =
            state.managers().map(|m| (m.id, m.description.control_addr)).collect();
        if let Err(error) = member.align_membership(&wanted).await {
            oracle::note(&format!("the membership is not as wanted: {error}"));
        }
    }
}
