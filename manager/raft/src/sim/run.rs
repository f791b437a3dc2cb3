//! One run: a seed decides how many managers there are, what users do, and what goes wrong, and when. Then nothing goes
//! wrong any more, and the managers must have a leader, serve writes, and agree.

use futures::channel::oneshot;
use openraft::async_runtime::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;
use shoal_common::{Level, NodeId};
use shoal_state::{Command, Reply};
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    cluster::{Cluster, Counts, now},
    commands,
    dice::{self, Dice},
    disk::{Loss, Slowness},
    mutant::{self, Mutant},
    net::{Net, Weather},
    oracle,
};
use crate::{Consensus, ProposeError, rt};

/// Between two looks at the cluster.
const TICK: Duration = Duration::from_millis(50);
/// Ten election timeouts, and a member that hears of a leader then.
const HEALED_WITHIN: Duration = Duration::from_millis(12_500);
/// Members that lag have their snapshots and entries by then.
const AGREED_WITHIN: Duration = Duration::from_secs(20);
/// To take in the first members, or one that comes again.
const SEATED_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub mutant: Option<Mutant>,
    /// Whether every event is kept.
    pub shown: bool,
}

#[derive(Debug, Clone)]
pub struct Report {
    pub seed: u64,
    pub voters: u64,
    pub counts: Counts,
    /// Equal for equal runs.
    pub trace: String,
    /// In simulated time.
    pub took: Duration,
    pub wrong: Option<String>,
    /// Every event, where it was asked for.
    pub events: Vec<String>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// An assertion of openraft's that a release has not. It holds but for one case: a leader that is cut off does not hear
/// that another one took a member out and let it begin anew, with an empty log.
const REVERSION: &str = "follower log reversion is not allowed";

/// A panic in a task is caught by the runtime; it is noted here, for openraft's assertions are panics.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_stale = info.to_string().contains(REVERSION) && oracle::has_let_go();
            if is_stale {
                oracle::note("a leader that is none any more finds the log of one that begins anew reverted, and ends");
            } else if openraft_rt_sim::SimInstant::try_now().is_some() {
                PANIC.with_borrow_mut(|first| *first = first.take().or_else(|| Some(info.to_string())));
            } else {
                usual(info);
            }
        }));
    });
}

pub fn run(plan: Plan) -> Report {
    hear_panics();
    PANIC.set(None);
    let mut dice = Dice::new(plan.seed);
    dice::begin(dice.next());
    mutant::begin(plan.mutant);
    oracle::begin(plan.shown);
    let mut runtime = SimRuntime::with_seed(dice.next());
    let begun = Arc::new(Mutex::new((0, Counts::default())));
    let told = Arc::clone(&begun);
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story(dice, told))));
    let took = ended.as_ref().map_or(Duration::ZERO, |took| *took);
    // Tasks that are left are dropped inside of the runtime.
    drop(runtime);
    mutant::begin(None);
    let (voters, counts) = *begun.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = oracle::is_wrong().or_else(|| PANIC.take().map(|p| format!("a panic: {p}")));
    Report { seed: plan.seed, voters, counts, trace: oracle::digest_of_run(), took, wrong, events: oracle::events() }
}

/// Ends early when something does not hold.
async fn story(mut dice: Dice, told: Arc<Mutex<(u64, Counts)>>) -> Duration {
    let begun = now();
    let voters = *dice.pick(&[3, 3, 5, 5, 7]).unwrap_or(&3);
    let mut story = Story {
        cluster: Cluster::new(dice.fork(2)),
        changes_members: dice.percent(50),
        old: if dice.percent(50) { Level(0) } else { Level::KNOWN },
        rots: dice.percent(40),
        dice: dice.fork(3),
        ending: Arc::default(),
        counts: Arc::default(),
        registered: voters,
        changing: Vec::new(),
    };
    let clients = story.tell(voters, &mut dice).await;
    story.ending.store(true, Ordering::Relaxed);
    drop(clients);
    if is_wrong() {
        story.cluster.describe();
    }
    let mut counts = story.cluster.counts;
    counts.add(*story.counts.lock().unwrap_or_else(PoisonError::into_inner));
    *told.lock().unwrap_or_else(PoisonError::into_inner) = (voters, counts);
    now() - begun
}

struct Story {
    cluster: Cluster,
    dice: Dice,
    changes_members: bool,
    /// What the hosts know at first.
    old: Level,
    rots: bool,
    ending: Arc<AtomicBool>,
    /// Of the clients.
    counts: Arc<Mutex<Counts>>,
    /// How many hosts there ever were.
    registered: u64,
    /// Changes of the managers that are under way.
    changing: Vec<Changing>,
}

/// A manager that is taken out, and begins again.
struct Changing {
    node: NodeId,
    step: Step,
}

enum Step {
    Demoting,
    Leaving,
    Promoting,
}

fn is_wrong() -> bool {
    oracle::is_wrong().is_some() || PANIC.with_borrow(Option::is_some)
}

impl Story {
    async fn tell(&mut self, voters: u64, dice: &mut Dice) -> Vec<oneshot::Receiver<()>> {
        if !self.found(voters).await {
            return Vec::new();
        }
        let clients = (0..dice.between(2, 4)).map(|nth| self.client(nth, dice.fork(10 + nth))).collect();
        let troubles = dice.between(6, 16);
        for _ in 0..troubles {
            let pause = self.dice.between(50, 1200);
            self.pass(Duration::from_millis(pause)).await;
            if is_wrong() {
                return clients;
            }
            self.trouble().await;
        }
        let pause = self.dice.between(0, 1000);
        self.pass(Duration::from_millis(pause)).await;
        if !is_wrong() {
            self.heal().await;
        }
        clients
    }

    /// The first manager, and then the others.
    async fn found(&mut self, voters: u64) -> bool {
        let first = NodeId(1);
        self.cluster.add(first, self.old).await;
        let members = self.cluster.net.members();
        let Some((_, member)) = members.first().cloned() else { return false };
        if let Err(error) = member.bootstrap(commands::address(1)).await {
            oracle::wrong(format!("the first manager cannot begin: {error}"));
        }
        let mut request = 0;
        let mut propose = async |command| {
            request += 1;
            member.propose(commands::proposal(request, command)).await
        };
        if let Err(error) = propose(commands::init(self.old)).await {
            oracle::wrong(format!("the cluster cannot be initialised: {error}"));
            return false;
        }
        for nth in 2..=voters {
            match propose(commands::register(nth, self.old)).await {
                Ok((_, Ok(Reply::Node(node)))) => self.cluster.add(node, self.old).await,
                other => oracle::wrong(format!("host {nth} cannot be registered: {other:?}")),
            }
        }
        let ready = self.cluster.hosts.keys().map(|n| (*n, shoal_common::node::Liveness::Ready)).collect();
        let _ = propose(Command::SetLiveness { nodes: ready }).await;
        self.until(SEATED_WITHIN, "all managers vote", |story| story.is_settled()).await
    }

    /// Everybody who should vote does, and nobody else; and the last change of that is committed.
    fn is_settled(&self) -> bool {
        let wanted = self.cluster.managers();
        let committed = oracle::voters();
        committed.len() == 1
            && committed[0] == wanted.iter().map(|node| node.0).collect()
            && self.cluster.net.members().iter().any(|(_, member)| {
                let now = member.leadership().borrow().clone();
                now.is_self && now.voters == wanted && now.learners.is_empty()
            })
    }

    /// Lets time pass, in steps.
    async fn pass(&mut self, time: Duration) {
        let end = now() + time;
        while now() < end && !is_wrong() {
            rt::sleep(TICK).await;
            self.step().await;
        }
    }

    async fn step(&mut self) {
        self.cluster.tend().await;
        self.cluster.look();
        self.cluster.agents();
        self.begin_new().await;
        self.go_on_changing().await;
        if self.dice.percent(5)
            && let Err(what) = self.cluster.majority_holds()
        {
            oracle::wrong(what);
        }
    }

    async fn until(&mut self, limit: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let end = now() + limit;
        while !holds(self) {
            if is_wrong() {
                return false;
            }
            if now() > end {
                oracle::wrong(format!("not within {limit:?}: {what}"));
                return false;
            }
            rt::sleep(TICK).await;
            self.step().await;
        }
        true
    }

    fn any_host(&mut self) -> Option<NodeId> {
        let hosts: Vec<NodeId> = self.cluster.hosts.keys().copied().collect();
        self.dice.pick(&hosts).copied()
    }

    fn loss(&mut self) -> Loss {
        *self.dice.pick(&[Loss::All, Loss::Some, Loss::Some, Loss::Nothing]).unwrap_or(&Loss::All)
    }

    async fn trouble(&mut self) {
        let Some(node) = self.any_host() else { return };
        match self.dice.below(18) {
            0..=1 => {
                let loss = self.loss();
                self.cluster.crash(node, loss);
            }
            2 => {
                // Several at once, all of them at times.
                let loss = self.loss();
                let chance = *self.dice.pick(&[40, 70, 100]).unwrap_or(&100);
                for node in self.cluster.hosts.keys().copied().collect::<Vec<_>>() {
                    if self.dice.percent(chance) {
                        self.cluster.crash(node, loss);
                    }
                }
            }
            3..=5 => {
                let operation = self.dice.below(60);
                if let Some(host) = self.cluster.hosts.get(&node) {
                    oracle::note(&format!("the power of {node} is cut in {operation} operations"));
                    host.disk.cut_at(operation);
                }
            }
            6 => {
                let nth = self.dice.below(4);
                self.cluster.counts.failed_syncs += 1;
                if let Some(host) = self.cluster.hosts.get(&node) {
                    oracle::note(&format!("a sync of {node} fails in {nth}"));
                    host.disk.fail_sync(nth);
                }
            }
            7 => {
                let stall = (self.dice.between(0, 20), Duration::from_millis(self.dice.between(10, 900)));
                if let Some(host) = self.cluster.hosts.get(&node) {
                    oracle::note(&format!("the disk of {node} stalls: {stall:?}"));
                    host.disk.slow(Slowness { usual: (Duration::from_micros(100), Duration::from_millis(8)), stall });
                }
            }
            8..=9 => self.partition(),
            10 => {
                let weather = Weather {
                    delay: (Duration::from_micros(200), Duration::from_millis(self.dice.between(2, 300))),
                    lost: self.dice.between(0, 30),
                    twice: self.dice.between(0, 20),
                };
                oracle::note(&format!("{weather:?}"));
                self.cluster.net.weather(weather);
            }
            11 => {
                oracle::note("the network is mended");
                self.cluster.net.mend();
            }
            12..=13 if self.changes_members => self.change_members().await,
            14..=16 if self.rots => self.rot(node).await,
            _ => {}
        }
    }

    fn partition(&mut self) {
        let hosts: Vec<NodeId> = self.cluster.hosts.keys().copied().collect();
        let kind = self.dice.below(4);
        let one = self.dice.pick(&hosts).copied();
        let left: Vec<bool> = hosts.iter().map(|_| self.dice.percent(50)).collect();
        self.cluster.counts.partitions += 1;
        self.cluster.net.mend();
        oracle::note(&format!("a partition of kind {kind}, {left:?}, {one:?}"));
        for (from, from_left) in hosts.iter().zip(&left) {
            for (to, to_left) in hosts.iter().zip(&left) {
                let cut = match kind {
                    // Halves.
                    0 => from_left != to_left,
                    // One is alone.
                    1 => (Some(*from) == one) != (Some(*to) == one),
                    // One is not heard, or hears nothing.
                    2 => Some(*from) == one,
                    // Only some ways, in one direction.
                    _ => *from_left && self.dice.percent(40),
                };
                if cut {
                    self.cluster.net.cut(*from, *to);
                }
            }
        }
    }

    /// What was synced is gone or other than it was, on a minority of the disks. Nothing can be promised beyond.
    async fn rot(&mut self, node: NodeId) {
        let rotten = self.cluster.hosts.values().filter(|h| h.rotten || h.refused).count();
        // A minority of those who vote: while the members change, they are fewer than the managers.
        let few = (rotten + 1) * 2 < self.cluster.managers().len();
        if !few || !self.changing.is_empty() || !self.is_settled() || !self.cluster.is_up(node) {
            return;
        }
        let kind = self.dice.below(3);
        // The mark of what was acknowledged may lag by 100 ms (`store/writer.rs`): what is lost is older.
        for other in self.cluster.hosts.keys() {
            self.cluster.net.cut(*other, node);
            self.cluster.net.cut(node, *other);
        }
        if let Some(host) = self.cluster.hosts.get(&node) {
            host.disk.calm();
        }
        self.pass(Duration::from_millis(1500)).await;
        self.cluster.net.mend();
        if !self.is_settled() || !self.cluster.is_up(node) {
            return;
        }
        self.cluster.crash(node, Loss::All);
        let Some(host) = self.cluster.hosts.get_mut(&node) else { return };
        if host.refused {
            return;
        }
        host.disk.start(Loss::All);
        host.disk.stop();
        let done = match kind {
            0 => {
                host.disk.wipe();
                true
            }
            1 => host.disk.cut_tail("log-"),
            _ => host.disk.flip(if self.dice.percent(70) { "log-" } else { "snapshot-" }),
        };
        if done {
            host.rotten = true;
            self.cluster.counts.rotten += 1;
            oracle::note(&format!("the disk of {node} rots: {kind}"));
        }
    }

    /// A manager goes, or one comes.
    async fn change_members(&mut self) {
        if !self.changing.is_empty() {
            return;
        }
        let managers: Vec<NodeId> = self.cluster.managers().into_iter().collect();
        if self.registered < 9 && self.dice.percent(35) {
            self.registered += 1;
            let nth = self.registered;
            let members = self.cluster.net.members();
            let Some((_, member)) = self.dice.pick(&members).cloned() else { return };
            self.cluster.counts.memberships += 1;
            let request = u128::from(self.dice.next());
            let level = if self.dice.percent(50) { self.old } else { Level::KNOWN };
            // Whether it became one the state says, also when no answer came.
            let _ = member.propose(commands::proposal(request, commands::register(nth, level))).await;
        } else if managers.len() > 2
            && let Some(node) = self.dice.pick(&managers).copied()
        {
            oracle::note(&format!("{node} is to be demoted, and promoted again"));
            self.changing.push(Changing { node, step: Step::Demoting });
        }
    }

    /// Who has become a manager begins.
    async fn begin_new(&mut self) {
        let state = oracle::state();
        for manager in state.managers() {
            if !self.cluster.hosts.contains_key(&manager.id) {
                oracle::note(&format!("{} becomes a manager", manager.id));
                self.cluster.add(manager.id, manager.description.level).await;
            }
        }
    }

    /// Who refused to start is taken out and begins again, as the message tells the user to do.
    async fn go_on_changing(&mut self) {
        let known: Vec<NodeId> = self.changing.iter().map(|c| c.node).collect();
        let refused = self.cluster.hosts.iter().filter(|(node, h)| h.refused && !known.contains(node));
        self.changing.extend(refused.map(|(node, _)| Changing { node: *node, step: Step::Demoting }));
        for Changing { node, step } in std::mem::take(&mut self.changing) {
            if let Some(step) = self.next_step(node, step).await {
                self.changing.push(Changing { node, step });
            }
        }
    }

    async fn next_step(&mut self, node: NodeId, step: Step) -> Option<Step> {
        // Not every time: a change that finds no leader takes its whole deadline.
        let try_again = self.dice.percent(10);
        Some(match step {
            Step::Demoting if !oracle::state().is_manager(node) => Step::Leaving,
            Step::Demoting => {
                if try_again {
                    rt::spawn(self.cluster.demote(node));
                }
                Step::Demoting
            }
            // A promotion of before, whose answer was lost, came after all.
            Step::Leaving if oracle::state().is_manager(node) => Step::Demoting,
            Step::Leaving => {
                let out = oracle::voters().iter().all(|config| !config.contains(&node.0)) && self.is_out(node);
                if !out {
                    return Some(Step::Leaving);
                }
                oracle::note(&format!("{node} is out"));
                self.cluster.crash(node, Loss::All);
                if let Some(host) = self.cluster.hosts.get_mut(&node) {
                    host.refused = true;
                    host.back = None;
                }
                Step::Promoting
            }
            Step::Promoting if oracle::state().is_manager(node) => {
                self.cluster.seat(node).await;
                return None;
            }
            Step::Promoting => {
                if try_again {
                    rt::spawn(self.cluster.promote(node));
                }
                Step::Promoting
            }
        })
    }

    /// The leader knows it as no member.
    fn is_out(&self, node: NodeId) -> bool {
        self.cluster.net.members().iter().any(|(_, member)| {
            let now = member.leadership().borrow().clone();
            now.is_self && !now.voters.contains(&node) && !now.learners.contains(&node)
        })
    }

    /// Nothing goes wrong from here on.
    async fn heal(&mut self) {
        oracle::note("everything is mended");
        self.cluster.net.mend();
        for host in self.cluster.hosts.values_mut() {
            host.disk.calm();
            if let Some((at, _)) = &mut host.back {
                *at = now();
            }
        }
        self.step().await;
        let led = |story: &Self| {
            story.cluster.net.members().iter().filter(|(_, m)| m.leadership().borrow().is_self).count() == 1
        };
        if !self.until(HEALED_WITHIN, "one member leads", led).await || !self.write_everywhere().await {
            return;
        }
        let settled = |story: &Self| story.changing.is_empty() && story.is_settled() && !story.is_any_refused();
        if !self.until(SEATED_WITHIN, "the members are as they are wanted", settled).await {
            return;
        }
        self.ending.store(true, Ordering::Relaxed);
        self.pass(Duration::from_secs(4)).await;
        if self.write_everywhere().await {
            self.until(AGREED_WITHIN, "all members have applied the same", Self::agree).await;
        }
        if let Err(what) = self.cluster.majority_holds() {
            oracle::wrong(what);
        }
        self.cluster.counts.snapshots = self.cluster.snapshots();
    }

    fn is_any_refused(&self) -> bool {
        self.cluster.hosts.values().any(|h| h.refused || h.rotten)
    }

    fn agree(&self) -> bool {
        let managers = self.cluster.managers();
        let members = self.cluster.net.members();
        let at: Vec<_> = members.iter().filter(|(node, _)| managers.contains(node)).collect();
        let at: Vec<_> = at.iter().map(|(_, m)| m.state().borrow().applied).collect();
        at.len() == managers.len() && at.windows(2).all(|two| two[0] == two[1])
    }

    /// Every manager that is not about to leave takes a write and a read, which see all that was acknowledged.
    async fn write_everywhere(&mut self) -> bool {
        let end = now() + HEALED_WITHIN;
        let is_changing = |node: &NodeId| self.changing.iter().any(|c| c.node == *node);
        let managers: Vec<NodeId> = self.cluster.managers().into_iter().filter(|node| !is_changing(node)).collect();
        for node in managers {
            let state = oracle::state();
            let mut command = commands::any(&mut self.dice, &state);
            while command.level() > state.level {
                command = commands::any(&mut self.dice, &state);
            }
            let proposal = commands::proposal(u128::from(self.dice.next()), command);
            let floor = oracle::floor();
            if let Some((index, outcome)) =
                self.patiently(end, node, async |member| member.propose(proposal.clone()).await).await
            {
                oracle::acknowledged(floor, index, &outcome);
            }
            let floor = oracle::floor();
            if let Some(state) = self.patiently(end, node, async |member| member.read().await).await {
                oracle::read(floor, &state);
            }
        }
        !is_wrong()
    }

    /// Tries until it works, or the time is over.
    async fn patiently<T>(
        &mut self,
        end: rt::Instant,
        node: NodeId,
        attempt: impl AsyncFn(Consensus) -> Result<T, ProposeError>,
    ) -> Option<T> {
        loop {
            let member = self.cluster.net.members().into_iter().find(|(of, _)| *of == node).map(|(_, member)| member);
            let failed = match member {
                Some(member) => match attempt(member).await {
                    Ok(done) => return Some(done),
                    Err(error) => error.to_string(),
                },
                None => "it is down".to_owned(),
            };
            if !oracle::state().is_manager(node) || self.changing.iter().any(|c| c.node == node) {
                return None;
            }
            if now() >= end {
                oracle::wrong(format!("{node} serves nobody though all is mended: {failed}"));
                return None;
            }
            oracle::note(&format!("{node} is asked again: {failed}"));
            rt::sleep(TICK).await;
            self.step().await;
        }
    }

    /// A user, who asks any manager, and asks another one under the same id if no answer came.
    fn client(&self, nth: u64, mut dice: Dice) -> oneshot::Receiver<()> {
        let (net, ending, counts) = (self.cluster.net.clone(), Arc::clone(&self.ending), Arc::clone(&self.counts));
        let (tx, rx) = oneshot::channel();
        rt::spawn(async move {
            let mut request = u128::from(nth + 1) << 64;
            while !ending.load(Ordering::Relaxed) {
                rt::sleep(Duration::from_millis(dice.between(1, 120))).await;
                let done = if dice.percent(25) {
                    read(&net, &mut dice).await
                } else {
                    request += 1;
                    write(&net, &mut dice, request).await
                };
                counts.lock().unwrap_or_else(PoisonError::into_inner).add(done);
            }
            // The story may have ended before.
            let _ = tx.send(());
        });
        rx
    }
}

async fn write(net: &Net, dice: &mut Dice, request: u128) -> Counts {
    let floor = oracle::floor();
    let mut command = None;
    for _ in 0..3 {
        let members = net.members();
        let Some((_, member)) = dice.pick(&members) else {
            rt::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let command = command.get_or_insert_with(|| commands::any(dice, &member.state().borrow().clone())).clone();
        let work = member.propose(commands::proposal(request, command));
        // The manager may be gone while it is asked.
        if let Ok(Ok((index, outcome))) = rt::timeout(Duration::from_secs(4), work).await {
            oracle::acknowledged(floor, index, &outcome);
            return Counts { acknowledged: 1, ..Counts::default() };
        }
    }
    Counts { unknown: 1, ..Counts::default() }
}

async fn read(net: &Net, dice: &mut Dice) -> Counts {
    let floor = oracle::floor();
    let members = net.members();
    let Some((_, member)) = dice.pick(&members) else { return Counts::default() };
    match rt::timeout(Duration::from_secs(4), member.read()).await {
        Ok(Ok(state)) => {
            oracle::read(floor, &state);
            Counts { reads: 1, ..Counts::default() }
        }
        Ok(Err(_)) | Err(_) => Counts::default(),
    }
}
