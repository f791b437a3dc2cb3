//! What is kept on disk of one container: its directory, and the files in it.

use serde::{Deserialize, Serialize};
use shoal_common::{health::Probe, name::Labels, service::Resources};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    config::{Exit, Options},
    json,
};

/// `container.json`: all that the supervisor must know. Written before each start of the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// As the user wrote it.
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// Where `layers` are, so that the mount's option string stays short.
    pub(crate) layers_dir: PathBuf,
    /// Lowest first.
    pub(crate) layers: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    /// `uid[:gid]` or names; empty means root.
    pub(crate) user: String,
    pub(crate) stop_signal: i32,
    #[serde(default)]
    pub(crate) probe: Option<Probe>,
    pub(crate) resources: Resources,
    pub(crate) cgroup: String,
    pub(crate) netns: PathBuf,
    pub(crate) hostname: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) resolv_conf: String,
    pub(crate) labels: Labels,
    #[serde(default)]
    pub(crate) options: Options,
    /// Where the volumes are.
    #[serde(default)]
    pub(crate) volumes_dir: PathBuf,
    /// The socket for those who attach.
    #[serde(default)]
    pub(crate) attach: PathBuf,
    /// Of the first start.
    #[serde(default)]
    pub(crate) created_at_ms: u64,
}

/// `state.json`: the first process, once it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: with it a reused pid is told apart.
    pub(crate) start_ticks: u64,
    /// Ticks count from the boot, so they say something only within the same.
    pub(crate) boot_id: String,
    pub(crate) started_at_ms: u64,
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn record(&self) -> Result<Option<Record>, Error> {
        json::read(&self.at("container.json"), "a container")
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        json::write(&self.at("container.json"), record)
    }

    pub(crate) fn started(&self) -> Result<Option<Started>, Error> {
        json::read(&self.at("state.json"), "a container's state")
    }

    pub(crate) fn write_started(&self, started: &Started) -> Result<(), Error> {
        json::write(&self.at("state.json"), started)
    }

    pub(crate) fn exit(&self) -> Result<Option<Exit>, Error> {
        json::read(&self.at("exit.json"), "a container's exit status")
    }

    /// What was is no more: the container is about to run again.
    pub(crate) fn remove_exit(&self) -> Result<(), Error> {
        let path = self.at("exit.json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<(), Error> {
        json::write(&self.at("exit.json"), exit)
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
