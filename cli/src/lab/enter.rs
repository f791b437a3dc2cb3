//! Running programs inside a host.
//!
//! Joining a mount namespace needs a process with one thread, and joining a PID namespace takes effect with the
//! next child. So this is done by processes that do nothing else: `lab exec` itself, and `shoal lab-host-run` for
//! programs that stay.

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{SigSet, Signal},
    unistd::setsid,
};
use rustix::process::{Pid, Signal as Send, kill_process};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use super::{layout::init_pid, process::Process};

/// What `main` calls on this word.
pub(crate) const VERB: &str = "lab-host-run";

/// What a host has for itself.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// As a shell has it.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
const KILLED: i32 = 128;

/// False: the host is off. The caller has one thread, and from here on its children are the host's.
#[allow(clippy::disallowed_methods, reason = "in a process of one thread, without an async runtime")]
fn enter(host_dir: &Path) -> io::Result<bool> {
    let Some(init) = Process::read(&init_pid(host_dir))? else { return Ok(false) };
    let Some(handle) = init.open()? else { return Ok(false) };
    setns(handle, NAMESPACES)?;
    Ok(true)
}

/// Runs a command in a host with our terminal, and tells how it ended. Nothing: the host is off.
pub(super) fn run(host_dir: &Path, socket: &Path, command: &[OsString]) -> io::Result<Option<ExitCode>> {
    let (program, args) = command.split_first().expect("the command line demands a command");
    let path = path_with(env::current_exe()?.parent());
    let cwd = env::current_dir();
    if !enter(host_dir)? {
        return Ok(None);
    }
    if let Ok(cwd) = cwd {
        // Where it does not exist on the host, / it is.
        let _ = env::set_current_dir(cwd);
    }
    let found = find(program, &path);
    let mut child = match Command::new(found).args(args).env("SHOAL_HOST", socket).env("PATH", &path).spawn() {
        Ok(child) => child,
        Err(e) => {
            crate::out::error(&format!("cannot run {}: {e}", Path::new(program).display()));
            let code = if e.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
            return Ok(Some(ExitCode::from(code)));
        }
    };
    // A terminal's signals are the command's to handle, and others are passed on. Not blocked before: the
    // child would have them blocked as well. One that ended already is seen below.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(code(status)));
        }
        let pass_on = match signals.wait()? {
            Signal::SIGTERM => Send::TERM,
            Signal::SIGHUP => Send::HUP,
            _ => continue,
        };
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            // It may have ended just now.
            let _ = kill_process(pid, pass_on);
        }
    }
}

/// Our own directory first, so that `shoal` is this one.
fn path_with(first: Option<&Path>) -> OsString {
    let inherited =
        env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let dirs = first.map(PathBuf::from).into_iter().chain(env::split_paths(&inherited));
    // A directory with a colon in its name cannot be on a PATH.
    env::join_paths(dirs).unwrap_or(inherited)
}

/// Looked up in the PATH that the child gets, not in ours.
fn find(program: &OsStr, path: &OsStr) -> PathBuf {
    let program = Path::new(program);
    if program.components().count() > 1 || program.is_absolute() {
        return program.to_owned();
    }
    env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| program.to_owned())
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| KILLED + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Starts a program in a host that stays when we end. Nothing: it ended at once.
pub(super) fn start(host_dir: &Path, log: &Path, program: &Path, args: &[OsString]) -> io::Result<Option<Process>> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(VERB).arg(Step::Enter.word()).arg(host_dir).arg(log).arg(program).args(args);
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let init = Process::read(&init_pid(host_dir))?.ok_or_else(off)?;
    let pid = String::from_utf8_lossy(&output.stdout);
    let pid = pid.trim().parse().map_err(|_| io::Error::other(format!("a process number was expected, not {pid}")))?;
    init.neighbour(pid)
}

fn off() -> io::Error {
    io::Error::other("the host is off")
}

/// A program that stays is started in two steps. Its parent must be in the host's PID namespace when it ends, so
/// that the host's init inherits the program and reaps it: otherwise it is the machine's, and the host cannot end
/// before that one has come round to it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Enter,
    Start,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Step::Enter => "enter",
            Step::Start => "start",
        }
    }
}

/// `shoal lab-host-run STEP DIR LOG PROGRAM ARGS…`: prints the program's number in its host.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let done = match &args[..] {
        [step, dir, ..] if step == Step::Enter.word() => enter_and_start(Path::new(dir), &args[1..]),
        [step, _, log, program, args @ ..] if step == Step::Start.word() => detach(Path::new(log), program, args),
        _ => Err(io::Error::other("'shoal lab' calls this, people do not")),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            crate::out::note(e.to_string());
            ExitCode::FAILURE
        }
    }
}

fn enter_and_start(host_dir: &Path, args: &[OsString]) -> io::Result<ExitCode> {
    let exe = env::current_exe()?;
    if !enter(host_dir)? {
        return Err(off());
    }
    Ok(code(Command::new(exe).arg(VERB).arg(Step::Start.word()).args(args).status()?))
}

fn detach(log: &Path, program: &OsStr, args: &[OsString]) -> io::Result<ExitCode> {
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    setsid()?;
    env::set_current_dir("/")?;
    let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    crate::out::line(child.id().to_string()).map_err(io::Error::other)?;
    Ok(ExitCode::SUCCESS)
}
