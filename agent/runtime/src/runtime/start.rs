//! Starts: the first of a container, and those after an end.

use shoal_common::service::Resources;
use shoal_rt::durable;
use std::{fs, process::Stdio, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::watch,
};

use super::{Busy, Entry, KILL_PATIENCE, Runtime, START_PATIENCE, blocking};
use crate::{
    ContainerConfig, ContainerState, ContainerStatus, Error, Fault, Image, MountSource, capabilities, cgroup,
    cgroup::Cgroups,
    image::Place,
    mounts,
    record::{Dir, Record, now_ms},
    supervise::Report,
    volumes,
};

impl Runtime {
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

    pub(super) async fn start_whole(&self, config: ContainerConfig, client: Stdio) -> Result<ContainerStatus, Error> {
        check_id(&config.id)?;
        if let Some(files) = self.set_aside(&config.id) {
            // It would begin on an empty layer, and nobody would look for the other one.
            return Err(Error::SetAside { container: config.id, files });
        }
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
            Ok(Report::Failed { fault, reason }) => Some(Error::Start { container: id.clone(), reason, fault }),
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

    /// Writes down what the supervisor must know and takes its lock.
    fn prepare(
        &self,
        config: ContainerConfig,
        image: &Image,
        earlier: Option<Arc<Record>>,
    ) -> Result<(Dir, fs::File), Error> {
        if self.0.cgroups == Cgroups::None
            && let Some(limits) = limits(&config.resources)
        {
            return Err(Error::NoCgroups { container: config.id, limits });
        }
        mounts::check(&config)?;
        capabilities::chosen(&[], &config.options, 0)?;
        let place = Place {
            layers_dir: self.0.images.layers_dir(),
            cgroup: self.cgroup(&config.id),
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

    pub(super) fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.0.config.cgroup_parent.trim_end_matches('/'))
    }

    fn prepare_files(&self, record: &Record, dir: &Dir) -> Result<(), Error> {
        for mount in &record.options.mounts {
            if let MountSource::Volume(name) = &mount.source {
                volumes::make(&record.volumes_dir, name)?;
            }
        }
        durable::create_dir(dir.path()).map_err(Error::Durable)?;
        mounts::make_image_volumes(record, dir)?;
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
            fault: Fault::Other,
        };
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            match tokio::time::timeout(START_PATIENCE, output.read_line(&mut line)).await {
                Ok(read) => drop(read.map_err(|_| silent())?),
                Err(_) => {
                    child.kill().await.map_err(Error::file("end", supervisor))?;
                    let reason = format!("it did not run within {} s", START_PATIENCE.as_secs());
                    return Err(Error::Start { container: id.to_owned(), reason, fault: Fault::Other });
                }
            }
        }
        // tokio reaps the child when it ends, if we still live then.
        drop(child);
        serde_json::from_str(&line).map_err(|_| silent())
    }
}

/// What is to be limited, in the words of the command line.
fn limits(wanted: &Resources) -> Option<String> {
    let limits = [
        ("--limit-cpu", wanted.limits.nano_cpus > 0),
        ("--limit-memory", wanted.limits.memory_bytes > 0),
        ("--limit-pids", wanted.pids_limit > 0 && wanted.pids_limit != Resources::PIDS_UNLIMITED),
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
