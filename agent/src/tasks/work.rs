//! The steps of a task: what takes time, beside the loop. A panic in a step is that task's failure and nobody else's.

use shoal_common::{
    Name, TaskId,
    assignment::{ContainerAssignment, TaskAssignment},
    container::{Networking, Wanted},
    service::{ContainerSpec, Mount, MountSource},
    task::DesiredState,
};
use shoal_dns::Scope;
use shoal_plan::Ns;
use shoal_rt::tasks::{Panicked, caught};
use shoal_runtime::{ContainerConfig, Error};

use super::{FETCHES, STARTS, Tasks, config, links, names::Serving, run::Unstarted, wait::Doing};
use crate::{chain, containers, sessions::Waiter};

/// What became of a step.
#[derive(Debug)]
pub(super) enum Outcome {
    Image(Result<(), String>),
    Serving(Result<Serving, String>),
    Started(Result<(), Unstarted>),
    Hosts(u64, Vec<String>, Result<(), String>),
    /// Stopped or removed: what there is now can be looked up.
    Done(Result<(), String>),
    /// It was no longer wanted when its turn came.
    Skipped,
    Panicked(Panicked),
}

impl Tasks {
    fn begin(&mut self, task: TaskId, doing: Doing, step: impl Future<Output = Outcome> + Send + 'static) {
        if let Some(life) = self.lives.get_mut(&task) {
            life.busy = true;
            life.doing = doing;
        }
        self.work.spawn(async move { (task, caught(step).await.unwrap_or_else(Outcome::Panicked)) });
    }

    pub(super) fn fetch(&mut self, id: TaskId, image: String) {
        let runtime = self.host.runtime().clone();
        let (turn, wanted) = (self.fetches.clone(), self.still_wanted(id));
        let doing =
            Doing::new(format!("waiting until one of {FETCHES} other images is there, to fetch the image {image}"));
        self.begin(id, doing.clone(), async move {
            let Ok(_turn) = turn.acquire().await else { return Outcome::Skipped };
            if !wanted() {
                return Outcome::Skipped;
            }
            doing.now(format!("fetching the image {image}"));
            Outcome::Image(runtime.images().ensure(&image).await.map(|_| ()).map_err(|e| chain(&e)))
        });
    }

    pub(super) fn serve_names(&mut self, id: TaskId, scope: Scope) {
        let names = self.names.clone();
        let doing = Doing::new("waiting for this host's resolver to listen for it");
        self.begin(id, doing, async move { Outcome::Serving(names.serve(id, scope).await.map_err(|e| chain(&e))) });
    }

    pub(super) fn write_hosts(&mut self, id: TaskId, started_at_ms: u64, lines: Vec<String>) {
        let runtime = self.host.runtime().clone();
        self.begin(id, Doing::new("writing its /etc/hosts"), async move {
            let written = runtime.set_hosts(&containers::id(id), lines.clone()).await;
            Outcome::Hosts(started_at_ms, lines, written.map_err(|e| chain(&e)))
        });
    }

    pub(super) fn start(&mut self, id: TaskId, task: &TaskAssignment) {
        let netns = self.host.kernel().netns_path(Ns::Task(id));
        let (names, task) = (self.names.clone(), task.clone());
        self.start_container(id, async move {
            let host_resolv_conf = names.host_resolv_conf().await.unwrap_or_default();
            config::task(id, &task, netns, &host_resolv_conf)
        });
    }

    pub(super) fn start_by_hand(&mut self, id: TaskId, container: &ContainerAssignment) {
        let netns = match container.spec.networking {
            Networking::Host => self.host.kernel().netns_path(Ns::Host),
            Networking::Own(_) | Networking::None => self.host.kernel().netns_path(Ns::Task(id)),
        };
        let (names, runtime, container) = (self.names.clone(), self.host.runtime().clone(), container.clone());
        self.start_container(id, async move {
            let files = config::HostFiles {
                hostname: nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                resolv_conf: names.host_resolv_conf().await.unwrap_or_default(),
                images: links::images(runtime.images(), &container.links),
            };
            config::by_hand(id, &container, netns, &files)
        });
    }

    fn start_container(&mut self, id: TaskId, config: impl Future<Output = ContainerConfig> + Send + 'static) {
        let (runtime, waiting) = (self.host.runtime().clone(), self.host.waiting().clone());
        let (turn, wanted) = (self.starts.clone(), self.still_wanted(id));
        let doing = Doing::new(format!("waiting until one of {STARTS} other containers has started"));
        self.begin(id, doing.clone(), async move {
            let Ok(_turn) = turn.acquire().await else { return Outcome::Skipped };
            if !wanted() {
                return Outcome::Skipped;
            }
            doing.now("starting its container");
            let mut config = config.await;
            let started = match waiting.take(id) {
                None => runtime.start(config).await.map(drop),
                // Who has gone meanwhile misses nothing.
                Some(Waiter { session: waiter, size }) => {
                    config.options.size = size;
                    runtime.start_attached(config).await.map(|(_, session)| drop(waiter.send(session)))
                }
            };
            Outcome::Started(started.map_err(|e| Unstarted { why: chain(&e), fault: e.fault(), unwired: false }))
        });
    }

    pub(super) fn stop(&mut self, id: TaskId) {
        let runtime = self.host.runtime().clone();
        let grace = self.lives.get(&id).map_or(ContainerSpec::DEFAULT_STOP_GRACE, |l| l.grace);
        self.begin(id, Doing::new("stopping its container"), async move {
            Outcome::Done(runtime.stop(&containers::id(id), grace).await.map(|_| ()).map_err(|e| chain(&e)))
        });
    }

    /// And the volumes that go with it. A volume that cannot be removed is logged, and is no reason to try for ever.
    pub(super) fn remove(&mut self, id: TaskId, volumes: Vec<Name>) {
        let runtime = self.host.runtime().clone();
        self.begin(id, Doing::new("removing its container"), async move {
            let removed = runtime.remove(&containers::id(id)).await.map_err(|e| chain(&e));
            for volume in volumes.iter().filter(|_| removed.is_ok()) {
                match runtime.remove_volume(volume.as_str()).await {
                    Ok(()) | Err(Error::NoSuchVolume(_)) => {}
                    Err(e) => tracing::warn!(container = %id, %volume, error = chain(&e), "an anonymous volume stays"),
                }
            }
            Outcome::Done(removed)
        });
    }

    /// Asked when a step's turn comes, which may be long after it was due.
    fn still_wanted(&self, id: TaskId) -> impl Fn() -> bool + Send + 'static {
        let assignment = self.assignment.clone();
        move || {
            let assignment = assignment.borrow();
            let as_task = assignment.tasks.get(&id).is_some_and(|t| t.desired == DesiredState::Running);
            as_task || assignment.containers.get(&id).is_some_and(|c| c.wanted == Wanted::Running)
        }
    }
}

/// Those that go with a container.
pub(super) fn anonymous_volumes(container: &ContainerSpec) -> Vec<Name> {
    let name = |m: &Mount| match &m.source {
        MountSource::Anonymous(name) => Some(name.clone()),
        MountSource::Bind(_) | MountSource::Volume(_) | MountSource::Tmpfs => None,
    };
    container.mounts.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, HostConfig, reconcile::Converged, report::Reports};
    use shoal_common::assignment::Assignment;
    use std::sync::Arc;
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_step_that_panics_fails_its_task_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let config = HostConfig {
            data_dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
            cgroup_parent: "none".to_owned(),
            supervisor: "/bin/false".into(),
            host_ns: None,
            resolv_conf: "/etc/resolv.conf".into(),
        };
        let host = Host::open(config).await.unwrap();
        let (_told, assignment) = watch::channel(Arc::new(Assignment::default()));
        let (_seen, converged) = watch::channel(Converged::default());
        let mut tasks = Tasks::new(host, assignment, converged, Reports::default());
        let (broken, fine) = (TaskId(1), TaskId(2));
        for id in [broken, fine] {
            tasks.lives.entry(id).or_default();
        }
        let slice = |text: &'static str| async move {
            assert!(text.len() > 3, "a short id");
            Outcome::Image(Ok(()))
        };
        tasks.begin(broken, Doing::new("fetching the image web:1"), slice("abc"));
        tasks.begin(fine, Doing::new("fetching the image web:2"), slice("abcd"));
        for _ in 0..2 {
            let done = tasks.work.join_next().await.unwrap();
            tasks.note(done);
        }
        let life = &tasks.lives[&broken];
        let why = life.failure.as_ref().map(|failure| failure.why.as_str());
        assert_eq!(why, Some("a defect of shoal: fetching the image web:1 failed: it panicked: a short id"));
        assert!(!life.busy && life.rest_until.is_some());
        let life = &tasks.lives[&fine];
        assert!(!life.busy && life.failure.is_none() && life.image == crate::tasks::Image::Here);
    }
}
