//! Those who are attached to a container, and the processes that they add to it.

use bytes::BytesMut;
use std::{fs, io, os::fd::OwnedFd, process::Stdio};
use tokio::{net::UnixStream, process::Command};

use super::{Runtime, START_PATIENCE, blocking};
use crate::{
    ContainerConfig, ContainerStatus, Error, ExecConfig, Fault, Session, Stats, ends, exec, frame::Frame, json,
    session, stats,
};

impl Runtime {
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
        let refused = |fault, reason| Error::Exec { container: id.to_owned(), command: command.clone(), reason, fault };
        let failed = |reason: String| refused(Fault::Other, reason);
        if config.args.first().is_none_or(String::is_empty) {
            return Err(failed("no program was named".to_owned()));
        }
        let container = self.dir(&record.id);
        let dir = blocking("prepare a process", move || {
            let root = container.at("exec");
            fs::create_dir_all(&root).map_err(Error::file("make the directory", &root))?;
            let dir = tempfile::tempdir_in(&root).map_err(Error::file("make a directory in", root))?;
            let request = exec::Request { config, container: container.0, detached };
            json::write(&dir.path().join(exec::REQUEST), &request)?;
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
            Ok(Some(Frame::Failed(fault, reason))) => Err(refused(fault, reason)),
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
