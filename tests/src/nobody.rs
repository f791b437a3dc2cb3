//! The user `nobody`, in place of whoever is not root: with a home, and a copy of the `shoal` that was built.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};

const ID: u32 = 65534;
/// Of the directory of each; then the process id of the test and a number.
const PREFIX: &str = "shoal-nobody-";

#[derive(Debug)]
pub struct Nobody {
    dir: PathBuf,
}

impl Nobody {
    /// `built` may be in a directory that is root's alone.
    pub fn new(built: &Path) -> anyhow::Result<Self> {
        static NOBODIES: AtomicU32 = AtomicU32::new(1);
        sweep();
        let name = format!("{PREFIX}{}-{}", process::id(), NOBODIES.fetch_add(1, Ordering::Relaxed));
        let this = Self { dir: env::temp_dir().join(name) };
        fs::create_dir_all(this.home())?;
        for dir in [&this.dir, &this.home()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        }
        chown(this.home(), Some(ID), Some(ID))?;
        if fs::hard_link(built, this.shoal()).is_err() {
            fs::copy(built, this.shoal()).with_context(|| format!("copy {}", built.display()))?;
        }
        Ok(this)
    }

    /// Why this kernel lets nobody make a user namespace, if it does not.
    pub fn is_forbidden_namespaces(&self) -> anyhow::Result<Option<String>> {
        let unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"];
        let tried = self.command().args(unshare).output().context("run setpriv and unshare, of util-linux")?;
        Ok((!tried.status.success()).then(|| String::from_utf8_lossy(&tried.stderr).trim().to_owned()))
    }

    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub fn shoal(&self) -> PathBuf {
        self.dir.join("shoal")
    }

    /// Give it a command to run: what it runs is this user's, with this user's environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={ID}"), format!("--regid={ID}"), "--clear-groups".to_owned()])
            .current_dir(self.home())
            .env("HOME", self.home())
            .env_remove("XDG_STATE_HOME")
            .env_remove("SHOAL_LAB_DIR")
            .stdin(Stdio::null());
        command
    }

    /// Nothing of a lab is left: no file, and no process.
    pub fn has_nothing(&self) -> anyhow::Result<()> {
        let left = Command::new("find").arg(self.home()).args(["-not", "-type", "d"]).output()?;
        ensure!(left.stdout.is_empty(), "files are left: {}", String::from_utf8_lossy(&left.stdout));
        let ours = self.dir.to_string_lossy().into_owned();
        for entry in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            ensure!(!line.contains(&ours), "process {} is left: {line}", entry.file_name().display());
        }
        Ok(())
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        if env::var_os("SHOAL_TEST_KEEP").is_some() && self.has_nothing().is_err() {
            return;
        }
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {e}", self.dir.display());
        }
    }
}

/// Takes down what tests have left that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_none_or(|id| Path::new(&format!("/proc/{id}")).exists()) {
            continue;
        }
        eprintln!("taking down what a test left in {}", entry.path().display());
        let left = Nobody { dir: entry.path() };
        let labs = fs::read_dir(left.home().join(".local/state/shoal-lab")).into_iter().flatten().flatten();
        for lab in labs.filter(|lab| lab.path().is_dir()) {
            let down =
                left.command().arg(left.shoal()).args(["lab", "--name"]).arg(lab.file_name()).arg("down").status();
            if !down.is_ok_and(|status| status.success()) {
                eprintln!("cannot take down {}", lab.path().display());
            }
        }
    }
}
