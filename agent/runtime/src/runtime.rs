//! The daemon's side: starts supervisors, knows all containers, adopts those that an earlier daemon started.

use bytes::BytesMut;
use futures::stream::BoxStream;
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    process::Command,
    sync::watch,
};

use crate::{
    ContainerConfig, ContainerState, ContainerStatus, Error, ExecConfig, Image, Images, LogLine, LogOptions,
    MountSource, RuntimeConfig, Session, Stats, Volume,
    atomic::{self, Durable},
    capabilities, cgroup,
    config::Exit,
    ends, exec,
    exits::{Exits, Locks, Noticed},
    frame::Frame,
    image::Place,
    logs, mounts, process,
    record::{Dir, Record, now_ms},
    session, stats,
    supervise::Report,
    volumes,
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
        for dir in [&containers_dir, &locks.0, &config.run_dir.join("attach")] {
            fs::create_dir_all(dir).map_err(Error::file("make the directory", dir))?;
        }
        let images = Images::open(config.data_dir.join("images"))?;
        volumes::open(&config.data_dir.join("volumes"))?;
        // Watched before the first look: an end between the two is seen by one of them.
        let exits = Exits::watch(&locks.0).map_err(Error::file("watch", &locks.0))?;
        let runtime = Runtime(Arc::new(Inner {
            config,
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
        let unsettled: Vec<String> =
            runtime.containers().values().filter(|e| e.is_unsettled()).map(|e| e.record.id.clone()).collect();
        for id in unsettled {
            tokio::spawn(runtime.clone().see_it_run(id));
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
    ///
    /// One that exists and has ended is started again, in place: on the image it was made from, with the files it
    /// wrote and with its log, all else as `config` says. It has ended as it did until it runs.
    pub async fn start(&self, config: ContainerConfig) -> Result<ContainerStatus, Error> {
        // On a task of its own: a caller that goes away shall not leave half a start behind.
        let this = self.clone();
        tokio::spawn(async move { this.start_whole(config, Stdio::null()).await })
            .await
            .map_err(|_| Error::Worker("start a container"))?
    }

    /// Starts it as `start` does, attached from before its first process runs, so that no output is missed.
    pub async fn start_attached(&self, config: ContainerConfig) -> Result<(ContainerStatus, Session), Error> {
        let (id, this) = (config.id.clone(), self.clone());
        let (socket, theirs) = socket_pair(&id)?;
        let status = tokio::spawn(async move { this.start_whole(config, theirs.into()).await })
            .await
            .map_err(|_| Error::Worker("start a container"))??;
        Ok((status, self.session(id, socket)))
    }

    /// Attaches to the first process of a container: what it says from now on, and its input if that is open.
    /// A daemon that comes after another attaches as well.
    pub async fn attach(&self, id: &str) -> Result<Session, Error> {
        let record = self.running(id)?;
        let socket = blocking("attach to a container", move || match ends::connect(&record.attach) {
            // It has just ended.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Err(Error::NotRunning(record.id.clone()))
            }
            connected => connected.map_err(|source| Error::Attach { container: record.id.clone(), source }),
        });
        let socket = for_tokio(socket.await?).map_err(|source| Error::Attach { container: id.to_owned(), source })?;
        Ok(self.session(id.to_owned(), socket))
    }

    fn session(&self, id: String, socket: UnixStream) -> Session {
        let this = self.clone();
        // Of this start: it may be another one by the time the session ends.
        let ended = self.containers().get(&id).map(|entry| entry.ended.subscribe());
        Session::over(socket, BytesMut::new(), async move |told| {
            // Who hears of the end may start it again.
            if let Some(mut ended) = ended {
                let _ = ended.wait_for(|ended| *ended).await;
            }
            match told {
                Some(code) => Ok(code),
                None => this.wait(&id).await.map(|exit| exit.code),
            }
        })
    }

    /// Runs a process in a container that runs: in its namespaces, under its limits, as powerless.
    pub async fn exec(&self, id: &str, config: ExecConfig) -> Result<Session, Error> {
        let lost = Error::Lost { container: id.to_owned(), command: config.args.join(" ") };
        let (socket, read) = self.add_process(id, config, false).await?;
        Ok(Session::over(socket, read, async move |told| told.ok_or(lost)))
    }

    /// The same, and nobody hears of it after it runs.
    pub async fn exec_detached(&self, id: &str, config: ExecConfig) -> Result<(), Error> {
        let config = ExecConfig { stdin: false, ..config };
        self.add_process(id, config, true).await.map(drop)
    }

    async fn add_process(&self, id: &str, config: ExecConfig, detached: bool) -> Result<(UnixStream, BytesMut), Error> {
        let record = self.running(id)?;
        let command = config.args.join(" ");
        let failed = |reason: String| Error::Exec { container: id.to_owned(), command: command.clone(), reason };
        if config.args.first().is_none_or(String::is_empty) {
            return Err(failed("no program was named".to_owned()));
        }
        let container = self.dir(&record.id);
        let dir = blocking("prepare a process", move || {
            let root = container.at("exec");
            fs::create_dir_all(&root).map_err(Error::file("make the directory", &root))?;
            let dir = tempfile::tempdir_in(&root).map_err(Error::file("make a directory in", root))?;
            let request = exec::Request { config, container: container.0, detached };
            atomic::write_json(&dir.path().join(exec::REQUEST), &request, Durable::No)?;
            Ok(dir)
        });
        let dir = dir.await?;
        let (mut socket, theirs) = socket_pair(id)?;
        let supervisor = &self.0.config.supervisor;
        let mut child = Command::new(supervisor)
            .arg("supervise")
            .arg(dir.path())
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::file("run", supervisor))?;
        let mut read = BytesMut::new();
        match tokio::time::timeout(START_PATIENCE, session::next(&mut socket, &mut read)).await {
            Ok(Some(Frame::Running)) => Ok((socket, read)),
            Ok(Some(Frame::Failed(reason))) => Err(failed(reason)),
            Ok(_) => Err(failed(format!("its supervisor {} ended without a word", supervisor.display()))),
            Err(_) => {
                child.kill().await.map_err(Error::file("end", supervisor))?;
                Err(failed(format!("it did not run within {} s", START_PATIENCE.as_secs())))
            }
        }
    }

    /// What a container that runs has used, and uses now.
    pub async fn stats(&self, id: &str) -> Result<Stats, Error> {
        let record = self.running(id)?;
        blocking("read what a container uses", move || {
            stats::of(&record.cgroup).ok_or_else(|| Error::NotRunning(record.id.clone()))
        })
        .await
    }

    /// The pids of a container's processes on this host, in order.
    pub async fn processes(&self, id: &str) -> Result<Vec<i32>, Error> {
        let record = self.running(id)?;
        blocking("read what runs in a container", move || Ok(stats::processes(&record.cgroup).into_iter().collect()))
            .await
    }

    fn running(&self, id: &str) -> Result<Arc<Record>, Error> {
        let containers = self.containers();
        let entry = containers.get(id).ok_or_else(|| Error::NoSuchContainer(id.to_owned()))?;
        match entry.state {
            ContainerState::Running { .. } => Ok(Arc::clone(&entry.record)),
            ContainerState::Created | ContainerState::Exited(_) => Err(Error::NotRunning(id.to_owned())),
        }
    }

    async fn start_whole(&self, config: ContainerConfig, client: Stdio) -> Result<ContainerStatus, Error> {
        check_id(&config.id)?;
        let earlier = self.at_rest(&config.id).await?;
        let image = match &earlier {
            None => self.0.images.ensure(&config.spec.image).await?,
            Some(earlier) if earlier.image != config.spec.image => {
                return Err(Error::OtherImage {
                    container: config.id,
                    made_from: earlier.image.clone(),
                    wanted: config.spec.image,
                });
            }
            // Its name may be another image's by now.
            Some(earlier) => self.0.images.image(&earlier.image_id)?,
        };
        let id = config.id.clone();
        let this = self.clone();
        let again = earlier.is_some();
        let (dir, lock) = blocking("prepare a container", move || this.prepare(config, &image, earlier)).await?;
        let started = self.launch(&id, &dir, lock, client).await;
        let failed = match started {
            Ok(Report::Running(_)) => None,
            Ok(Report::Failed(reason)) => Some(Error::Start { container: id.clone(), reason }),
            Err(e) => Some(e),
        };
        if let Some(entry) = self.containers().get_mut(&id) {
            entry.busy = Busy::No;
        }
        self.refresh(id.clone()).await?;
        if let Some(error) = failed {
            if again {
                return Err(error);
            }
            // What could not be removed now is adopted as ended by the next daemon.
            if let Err(e) = self.remove(&id).await {
                tracing::warn!(container = id, error = %e, "a container that did not start could not be removed");
            }
            return Err(error);
        }
        self.status(&id)
    }

    /// What is known of a container that has ended; `None` if there is none.
    async fn at_rest(&self, id: &str) -> Result<Option<Arc<Record>>, Error> {
        let look =
            || self.containers().get(id).map(|e| (Arc::clone(&e.record), e.state.clone(), e.busy, *e.ended.borrow()));
        match look() {
            None => Ok(None),
            Some((record, _, Busy::No, true)) => Ok(Some(record)),
            // Its supervisor has a last word, or an earlier daemon starts it just now.
            Some((record, ContainerState::Exited(_), Busy::No, false)) => {
                let end = tokio::time::timeout(KILL_PATIENCE, self.wait(id)).await;
                end.map_err(|_| Error::Exists(id.to_owned()))??;
                Ok(Some(record))
            }
            Some(_) => Err(Error::Exists(id.to_owned())),
        }
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
        if !self.begin_to_remove(id) {
            let killing = async {
                // One that is just being started has no process to kill yet.
                loop {
                    self.kill(id, SIGKILL).await?;
                    let _ = tokio::time::timeout(KILL_AGAIN, self.wait(id)).await;
                    if self.begin_to_remove(id) {
                        return Ok(());
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
        remove_dir(&self.dir(&record.id))?;
        for path in [self.attach_dir().join(&record.id), self.0.locks.path(&record.id)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", path)(e)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// All volumes, in the order of their names.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let this = self.clone();
        blocking("list volumes", move || {
            let dir = this.volumes_dir();
            let names = volumes::names(&dir)?;
            let containers = this.containers();
            let volume = |name: String| Volume { path: dir.join(&name), used_by: users(&containers, &name), name };
            Ok(names.into_iter().map(volume).collect())
        })
        .await
    }

    /// Makes an empty volume. Nothing to do if it is there.
    pub async fn create_volume(&self, name: &str) -> Result<Volume, Error> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking("make a volume", move || {
            let containers = this.containers();
            let path = volumes::make(&this.volumes_dir(), &name)?;
            Ok(Volume { path, used_by: users(&containers, &name), name })
        })
        .await
    }

    /// Removes a volume and all that is in it; refused while it is mounted in a container, run or not.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking("remove a volume", move || {
            let aside = {
                // The lock keeps a container from being started with it meanwhile.
                let containers = this.containers();
                if let Some(container) = users(&containers, &name).into_iter().next() {
                    return Err(Error::VolumeInUse { volume: name, container });
                }
                volumes::remove(&this.volumes_dir(), &name)?
            };
            drop(aside);
            Ok(())
        })
        .await
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

    /// Writes down what the supervisor must know and takes its lock.
    fn prepare(
        &self,
        config: ContainerConfig,
        image: &Image,
        earlier: Option<Arc<Record>>,
    ) -> Result<(Dir, fs::File), Error> {
        mounts::check(&config)?;
        capabilities::chosen(&[], &config.options, 0)?;
        let place = Place {
            layers_dir: self.0.images.layers_dir(),
            cgroup: format!("{}/{}", self.0.config.cgroup_parent.trim_end_matches('/'), config.id),
            volumes_dir: self.volumes_dir(),
            attach: self.attach_dir().join(&config.id),
            created_at_ms: earlier.as_ref().map_or_else(now_ms, |earlier| earlier.created_at_ms),
        };
        let record = Arc::new(image.record(config, place)?);
        let dir = self.dir(&record.id);
        let lock;
        {
            let mut containers = self.containers();
            // What was seen before may be no more.
            let present = match (containers.get(&record.id), &earlier) {
                (None, None) => false,
                (Some(entry), Some(_)) if entry.busy == Busy::No && *entry.ended.borrow() => true,
                (Some(_), _) => return Err(Error::Exists(record.id.clone())),
                (None, Some(_)) => return Err(Error::NoSuchContainer(record.id.clone())),
            };
            if !present && !self.0.images.has(&record.image_id) {
                return Err(Error::NoSuchImage(record.image.clone()));
            }
            let path = self.0.locks.path(&record.id);
            lock = self.0.locks.take(&record.id).map_err(Error::file("lock", path))?;
            if lock.is_none() {
                return Err(Error::Exists(record.id.clone()));
            }
            let entry = containers.entry(record.id.clone()).or_insert_with(|| Entry::new(Arc::clone(&record)));
            entry.record = Arc::clone(&record);
            // Another one: who followed what was ends with it.
            entry.ended = watch::Sender::new(false);
            entry.busy = Busy::Starting;
        }
        match (self.prepare_files(&record, &dir), lock) {
            (Ok(()), Some(lock)) => Ok((dir, lock)),
            (Err(e), _) => {
                let mut containers = self.containers();
                match (earlier, containers.get_mut(&record.id)) {
                    (Some(earlier), Some(entry)) => {
                        entry.record = earlier;
                        entry.busy = Busy::No;
                        entry.ended.send_replace(true);
                    }
                    (None, _) | (_, None) => drop(containers.remove(&record.id)),
                }
                Err(e)
            }
            (Ok(()), None) => Err(Error::Exists(record.id.clone())),
        }
    }

    fn prepare_files(&self, record: &Record, dir: &Dir) -> Result<(), Error> {
        for mount in &record.options.mounts {
            if let MountSource::Volume(name) = &mount.source {
                volumes::make(&record.volumes_dir, name)?;
            }
        }
        fs::create_dir_all(dir.path()).map_err(Error::file("make the directory", dir.path()))?;
        // What a supervisor that died in an earlier start may have left.
        cgroup::remove(&record.cgroup)?;
        dir.write_record(record)
    }

    /// Starts the supervisor and hears what it has to say.
    async fn launch(&self, id: &str, dir: &Dir, lock: fs::File, client: Stdio) -> Result<Report, Error> {
        let supervisor = &self.0.config.supervisor;
        let mut child = Command::new(supervisor)
            .arg("supervise")
            .arg(dir.path())
            .env_clear()
            .current_dir("/")
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(client)
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
                    let entry = Entry::new(Arc::new(record));
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
            if !self.containers().get(&id).is_some_and(Entry::is_unsettled) {
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
            options: self.record.options.clone(),
            created_at_ms: self.record.created_at_ms,
            started_at_ms: self.started_at_ms,
        }
    }
}

/// Our end of a connection to a supervisor, and the one that it inherits.
fn socket_pair(id: &str) -> Result<(UnixStream, OwnedFd), Error> {
    let pair = std::os::unix::net::UnixStream::pair().and_then(|(ours, theirs)| Ok((for_tokio(ours)?, theirs.into())));
    pair.map_err(|source| Error::Attach { container: id.to_owned(), source })
}

fn for_tokio(socket: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// The containers that a volume is mounted in.
fn users(containers: &BTreeMap<String, Entry>, volume: &str) -> Vec<String> {
    let mounted = |e: &&Entry| {
        e.record.options.mounts.iter().any(|m| matches!(&m.source, MountSource::Volume(name) if name == volume))
    };
    containers.values().filter(mounted).map(|e| e.record.id.clone()).collect()
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
