//! How far a service has come: a fold over what `WatchService` says.
//!
//! Converged: every wanted slot has a task of the current spec version that runs (or has completed, where completing
//! is the end of it), no task of an older one is alive, none is surplus, and all that has held for [`SETTLE`].

use shoal_common::{Timestamp, task::TaskState};
use shoal_proto::{convert::enumerated, pb};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A process that ends at once runs for an instant; Docker watches five seconds.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// Pending with a reason, and nothing has moved for so long: it cannot be placed as things are.
pub(crate) const STUCK: Duration = Duration::from_secs(10);
/// Tasks that failed in one slot before the service is said to keep failing.
pub(crate) const FAILURES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again when something is said, or after this long.
    Waiting {
        again: Duration,
    },
    Converged,
    /// Tasks of one slot fail one after the other.
    Failing {
        task: String,
        failures: usize,
        why: String,
    },
    /// Tasks wait, and nothing moves: their reasons.
    Stuck {
        why: Vec<String>,
    },
    /// The service was removed meanwhile.
    Removed,
    /// The user's patience ends before the work does.
    TimedOut,
}

/// What is shown of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) name: String,
    pub(crate) done: u32,
    pub(crate) wanted: u32,
    /// Old tasks that have not ended yet.
    pub(crate) leaving: u32,
    pub(crate) tasks: Vec<TaskLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskLine {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) state: TaskState,
    /// In full: why it waits, or why the one before it failed.
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Watch {
    /// What was asked for: a manager that has applied less is not listened to.
    at_least: u64,
    started: Timestamp,
    timeout: Option<Duration>,
    moved: Timestamp,
    /// Everything whose change counts as progress. Messages do not: some count down.
    fingerprint: Option<BTreeSet<(u64, i32, i32)>>,
    /// Failures from before what was asked for.
    old_failures: BTreeSet<u64>,
    failures: BTreeMap<Slot, BTreeMap<u64, Ended>>,
    whole_since: Option<Timestamp>,
    removed: bool,
    summary: Summary,
    waiting: Vec<String>,
    under_way: bool,
    enough_failures: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Replica(u32),
    Node(u64),
}

#[derive(Debug, Clone)]
struct Ended {
    name: String,
    why: String,
}

impl Watch {
    pub(crate) fn new(version: u64, timeout: Option<Duration>, now: Timestamp) -> Self {
        Self {
            at_least: version,
            started: now,
            timeout,
            moved: now,
            fingerprint: None,
            old_failures: BTreeSet::new(),
            failures: BTreeMap::new(),
            whole_since: None,
            removed: false,
            summary: Summary::default(),
            waiting: vec![],
            under_way: true,
            enough_failures: FAILURES,
        }
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(crate) fn observe(&mut self, said: &pb::WatchServiceReply, now: Timestamp) {
        let Some(service) = &said.service else {
            self.removed = true;
            return;
        };
        if service.version < self.at_least {
            return;
        }
        let tasks: Vec<Seen<'_>> = said.tasks.iter().filter_map(Seen::of).collect();
        self.note_failures(service, &tasks);

        let current = |t: &&Seen<'_>| t.task.spec_version == service.spec_version;
        let mut latest: BTreeMap<Slot, &Seen<'_>> = BTreeMap::new();
        for t in tasks.iter().filter(current).filter(|t| t.wanted || t.state == TaskState::Complete) {
            let newest = latest.entry(t.slot).or_insert(t);
            if t.task.id > newest.task.id {
                *newest = t;
            }
        }
        let ends_well = restart(service) != "any";
        let done = latest.values().filter(|t| match t.state {
            TaskState::Running => true,
            TaskState::Complete => ends_well,
            _ => false,
        });
        let done = count(done.count());
        let live_current = count(tasks.iter().filter(current).filter(|t| t.wanted && !t.state.is_terminal()).count());
        let stays = |t: &&Seen<'_>| t.wanted && current(t);
        let leaving = count(tasks.iter().filter(|t| !(t.state.is_terminal() || stays(t))).count());
        let whole = done >= service.wanted && live_current <= service.wanted && leaving == 0;
        self.whole_since = whole.then(|| self.whole_since.unwrap_or(now));

        let pending: Vec<&&Seen<'_>> =
            latest.values().filter(|t| t.state == TaskState::Pending && !t.message().is_empty()).collect();
        self.waiting = pending.iter().map(|t| format!("{}: {}", t.task.name, t.message())).collect();
        self.under_way = leaving > 0
            || latest.values().any(|t| {
                matches!(t.state, TaskState::Assigned | TaskState::Preparing | TaskState::Starting)
                    || (t.state == TaskState::Pending && t.message().is_empty())
            });

        let fingerprint = Some(said.tasks.iter().map(|t| (t.id, state_number(t), t.desired)).collect());
        if fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            self.moved = now;
        }
        self.summary = Summary {
            name: service.spec.as_ref().map(|s| s.name.clone()).unwrap_or_default(),
            done: done.min(service.wanted),
            wanted: service.wanted,
            leaving,
            tasks: latest.values().map(|t| self.line(t)).collect(),
        };
    }

    /// Ended tasks are forgotten by the managers after a while; here they stay counted.
    fn note_failures(&mut self, service: &pb::Service, tasks: &[Seen<'_>]) {
        let policy = service.spec.as_ref().and_then(|s| s.restart.as_ref());
        let (condition, attempts) = policy.map_or(("any", 0), |p| (p.condition.as_str(), p.max_attempts));
        self.enough_failures = match (condition, attempts) {
            ("none", _) => 1,
            (_, 0) => FAILURES,
            (_, n) => FAILURES.min(usize::try_from(n).unwrap_or(FAILURES).saturating_add(1)),
        };
        let failed = tasks.iter().filter(|t| {
            t.task.spec_version == service.spec_version && matches!(t.state, TaskState::Failed | TaskState::Rejected)
        });
        // A change that makes no new tasks (scaling) finds the failures of before, which say nothing about it.
        let made_anew = service.spec_version == service.version;
        for t in failed {
            if self.fingerprint.is_none() && !made_anew {
                self.old_failures.insert(t.task.id);
            } else if !self.old_failures.contains(&t.task.id) {
                let ended = Ended { name: t.task.name.clone(), why: t.why() };
                self.failures.entry(t.slot).or_default().insert(t.task.id, ended);
            }
        }
    }

    fn line(&self, t: &Seen<'_>) -> TaskLine {
        let mut message = t.message().to_owned();
        if message.is_empty()
            && let Some((_, before)) = self.failures.get(&t.slot).and_then(|f| f.last_key_value())
            && t.state != TaskState::Running
        {
            message = format!("the one before failed: {}", before.why);
        }
        TaskLine { name: t.task.name.clone(), node: t.task.node_name.clone(), state: t.state, message }
    }

    pub(crate) fn verdict(&self, now: Timestamp) -> Verdict {
        if self.removed {
            return Verdict::Removed;
        }
        let left = |since: Timestamp, limit: Duration| limit.saturating_sub(now.since(since));
        if let Some(since) = self.whole_since
            && left(since, SETTLE).is_zero()
        {
            return Verdict::Converged;
        }
        // Not while everything runs: the failures may be those of a start that took several attempts.
        if self.whole_since.is_none()
            && let Some((failures, (_, last))) = self
                .failures
                .values()
                .filter(|f| f.len() >= self.enough_failures)
                .find_map(|f| Some((f.len(), f.last_key_value()?)))
        {
            return Verdict::Failing { task: last.name.clone(), failures, why: last.why.clone() };
        }
        let mut again = match self.whole_since {
            Some(since) => left(since, SETTLE),
            None => STUCK,
        };
        if !self.waiting.is_empty() && !self.under_way {
            let patience = left(self.moved, STUCK);
            if patience.is_zero() {
                return Verdict::Stuck { why: self.waiting.clone() };
            }
            again = again.min(patience);
        }
        if let Some(timeout) = self.timeout {
            let patience = left(self.started, timeout);
            if patience.is_zero() {
                return Verdict::TimedOut;
            }
            again = again.min(patience);
        }
        Verdict::Waiting { again }
    }
}

/// A task with the enums read. One in a state that this version does not know is left out.
#[derive(Debug)]
struct Seen<'a> {
    task: &'a pb::Task,
    slot: Slot,
    state: TaskState,
    wanted: bool,
}

impl<'a> Seen<'a> {
    fn of(task: &'a pb::Task) -> Option<Self> {
        let slot = match task.slot?.slot? {
            pb::slot::Slot::Replica(n) => Slot::Replica(n),
            pb::slot::Slot::Node(n) => Slot::Node(n),
        };
        let state = enumerated::<pb::TaskState, _>("state", task.status.as_ref()?.state).ok()?;
        Some(Self { task, slot, state, wanted: task.desired == i32::from(pb::DesiredState::Running) })
    }

    fn message(&self) -> &'a str {
        self.task.status.as_ref().map_or("", |s| &s.message)
    }

    fn why(&self) -> String {
        match (self.message(), self.task.status.as_ref().and_then(|s| s.exit_code)) {
            ("", Some(code)) => format!("ended with exit code {code}"),
            ("", None) => format!("{}", self.state),
            (message, _) => message.to_owned(),
        }
    }
}

fn restart(service: &pb::Service) -> &str {
    service.spec.as_ref().and_then(|s| s.restart.as_ref()).map_or("any", |r| &r.condition)
}

fn state_number(t: &pb::Task) -> i32 {
    t.status.as_ref().map_or(0, |s| s.state)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
