//! What is kept on disk of one container: its directory, and the files in it.

use rustix::{fs::FallocateFlags, io::Errno};
use serde::{Deserialize, Serialize};
use shoal_common::{health::Probe, name::Labels, service::Resources};
use shoal_rt::durable;
use std::{
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Error, aside,
    config::{Exit, Options},
    json,
};

/// In the directory of a container: whose it is.
pub(crate) const RECORD: &str = "container.json";

/// In the directory of a container that runs: room for its `exit.json`.
const EXIT_RESERVE: &str = "exit.reserve";
/// One block. A reason is a sentence.
const EXIT_MAX_BYTES: u64 = 4096;

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
    /// Where the image wants a volume and the user has nothing: the n-th is `volumes/N` in the container's directory.
    #[serde(default)]
    pub(crate) image_volumes: Vec<PathBuf>,
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

    /// Of the volumes that the image wants. They go with the container.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.at("volumes")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn record(&self) -> Result<Option<Record>, Error> {
        json::read(&self.at(RECORD), "a container")
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        json::write(&self.at(RECORD), record)
    }

    /// Whether its making was interrupted before there was anything in it.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let unfinished = format!("{RECORD}.new");
        for entry in fs::read_dir(&self.0)? {
            if entry?.file_name() != unfinished.as_str() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// None also if it cannot be read: without its pid nothing can be done to the process that it tells of.
    pub(crate) fn started(&self) -> Result<Option<Started>, Error> {
        readable(json::read(&self.at("state.json"), "a container's state"))
    }

    pub(crate) fn write_started(&self, started: &Started) -> Result<(), Error> {
        json::write(&self.at("state.json"), started)
    }

    /// None also if it cannot be read: a container of which nobody knows how it ended has still ended.
    pub(crate) fn exit(&self) -> Result<Option<Exit>, Error> {
        readable(json::read(&self.at("exit.json"), "a container's exit status"))
    }

    /// What was is no more: the container is about to run again.
    pub(crate) fn remove_exit(&self) -> Result<(), Error> {
        let path = self.at("exit.json");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Keeps room for the end: a disk that is full by then does not turn a job that succeeded into one that is run again.
    pub(crate) fn reserve_exit(&self) -> io::Result<()> {
        let reserve = fs::File::create(self.at(EXIT_RESERVE))?;
        match rustix::fs::fallocate(&reserve, FallocateFlags::empty(), 0, EXIT_MAX_BYTES) {
            // Then the file system finds room or does not.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<(), Error> {
        let path = self.at("exit.json");
        let written = json::write(&path, exit);
        if written.is_err() && self.write_exit_into_reserve(exit, &path).is_ok() {
            return Ok(());
        }
        let _ = fs::remove_file(self.at(EXIT_RESERVE));
        written
    }

    /// In place: nothing has to be allocated for it.
    fn write_exit_into_reserve(&self, exit: &Exit, path: &Path) -> io::Result<()> {
        let from = self.at(EXIT_RESERVE);
        let text = serde_json::to_vec(exit)?;
        let reserve = fs::File::options().write(true).open(&from)?;
        reserve.write_all_at(&text, 0)?;
        reserve.set_len(text.len() as u64)?;
        durable::sync(&reserve, &from).map_err(durable::Error::into_io)?;
        fs::rename(&from, path)?;
        durable::sync(&fs::File::open(&self.0)?, &self.0).map_err(durable::Error::into_io)
    }
}

/// A file that cannot be read is set aside where it is, and counts as absent from then on.
fn readable<T>(read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(Error::Garbled { path, source, .. }) => aside::in_place(&path, &source.to_string()).map(|()| None),
        read => read,
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Civil from days, after Howard Hinnant's algorithm.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_210_096_000), "2024-02-29T12:34:56Z");
    }
}
