//! Where a lab keeps what it must know of itself.

use nix::unistd::geteuid;
use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::name::{HostName, LabName};
use crate::failure::{Exit, Failure};

const DEFAULT_ROOT: &str = "/var/lib/shoal-lab";
const ROOT_VARIABLE: &str = "SHOAL_LAB_DIR";
/// Of a user who is not root, below what the XDG base directory specification has for state.
const USERS_ROOT: &str = "shoal-lab";

/// A socket's address has room for 107 bytes and a zero.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The directory of all labs: `$SHOAL_LAB_DIR`; else /var/lib/shoal-lab for root, and for others
/// `$XDG_STATE_HOME/shoal-lab`, which is `~/.local/state/shoal-lab` where that is not set.
pub(super) fn root() -> Result<PathBuf, Failure> {
    let root = root_of(geteuid().is_root(), |name| env::var_os(name).filter(|value| !value.is_empty()))?;
    if !root.is_absolute() {
        return Err(Failure::usage(format!(
            "labs are kept in an absolute path, not {}: set {ROOT_VARIABLE}",
            root.display()
        )));
    }
    // Each host has a /run, /proc and /sys of its own, which hides the machine's.
    if ["/run", "/proc", "/sys", "/var/run"].iter().any(|hidden| root.starts_with(hidden)) {
        return Err(Failure::usage(format!(
            "labs cannot be kept below /run, /proc or /sys, as in {}: set {ROOT_VARIABLE} to another path",
            root.display()
        )));
    }
    Ok(root)
}

fn root_of(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    if let Some(root) = variable(ROOT_VARIABLE) {
        return Ok(root.into());
    }
    if is_root {
        return Ok(DEFAULT_ROOT.into());
    }
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state")));
    let nowhere = || Failure::usage(format!("there is no HOME to keep a lab in: set {ROOT_VARIABLE} to a directory"));
    Ok(state.ok_or_else(nowhere)?.join(USERS_ROOT))
}

/// The names of the labs that have a directory.
pub(super) fn labs(root: &Path) -> Result<Vec<LabName>, Failure> {
    let mut names: Vec<LabName> = names(root)?.iter().filter_map(|name| name.parse().ok()).collect();
    names.sort();
    Ok(names)
}

/// The names in a directory; none if it is not there.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(cannot("list", dir, &e)),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(|e| cannot("list", dir, &e)))
        .collect()
}

pub(super) fn cannot(what: &str, path: &Path, e: &io::Error) -> Failure {
    let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NotAllowed } else { Exit::General };
    Failure::new(exit, format!("cannot {what} {}: {e}", path.display()))
}

/// The paths of one lab.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
    lab: LabName,
    /// Whether who works on the lab may make cgroups.
    cgroups: bool,
}

impl Layout {
    pub(super) fn new(root: PathBuf, lab: LabName, cgroups: bool) -> Self {
        Self { root, lab, cgroups }
    }

    pub(super) fn lab(&self) -> &LabName {
        &self.lab
    }

    /// The directory of all labs, so that there can be one.
    pub(super) fn make_root(&self) -> Result<(), Failure> {
        fs::create_dir_all(&self.root).map_err(|e| {
            let mut failure = cannot("make", &self.root, &e);
            failure.message += &format!("; {ROOT_VARIABLE} is another place for labs");
            failure
        })
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.root.join(self.lab.to_string())
    }

    /// Beside the directory, so that it can be held while that is made and removed.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join(format!(".{}.lock", self.lab))
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir().join("lab.json")
    }

    pub(super) fn switch(&self) -> PathBuf {
        self.dir().join("switch")
    }

    pub(super) fn hosts(&self) -> PathBuf {
        self.dir().join("hosts")
    }

    pub(super) fn host(&self, host: HostName) -> PathBuf {
        self.hosts().join(host.to_string())
    }

    pub(super) fn data(&self, host: HostName) -> PathBuf {
        self.host(host).join("data")
    }

    /// Of its daemon, for whoever writes it.
    pub(super) fn settings(&self, host: HostName) -> PathBuf {
        self.host(host).join("daemon.toml")
    }

    pub(super) fn socket(&self, host: HostName) -> PathBuf {
        self.host(host).join("shoal.sock")
    }

    pub(super) fn daemon_log(&self, host: HostName) -> PathBuf {
        self.host(host).join("daemon.log")
    }

    pub(super) fn daemon_pid(&self, host: HostName) -> PathBuf {
        self.host(host).join("daemon.pid")
    }

    /// Above the cgroups of a host's containers, from the root of each hierarchy; nothing where they have none.
    pub(super) fn cgroup(&self, host: HostName) -> Option<String> {
        self.lab_cgroup().map(|lab| format!("{lab}/{host}"))
    }

    pub(super) fn lab_cgroup(&self) -> Option<String> {
        self.cgroups.then(|| format!("/shoal/{}", self.lab))
    }

    /// Said before anything is made, rather than by a daemon that cannot bind.
    pub(super) fn check_socket(&self, host: HostName) -> Result<(), Failure> {
        let socket = self.socket(host);
        let bytes = socket.as_os_str().len();
        if bytes <= MAX_SOCKET_PATH_BYTES {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} has {bytes} bytes, and the path of a socket at most {MAX_SOCKET_PATH_BYTES}: set {ROOT_VARIABLE} to a shorter path",
            socket.display()
        )))
    }
}

/// `init.pid` of a host's directory, or of the switch's.
pub(super) fn init_pid(dir: &Path) -> PathBuf {
    dir.join("init.pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_that_no_daemon_could_bind_is_refused_with_its_mend() {
        let lab: LabName = "l".parse().unwrap();
        let m1: HostName = "m1".parse().unwrap();
        let fits = |n| Layout::new(format!("/{}", "d".repeat(n)).into(), lab.clone(), true).check_socket(m1);
        let rest = "/l/hosts/m1/shoal.sock".len();
        assert!(fits(MAX_SOCKET_PATH_BYTES - rest - 1).is_ok());
        assert!(fits(MAX_SOCKET_PATH_BYTES - rest).unwrap_err().message.contains("108 bytes"));
    }

    #[test]
    fn a_user_keeps_labs_at_home_and_root_in_var() {
        let with = |is_root, set: &[(&str, &str)]| {
            root_of(is_root, |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let (own, state, home) = (("SHOAL_LAB_DIR", "/l"), ("XDG_STATE_HOME", "/s"), ("HOME", "/home/u"));
        for (is_root, set, root) in [
            (true, vec![home, state], "/var/lib/shoal-lab"),
            (true, vec![home, own], "/l"),
            (false, vec![home, state, own], "/l"),
            (false, vec![home, state], "/s/shoal-lab"),
            (false, vec![home], "/home/u/.local/state/shoal-lab"),
        ] {
            assert_eq!(with(is_root, &set).unwrap(), Path::new(root), "{set:?}");
        }
        assert!(with(false, &[]).unwrap_err().message.contains("SHOAL_LAB_DIR"));
    }
}
