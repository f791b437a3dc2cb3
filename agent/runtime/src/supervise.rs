//! The process that stands by one container: builds it, keeps its output, waits for it, writes down its end.
//!
//! It runs single-threaded, because it forks. It is started with the container's lock as its standard input and
//! a pipe to the daemon as its standard output, on which it says one line: that the container runs, or why not. Its
//! standard error may be the socket of one who is attached from before the start, so that he misses nothing.

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::errno::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use crate::{
    Error, capabilities, cgroup,
    cgroup::Cgroups,
    client::Client,
    config::{Exit, Fault},
    ends, exec, hosts,
    ids::Ids,
    log::{FILE_MAX_BYTES, Log},
    mounts,
    payload::{Payload, Streams},
    process,
    program::Unrunnable,
    pump::{Pump, Slow},
    record::{Dir, Record, Started, now_ms},
    rootfs,
    spec::{Host, spec},
    user::{self, Absent, UnknownUser},
};

/// What a container that was never run leaves as its exit code, as Docker has it.
const CODE_NOT_STARTED: i32 = 128;

/// How long it is tried to write down how a container ended, on a disk that has no room even for that.
const EXIT_TRIES: u32 = 60;
const EXIT_PAUSE: Duration = Duration::from_secs(1);

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// The line by which the daemon learns of the start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    Running(Started),
    Failed { fault: Fault, reason: String },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
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
    /// The program's own.
    #[error("{}", .0.reason)]
    Program(Unrunnable),
    #[error("the container has ended")]
    Ended,
    #[error("there is no container in {0}")]
    NoRecord(String),
}

impl Failure {
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Failure::Program(unrunnable) => unrunnable.fault,
            Failure::Os(..)
            | Failure::Disk(_)
            | Failure::User(_)
            | Failure::AbsentUser(_)
            | Failure::Container(_)
            | Failure::Ended
            | Failure::NoRecord(_) => Fault::Other,
        }
    }
}

/// libcontainer says the cause in the last link of the chain, and says it again in some of those before.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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

pub(crate) fn os(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |e| Failure::Os(doing, e)
}

/// The whole life of a process that stands by another one: by the container in `dir`, or by a process that was
/// added to a container and is described there. To be called before any thread was started.
pub fn supervise(dir: &Path) -> ExitCode {
    if dir.join(exec::REQUEST).exists() { exec::supervise(dir) } else { supervise_container(dir) }
}

fn supervise_container(dir: &Path) -> ExitCode {
    let dir = Dir(dir.to_owned());
    let mut output = None;
    let outcome = stand_apart().and_then(|io| {
        let report = output.insert(io.report);
        let record = dir.record()?.ok_or_else(|| Failure::NoRecord(dir.path().display().to_string()))?;
        let container = start(&record, &dir, io.client)?;
        // The daemon may be gone; the container is there all the same.
        let _ = say(report, &Report::Running(container.started.clone()));
        output = None;
        let end = container.wait(&record, &dir);
        // Held until everything is written.
        drop(io.lock);
        Ok(end)
    });
    match outcome {
        Ok(Ok((pump, code))) => {
            pump.end(code);
            ExitCode::SUCCESS
        }
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(failure) => {
            let (fault, reason) = (failure.fault(), failure.to_string());
            if let Ok(Some(record)) = dir.record() {
                let _ = cgroup::remove(&record.cgroup);
            }
            let _ = rootfs::unmount(&dir);
            // One that was to be started again has still ended as it did before.
            if matches!(dir.exit(), Ok(None)) {
                let reason = Some(reason.clone());
                let code = if fault == Fault::Other { CODE_NOT_STARTED } else { fault.exit_code() };
                let exit = Exit { code, oom: false, finished_at_ms: now_ms(), reason };
                let _ = dir.write_exit(&exit);
            }
            if let Some(mut report) = output {
                let _ = say(&mut report, &Report::Failed { fault, reason });
            }
            ExitCode::FAILURE
        }
    }
}

/// What was standard input, output and error.
struct Stdio {
    lock: OwnedFd,
    report: File,
    /// Who is attached from before the start.
    client: Option<Client>,
}

/// A session, a mount namespace and standard streams of its own; orphans of the container become our children.
fn stand_apart() -> Result<Stdio, Failure> {
    let keep = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map_err(os("keep a standard stream"));
    let error = keep(&io::stderr())?;
    let client = match rustix::net::sockopt::socket_type(&error) {
        Ok(_) => Some(Client::new(UnixStream::from(error)).map_err(os("keep a standard stream"))?),
        Err(_) => None,
    };
    let io = Stdio { lock: keep(&io::stdin())?, report: File::from(keep(&io::stdout())?), client };
    silence()?;
    match nix::unistd::setsid() {
        // Already the leader of a group: it was started by hand from a shell.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(e) => return Err(Failure::Os("begin a session", e.into())),
    }
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| Failure::Os("become a subreaper", e.into()))?;
    rootfs::leave_host_mounts().map_err(os("make a mount namespace"))?;
    Ok(io)
}

/// Nothing is read from and written to the standard streams by accident.
pub(crate) fn silence() -> Result<(), Failure> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(os("open /dev/null"))?;
    let replaced = nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null));
    replaced.map_err(|e| Failure::Os("replace the standard streams", e.into()))
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
    pump: Pump,
}

fn start(record: &Record, dir: &Dir, client: Option<Client>) -> Result<Running, Failure> {
    // Of an earlier start.
    match fs::remove_dir_all(dir.at("oci")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(os("remove the state of an earlier start")(e)),
        Ok(()) | Err(_) => {}
    }
    let ids = Ids::read().map_err(os("read which users there are"))?;
    rootfs::mount_overlay(record, dir, &ids).map_err(os("mount the root file system"))?;
    let root = dir.at("rootfs");
    let read = |path| rootfs::read_small(&root, path).map_err(os("read the image's users"));
    let user = user::resolve(&record.user, &read("/etc/passwd")?, &read("/etc/group")?)?.on(&ids)?;
    rootfs::make_directory(dir, &record.cwd).map_err(os("make the working directory"))?;
    mounts::fill(record, dir).map_err(os("fill a volume with what the image has"))?;
    write_files(record, dir)?;

    // libcontainer sets the container's on this process, which then inherits it to the container.
    let own_oom_score = fs::read_to_string(OOM_SCORE_ADJ).map_err(os("read our own out-of-memory score"))?;
    let cgroups = Cgroups::of_host();
    let device_filter = device_filter(record, cgroups, &ids)?;
    let host = Host {
        cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
        filters_devices: cgroups == Cgroups::V1 || device_filter.is_some(),
        limits_pids: cgroup::limits_pids(),
        cgroups,
        ids,
        capabilities: capabilities::held().map_err(os("read our own capabilities"))?,
        oom_score_adj: own_oom_score.trim().parse().unwrap_or_default(),
    };
    let config = dir.at("config.json");
    let text = serde_json::to_vec(&spec(record, dir, &user, &host)?)
        .map_err(|e| Failure::Os("write the specification", e.into()))?;
    fs::write(&config, text).map_err(os("write the specification"))?;

    let log = Log::open(dir.path(), FILE_MAX_BYTES).map_err(os("open the log"))?;
    let builder = ContainerBuilder::new(record.id.clone(), SyscallType::default()).with_root_path(dir.at("oci"))?;
    let build = |builder: ContainerBuilder| builder.as_init(dir.path()).with_systemd(false).with_detach(true).build();
    let streams = Streams { tty: record.options.tty, stdin: record.options.stdin, uid: user.uid };
    let payload = Payload::first(record.options.size);
    let (mut container, ends) = streams.give(dir.path(), builder, payload, build)?;
    fs::write(OOM_SCORE_ADJ, own_oom_score).map_err(os("restore our own out-of-memory score"))?;
    if let Some(filter) = device_filter {
        // The first process waits to be started.
        for cgroup in cgroup::directories(&record.cgroup) {
            filter.attach(&cgroup).map_err(os("have the container's devices filtered"))?;
        }
    }
    let listener = ends::listen(&record.attach).map_err(os("listen to those who attach"))?;
    let mut pump =
        Pump::new(ends, Slow::Drop).log_to(log).listen(listener).map_err(os("listen to those who attach"))?;
    if let Some(client) = client {
        pump.add(client);
    }
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    let pidfd = rustix::process::Pid::from_raw(pid)
        .ok_or(Errno::ESRCH.into())
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from))
        .map_err(os("watch the first process"))?;
    let start_ticks = process::start_ticks(pid).map_err(os("look at the first process"))?.unwrap_or_default();
    let boot_id = process::boot_id().map_err(os("read the boot's id"))?;
    let started = Started { pid, start_ticks, boot_id, started_at_ms: now_ms() };
    dir.reserve_exit().map_err(os("keep room for how the container ends"))?;
    // In this order: where there is no exit, what is said of the start is of this one.
    dir.write_started(&started)?;
    dir.remove_exit()?;
    container.start()?;
    Ok(Running { started, pidfd, pump })
}

/// For a container whose devices nothing else filters. `None` where the kernel has no such thing, or where we are not
/// root of the machine: the container gets no `CAP_MKNOD` then.
fn device_filter(record: &Record, cgroups: Cgroups, ids: &Ids) -> Result<Option<cgroup::Filter>, Failure> {
    if cgroups != Cgroups::Unified || record.options.privileged || !ids.are_all() {
        return Ok(None);
    }
    match cgroup::Filter::load() {
        Ok(filter) => Ok(Some(filter)),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOSYS | nix::libc::EINVAL | nix::libc::EPERM)) => {
            Ok(None)
        }
        Err(e) => Err(os("load the filter of the container's devices")(e)),
    }
}

fn write_files(record: &Record, dir: &Dir) -> Result<(), Failure> {
    hosts::forget(dir).map_err(os("forget the lines of an earlier start"))?;
    let hosts = hosts::first(&record.hosts);
    for (name, text) in
        [(hosts::FILE, &hosts), ("hostname", &format!("{}\n", record.hostname)), ("resolv.conf", &record.resolv_conf)]
    {
        fs::write(dir.at(name), text).map_err(os("write a file for /etc"))?;
    }
    Ok(())
}

impl Running {
    /// Until the first process ends; then writes down how it did. What is left is to tell those who are attached.
    fn wait(mut self, record: &Record, dir: &Dir) -> Result<(Pump, i32), Failure> {
        let code = self.pump.run(self.started.pid, &self.pidfd).map_err(os("wait for the container"))?;
        let oom = cgroup::oom_killed(&record.cgroup);
        // What is left behind here is removed with the container.
        let _ = cgroup::remove(&record.cgroup);
        let _ = rootfs::unmount(dir);
        let _ = fs::remove_file(&record.attach);
        let exit = Exit { code, oom, finished_at_ms: now_ms(), reason: None };
        let mut tries = 0..EXIT_TRIES;
        while let Err(e) = dir.write_exit(&exit) {
            // Without it the container counts as lost, and a job that succeeded is run again.
            if tries.next().is_none() {
                return Err(e.into());
            }
            thread::sleep(EXIT_PAUSE);
        }
        Ok((self.pump, code))
    }
}
