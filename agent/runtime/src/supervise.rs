//! The process that stands by one container: builds it, keeps its output, waits for it, writes down its end.
//!
//! It runs single-threaded, because it forks. It is started with the container's lock as its standard input and
//! a pipe to the daemon as its standard output, on which it says one line: that the container runs, or why not.

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use crate::{
    Error, cgroup,
    cgroup::Cgroups,
    config::Exit,
    ids::Ids,
    log::{FILE_MAX_BYTES, Lines, Log, LogStream},
    process,
    record::{Dir, Record, Started, now_ms},
    rootfs,
    spec::{Host, spec},
    user::{self, Absent, UnknownUser},
};

/// Read at once from a container's output.
const READ_BYTES: usize = 64 << 10;

/// What a container that was never run leaves as its exit code, as Docker has it.
const CODE_NOT_STARTED: i32 = 128;

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// The line by which the daemon learns of the start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Running(Started),
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot {0}: {1}")]
    Os(&'static str, #[source] io::Error),
    #[error("{0}")]
    Disk(#[from] Error),
    #[error("{0}")]
    User(#[from] UnknownUser),
    #[error("{0}")]
    AbsentUser(#[from] Absent),
    #[error("{}", chain(.0))]
    Container(#[from] libcontainer::error::LibcontainerError),
    #[error("there is no container in {0}")]
    NoRecord(String),
}

/// libcontainer says the cause in the last link of the chain, and says it again in some of those before.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn os(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |e| Failure::Os(doing, e)
}

/// The whole life of the supervisor of the container in `dir`. To be called before any thread was started.
pub fn supervise(dir: &Path) -> ExitCode {
    let dir = Dir(dir.to_owned());
    let mut output = None;
    let outcome = stand_apart().and_then(|io| {
        let report = output.insert(io.report);
        let record = dir.record()?.ok_or_else(|| Failure::NoRecord(dir.path().display().to_string()))?;
        let container = start(&record, &dir)?;
        // The daemon may be gone; the container is there all the same.
        let _ = say(report, &Report::Running(container.started.clone()));
        output = None;
        let exit = container.wait(&record, &dir);
        // Held until everything is written.
        Ok((exit, io.lock))
    });
    match outcome {
        Ok((Ok(()), _lock)) => ExitCode::SUCCESS,
        Ok((Err(_), _lock)) => ExitCode::FAILURE,
        Err(failure) => {
            let reason = failure.to_string();
            if let Ok(Some(record)) = dir.record() {
                let _ = cgroup::remove(&record.cgroup);
            }
            let exit =
                Exit { code: CODE_NOT_STARTED, oom: false, finished_at_ms: now_ms(), reason: Some(reason.clone()) };
            let _ = dir.write_exit(&exit);
            if let Some(mut report) = output {
                let _ = say(&mut report, &Report::Failed(reason));
            }
            ExitCode::FAILURE
        }
    }
}

/// What was standard input and output.
struct Stdio {
    lock: OwnedFd,
    report: File,
}

/// A session, a mount namespace and standard streams of its own; orphans of the container become our children.
fn stand_apart() -> Result<Stdio, Failure> {
    let keep = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(os("keep a standard stream"));
    let io = Stdio { lock: keep(&io::stdin())?, report: File::from(keep(&io::stdout())?) };
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(os("open /dev/null"))?;
    let replaced = nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null));
    replaced.map_err(|e| Failure::Os("replace the standard streams", e.into()))?;
    match nix::unistd::setsid() {
        // Already the leader of a group: it was started by hand from a shell.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(e) => return Err(Failure::Os("begin a session", e.into())),
    }
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| Failure::Os("become a subreaper", e.into()))?;
    rootfs::leave_host_mounts().map_err(os("make a mount namespace"))?;
    Ok(io)
}

fn say(to: &mut File, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// A container that runs.
struct Running {
    started: Started,
    pidfd: OwnedFd,
    stdout: File,
    stderr: File,
    log: Log,
}

fn start(record: &Record, dir: &Dir) -> Result<Running, Failure> {
    let ids = Ids::read().map_err(os("read which users there are"))?;
    rootfs::mount_overlay(record, dir, &ids).map_err(os("mount the root file system"))?;
    let read = |path| rootfs::read_small(dir, path).map_err(os("read the image's users"));
    let user = user::resolve(&record.user, &read("/etc/passwd")?, &read("/etc/group")?)?.on(&ids)?;
    rootfs::make_directory(dir, &record.cwd).map_err(os("make the working directory"))?;
    write_files(record, dir)?;

    // libcontainer sets the container's on this process, which then inherits it to the container.
    let own_oom_score = fs::read_to_string(OOM_SCORE_ADJ).map_err(os("read our own out-of-memory score"))?;
    let host = Host {
        cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
        cgroups: Cgroups::of_host(),
        ids,
        oom_score_adj: own_oom_score.trim().parse().unwrap_or_default(),
    };
    let config = dir.at("config.json");
    let text = serde_json::to_vec(&spec(record, dir, &user, &host))
        .map_err(|e| Failure::Os("write the specification", e.into()))?;
    fs::write(&config, text).map_err(os("write the specification"))?;

    let log = Log::open(dir.path(), FILE_MAX_BYTES).map_err(os("open the log"))?;
    let (stdout, stdout_of_container) = pipe()?;
    let (stderr, stderr_of_container) = pipe()?;
    let mut container = ContainerBuilder::new(record.id.clone(), SyscallType::default())
        .with_root_path(dir.at("oci"))?
        .with_stdout(stdout_of_container)
        .with_stderr(stderr_of_container)
        .as_init(dir.path())
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    fs::write(OOM_SCORE_ADJ, own_oom_score).map_err(os("restore our own out-of-memory score"))?;
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    let pidfd = rustix::process::Pid::from_raw(pid)
        .ok_or(Errno::ESRCH.into())
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from))
        .map_err(os("watch the first process"))?;
    let start_ticks = process::start_ticks(pid).map_err(os("look at the first process"))?.unwrap_or_default();
    let boot_id = process::boot_id().map_err(os("read the boot's id"))?;
    let started = Started { pid, start_ticks, boot_id, started_at_ms: now_ms() };
    dir.write_started(&started)?;
    container.start()?;
    Ok(Running { started, pidfd, stdout, stderr, log })
}

fn pipe() -> Result<(File, OwnedFd), Failure> {
    use rustix::pipe::{PipeFlags, pipe_with};
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Failure::Os("make a pipe", e.into()))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|e| Failure::Os("make a pipe", e.into()))?;
    Ok((File::from(read), write))
}

fn write_files(record: &Record, dir: &Dir) -> Result<(), Failure> {
    let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for line in &record.hosts {
        hosts.push_str(line);
        hosts.push('\n');
    }
    for (name, text) in
        [("hosts", &hosts), ("hostname", &format!("{}\n", record.hostname)), ("resolv.conf", &record.resolv_conf)]
    {
        fs::write(dir.at(name), text).map_err(os("write a file for /etc"))?;
    }
    Ok(())
}

impl Running {
    /// Copies output until the first process ends, then writes down how it did.
    fn wait(mut self, record: &Record, dir: &Dir) -> Result<(), Failure> {
        let code = self.pump().map_err(os("wait for the container"))?;
        let oom = cgroup::oom_killed(&record.cgroup);
        // What is left behind here is removed with the container.
        let _ = cgroup::remove(&record.cgroup);
        dir.write_exit(&Exit { code, oom, finished_at_ms: now_ms(), reason: None })?;
        Ok(())
    }

    fn pump(&mut self) -> io::Result<i32> {
        let mut buffer = vec![0_u8; READ_BYTES];
        let mut encoded = Vec::new();
        let mut streams = [
            Some((self.stdout.try_clone()?, Lines::new(LogStream::Stdout))),
            Some((self.stderr.try_clone()?, Lines::new(LogStream::Stderr))),
        ];
        let code = loop {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(streams.iter().flatten().map(|(file, _)| PollFd::new(file, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let ended = reap(self.started.pid)?;
            for slot in &mut streams {
                // After the end all is read that is there: the kernel has killed all other writers by then.
                while let Some((file, lines)) = slot {
                    match file.read(&mut buffer) {
                        Ok(0) => {
                            lines.finish(now_ms(), &mut encoded);
                            *slot = None;
                        }
                        Ok(n) => lines.push(&buffer[..n], now_ms(), &mut encoded),
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                    // A full disk costs lines, not the container.
                    let _ = self.log.append(&encoded);
                    encoded.clear();
                    if ended.is_none() {
                        break;
                    }
                }
            }
            if let Some(code) = ended {
                break code;
            }
        };
        for (_, lines) in streams.iter_mut().flatten() {
            lines.finish(now_ms(), &mut encoded);
        }
        let _ = self.log.append(&encoded);
        Ok(code)
    }
}

/// Takes in all children that ended; the code of the first process if it is among them.
fn reap(init: i32) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() == init => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == init => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
