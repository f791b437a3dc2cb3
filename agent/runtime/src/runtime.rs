//! The daemon's side: starts supervisors, knows all containers, adopts those that an earlier daemon started.

use futures::stream::BoxStream;
use shoal_common::service::Resources;
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::watch,
};

use crate::{
    ContainerConfig, ContainerState, ContainerStatus, Error, Image, Images, LogLine, LogOptions, RuntimeConfig, cgroup,
    cgroup::Cgroups,
    config::Exit,
    exits::{Exits, Locks, Noticed},
    ids::Ids,
    logs, process,
    record::{Dir, Record, now_ms},
    supervise::Report,
};

const SIGKILL: i32 = nix::libc::SIGKILL;

/// A killed process is gone in milliseconds, unless it hangs in the kernel; then somebody has to be told.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A start takes milliseconds; one that hangs does so on a disk or in the kernel, and somebody has to be told.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a container that is being started for an earlier daemon.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    /// Counts changes; whoever waits on it looks again.
    changes: watch::Sender<u64>,
    noticing: Mutex<Option<tokio::task::AbortHandle>>,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    state: ContainerState,
    ended: watch::Sender<bool>,
    /// Between the entry and the supervisor's first word, nobody else judges the state.
    starting: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.noticing.lock().ok().and_then(|mut t| t.take()) {
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
        for dir in [&containers_dir, &locks.0] {
            fs::create_dir_all(dir).map_err(Error::file("make the directory", dir))?;
        }
        let ids = Ids::read().map_err(Error::file("read", "/proc/self/uid_map"))?;
        let images = Images::open(config.data_dir.join("images"), ids)?;
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
            changes: watch::Sender::new(0),
            noticing: Mutex::default(),
        }));
        let adopting = runtime.clone();
        blocking("adopt containers", move || adopting.adopt()).await?;
        let task = tokio::spawn(notice(Arc::downgrade(&runtime.0), exits));
        *runtime.0.noticing.lock().expect(UNPOISONED) = Some(task.abort_handle());
        for status in runtime.list().into_iter().filter(|c| c.state == ContainerState::Created) {
            tokio::spawn(runtime.clone().see_it_run(status.id));
        }
        Ok(runtime)
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

    /// Starts a container from an image that is here or can be pulled; done when its first process runs.
    pub async fn start(&self, config: ContainerConfig) -> Result<ContainerStatus, Error> {
        // On a task of its own: a caller that goes away shall not leave half a start behind.
        let this = self.clone();
        tokio::spawn(async move { this.start_whole(config).await })
            .await
            .map_err(|_| Error::Worker("start a container"))?
    }

    async fn start_whole(&self, config: ContainerConfig) -> Result<ContainerStatus, Error> {
        check_id(&config.id)?;
        if self.containers().contains_key(&config.id) {
            return Err(Error::Exists(config.id));
        }
        let image = self.0.images.ensure(&config.spec.image).await?;
        let id = config.id.clone();
        let this = self.clone();
        let (dir, lock) = blocking("prepare a container", move || this.prepare(config, &image)).await?;
        let started = self.launch(&id, &dir, lock).await;
        let failed = match started {
            Ok(Report::Running(_)) => None,
            Ok(Report::Failed(reason)) => Some(Error::Start { container: id.clone(), reason }),
            Err(e) => Some(e),
        };
        if let Some(entry) = self.containers().get_mut(&id) {
            entry.starting = false;
        }
        self.refresh(id.clone()).await?;
        if let Some(error) = failed {
            // What could not be removed now is adopted as ended by the next daemon.
            if let Err(e) = self.remove(&id).await {
                tracing::warn!(container = id, error = %e, "a container that did not start could not be removed");
            }
            return Err(error);
        }
        self.status(&id)
    }

    pub fn list(&self) -> Vec<ContainerStatus> {
        self.containers().values().map(Entry::status).collect()
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus, Error> {
        self.containers().get(id).map(Entry::status).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
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

    /// Asks the container to end by its stop signal, and kills it when it has not after `grace`.
    /// Nothing to do if it has ended.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<Exit, Error> {
        let signal = self.record(id)?.stop_signal;
        self.kill(id, signal).await?;
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
        if !matches!(self.status(id), Ok(ContainerStatus { state: ContainerState::Exited(_), .. }) | Err(_)) {
            let killing = async {
                // One that is just being started has no process to kill yet.
                loop {
                    self.kill(id, SIGKILL).await?;
                    if let Ok(exit) = tokio::time::timeout(KILL_AGAIN, self.wait(id)).await {
                        return exit;
                    }
                }
            };
            tokio::time::timeout(KILL_PATIENCE, killing).await.map_err(|_| Error::WontDie(id.to_owned()))??;
        }
        let this = self.clone();
        blocking("remove a container", move || {
            cgroup::remove(&record.cgroup)?;
            let dir = this.dir(&record.id);
            remove_dir(&dir)?;
            let lock = this.0.locks.path(&record.id);
            match fs::remove_file(&lock) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", lock)(e))?,
                Ok(()) | Err(_) => {}
            }
            this.containers().remove(&record.id);
            this.changed();
            Ok(())
        })
        .await
    }

    /// The output of a container, oldest line first.
    pub fn logs(&self, id: &str, options: LogOptions) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        let containers = self.containers();
        let entry = containers.get(id).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))?;
        Ok(logs::read(self.dir(id).0, options, entry.ended.subscribe()))
    }

    /// Writes down what the supervisor must know and takes its lock.
    fn prepare(&self, config: ContainerConfig, image: &Image) -> Result<(Dir, fs::File), Error> {
        let cgroup = format!("{}/{}", self.0.config.cgroup_parent.trim_end_matches('/'), config.id);
        if self.0.cgroups == Cgroups::None
            && let Some(limits) = limits(&config.resources)
        {
            return Err(Error::NoCgroups { container: config.id, limits });
        }
        let record = Arc::new(image.record(config, self.0.images.layers_dir(), cgroup)?);
        let dir = self.dir(&record.id);
        let lock;
        {
            let mut containers = self.containers();
            if containers.contains_key(&record.id) {
                return Err(Error::Exists(record.id.clone()));
            }
            if !self.0.images.has(&record.image_id) {
                return Err(Error::NoSuchImage(record.image.clone()));
            }
            let path = self.0.locks.path(&record.id);
            lock = self.0.locks.take(&record.id).map_err(Error::file("lock", path))?;
            if lock.is_none() {
                return Err(Error::Exists(record.id.clone()));
            }
            let entry = Entry {
                record: Arc::clone(&record),
                state: ContainerState::Created,
                ended: watch::Sender::new(false),
                starting: true,
            };
            containers.insert(record.id.clone(), entry);
        }
        let written = fs::create_dir_all(dir.path())
            .map_err(Error::file("make the directory", dir.path()))
            .and_then(|()| dir.write_record(&record));
        match (written, lock) {
            (Ok(()), Some(lock)) => Ok((dir, lock)),
            (Err(e), _) => {
                self.containers().remove(&record.id);
                Err(e)
            }
            (Ok(()), None) => Err(Error::Exists(record.id.clone())),
        }
    }

    /// Starts the supervisor and hears what it has to say.
    async fn launch(&self, id: &str, dir: &Dir, lock: fs::File) -> Result<Report, Error> {
        let supervisor = &self.0.config.supervisor;
        let mut child = Command::new(supervisor)
            .arg("supervise")
            .arg(dir.path())
            .env_clear()
            .current_dir("/")
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::file("run", supervisor))?;
        let silent = || Error::Start {
            container: id.to_owned(),
            reason: format!("its supervisor {} ended without a word", supervisor.display()),
        };
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            match tokio::time::timeout(START_PATIENCE, output.read_line(&mut line)).await {
                Ok(read) => drop(read.map_err(|_| silent())?),
                Err(_) => {
                    child.kill().await.map_err(Error::file("end", supervisor))?;
                    let reason = format!("it did not run within {} s", START_PATIENCE.as_secs());
                    return Err(Error::Start { container: id.to_owned(), reason });
                }
            }
        }
        // tokio reaps the child when it ends, if we still live then.
        drop(child);
        serde_json::from_str(&line).map_err(|_| silent())
    }

    /// Reads all containers from disk.
    fn adopt(&self) -> Result<(), Error> {
        let root = self.0.config.data_dir.join("containers");
        for entry in fs::read_dir(&root).map_err(Error::file("read", &root))? {
            let dir = Dir(entry.map_err(Error::file("read", &root))?.path());
            match dir.record() {
                Ok(Some(record)) => {
                    let entry = Entry {
                        record: Arc::new(record),
                        state: ContainerState::Created,
                        ended: watch::Sender::new(false),
                        starting: false,
                    };
                    let id = entry.record.id.clone();
                    self.containers().insert(id.clone(), entry);
                    self.look(&id)?;
                }
                // Its making was interrupted before there was anything.
                Ok(None) | Err(Error::Garbled { .. }) => remove_dir(&dir)?,
                Err(e) => return Err(e),
            }
        }
        // Also what an earlier daemon had no time to sweep.
        let swept = self.0.images.sweep(&used(&self.containers()))?;
        drop(swept);
        Ok(())
    }

    /// The daemon that was to hear of this start is gone, and only ends are noticed by themselves.
    async fn see_it_run(self, id: String) {
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if let Err(e) = self.refresh(id.clone()).await {
                tracing::warn!(container = id, error = %e, "cannot tell whether a container runs");
            }
            if !matches!(self.status(&id), Ok(ContainerStatus { state: ContainerState::Created, .. })) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
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
                // An end is final. Its files may be going away right now, which must not be taken for anything.
                Some(Entry { state: ContainerState::Exited(_), .. }) | None => return Ok(()),
                Some(entry) if entry.starting => return Ok(()),
                Some(entry) => Arc::clone(&entry.record),
            }
        };
        let dir = self.dir(id);
        // The lock is asked first: what a dead supervisor had to write is then on disk.
        let alive = self.0.locks.is_held(id).map_err(Error::file("look at", self.0.locks.path(id)))?;
        let started = dir.started()?;
        let state = match (dir.exit()?, started) {
            (Some(exit), _) => ContainerState::Exited(exit),
            (None, Some(started)) if alive => {
                ContainerState::Running { pid: started.pid, started_at_ms: started.started_at_ms }
            }
            (None, None) if alive => ContainerState::Created,
            (None, _) => ContainerState::Exited(bury(&record, &dir)?),
        };
        let mut containers = self.containers();
        if let Some(entry) = containers.get_mut(id)
            && entry.state != state
        {
            let ended = matches!(state, ContainerState::Exited(_));
            entry.state = state;
            if ended {
                entry.ended.send_replace(true);
            }
            drop(containers);
            self.changed();
        }
        Ok(())
    }

    fn changed(&self) {
        self.0.changes.send_modify(|n| *n += 1);
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.containers.lock().expect(UNPOISONED)
    }

    fn record(&self, id: &str) -> Result<Arc<Record>, Error> {
        let containers = self.containers();
        containers.get(id).map(|e| Arc::clone(&e.record)).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))
    }

    fn dir(&self, id: &str) -> Dir {
        Dir(self.0.config.data_dir.join("containers").join(id))
    }
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Entry {
    fn status(&self) -> ContainerStatus {
        ContainerStatus {
            id: self.record.id.clone(),
            image: self.record.image.clone(),
            state: self.state.clone(),
            labels: self.record.labels.clone(),
        }
    }
}

/// The ids of images that containers were made from, and one such container.
fn used(containers: &BTreeMap<String, Entry>) -> BTreeMap<String, String> {
    containers.values().map(|e| (e.record.image_id.clone(), e.record.id.clone())).collect()
}

/// Follows the ends of supervisors for as long as the runtime is used.
async fn notice(runtime: std::sync::Weak<Inner>, mut exits: Exits) {
    loop {
        let noticed = exits.next().await;
        let Some(runtime) = runtime.upgrade().map(Runtime) else {
            return;
        };
        let mut ids = Vec::new();
        match noticed {
            Ok(noticed) => {
                for one in noticed {
                    match one {
                        Noticed::Ended(id) => ids.push(id),
                        Noticed::TooMuch => ids.extend(runtime.containers().keys().cloned()),
                    }
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "cannot notice the ends of containers any more");
                return;
            }
        }
        for id in ids {
            if let Err(e) = runtime.refresh(id.clone()).await {
                tracing::error!(container = id, error = %e, "cannot tell what became of a container");
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

fn remove_dir(dir: &Dir) -> Result<(), Error> {
    match fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", dir.path())(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is to be limited, in the words of the command line.
fn limits(wanted: &Resources) -> Option<String> {
    let limits = [
        ("--limit-cpu", wanted.limits.nano_cpus > 0),
        ("--limit-memory", wanted.limits.memory_bytes > 0),
        ("--limit-pids", wanted.pids_limit > 0),
    ];
    let wanted: Vec<&str> = limits.into_iter().filter(|(_, wanted)| *wanted).map(|(flag, _)| flag).collect();
    (!wanted.is_empty()).then(|| wanted.join(" and "))
}

/// An id names files and a cgroup.
fn check_id(id: &str) -> Result<(), Error> {
    let fits = (1..=63).contains(&id.len())
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits { Ok(()) } else { Err(Error::Id(id.to_owned())) }
}

fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> {
    let task = tokio::task::spawn_blocking(work);
    async move { task.await.map_err(|_| Error::Worker(what))? }
}
