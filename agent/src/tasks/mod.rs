//! The loop that makes the containers what the assignment asks for.
//!
//! Whatever happened, it looks at each task and does its next [`step`]. Steps take time and run beside the loop, one
//! at a time for each task.

mod config;
mod drain;
mod health;
mod life;
mod links;
mod names;
mod run;
mod step;
mod wait;
mod work;

use shoal_common::{
    TaskId,
    assignment::{Assignment, ContainerAssignment, TaskAssignment},
    container::{Networking, Phase, Wanted},
    health::Health,
    task::{DesiredState, TaskState},
};
use shoal_dns::Scope;
use shoal_plan::Ns;
use shoal_proto::convert::{Report, RunReport};
use shoal_rt::tasks::caught;
use shoal_runtime::ContainerState;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Host,
    containers::{self, Containers},
    reconcile::Converged,
    report::Reports,
};
use drain::Drain;
use health::{Probed, Watch};
use life::{Checks, Life, Run};
use names::Names;
use run::Unstarted;
use step::{Image, Step, View, next};
use work::{Outcome, anonymous_volumes};

/// Images looked for at once: each may be a pull, and a disk and a line can be shared only so far.
const FETCHES: usize = 4;
/// Containers started at once: more only take each other's time.
const STARTS: usize = 8;
/// Ended containers of this host whose logs can still be read although their tasks are over, and for how long. They
/// are those that ended by themselves: somebody will want to know why.
const KEPT: usize = 10;
const KEPT_FOR: Duration = Duration::from_secs(300);

pub(crate) struct Tasks {
    host: Host,
    names: Names,
    assignment: watch::Receiver<Arc<Assignment>>,
    converged: watch::Receiver<Converged>,
    reports: Reports,
    lives: BTreeMap<TaskId, Life>,
    work: JoinSet<(TaskId, Outcome)>,
    /// Health checks under way, each with the start of the container that it is about.
    probes: JoinSet<(TaskId, u64, Probed)>,
    fetches: Arc<Semaphore>,
    starts: Arc<Semaphore>,
}

impl Tasks {
    pub(crate) fn new(
        host: Host,
        assignment: watch::Receiver<Arc<Assignment>>,
        converged: watch::Receiver<Converged>,
        reports: Reports,
    ) -> Self {
        Self {
            names: Names::new(host.resolver().clone()),
            host,
            assignment,
            converged,
            reports,
            lives: BTreeMap::new(),
            work: JoinSet::new(),
            probes: JoinSet::new(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            starts: Arc::new(Semaphore::new(STARTS)),
        }
    }

    /// Keeps the resolver there, told and in line, beside [`Self::run`].
    pub(crate) fn keep_resolver(&self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let names = self.names.clone();
        async move { shutdown.run_until_cancelled(names.run()).await.unwrap_or(()) }
    }

    /// Goes round until `shutdown`, and leaves the containers as they are then.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut containers = self.host.runtime().changes();
        let mut resolver_ended = self.names.ended.clone();
        self.assignment.mark_changed();
        loop {
            let wake = self.wake_at();
            let rested = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.assignment.changed() => {
                    if changed.is_err() { return }
                    // Before anything else: a task that is gone is not named any more.
                    let assignment = self.assignment.borrow_and_update().clone();
                    self.names.tell(&assignment);
                }
                changed = containers.changed() => if changed.is_err() { return },
                changed = self.converged.changed() => if changed.is_err() { return },
                Some(done) = self.work.join_next() => self.note(done),
                Some(done) = self.probes.join_next() => self.note_probe(done),
                changed = resolver_ended.changed() => if changed.is_err() { return },
                () = rested => {}
            }
            // One look for all that is done by now.
            while let Some(done) = self.work.try_join_next() {
                self.note(done);
            }
            self.look();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        // One that is busy is looked at when its step is done, or to say what takes so long.
        let now = Instant::now();
        let explains = self.lives.values().filter_map(|l| l.explains_at(now));
        let idle = self.lives.values().filter(|l| !l.busy);
        let times = |l: &Life| {
            [
                l.rest_until,
                l.out_of_patience_at(),
                l.drain.map(|drain| drain.due()),
                l.run.restart_at,
                l.health.as_ref().and_then(|checks| checks.watch.as_ref()?.due()),
            ]
        };
        idle.flat_map(times).flatten().chain(explains).min()
    }

    fn note(&mut self, done: Result<(TaskId, Outcome), JoinError>) {
        // Steps catch their own panics, and nobody aborts one but the runtime when it shuts down.
        let Ok((task, outcome)) = done else { return };
        let runs = matches!(
            containers::of(self.host.runtime()).get(&task),
            Some(ContainerState::Created | ContainerState::Running { .. })
        );
        let Some(life) = self.lives.get_mut(&task) else { return };
        life.busy = false;
        let failed = match outcome {
            Outcome::Image(Ok(())) => {
                life.image = Image::Here;
                None
            }
            Outcome::Image(Err(why)) => {
                life.image = Image::Missing(why);
                None
            }
            Outcome::Started(Ok(())) | Outcome::Done(Ok(())) | Outcome::Skipped => None,
            Outcome::Started(Err(why)) => {
                life.failure = Some(why);
                None
            }
            Outcome::Serving(Ok(serving)) => {
                life.serving = Some(serving);
                None
            }
            Outcome::Hosts(started_at_ms, lines, Ok(())) => {
                life.run.hosts = Some((started_at_ms, lines));
                None
            }
            Outcome::Serving(Err(why)) | Outcome::Done(Err(why)) | Outcome::Hosts(.., Err(why)) => Some(why),
            Outcome::Panicked(panic) => {
                let why = format!("a defect of shoal: {} failed: {panic}", life.doing.what());
                if !runs && life.failure.is_none() {
                    life.failure = Some(Unstarted::other(why.clone()));
                }
                Some(why)
            }
        };
        match failed {
            None => life.backoff.reset(),
            Some(why) => {
                tracing::warn!(%task, "a step failed and is tried again: {why}");
                life.rest_until = Some(Instant::now() + life.backoff.delay());
                life.rests_because = why;
            }
        }
    }

    fn note_probe(&mut self, done: Result<(TaskId, u64, Probed), JoinError>) {
        let Ok((task, started_at_ms, probed)) = done else { return };
        let checks = self.lives.get_mut(&task).and_then(|life| life.health.as_mut());
        let watch = checks.filter(|c| c.started_at_ms == started_at_ms).and_then(|c| c.watch.as_mut());
        // Else it was of one that has ended.
        if let Some(watch) = watch {
            watch.note(Instant::now(), probed);
        }
    }

    /// Begins what is due of a container's health checks. `wanted`: it shall go on running; then `known` is what is on
    /// record of its health.
    fn check(&mut self, id: TaskId, container: Option<&ContainerState>, wanted: Option<Health>) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        let (Some(&ContainerState::Running { started_at_ms, .. }), Some(known)) = (container, wanted) else {
            if let Some(checks) = &mut life.health {
                checks.watch = None;
            }
            return;
        };
        let now = Instant::now();
        if life.health.as_ref().is_none_or(|checks| checks.started_at_ms != started_at_ms) {
            // What is on record is of this one only if it ran before this process did.
            let known = if life.health.is_none() { known } else { Health::Starting };
            let probe = self.host.runtime().status(&containers::id(id)).ok().and_then(|status| status.probe);
            let watch = probe.map(|p| Watch::new(p, health::started(started_at_ms, now), now, known));
            life.health = Some(Checks { started_at_ms, watch });
        }
        let watch = life.health.as_mut().and_then(|checks| checks.watch.as_mut());
        if let Some(probe) = watch.and_then(|watch| watch.begin(now)) {
            let probing = health::probe(self.host.runtime().clone(), containers::id(id), probe);
            self.probes.spawn(async move {
                let probed = caught(probing).await.unwrap_or_else(|panic| Err(panic.to_string()));
                (id, started_at_ms, probed)
            });
        }
    }

    /// Does the next step of each task that has one.
    fn look(&mut self) {
        let assignment = self.assignment.borrow().clone();
        if assignment.node.is_none() {
            // Nobody told us anything: containers that run are left alone.
            return;
        }
        let containers = containers::of(self.host.runtime());
        let assigned = assignment.tasks.keys().chain(assignment.containers.keys());
        let all: BTreeSet<TaskId> = assigned.chain(containers.keys()).chain(self.lives.keys()).copied().collect();
        let kept = self.kept();
        let starts = containers::starts(self.host.runtime());
        for id in all {
            match assignment.containers.get(&id) {
                Some(container) => {
                    let there = containers.get(&id).map(|state| (state, starts.get(&id).copied().unwrap_or(0)));
                    self.look_at_run(id, container, &assignment, there);
                }
                None => {
                    self.look_at(id, &assignment, &containers, kept.contains(&id));
                    self.explain(id, &assignment, containers.get(&id));
                }
            }
        }
        // Also one that an earlier daemon had served, and that has ended since.
        let alive = containers.iter().filter(|(_, state)| !matches!(state, ContainerState::Exited(_)));
        let prepared = self.lives.iter().filter(|(_, life)| life.busy || life.serving.is_some());
        self.names.retain(alive.map(|(id, _)| *id).chain(prepared.map(|(id, _)| *id)).collect());
    }

    fn kept(&self) -> BTreeSet<TaskId> {
        let mut ended: Vec<_> = self.lives.iter().filter_map(|(id, l)| Some((l.ended_at?, *id))).collect();
        ended.sort_unstable();
        let newest = ended.into_iter().rev().take(KEPT);
        newest.filter(|(at, _)| at.elapsed() < KEPT_FOR).map(|(_, id)| id).collect()
    }

    fn look_at(&mut self, id: TaskId, assignment: &Assignment, containers: &Containers, kept: bool) {
        let task = assignment.tasks.get(&id);
        let container = containers.get(&id);
        let life = self.lives.entry(id).or_default();
        if let Some(task) = task {
            life.grace = task.container.stop_grace;
        }
        if matches!(container, Some(ContainerState::Exited(_))) {
            life.serving = None;
            if life.ended_at.is_none() && task.is_some_and(|t| t.desired == DesiredState::Running) {
                life.ended_at = Some(Instant::now());
            }
        }
        if life.busy {
            return;
        }
        self.check(id, container, task.and_then(|task| health_on_record(task)));
        let Some(life) = self.lives.get_mut(&id) else { return };
        let now = Instant::now();
        let wired = {
            let converged = self.converged.borrow();
            let wired = converged.wired.contains_key(&id);
            life.patience(wired, converged.failure(assignment, id), now);
            life.without_port(container, converged.closed.get(&id));
            wired
        };
        life.without_files(container.is_some(), self.host.runtime().set_aside(&containers::id(id)).as_ref());
        let unnamed = task.is_some_and(|t| !t.endpoints.is_empty() && !life.is_served(&task_scope(id, t)));
        let (step, told) = next(&View {
            assigned: task.map(|t| (t.desired, t.known, t)),
            container,
            image: &life.image,
            wired,
            named: !unnamed,
            kept,
            failure: life.failure.as_ref().map(|failure| failure.why.as_str()),
            health: life.watch().map(|watch| (watch.health(), watch.why())),
        });
        if let Some(told) = told {
            self.reports.tell(Report { task: id, state: told.state, message: told.message, exit_code: told.exit_code });
        }
        if life.rest_until.is_some_and(|until| now < until) {
            return;
        }
        life.rest_until = None;
        if step != Step::Stop {
            life.drain = None;
        }
        match step {
            Step::Wait => {}
            Step::Forget => {
                self.lives.remove(&id);
            }
            Step::FetchImage(task) => self.fetch(id, task.container.image.clone()),
            Step::ServeNames(task) => self.serve_names(id, task_scope(id, task)),
            Step::Start(task) => self.start(id, task),
            Step::WriteHosts(never) => match never {},
            // One that the managers have forgotten has no network any more: nothing reaches it.
            Step::Stop if task.is_some_and(|task| !task.endpoints.is_empty()) => {
                let drain = life.drain.get_or_insert_with(|| Drain::begin(assignment.generation, now));
                let is_applied = {
                    let converged = self.converged.borrow();
                    drain.is_left(converged.seen) && converged.failure(assignment, id).is_none()
                };
                if drain.is_over(is_applied, now) {
                    life.drain = None;
                    self.stop(id);
                }
            }
            Step::Stop => self.stop(id),
            Step::Remove => self.remove(id, Vec::new()),
        }
    }

    /// Says what a task that should run waits for.
    fn explain(&mut self, id: TaskId, assignment: &Assignment, container: Option<&ContainerState>) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        let wanted = assignment.tasks.get(&id).is_some_and(|t| t.desired == DesiredState::Running);
        let unready = match container {
            None | Some(ContainerState::Created) => true,
            Some(ContainerState::Running { .. }) => {
                life.watch().is_some_and(|watch| watch.health() == Health::Starting)
            }
            Some(ContainerState::Exited(_)) => false,
        };
        let now = Instant::now();
        life.is_unready(wanted && unready, now);
        let converged = self.converged.borrow();
        let failure = converged.failure(assignment, id);
        let seen = wait::Seen {
            container,
            wired: converged.wired.contains_key(&id),
            network: failure.as_ref().map(|failure| failure.why.as_str()),
        };
        if let Some(why) = life.reason(seen, now) {
            self.reports.explain(id, &why);
        }
    }

    fn look_at_run(
        &mut self,
        id: TaskId,
        assigned: &ContainerAssignment,
        assignment: &Assignment,
        container: Option<(&ContainerState, u64)>,
    ) {
        let now = Instant::now();
        let life = self.lives.entry(id).or_default();
        life.grace = assigned.stop_grace;
        if life.run.start != assigned.start {
            // Its user asked for it anew: what went wrong before does not count.
            let (busy, grace) = (life.busy, life.grace);
            // Of one that has ended the network namespace may have gone meanwhile.
            let ended = matches!(container, None | Some((ContainerState::Exited(_), _)));
            let serving = life.serving.take().filter(|_| !ended);
            let restarts = if assigned.known.start == assigned.start { assigned.known.restarts } else { 0 };
            *life = Life { busy, serving, grace, run: Run::new(assigned.start, restarts), ..Life::default() };
        }
        match container.map(|(state, _)| state) {
            Some(ContainerState::Running { .. }) => life.run.is_seen_running(now),
            Some(ContainerState::Created) => {}
            Some(ContainerState::Exited(_)) | None => {
                life.run.is_seen_ended(now);
                if assigned.wanted != Wanted::Running {
                    // Its network namespace goes.
                    life.serving = None;
                }
            }
        }
        if life.busy {
            return;
        }
        self.check(id, container.map(|(state, _)| state), run_health_on_record(assigned));
        let Some(life) = self.lives.get_mut(&id) else { return };
        life.without_files(container.is_some(), self.host.runtime().set_aside(&containers::id(id)).as_ref());
        let scope = Scope::of(id, &assigned.endpoints, &assigned.spec.container.dns.servers);
        let wired = assigned.spec.networking == Networking::Host || {
            let converged = self.converged.borrow();
            let wired = converged.wired.get(&id) == Some(&assigned.start);
            life.patience(wired, converged.failure(assignment, id), now);
            life.come_back(wired, assigned.spec.restart);
            // Who had a port at an earlier start may be gone.
            life.without_port(container.map(|(state, _)| state), converged.closed.get(&id).filter(|_| wired));
            wired
        };
        let generation = assignment.generation;
        let hosts = match container {
            Some((&ContainerState::Running { started_at_ms, .. }, _))
                if life.run.hosts_right == Some((started_at_ms, generation)) =>
            {
                None
            }
            Some((&ContainerState::Running { started_at_ms, .. }, _)) => {
                let status = self.host.runtime().status(&containers::id(id)).ok();
                // It is called as it was at its start.
                status.map(|status| (started_at_ms, config::hosts_by_hand(assigned, &status.hostname)))
            }
            Some((ContainerState::Created | ContainerState::Exited(_), _)) | None => None,
        };
        let known = &assigned.known;
        let unwritten = hosts.as_ref().filter(|hosts| life.run.hosts.as_ref() != Some(*hosts));
        if let (Some((started_at_ms, _)), None) = (&hosts, unwritten) {
            life.run.hosts_right = Some((*started_at_ms, generation));
        }
        let (step, told) = run::next(&run::View {
            assigned,
            wanted: assigned.wanted,
            start: assigned.start,
            restart: assigned.spec.restart,
            container,
            image: &life.image,
            wired,
            has_netns: assigned.wanted == Wanted::Removed && self.host.kernel().has_netns(Ns::Task(id)),
            named: scope.networks.is_empty() || life.is_served(&scope),
            unwritten,
            failure: life.failure.as_ref(),
            restarts: life.run.restarts,
            known: if known.start == assigned.start { known.phase } else { Phase::Created },
        });
        if let Some(told) = told {
            let watch = life.watch().filter(|_| told.phase == Phase::Running);
            self.reports.tell_run(RunReport {
                container: id,
                start: assigned.start,
                phase: told.phase,
                message: watch.map_or(told.message, |watch| watch.why().to_owned()),
                exit_code: told.exit_code,
                restarts: life.run.restarts,
                health: watch.map(Watch::health),
                unstarted: told.unstarted,
            });
        }
        if life.rest_until.is_some_and(|until| now < until) {
            return;
        }
        life.rest_until = None;
        match step {
            Step::Wait => {}
            Step::Forget => drop(self.lives.remove(&id)),
            Step::FetchImage(assigned) => self.fetch(id, assigned.spec.container.image.clone()),
            Step::ServeNames(_) => self.serve_names(id, scope),
            Step::WriteHosts((started_at_ms, lines)) => self.write_hosts(id, *started_at_ms, lines.clone()),
            Step::Start(assigned) => {
                let by_policy =
                    matches!(container, Some((ContainerState::Exited(_), start)) if start == assigned.start);
                if by_policy && !life.run.restarts_now(now) {
                    return;
                }
                self.start_by_hand(id, assigned);
            }
            Step::Stop => self.stop(id),
            Step::Remove => self.remove(id, anonymous_volumes(&assigned.spec.container)),
        }
    }
}

/// Of a task that shall go on running. One that was told to run was healthy, if it has a check.
fn health_on_record(task: &TaskAssignment) -> Option<Health> {
    match (task.desired, task.known) {
        (DesiredState::Shutdown, _) | (DesiredState::Running, TaskState::Unhealthy) => None,
        (DesiredState::Running, TaskState::Running) => Some(Health::Healthy),
        (DesiredState::Running, _) => Some(Health::Starting),
    }
}

fn run_health_on_record(container: &ContainerAssignment) -> Option<Health> {
    let known = &container.known;
    let same = known.start == container.start && known.phase == Phase::Running;
    (container.wanted == Wanted::Running).then(|| known.health.filter(|_| same).unwrap_or(Health::Starting))
}

fn task_scope(id: TaskId, task: &TaskAssignment) -> Scope {
    Scope::of(id, &task.endpoints, &task.container.dns.servers)
}
