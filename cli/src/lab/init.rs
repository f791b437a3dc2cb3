//! The first process of a host: it holds the host's namespaces, reaps, and when it is killed the kernel kills all
//! that runs on the host. The switch has one too, which holds a network namespace and nothing else.
//!
//! It is started in two steps. `shoal lab-host-init DIR KIND` leaves for new namespaces, starts the process proper
//! (a PID namespace begins with the first child), records it, and ends. An init that could not be recorded does not
//! get the word to go on, and the directory is held meanwhile: whoever ends an init holds it too, so that none comes
//! after they looked. `shoal lab up` may be killed at any time, and leaves a first step behind that is still at it.

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::setsid,
};
use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use super::{furnish, layout::init_pid, process::Process};

/// What `main` calls on this word.
pub(crate) const VERB: &str = "lab-host-init";

const READY: &str = "ready";
/// Tells the second step from the first.
const PROPER: &str = "proper";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    /// Whose root may not make cgroups.
    HostWithoutCgroups,
    Switch,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::HostWithoutCgroups => "host-without-cgroups",
            Kind::Switch => "switch",
        }
    }

    fn namespaces(self) -> CloneFlags {
        match self {
            Kind::Host | Kind::HostWithoutCgroups => super::enter::NAMESPACES,
            Kind::Switch => CloneFlags::CLONE_NEWNET,
        }
    }
}

/// Starts an init for this directory, and gives back what is recorded there. The last part of the path is the
/// host's name.
pub(super) fn start(dir: &Path, kind: Kind) -> io::Result<Process> {
    let output = Command::new(env::current_exe()?).arg(VERB).arg(dir).arg(kind.word()).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Process::read(&init_pid(dir))?.ok_or_else(|| io::Error::other("it left no record"))
}

/// Waits until nobody else starts or ends an init there.
pub(super) fn hold(dir: &Path) -> io::Result<Flock<fs::File>> {
    Ok(Flock::lock(fs::File::open(dir)?, FlockArg::LockExclusive).map_err(|(_, e)| e)?)
}

/// Both steps. Arguments: DIR KIND, and for the second a word more.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let kinds = [Kind::Host, Kind::HostWithoutCgroups, Kind::Switch];
    let kind = |word: &OsString| kinds.into_iter().find(|k| word == k.word());
    let done = match &args[..] {
        [dir, word] => kind(word).map(|k| launch(Path::new(dir), k)),
        [dir, word, step] if step == PROPER => kind(word).map(|k| proper(Path::new(dir), k)),
        _ => None,
    };
    match done {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(e)) => {
            crate::out::note(e.to_string());
            ExitCode::FAILURE
        }
        None => {
            crate::out::note("'shoal lab' calls this, people do not");
            ExitCode::FAILURE
        }
    }
}

fn doing(what: &str) -> impl Fn(Errno) -> io::Error {
    move |e| io::Error::other(format!("cannot {what}: {}", e.desc()))
}

/// The first step.
fn launch(dir: &Path, kind: Kind) -> io::Result<()> {
    // Before /proc may be another one's.
    let exe = env::current_exe()?;
    let _held = hold(dir)?;
    if Process::read(&init_pid(dir))?.map_or(Ok(false), |other| other.alive())? {
        return Err(io::Error::other("it is on already"));
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("init.log"))?;
    setsid().map_err(doing("leave the terminal"))?;
    unshare(kind.namespaces()).map_err(doing("make namespaces"))?;
    let mut init = Command::new(exe)
        .arg(VERB)
        .arg(dir)
        .arg(kind.word())
        .arg(PROPER)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    Process::of(init.id())?.write(&init_pid(dir))?;
    if let Some(mut go) = init.stdin.take() {
        go.write_all(b"\n")?;
    }
    let mut answer = String::new();
    if let Some(stdout) = init.stdout.take() {
        BufReader::new(stdout).read_line(&mut answer)?;
    }
    match answer.trim() {
        READY => Ok(()),
        "" => Err(io::Error::other(format!("it ended at once: see {}", dir.join("init.log").display()))),
        why => Err(io::Error::other(why.to_owned())),
    }
}

/// The second step: it stays.
fn proper(dir: &Path, kind: Kind) -> io::Result<()> {
    let mut go = [0];
    // The first step died before it recorded this process.
    io::stdin().read_exact(&mut go)?;
    let name = dir.file_name().unwrap_or_default();
    let ready = match kind {
        Kind::Host => furnish::with_cgroups(name),
        Kind::HostWithoutCgroups => furnish::without_cgroups(name),
        Kind::Switch => Ok(()),
    };
    let mut answer = io::stdout();
    if let Err(e) = ready {
        return writeln!(answer, "{e}");
    }
    // Blocked before anyone may start a child here: a child's end must not go unseen.
    let ended = SigSet::from(Signal::SIGCHLD);
    ended.thread_block()?;
    writeln!(answer, "{READY}")?;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {
                ended.wait()?;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
