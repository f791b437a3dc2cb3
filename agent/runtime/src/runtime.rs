//! The daemon's side: starts supervisors, knows all containers, adopts those that an earlier daemon started.

mod adopt;
mod hosts;
mod sessions;
mod start;
mod volumes;

use futures::stream::BoxStream;
use shoal_common::name::Labels;
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::watch;

use crate::{
    ContainerState, ContainerStatus, Error, Images, LogLine, LogOptions, RuntimeConfig, SetAside, cgroup,
    cgroup::Cgroups,
    config::Exit,
    exits::{Exits, Locks, Noticed},
    ids::Ids,
    locked::lock,
    logs, process,
    record::{Dir, Record, now_ms},
};

const SIGKILL: i32 = nix::libc::SIGKILL;

/// A killed process is gone in milliseconds, unless it hangs in the kernel; then somebody has to be told.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A start takes milliseconds; one that hangs does so on a disk or in the kernel, and somebody has to be told.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a container that is being started for an earlier daemon.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Between two looks at all containers, for the sake of an end that nobody was told of.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);

/// Before inotify is read again after it failed.
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// From the kernel's word of a supervisor's end to its lock's release: within this, and mostly at once.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries to kill a container that shall be removed.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// A handle on the containers and images of one host. Clones are the same runtime.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: RuntimeConfig,
    cgroups: Cgroups,
    images: Images,
    locks: Locks,
    containers: Mutex<BTreeMap<String, Entry>>,
    /// Containers whose files could not be read when this process began, by their ids.
    set_aside: Mutex<BTreeMap<String, SetAside>>,
    /// Counts changes; whoever waits on it looks again.
    changes: watch::Sender<u64>,
    noticing: Mutex<Option<tokio::task::AbortHandle>>,
    fatal: shoal_rt::Fatal,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    state: ContainerState,
    started_at_ms: Option<u64>,
    /// Whether the state is an end and its supervisor is gone, so that nothing more comes of it.
    ended: watch::Sender<bool>,
    busy: Busy,
}

/// What is being done to a container. Meanwhile nobody else judges its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    No,
    /// Until the supervisor's first word.
    Starting,
    /// Its files are going away.
    Removing,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.noticing).take() {
            task.abort();
        }
    }
}

impl Runtime {
    /// Opens the store and adopts what an earlier daemon left: containers that run and that ended meanwhile.
    /// To be called inside a tokio runtime.
    pub async fn open(config: RuntimeConfig) -> Result<Runtime, Error> {
        // The supervisor works in other directories.
        let absolute = |path: &PathBuf| std::path::absolute(path).map_err(Error::file("find", path));
        let config =
            RuntimeConfig { data_dir: absolute(&config.data_dir)?, run_dir: absolute(&config.run_dir)?, ..config };
        let locks = Locks(config.run_dir.join("live"));
        let containers_dir = config.data_dir.join("containers");
        let attach = config.run_dir.join("attach");
        for dir in [&containers_dir, &locks.0, &attach, &config.data_dir.join("removing")] {
            fs::create_dir_all(dir).map_err(Error::file("make the directory", dir))?;
        }
        // A process that connects to a socket in it types into a container.
        fs::set_permissions(&attach, fs::Permissions::from_mode(0o700)).map_err(Error::file("protect", &attach))?;
        let ids = Ids::read().map_err(Error::file("read", "/proc/self/uid_map"))?;
        let aside = config.data_dir.join("set-aside").join("images");
        let images = Images::open(config.data_dir.join("images"), &aside, ids)?;
        crate::volumes::open(&config.data_dir.join("volumes"))?;
        let cgroups = Cgroups::of_host();
        if cgroups == Cgroups::None {
            tracing::warn!("this host has no cgroups: containers that shall have limits are refused");
        }
        // Watched before the first look: an end between the two is seen by one of them.
        let exits = Exits::watch(&locks.0).map_err(Error::file("watch", &locks.0))?;
        let runtime = Runtime(Arc::new(Inner {
            config,
            cgroups,
            images,
            locks,
            containers: Mutex::default(),
            set_aside: Mutex::default(),
            changes: watch::Sender::new(0),
            noticing: Mutex::default(),
            fatal: shoal_rt::Fatal::default(),
        }));
        let adopting = runtime.clone();
        blocking("adopt containers", move || adopting.adopt()).await?;
        let (noticing, fatal) = (notice(Arc::downgrade(&runtime.0), exits), runtime.0.fatal.clone());
        let task = tokio::spawn(async move {
            if let Err(panic) = shoal_rt::tasks::caught(noticing).await {
                fatal.report(format!("the task \"ends of containers\" has ended: {panic}"));
            }
        });
        *lock(&runtime.0.noticing) = Some(task.abort_handle());
        let unsettled: Vec<String> =
            runtime.containers().values().filter(|e| e.is_unsettled()).map(|e| e.record.id.clone()).collect();
        for id in unsettled {
            tokio::spawn(runtime.clone().see_it_run(id));
        }
        Ok(runtime)
    }

    /// Resolves when the ends of containers are not noticed any more, with the reason: the process has to end then.
    pub async fn failed(&self) -> String {
        self.0.fatal.reported().await
    }

    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// Removes a name, and the image when it has no other; refused while a container was made from it.
    pub async fn remove_image(&self, reference: &str) -> Result<(), Error> {
        let (this, reference) = (self.clone(), reference.to_owned());
        blocking("remove an image", move || {
            let swept = {
                // The lock keeps a container from being started from it meanwhile.
                let containers = this.containers();
                this.0.images.remove(&reference, &used(&containers))?
            };
            drop(swept);
            Ok(())
        })
        .await
    }

    pub fn list(&self) -> Vec<ContainerStatus> {
        self.containers().values().map(Entry::status).collect()
    }

    /// What `pick` makes of each container's id, state and labels. It is called often, so nothing else is copied; it must
    /// not come back here.
    pub fn pick<T>(&self, pick: impl Fn(&str, &ContainerState, &Labels) -> Option<T>) -> Vec<T> {
        self.containers().values().filter_map(|e| pick(&e.record.id, &e.state, &e.record.labels)).collect()
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus, Error> {
        self.containers().get(id).map(Entry::status).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    /// The image that a container was made from, whatever bears its name by now.
    pub fn image_of(&self, id: &str) -> Result<crate::Image, Error> {
        self.0.images.image(&self.record(id)?.image_id)
    }

    /// Fires when some container's state changed; call `list` then. Changes may be folded into one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Waits for the end of a container.
    pub async fn wait(&self, id: &str) -> Result<Exit, Error> {
        let gone = || Error::NoSuchContainer(id.to_owned());
        let mut ended = self.containers().get(id).ok_or_else(gone)?.ended.subscribe();
        // The sender goes with the entry when the container is removed.
        ended.wait_for(|ended| *ended).await.map_err(|_| gone())?;
        match self.status(id)?.state {
            ContainerState::Exited(exit) => Ok(exit),
            ContainerState::Created | ContainerState::Running { .. } => Err(gone()),
        }
    }

    /// Asks the container to end by its stop signal, and kills it when it has not after `grace`; without grace at once.
    /// Nothing to do if it has ended.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<Exit, Error> {
        let signal = self.record(id)?.stop_signal;
        if !grace.is_zero() {
            self.kill(id, signal).await?;
        }
        if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
            return exit;
        }
        self.kill(id, SIGKILL).await?;
        tokio::time::timeout(KILL_PATIENCE, self.wait(id)).await.map_err(|_| Error::WontDie(id.to_owned()))?
    }

    /// Sends a signal to the first process. Nothing to do if it has ended.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), Error> {
        let dir = self.dir(&self.record(id)?.id);
        let container = id.to_owned();
        blocking("send a signal", move || {
            let Some(started) = dir.started()? else {
                return Ok(());
            };
            process::signal(&started, signal).map_err(|source| Error::Signal { container, signal, source })?;
            Ok(())
        })
        .await
    }

    /// Ends the container if it runs, and removes all that there is of it. Nothing to do if there is none.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let Ok(record) = self.record(id) else {
            return Ok(());
        };
        if !self.begin_to_remove(id) {
            let killing = async {
                // One that is just being started has no process to kill yet.
                loop {
                    self.kill(id, SIGKILL).await?;
                    let _ = tokio::time::timeout(KILL_AGAIN, self.wait(id)).await;
                    if self.begin_to_remove(id) {
                        return Ok::<(), Error>(());
                    }
                }
            };
            tokio::time::timeout(KILL_PATIENCE, killing).await.map_err(|_| Error::WontDie(id.to_owned()))??;
        }
        let this = self.clone();
        blocking("remove a container", move || {
            let removed = this.remove_files(&record);
            match &removed {
                Ok(()) => drop(this.containers().remove(&record.id)),
                Err(_) => {
                    if let Some(entry) = this.containers().get_mut(&record.id) {
                        entry.busy = Busy::No;
                    }
                }
            }
            this.changed();
            removed
        })
        .await
    }

    /// From now on it is not started again. False if it has not ended yet.
    fn begin_to_remove(&self, id: &str) -> bool {
        match self.containers().get_mut(id) {
            Some(entry) if entry.busy == Busy::Starting || !*entry.ended.borrow() => false,
            Some(entry) => {
                entry.busy = Busy::Removing;
                true
            }
            None => true,
        }
    }

    fn remove_files(&self, record: &Record) -> Result<(), Error> {
        cgroup::remove(&record.cgroup)?;
        self.remove_dir(&record.id)?;
        for path in [self.attach_dir().join(&record.id), self.0.locks.path(&record.id)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", path)(e)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// By way of another directory: what is in that of containers is then always whole, and what is not is set aside.
    fn remove_dir(&self, id: &str) -> Result<(), Error> {
        let (from, to) = (self.dir(id).0, self.removing_dir().join(id));
        remove_all(&to)?;
        match fs::rename(&from, &to) {
            Ok(()) => remove_all(&to),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::file("remove", from)(e)),
        }
    }

    fn removing_dir(&self) -> PathBuf {
        self.0.config.data_dir.join("removing")
    }

    /// The files of this container, if they could not be read.
    pub fn set_aside(&self, id: &str) -> Option<SetAside> {
        lock(&self.0.set_aside).get(id).cloned()
    }

    fn attach_dir(&self) -> PathBuf {
        self.0.config.run_dir.join("attach")
    }

    fn volumes_dir(&self) -> PathBuf {
        self.0.config.data_dir.join("volumes")
    }

    /// The output of a container, oldest line first.
    pub fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let containers = self.containers();
        let entry = containers.get(id).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))?;
        Ok(logs::read(self.dir(id).0, options, entry.ended.subscribe()))
    }

    /// The daemon that was to hear of this start is gone, and only ends are noticed by themselves.
    async fn see_it_run(self, id: String) {
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Err(e) = self.refresh(id.clone()).await {
                tracing::warn!(container = id, error = %e, "cannot tell whether a container runs");
            }
            if !self.containers().get(&id).is_some_and(Entry::is_unsettled) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The kernel says that a file was closed before it gives its lock back (`__fput` in Linux' fs/file_table.c), so a
    /// supervisor that has ended may still seem to live.
    async fn see_it_end(self, id: String) {
        let deadline = tokio::time::Instant::now() + RELEASE_PATIENCE;
        let mut pause = Duration::from_millis(1);
        while tokio::time::Instant::now() < deadline && !self.has_ended(&id) {
            tokio::time::sleep(pause).await;
            pause *= 2;
            if let Err(e) = self.refresh(id.clone()).await {
                tracing::warn!(container = id, error = %e, "cannot tell what became of a container");
            }
        }
    }

    /// Or is no more.
    fn has_ended(&self, id: &str) -> bool {
        self.containers().get(id).is_none_or(|entry| *entry.ended.borrow())
    }

    async fn refresh(&self, id: String) -> Result<(), Error> {
        let this = self.clone();
        blocking("look at a container", move || this.look(&id)).await
    }

    /// Brings one container's state up to what is on disk.
    fn look(&self, id: &str) -> Result<(), Error> {
        let record = {
            let containers = self.containers();
            match containers.get(id) {
                None => return Ok(()),
                Some(entry) if entry.busy != Busy::No || *entry.ended.borrow() => return Ok(()),
                Some(entry) => Arc::clone(&entry.record),
            }
        };
        let dir = self.dir(id);
        // The lock is asked first: what a dead supervisor had to write is then on disk.
        let alive = self.0.locks.is_held(id).map_err(Error::file("look at", self.0.locks.path(id)))?;
        // Then the exit, which is removed after a new start was written down.
        let exit = dir.exit()?;
        let started = dir.started()?;
        let started_at_ms = started.as_ref().map(|s| s.started_at_ms);
        let state = match (exit, started) {
            (Some(exit), _) => ContainerState::Exited(exit),
            (None, Some(started)) if alive => {
                ContainerState::Running { pid: started.pid, started_at_ms: started.started_at_ms }
            }
            (None, None) if alive => ContainerState::Created,
            (None, _) => ContainerState::Exited(bury(&record, &dir)?),
        };
        let mut containers = self.containers();
        if let Some(entry) = containers.get_mut(id)
            && entry.busy == Busy::No
            // Somebody else may have looked later and been here sooner; an end is final.
            && !*entry.ended.borrow()
        {
            let news = entry.state != state;
            entry.started_at_ms = started_at_ms;
            // While its supervisor lives, one that has ended may be about to run again.
            if matches!(state, ContainerState::Exited(_)) && !alive {
                entry.ended.send_replace(true);
            }
            entry.state = state;
            drop(containers);
            if news {
                self.changed();
            }
        }
        Ok(())
    }

    fn changed(&self) {
        self.0.changes.send_modify(|n| *n += 1);
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        lock(&self.0.containers)
    }

    fn running(&self, id: &str) -> Result<Arc<Record>, Error> {
        let containers = self.containers();
        let entry = containers.get(id).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))?;
        match entry.state {
            ContainerState::Running { .. } => Ok(Arc::clone(&entry.record)),
            ContainerState::Created | ContainerState::Exited(_) => Err(Error::NotRunning(id.to_owned())),
        }
    }

    fn record(&self, id: &str) -> Result<Arc<Record>, Error> {
        let containers = self.containers();
        containers.get(id).map(|e| Arc::clone(&e.record)).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    fn dir(&self, id: &str) -> Dir {
        Dir(self.0.config.data_dir.join("containers").join(id))
    }
}

impl Entry {
    fn new(record: Arc<Record>) -> Self {
        Self {
            record,
            state: ContainerState::Created,
            started_at_ms: None,
            ended: watch::Sender::new(false),
            busy: Busy::No,
        }
    }

    /// Neither running nor at an end that lasts: to be looked at again, since only ends are noticed by themselves.
    fn is_unsettled(&self) -> bool {
        match self.state {
            ContainerState::Created => true,
            ContainerState::Running { .. } => false,
            ContainerState::Exited(_) => !*self.ended.borrow(),
        }
    }

    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.record.id.clone(),
            image: self.record.image.clone(),
            state: self.state.clone(),
            labels: self.record.labels.clone(),
            hostname: self.record.hostname.clone(),
            options: self.record.options.clone(),
            created_at_ms: self.record.created_at_ms,
            started_at_ms: self.started_at_ms,
            probe: self.record.probe.clone(),
        }
    }
}

/// The ids of images that containers were made from, and one such container.
fn used(containers: &BTreeMap<String, Entry>) -> BTreeMap<String, String> {
    containers.values().map(|e| (e.record.image_id.clone(), e.record.id.clone())).collect()
}

/// Follows the ends of supervisors for as long as the runtime is used.
async fn notice(runtime: std::sync::Weak<Inner>, mut exits: Exits) {
    let mut periodic = tokio::time::interval(LOOK_AT_ALL);
    periodic.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let noticed = tokio::select! {
            noticed = exits.next() => noticed,
            _ = periodic.tick() => Ok(vec![Noticed::TooMuch]),
        };
        let Some(runtime) = runtime.upgrade().map(Runtime) else {
            return;
        };
        let mut looks = Vec::new();
        match noticed {
            Ok(noticed) => {
                for one in noticed {
                    match one {
                        Noticed::Ended(id) => looks.push((id, true)),
                        Noticed::TooMuch => looks.extend(runtime.containers().keys().map(|id| (id.clone(), false))),
                    }
                }
            }
            Err(e) => {
                // The periodic look goes on, and so does this: an end that nobody sees is a task that runs for ever.
                tracing::error!(error = %e, "cannot read which containers ended: all of them are looked at");
                looks.extend(runtime.containers().keys().map(|id| (id.clone(), false)));
                tokio::time::sleep(AFTER_AN_ERROR).await;
            }
        }
        for (id, is_said_to_end) in looks {
            if let Err(e) = runtime.refresh(id.clone()).await {
                tracing::error!(container = id, error = %e, "cannot tell what became of a container");
            }
            if is_said_to_end && !runtime.has_ended(&id) {
                tokio::spawn(runtime.clone().see_it_end(id));
            }
        }
    }
}

/// Ends a container whose supervisor died before it: nobody keeps its output, nobody would learn its exit code.
fn bury(record: &Record, dir: &Dir) -> Result<Exit, Error> {
    if let Some(started) = dir.started()? {
        process::signal(&started, SIGKILL).map_err(|source| Error::Signal {
            container: record.id.clone(),
            signal: SIGKILL,
            source,
        })?;
    }
    let oom = cgroup::oom_killed(&record.cgroup);
    let reason = Some("its supervisor ended before it, or the host was restarted".to_owned());
    let exit = Exit { code: 128 + SIGKILL, oom, finished_at_ms: now_ms(), reason };
    // It has ended, even where that cannot be written or swept up.
    if let Err(e) = cgroup::remove(&record.cgroup).and_then(|()| dir.write_exit(&exit)) {
        tracing::warn!(container = record.id, error = %e, "a container that lost its supervisor left something");
    }
    Ok(exit)
}

fn remove_all(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", dir)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> {
    let task = tokio::task::spawn_blocking(work);
    async move { task.await.map_err(|_| Error::Worker(what))? }
}
