//! A lab of this machine for one test: hosts of their own with their own daemons, already one cluster.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{Nobody, Output, Terminal, image};

/// A program that runs for longer is ended, and the test with it: `lab up` of seven managers takes the longest.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);
/// `timeout` of coreutils sends SIGTERM, and SIGKILL after this.
const ENDED_WITHIN: Duration = Duration::from_secs(10);
/// What is shown of each daemon's log when a story fails.
const TAIL_LINES: usize = 40;
/// What every lab of ours is called first; then the process id of the test and a number.
const PREFIX: &str = "test";
/// Where a lab's host has the network namespaces of its tasks and networks, by their ids.
const NETNS: &str = "/run/shoal/netns";

/// Labs are heavy beside the machines that test: one at a time in a process. (nextest has a process for each test, and
/// a group for those of labs.)
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many hosts: `m1`, `m2`, … and `w1`, `w2`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub managers: u8,
    pub workers: u8,
}

/// Hosts, until it is dropped.
#[derive(Debug)]
pub struct Lab {
    shoal: PathBuf,
    name: String,
    hosts: Vec<Host>,
    files: tempfile::TempDir,
    is_down: bool,
    /// Whose it is, if not root's.
    nobody: Option<Nobody>,
    _only: MutexGuard<'static, ()>,
}

/// What we read of `lab ls --format json`.
#[derive(Debug, Clone, Deserialize)]
struct Host {
    lab: String,
    host: String,
    state: String,
    data: PathBuf,
}

/// Tells a story in a lab, and takes the lab down. If it went wrong, what the daemons logged is shown first.
/// With `SHOAL_TEST_KEEP` in the environment a lab in which something went wrong stays, to be looked at.
pub fn story(shape: Shape, story: impl FnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    told(Lab::up(shape, None)?, story)
}

/// The same in a lab of a user who is not root. Skipped, and said so, where the kernel lets no such user have one.
pub fn story_without_root(shape: Shape, story: impl FnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let nobody = Nobody::new(&built()?)?;
    if let Some(why) = nobody.is_forbidden_namespaces()? {
        eprintln!("SKIPPED: this kernel lets nobody but root make namespaces: {why}");
        return Ok(());
    }
    told(Lab::up(shape, Some(nobody))?, story)
}

fn told(lab: Lab, story: impl FnOnce(&Lab) -> anyhow::Result<()>) -> anyhow::Result<()> {
    match story(&lab) {
        Ok(()) => lab.down(),
        Err(e) => {
            lab.gone_wrong();
            Err(e)
        }
    }
}

impl Lab {
    pub fn up(shape: Shape, nobody: Option<Nobody>) -> anyhow::Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(1);
        let only = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let shoal = match &nobody {
            Some(nobody) => nobody.shoal(),
            None => built()?,
        };
        if nobody.is_none() {
            sweep(&shoal);
        }
        let name = format!("{PREFIX}-{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let files = tempfile::tempdir().context("make a directory for the test's files")?;
        // Others than root read the image there.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
        let mut lab = Self { shoal, name, hosts: Vec::new(), files, is_down: false, nobody, _only: only };
        let (managers, workers) = (shape.managers.to_string(), shape.workers.to_string());
        lab.lab(["up", "--managers", &managers, "--workers", &workers])?.success()?;
        lab.hosts = lab.ls()?;
        Ok(lab)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Managers first.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|h| h.host.as_str())
    }

    /// Where a host's daemon keeps what must outlive it.
    pub fn data(&self, host: &str) -> anyhow::Result<&Path> {
        let host = self.hosts.iter().find(|h| h.host == host).with_context(|| format!("no host {host}"))?;
        Ok(&host.data)
    }

    /// Up, daemon down, or off: as `lab ls` says now.
    pub fn state_of(&self, host: &str) -> anyhow::Result<String> {
        let hosts = self.ls()?;
        let host = hosts.into_iter().find(|h| h.host == host).with_context(|| format!("no host {host}"))?;
        Ok(host.state)
    }

    /// A verb of `shoal lab`, on this lab: `lab.lab(["kill", "w1"])`.
    pub fn lab(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Output> {
        run(
            self.nobody.as_ref(),
            &self.shoal,
            [OsString::from("lab"), "--name".into(), self.name.clone().into()].into_iter().chain(own(args)),
        )
    }

    /// The command line of users, on a host: `lab.shoal("m1", ["node", "ls"])`.
    pub fn shoal(&self, host: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Output> {
        self.exec(host, [self.shoal.clone().into_os_string()].into_iter().chain(own(args)))
    }

    /// The same, at a terminal of that size.
    pub fn at_terminal(
        &self,
        host: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        rows: u16,
        columns: u16,
    ) -> anyhow::Result<Terminal> {
        let shoal = self.shoal.clone().into_os_string();
        let exec = ["lab", "--name", &self.name, "exec", host, "--"].map(OsString::from);
        let words: Vec<_> = [shoal.clone()].into_iter().chain(exec).chain([shoal]).chain(own(args)).collect();
        Terminal::run(&words, rows, columns)
    }

    /// A command on a host: `lab.exec("w1", ["ip", "-j", "link"])`.
    pub fn exec(&self, host: &str, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Output> {
        self.lab([OsString::from("exec"), host.into(), "--".into()].into_iter().chain(own(command)))
    }

    /// A command on a host, in the network namespace of one of its tasks (`task-7`) or networks (`net-3`): of the
    /// container's network, and the host's files.
    pub fn inside(
        &self,
        host: &str,
        netns: &str,
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Output> {
        self.exec(
            host,
            [OsString::from("nsenter"), format!("--net={NETNS}/{netns}").into()].into_iter().chain(own(command)),
        )
    }

    /// Where the lab keeps what a host has.
    pub fn dir(&self, host: &str) -> anyhow::Result<PathBuf> {
        let host = self.hosts.iter().find(|h| h.host == host).with_context(|| format!("no host {host}"))?;
        Ok(host.data.parent().context("a host's data is in its directory")?.to_owned())
    }

    /// Imports the tests' image, under this name, on every host.
    pub fn import(&self, reference: &str) -> anyhow::Result<()> {
        self.import_with(reference, &[])
    }

    /// With changes to its configuration, as lines of a Dockerfile.
    pub fn import_with(&self, reference: &str, changes: &[&str]) -> anyhow::Result<()> {
        let tar = self.files.path().join("image.tar");
        image::write(&tar)?;
        for host in self.hosts() {
            let mut line: Vec<&OsStr> = vec!["image".as_ref(), "import".as_ref()];
            line.extend(changes.iter().flat_map(|change| ["-c".as_ref(), OsStr::new(*change)]));
            line.extend([tar.as_os_str(), reference.as_ref()]);
            self.shoal(host, line)?.success()?;
        }
        Ok(())
    }

    /// Removes the lab and every trace of it. Dropping does so too, and cannot say how it went.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.is_down = true;
        self.lab(["down"])?.success()?;
        let left = self.lab(["ls"])?;
        ensure!(!left.status.success(), "a lab that is down is still listed: {left}");
        self.nobody.as_ref().map_or(Ok(()), Nobody::has_nothing)
    }

    fn ls(&self) -> anyhow::Result<Vec<Host>> {
        self.lab(["ls", "--format", "json"])?.json()
    }

    /// Shows what there is to know of a failure.
    fn gone_wrong(&self) {
        for host in &self.hosts {
            let log = host.data.parent().map(|dir| dir.join("daemon.log")).unwrap_or_default();
            match fs::read(&log) {
                Ok(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let lines: Vec<&str> = text.lines().collect();
                    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
                    eprintln!("--- {}: the end of the daemon's log\n{}", host.host, tail.join("\n"));
                }
                Err(e) => eprintln!("--- {}: cannot read {}: {e}", host.host, log.display()),
            }
        }
        if keep() {
            eprintln!("--- the lab stays: {} lab --name {} down", self.shoal.display(), self.name);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_down {
            return;
        }
        if thread::panicking() {
            self.gone_wrong();
        }
        if keep() {
            return;
        }
        match self.lab(["down"]).and_then(Output::success) {
            Ok(_) => {}
            // A lab that did not come up has most often gone by itself; one that was ended half-way has not.
            Err(_) if self.hosts.is_empty() => {}
            Err(e) => eprintln!("cannot take the lab {} down: {e:#}", self.name),
        }
    }
}

fn keep() -> bool {
    env::var_os("SHOAL_TEST_KEEP").is_some()
}

/// The program of the same build as this test: its package is another, so cargo does not tell where it is. A test is
/// `DIR/deps/NAME-HASH`, the program `DIR/shoal`.
pub fn built() -> anyhow::Result<PathBuf> {
    let test = env::current_exe().context("find this test's own file")?;
    let built = test.ancestors().skip(1).map(|dir| dir.join("shoal")).find(|program| program.is_file());
    built.with_context(|| format!("no shoal was built beside {}: cargo build -p shoal", test.display()))
}

/// Takes down what tests have left that were killed: labs of ours whose process is no more.
fn sweep(shoal: &Path) {
    let Ok(hosts) =
        run(None, shoal, ["lab", "ls", "--format", "json"].map(OsString::from)).and_then(|o| o.json::<Host>())
    else {
        return;
    };
    let mut labs: Vec<String> = hosts.into_iter().map(|h| h.lab).collect();
    labs.dedup();
    let process = |lab: &str| lab.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse::<u32>().ok();
    for lab in labs.iter().filter(|lab| process(lab).is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())) {
        eprintln!("taking down {lab}, which a test left");
        let down = ["lab", "--name", lab, "down"].map(OsString::from);
        if let Err(e) = run(None, shoal, down).and_then(Output::success) {
            eprintln!("{e:#}");
        }
    }
}

fn own(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> impl Iterator<Item = OsString> {
    args.into_iter().map(|arg| arg.as_ref().to_owned())
}

/// Runs a program to its end, which comes.
fn run(nobody: Option<&Nobody>, program: &Path, args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Output> {
    let args: Vec<OsString> = args.into_iter().collect();
    let words = [program.as_os_str()].into_iter().chain(args.iter().map(OsString::as_os_str));
    let command = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let mut shell = nobody.map_or_else(|| Command::new("env"), Nobody::command);
    let ended = shell
        .arg("timeout")
        .arg(format!("--kill-after={}", ENDED_WITHIN.as_secs()))
        .arg(COMMAND_WITHIN.as_secs().to_string())
        .arg(program)
        .args(&args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run `{command}`"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Output { command, status: ended.status, stdout: text(ended.stdout), stderr: text(ended.stderr) })
}
