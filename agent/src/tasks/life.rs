//! What this process knows of one task, or of one container that was run by hand, beyond what can be looked up.

use shoal_common::{Generation, container::RestartMode, service::ContainerSpec};
use shoal_dns::Scope;
use shoal_rt::Backoff;
use shoal_runtime::{ContainerState, SetAside};
use std::time::Duration;
use tokio::time::Instant;

use super::{drain::Drain, health::Watch, names::Serving, run::Unstarted, step::Image, wait::Doing};
use crate::reconcile::Failure;

/// How long a task's network may fail to be wired before the task is given up: another host may do better.
const WIRE_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries of a step that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// From a container's end to its next start by its restart policy; as Docker.
const RESTART: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// One that ran for so long is waited for no longer than the first time; as Docker.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// What this process knows of one task beyond what can be looked up.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) image: Image,
    pub(super) failure: Option<Unstarted>,
    pub(super) serving: Option<Serving>,
    /// A step is under way.
    pub(super) busy: bool,
    /// What the step under way is doing.
    pub(super) doing: Doing,
    /// Since when it should run and does not.
    pub(super) unready_since: Option<Instant>,
    /// The last step failed: the next one is tried then.
    pub(super) rest_until: Option<Instant>,
    /// Why it failed.
    pub(super) rests_because: String,
    pub(super) backoff: Backoff,
    /// It waits for a network that cannot be wired.
    pub(super) unwired_since: Option<Instant>,
    /// It is to end, and hosts are hearing of that.
    pub(super) drain: Option<Drain>,
    pub(super) health: Option<Checks>,
    /// When it was seen to have ended by itself.
    pub(super) ended_at: Option<Instant>,
    /// Between the stop signal and SIGKILL, also when the managers have forgotten the task.
    pub(super) grace: Duration,
    /// Of a container that was run by hand.
    pub(super) run: Run,
}

/// Of the container that runs, or ran last.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) started_at_ms: u64,
    /// None: it has no health check, or is not wanted any more.
    pub(super) watch: Option<Watch>,
}

/// What this process knows of a container that was run by hand.
#[derive(Debug)]
pub(super) struct Run {
    /// Which of its user's starts the rest is about.
    pub(super) start: u64,
    /// Since then, by its restart policy.
    pub(super) restarts: u32,
    pub(super) running_since: Option<Instant>,
    pub(super) pause: Backoff,
    /// It ended, and is started again then.
    pub(super) restart_at: Option<Instant>,
    /// What its `/etc/hosts` was last made to say, and in which container: when that one started.
    pub(super) hosts: Option<(u64, Vec<String>)>,
    /// In which container that was seen to be right, and under which assignment: until either is another, it is.
    pub(super) hosts_right: Option<(u64, Generation)>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            image: Image::default(),
            failure: None,
            serving: None,
            busy: false,
            doing: Doing::default(),
            unready_since: None,
            rest_until: None,
            rests_because: String::new(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
            unwired_since: None,
            drain: None,
            health: None,
            ended_at: None,
            grace: ContainerSpec::DEFAULT_STOP_GRACE,
            run: Run::new(0, 0),
        }
    }
}

impl Run {
    /// `restarts`: on record, from before this process.
    pub(super) fn new(start: u64, restarts: u32) -> Self {
        let pause = Backoff::new(RESTART.0, RESTART.1);
        Self { start, restarts, running_since: None, pause, restart_at: None, hosts: None, hosts_right: None }
    }

    pub(super) fn is_seen_running(&mut self, now: Instant) {
        self.running_since.get_or_insert(now);
    }

    pub(super) fn is_seen_ended(&mut self, now: Instant) {
        if self.running_since.take().is_some_and(|since| now >= since + STABLE_AFTER) {
            self.pause.reset();
        }
    }

    /// Whether one that ended and is to be started again is to be started now, which is counted.
    pub(super) fn restarts_now(&mut self, now: Instant) -> bool {
        if now < *self.restart_at.get_or_insert_with(|| now + self.pause.delay()) {
            return false;
        }
        self.restarts += 1;
        self.restart_at = None;
        true
    }
}

impl Life {
    pub(super) fn watch(&self) -> Option<&Watch> {
        self.health.as_ref()?.watch.as_ref()
    }

    pub(super) fn is_served(&self, scope: &Scope) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.is_alive(scope))
    }

    /// Gives one up that could not be reached as it is to be: somebody else of this host has one of its ports.
    pub(super) fn without_port(&mut self, container: Option<&ContainerState>, closed: Option<&String>) {
        if matches!(container, None | Some(ContainerState::Exited(_))) && self.failure.is_none() {
            self.failure = closed.map(Unstarted::other);
        }
    }

    /// Gives one up whose files on this host cannot be read: it would begin without them.
    pub(super) fn without_files(&mut self, there: bool, files: Option<&SetAside>) {
        if let Some(files) = files.filter(|_| !there && self.failure.is_none()) {
            self.failure = Some(Unstarted::other(files.to_string()));
        }
    }

    /// One that is started again whenever it ended is started once its network is there after all.
    pub(super) fn come_back(&mut self, wired: bool, restart: RestartMode) {
        if wired && restart != RestartMode::No {
            self.failure.take_if(|failure| failure.unwired);
        }
    }

    /// When that is next to be looked at for its own sake.
    pub(super) fn out_of_patience_at(&self) -> Option<Instant> {
        self.unwired_since.map(|since| since + WIRE_PATIENCE)
    }

    /// Gives one up whose network cannot be wired: at once if that stays so by itself, else after a while.
    pub(super) fn patience(&mut self, wired: bool, failure: Option<Failure>, now: Instant) {
        match failure {
            Some(Failure { why, stays }) if !wired && self.image == Image::Here && self.failure.is_none() => {
                self.unwired_since.get_or_insert(now);
                if stays || self.out_of_patience_at().is_some_and(|at| now >= at) {
                    self.failure = Some(Unstarted::unwired(&why));
                    self.unwired_since = None;
                }
            }
            Some(_) | None => self.unwired_since = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it rests after an end at `now`.
    fn rest(run: &mut Run, now: Instant) -> Duration {
        run.is_seen_ended(now);
        assert!(!run.restarts_now(now));
        let at = run.restart_at.unwrap();
        assert!(run.restarts_now(at));
        at - now
    }

    #[test]
    fn one_that_ends_at_once_again_and_again_rests_longer_each_time_until_it_ran_a_while() {
        let mut run = Run::new(1, 0);
        let mut now = Instant::now();
        let mut rests = Vec::new();
        for _ in 0..12 {
            run.is_seen_running(now);
            rests.push(rest(&mut run, now));
            now += Duration::from_secs(1);
        }
        assert!(rests[0] <= RESTART.0 && rests[4] >= RESTART.0 * 8, "{rests:?}");
        assert!(rests.iter().all(|rest| *rest <= RESTART.1) && rests[11] >= RESTART.1 / 2, "{rests:?}");
        assert_eq!(run.restarts, 12);
        run.is_seen_running(now);
        assert!(rest(&mut run, now + STABLE_AFTER) <= RESTART.0);
    }
}
