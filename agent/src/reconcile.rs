//! The loop that makes the kernel's networking what the assignment asks for.
//!
//! It goes round when the assignment changed, when a container came or went, when the kernel changed, and every
//! [`LOOK_AGAIN`]. Each time it does the same: look, plan, apply.

use shoal_common::{
    Generation, Mtu, NetworkId, TaskId,
    assignment::{Assignment, NetworkAssignment, NetworkKind, TaskAssignment},
};
use shoal_kernel::{Kernel, OpError};
use shoal_plan::{HostFacts, Ns, Op, World, desired, link_of, listeners, plan};
use shoal_rt::Backoff;
use shoal_runtime::Runtime;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Host, chain,
    check::{Check, Checked},
    containers::{self, Namespaces},
    ports::Ports,
    scope,
};

/// For what the kernel does not tell of: sysctls, a notification that never came.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between the kernel's first word of a change and our look: one change is told by several notifications.
const SETTLE: Duration = Duration::from_millis(20);
/// The same after a change of our own, which the kernel tells us, too. Where one follows another, the look that each
/// begins with is enough.
const OWN_SETTLE: Duration = Duration::from_millis(200);
/// Looks in a row before the loop rests a while. The second sees what the first could not do.
const ROUNDS: usize = 3;
/// What the first pass waits for the resolver to say which ports it has. Later passes do not wait: they leave out what it
/// has not answered for.
const FIRST_HOLD: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LIMIT: Duration = Duration::from_secs(10);

/// How far the kernel is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Converged {
    /// The highest generation at which nothing was left to do.
    pub(crate) generation: Generation,
    /// Tasks whose network namespace and networks are as they should be. Of a container that was run by hand: for which
    /// of its user's starts; what it had for another may be going away.
    pub(crate) wired: BTreeMap<TaskId, u64>,
    /// What went wrong last, by namespace.
    pub(crate) failures: BTreeMap<Ns, Failure>,
    /// Of the assignment that this is about.
    pub(crate) seen: Generation,
    pub(crate) failed_operations: u32,
    /// Containers one of whose ports others of this host have, and who that is.
    pub(crate) closed: BTreeMap<TaskId, String>,
    /// Not wired because the resolver does not listen at one of their published ports yet.
    pub(crate) unlistened: BTreeSet<TaskId>,
}

/// Why a namespace is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// Until somebody has done something about it.
    pub(crate) stays: bool,
}

impl Failure {
    fn of(error: &OpError) -> Self {
        let stays = error.stays();
        // Such a reason says by itself what is wrong; others may need the operation to be understood.
        Self { why: if stays { chain(&error.cause) } else { chain(error) }, stays }
    }
}

impl Converged {
    /// Why this task's network is not there yet, if something went wrong.
    pub(crate) fn failure(&self, assignment: &Assignment, task: TaskId) -> Option<Failure> {
        if self.failures.is_empty() && self.unlistened.is_empty() {
            return None;
        }
        let unlistened = || {
            let why = "the resolver of this host does not listen at its published ports yet".to_owned();
            self.unlistened.contains(&task).then_some(Failure { why, stays: false })
        };
        let failure = needs(assignment, task).iter().find_map(|ns| self.failures.get(ns)).cloned();
        let failure = failure.or_else(unlistened)?;
        // What is newer than the last look may have changed it.
        Some(Failure { stays: failure.stays && self.seen >= assignment.generation, ..failure })
    }
}

/// The namespaces in which all must be right for a task to be reached.
fn needs(assignment: &Assignment, task: TaskId) -> Vec<Ns> {
    let is_overlay =
        |id: &NetworkId| assignment.networks.get(id).is_some_and(|n| matches!(n.kind, NetworkKind::Overlay { .. }));
    // Bridges are in the host's namespace.
    let networks = assignment.local_endpoints(task).iter().map(|e| e.network).filter(is_overlay).map(Ns::Sandbox);
    [Ns::Host, Ns::Task(task)].into_iter().chain(networks).collect()
}

pub(crate) struct Reconciler {
    kernel: Kernel,
    runtime: Runtime,
    ports: Ports,
    checks: mpsc::Receiver<Check>,
    facts: HostFacts,
    /// The session describes this host to the managers with it.
    underlay: watch::Sender<Mtu>,
    assignment: watch::Receiver<Arc<Assignment>>,
    converged: watch::Sender<Converged>,
    /// What was wanted at the last look, and what that was made from.
    desired: World,
    told: Arc<Assignment>,
    namespaces: Namespaces,
    /// Namespaces that were right when we last looked, or were made so.
    done: BTreeSet<Ns>,
    failures: BTreeMap<Ns, Failure>,
    /// Operations that failed when their namespace was last looked at.
    failed: Vec<Op>,
    failed_operations: usize,
    /// Told by the kernel, and not looked at since.
    dirty: BTreeSet<Ns>,
    /// When we last changed something.
    acted: Option<Instant>,
    first: bool,
}

/// What is to be looked at, apart from what the assignment changes.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Everything,
    These(BTreeSet<Ns>),
}

impl Due {
    fn concerns(&self, ns: Ns) -> bool {
        match self {
            Due::Everything => true,
            Due::These(these) => these.contains(&ns),
        }
    }
}

impl Reconciler {
    pub(crate) fn new(
        host: &Host,
        facts: HostFacts,
        underlay: watch::Sender<Mtu>,
        assignment: watch::Receiver<Arc<Assignment>>,
        converged: watch::Sender<Converged>,
    ) -> Self {
        Self {
            kernel: host.kernel().clone(),
            runtime: host.runtime().clone(),
            ports: Ports::new(host.resolver().clone()),
            checks: host.checks().open(),
            facts,
            underlay,
            assignment,
            converged,
            desired: World::default(),
            told: Arc::default(),
            namespaces: Namespaces::default(),
            done: BTreeSet::new(),
            failures: BTreeMap::new(),
            failed: Vec::new(),
            failed_operations: 0,
            dirty: BTreeSet::new(),
            acted: None,
            first: true,
        }
    }

    /// Goes round until `shutdown`, and leaves everything as it is then.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        if let Err(why) = self.kernel.keeps_idle().await {
            tracing::warn!(
                %why,
                "this kernel cannot keep idle connections by published ports (CONFIG_NF_CONNTRACK_TIMEOUT): half-closed \
                 ones end after nf_conntrack_tcp_timeout_close_wait"
            );
        } else {
            self.facts.keeps_idle = true;
        }
        // Before the first look, so that no change falls between the two.
        let mut kernel = self.kernel.changes();
        let mut containers = self.runtime.changes();
        let mut ports = self.ports.changes();
        let asking = self.ports.asker().run();
        tokio::pin!(asking);
        let mut periodic = interval(LOOK_AGAIN);
        periodic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        let (mut retry_at, mut settled_at) = (None, None);
        loop {
            // A look for another reason may have shown it.
            settled_at = settled_at.filter(|_| !self.dirty.is_empty());
            let (retry, settled) = (until(retry_at), until(settled_at));
            let due = tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.assignment.changed() => match changed {
                    Ok(()) => Due::These(BTreeSet::new()),
                    Err(_) => return,
                },
                changed = containers.changed() => match changed {
                    Ok(()) => Due::These(BTreeSet::new()),
                    Err(_) => return,
                },
                changed = ports.changed() => match changed {
                    Ok(()) => Due::These(BTreeSet::new()),
                    Err(_) => return,
                },
                () = &mut asking => return,
                dirty = kernel.next() => {
                    self.dirty.extend(dirty);
                    settled_at.get_or_insert_with(|| self.settled_at());
                    continue;
                }
                () = settled => Due::These(std::mem::take(&mut self.dirty)),
                Some(check) = self.checks.recv() => {
                    // Who asked may have gone.
                    let _ = check.answer.send(self.check(check.network).await);
                    continue;
                }
                _ = periodic.tick() => Due::Everything,
                () = retry => Due::Everything,
            };
            let right = tokio::select! {
                right = self.look(due) => right,
                () = &mut asking => return,
            };
            if right {
                backoff.reset();
                retry_at = None;
            } else {
                retry_at = Some(Instant::now() + backoff.delay());
            }
        }
    }

    /// When to look at what the kernel says now.
    fn settled_at(&self) -> Instant {
        let own = self.acted.map(|at| at + OWN_SETTLE);
        let soon = Instant::now() + SETTLE;
        own.map_or(soon, |own| own.max(soon))
    }

    /// One time round. Whether nothing failed.
    async fn look(&mut self, due: Due) -> bool {
        let assignment = self.assignment.borrow_and_update().clone();
        if assignment.node.is_none() {
            // Nobody told us anything: what is there is left alone.
            return true;
        }
        let namespaces = Namespaces::of(&assignment, &containers::of(&self.runtime));
        let mut changed = BTreeSet::new();
        let other_underlay = due.concerns(Ns::Host) && self.look_at_underlay().await;
        let told = !Arc::ptr_eq(&assignment, &self.told) || namespaces != self.namespaces;
        if told {
            self.ports.want(&listeners(&assignment, &self.facts, &namespaces.wanted));
        }
        if self.first {
            // What an earlier daemon led to stays; what nobody has asked for yet is better asked for first.
            let mut asked = self.ports.changes();
            let _ = timeout(FIRST_HOLD, asked.wait_for(|held| !held.unasked)).await;
        }
        // Nothing leads to a port before it is listened at.
        let closed = self.ports.shut();
        // A container that began to run, say, changes nothing here.
        if told || other_underlay || closed != self.facts.closed {
            self.facts.closed = closed;
            let wanted = desired(&assignment, &self.facts, &namespaces.wanted);
            changed = scope::changed(&self.desired, &wanted);
            changed.extend(self.namespaces.held.difference(&namespaces.held).map(|task| Ns::Task(*task)));
            self.done.retain(|ns| !changed.contains(ns));
            self.failures.retain(|ns, _| wanted.namespaces.contains_key(ns));
            (self.desired, self.told, self.namespaces) = (wanted, assignment.clone(), namespaces);
        }
        // Who asks anew for what failed is not told of what was then.
        if told && self.failures.values().any(|failure| failure.stays) {
            let failed = self.failures.iter().filter(|(_, failure)| failure.stays);
            changed.extend(failed.map(|(ns, _)| *ns).chain([Ns::Host]));
        }

        let repair = changed.is_empty();
        let due = match due {
            // What an earlier life of this process left is seen by a whole look only.
            _ if std::mem::take(&mut self.first) => Due::Everything,
            Due::Everything => Due::Everything,
            Due::These(dirty) => Due::These(dirty.into_iter().chain(changed).collect()),
        };
        let right = due == Due::These(BTreeSet::new()) || self.work(due, repair).await;
        self.publish(&assignment);
        right
    }

    /// Whether the largest packet of the underlay is another than before. The MTU of its link changes while we run: by its
    /// administrator, by DHCP, by a tunnel that comes up below it.
    async fn look_at_underlay(&mut self) -> bool {
        let now = match self.kernel.underlay_mtu(self.facts.vtep).await {
            Ok(now) => now,
            // Without its address the host is reached by nobody: what there is stays as it is.
            Err(error) => {
                tracing::debug!(error = chain(&error), "cannot look at the underlay");
                return false;
            }
        };
        let before = std::mem::replace(&mut self.facts.underlay_mtu, now);
        if before != now {
            tracing::warn!(
                before = before.get(),
                now = now.get(),
                "the underlay's MTU changed: links are changed after it"
            );
            self.underlay.send_replace(now);
        }
        before != now
    }

    async fn work(&mut self, mut due: Due, repair: bool) -> bool {
        for _ in 0..ROUNDS {
            let (scope, all) = match self.scope(&due) {
                Ok(scope) => (scope, due == Due::Everything),
                Err(error) => return self.broken(&error),
            };
            self.dirty.retain(|ns| !scope.contains(ns));
            let actual = match self.kernel.observe(&scope).await {
                Ok(actual) => actual,
                // Nothing was seen, so nothing is reported as wrong and nothing loses its state.
                Err(error) if error.is_torn() => {
                    tracing::debug!(error = chain(&error), "the kernel's networking changes while it is looked at");
                    return false;
                }
                Err(error) => return self.broken(&error),
            };
            let ops = plan(&self.desired, &actual, &scope);
            if !all && scope::is_too_narrow(&ops, &scope, &self.done) {
                due = Due::Everything;
                continue;
            }
            let new = ops.iter().filter(|op| !self.failed.contains(op));
            if let (true, Some(first)) = (repair, new.clone().next()) {
                let operations = new.count();
                tracing::info!(operations, %first, "the kernel was changed by somebody else: repairing");
            }
            let failed = self.kernel.apply_all(&ops).await;
            if !ops.is_empty() {
                self.acted = Some(Instant::now());
            }
            self.done.extend(&scope);
            self.failed_operations = failed.len();
            self.note(&failed, &scope);
            if failed.is_empty() {
                return true;
            }
            if failed.iter().all(|(_, error)| self.follows_from_what_stays(error)) {
                return false;
            }
            due = Due::Everything;
        }
        false
    }

    /// Whether trying at once again is no use: what fails beside it fails for lack of what cannot be had.
    fn follows_from_what_stays(&self, error: &OpError) -> bool {
        let concerned = error.op.concerns(&self.desired);
        error.stays() || concerned.iter().all(|ns| self.failures.get(ns).is_some_and(|failure| failure.stays))
    }

    /// Notes what failed, and logs what did not fail in this way before.
    fn note(&mut self, failed: &[(usize, OpError)], scope: &BTreeSet<Ns>) {
        let before = self.failures.clone();
        self.failures.retain(|ns, _| !scope.contains(ns));
        for (_, error) in failed {
            let (concerned, failure) = (error.op.concerns(&self.desired), Failure::of(error));
            if concerned.is_empty() && !self.failed.contains(&error.op) {
                tracing::warn!(why = failure.why, "a change of the kernel's networking failed");
            }
            for ns in concerned {
                self.done.remove(&ns);
                // Others follow from the first.
                if let Entry::Vacant(entry) = self.failures.entry(ns) {
                    if before.get(&ns) != Some(&failure) {
                        tracing::warn!(%ns, why = failure.why, "a change of the kernel's networking failed");
                    }
                    entry.insert(failure.clone());
                }
            }
        }
        self.failed.retain(|op| !scope.contains(&op.ns()));
        self.failed.extend(failed.iter().map(|(_, error)| error.op.clone()));
    }

    /// What the kernel lacks, or has too much, of one network.
    async fn check(&mut self, network: NetworkId) -> Result<Checked, String> {
        self.look(Due::These(BTreeSet::new())).await;
        let told = self.told.clone();
        let nothing = Checked { generation: told.generation, differences: Vec::new() };
        let Some(assigned) = told.networks.get(&network) else { return Ok(nothing) };
        let is_on_it = |task: &&TaskId| told.local_endpoints(**task).iter().any(|e| e.network == network);
        let tasks: BTreeSet<Ns> = self.namespaces.wanted.iter().filter(is_on_it).map(|task| Ns::Task(*task)).collect();
        let sandbox = Some(Ns::Sandbox(network)).filter(|ns| self.desired.namespaces.contains_key(ns));
        let own: BTreeSet<Ns> = tasks.into_iter().chain(sandbox).collect();
        let scope: BTreeSet<Ns> = own.iter().copied().chain([Ns::Host]).collect();
        let actual = self.kernel.observe(&scope).await.map_err(|error| chain(&error))?;
        let link = link_of(network, assigned);
        let concerns = |op: &Op| match (op.ns(), op.link()) {
            // The host's tables are for everybody.
            (Ns::Host, None) => true,
            (Ns::Host, Some(of)) => of == link.as_str() || !op.concerns(&self.desired).is_disjoint(&own),
            (Ns::Sandbox(_) | Ns::Task(_), _) => true,
        };
        let differences = plan(&self.desired, &actual, &scope);
        let differences = differences.iter().filter(|op| concerns(op)).map(Op::to_string);
        let too_large = too_large(assigned, &self.facts).map(|(mtu, carried)| {
            format!("# packets of {mtu} bytes do not pass: the underlay of this host carries {carried} of an overlay")
        });
        Ok(Checked { differences: differences.chain(too_large).collect(), ..nothing })
    }

    fn scope(&self, due: &Due) -> Result<BTreeSet<Ns>, shoal_kernel::Error> {
        let mut scope = match due {
            Due::Everything => {
                let mut all = self.kernel.namespaces()?;
                all.extend(self.desired.namespaces.keys());
                all
            }
            Due::These(some) => some.clone(),
        };
        for held in &self.namespaces.held {
            scope.remove(&Ns::Task(*held));
        }
        Ok(scope)
    }

    /// Nothing can be seen, so nothing is known to be right.
    fn broken(&mut self, error: &shoal_kernel::Error) -> bool {
        tracing::warn!(error = chain(error), "cannot look at the kernel's networking");
        self.done.clear();
        self.failures.insert(Ns::Host, Failure { why: chain(error), stays: false });
        self.failed_operations = 1;
        false
    }

    fn publish(&self, assignment: &Assignment) {
        let right = |ns: &Ns| self.done.contains(ns);
        let pending = self.ports.pending();
        let waits = |task: &TaskId| {
            let of_service = |task: &TaskAssignment| pending.services.contains(&task.service);
            pending.containers.contains(task) || assignment.tasks.get(task).is_some_and(|task| of_service(task))
        };
        let unlistened: BTreeSet<TaskId> = self.namespaces.wanted.iter().filter(|task| waits(task)).copied().collect();
        let is_wired = |task: &TaskId| needs(assignment, *task).iter().all(right) && !unlistened.contains(task);
        let wired = self.namespaces.wanted.iter().filter(|task| is_wired(task));
        let start = |task: &TaskId| assignment.containers.get(task).map_or(0, |container| container.start);
        let wired: BTreeMap<TaskId, u64> = wired.map(|task| (*task, start(task))).collect();
        let converged = self.failures.is_empty() && self.desired.namespaces.keys().all(right);
        self.converged.send_if_modified(|before| {
            let next = Converged {
                generation: if converged { assignment.generation } else { before.generation },
                wired,
                failures: self.failures.clone(),
                seen: assignment.generation,
                failed_operations: u32::try_from(self.failed_operations).unwrap_or(u32::MAX),
                closed: self.ports.closed(),
                unlistened,
            };
            let news = *before != next;
            *before = next;
            news
        });
    }
}

/// The MTU that its user gave an overlay, and what of it this host's underlay carries unfragmented, if that is less.
fn too_large(network: &NetworkAssignment, facts: &HostFacts) -> Option<(u32, u32)> {
    let NetworkKind::Overlay { .. } = network.kind else { return None };
    let carried = facts.underlay_mtu.inside_vxlan(facts.vtep);
    network.mtu.filter(|mtu| *mtu > carried).map(|mtu| (mtu.get(), carried.get()))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_failure_that_stays_counts_only_once_the_newest_assignment_was_looked_at() {
        let task = TaskId(1);
        let failure = Failure { why: "no link nosuch0".to_owned(), stays: true };
        let converged = Converged {
            failures: [(Ns::Task(task), failure.clone())].into(),
            seen: Generation(7),
            ..Converged::default()
        };
        for (generation, stays) in [(6, true), (7, true), (8, false)] {
            let said = converged.failure(&fixture::assignment(generation, &[1, 2]), task);
            assert_eq!(said, Some(Failure { stays, ..failure.clone() }), "{generation}");
        }
        assert_eq!(converged.failure(&fixture::assignment(7, &[1, 2]), TaskId(2)), None);
    }
}
