//! A process that is added to a container that runs, and the process that stands by it.
//!
//! The daemon has threads and may not fork into namespaces, so it starts its own program once more, with a directory
//! that holds the request and with the socket of the one who wants it as standard input. That process is as long
//! there as the one it added, the daemon or not; but nobody hears of it after the daemon is gone.

use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::{LinuxCapabilities, Spec},
    syscall::syscall::SyscallType,
};
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};
use rustix::{
    fs::Uid,
    process::{PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::{self},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    Size, capabilities,
    client::Client,
    frame::Frame,
    ids::Ids,
    json,
    payload::{Confined, Payload, Streams},
    process,
    pump::{Pump, Slow},
    record::Dir,
    rootfs,
    supervise::{Failure, os, silence},
    user,
};

/// The file by which a directory is known as one for this.
pub(crate) const REQUEST: &str = "exec.json";

/// What is to be run in a container, next to its first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecConfig {
    pub args: Vec<String>,
    /// Beyond the container's.
    pub env: BTreeMap<String, String>,
    /// Default: the container's.
    pub workdir: Option<String>,
    /// `uid[:gid]` or names; default the container's.
    pub user: Option<String>,
    pub tty: bool,
    /// Of its terminal at the start.
    pub size: Option<Size>,
    /// Standard input is what the session says; else it is empty.
    pub stdin: bool,
    /// All capabilities, and no system call refused.
    pub privileged: bool,
    /// It and its process group are killed then.
    #[serde(default)]
    pub time_limit: Option<Duration>,
}

/// They end by themselves, in milliseconds.
const REAP_TRIES: u32 = 200;
const REAP_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) config: ExecConfig,
    /// The directory of the container.
    pub(crate) container: PathBuf,
    /// Nobody will hear more than that it runs.
    pub(crate) detached: bool,
}

pub(crate) fn supervise(dir: &Path) -> ExitCode {
    let Ok(mut client) = client() else {
        return ExitCode::FAILURE;
    };
    match start(dir) {
        Ok(Running { pid, mut pump, detached }) => {
            let _ = fs::remove_dir_all(dir);
            client.tell(&Frame::Running);
            if !detached {
                pump.add(client);
            }
            match watch(pid).and_then(|pidfd| pump.run(pid, &pidfd)) {
                Ok(code) => {
                    pump.end(code);
                    ExitCode::SUCCESS
                }
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(failure) => {
            let _ = fs::remove_dir_all(dir);
            client.tell(&Frame::Failed(failure.fault(), failure.to_string()));
            reap_all();
            ExitCode::FAILURE
        }
    }
}

/// What a start that failed left: the container could not end while a dead process in it is nobody's.
fn reap_all() {
    for _ in 0..REAP_TRIES {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => thread::sleep(REAP_PAUSE),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Who is at our standard input.
fn client() -> Result<Client, Failure> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(os("keep standard input"))?;
    let client = Client::new(UnixStream::from(socket)).map_err(os("keep standard input"))?;
    silence()?;
    match nix::unistd::setsid() {
        // Already the leader of a group: it was started by hand from a shell.
        Ok(_) | Err(Errno::EPERM) => Ok(client),
        Err(e) => Err(Failure::Os("begin a session", e.into())),
    }
}

fn watch(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

struct Running {
    pid: i32,
    pump: Pump,
    detached: bool,
}

fn start(dir: &Path) -> Result<Running, Failure> {
    let request: Request = json::read(&dir.join(REQUEST), "a request to run a process in a container")?
        .ok_or_else(|| Failure::NoRecord(dir.display().to_string()))?;
    let container = Dir(request.container);
    let record = container.record()?.ok_or_else(|| Failure::NoRecord(container.path().display().to_string()))?;
    let config = request.config;
    let started = container.started()?.ok_or(Failure::Ended)?;
    let first = process::open(&started).map_err(os("look at the first process"))?.ok_or(Failure::Ended)?;

    // The root file system is mounted where the container is, and nowhere else.
    let root = PathBuf::from(format!("/proc/{}/root", started.pid));
    let read = |path| rootfs::read_small(&root, path).map_err(os("read the container's users"));
    let wanted = config.user.as_ref().filter(|user| !user.is_empty()).unwrap_or(&record.user);
    let ids = Ids::read().map_err(os("read which users there are"))?;
    let user = user::resolve(wanted, &read("/etc/passwd")?, &read("/etc/group")?)?.on(&ids)?;

    let mut env = record.env.clone();
    let term = config.tty.then(|| ("TERM".to_owned(), "xterm".to_owned()));
    let own = term.into_iter().chain(config.env.clone());
    for (key, value) in own {
        env.retain(|one| one.split('=').next() != Some(key.as_str()));
        env.push(format!("{key}={value}"));
    }
    let cwd = config.workdir.as_ref().filter(|w| !w.is_empty()).map_or(record.cwd.clone(), |w| record.cwd.join(w));
    let process = json!({
        "terminal": config.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": config.args,
        "env": user.environment(env),
        "cwd": cwd,
        "oomScoreAdj": 0,
    });
    let path = dir.join("process.json");
    fs::write(&path, process.to_string()).map_err(os("write the specification"))?;

    // libcontainer leaves sockets next to the state that it reads, so it is given a copy.
    let state = dir.join(&record.id);
    fs::create_dir(&state).map_err(os("make a directory"))?;
    fs::copy(container.at("oci").join(&record.id).join("state.json"), state.join("state.json"))
        .map_err(os("copy the container's state"))?;

    let spec = Spec::load(container.at("config.json")).map_err(|e| Failure::Container(e.into()))?;
    let mut confined = confined(&spec, user.uid, config.privileged, Arc::new(first))?;
    confined.terminal_of = config.tty.then(|| Uid::from_raw(user.uid));
    let builder = ContainerBuilder::new(record.id.clone(), SyscallType::default()).with_root_path(dir)?;
    let build = |builder: ContainerBuilder| builder.as_tenant().with_detach(true).with_process(Some(path)).build();
    let streams = Streams { tty: config.tty, stdin: config.stdin, uid: user.uid };
    let (pid, ends) = streams.give(dir, builder, Payload::added(confined, config.size), build)?;
    let mut pump = Pump::new(ends, Slow::Wait);
    if let Some(limit) = config.time_limit {
        pump = pump.kill_after(limit);
    }
    Ok(Running { pid: pid.as_raw(), pump, detached: request.detached })
}

/// As the container's first process is, but for who it is; or not at all.
fn confined(spec: &Spec, uid: u32, privileged: bool, first: Arc<std::os::fd::OwnedFd>) -> Result<Confined, Failure> {
    let names: Vec<&str>;
    let bounding = spec.process().as_ref().and_then(|p| p.capabilities().as_ref()).and_then(|c| c.bounding().clone());
    let bounding = if privileged {
        let options = crate::Options { privileged, ..crate::Options::default() };
        let held = capabilities::held().map_err(os("read our own capabilities"))?;
        names = capabilities::chosen(&[], &options, held)?;
        json!(names)
    } else {
        json!(bounding.unwrap_or_default())
    };
    // As execve would leave it: only root keeps what is in the bounding set.
    let held = if uid == 0 { bounding.clone() } else { json!([]) };
    let capabilities = json!({
        "bounding": bounding, "permitted": held, "effective": held, "inheritable": [], "ambient": [],
    });
    let capabilities: LinuxCapabilities =
        serde_json::from_value(capabilities).map_err(|e| Failure::Os("read the specification", e.into()))?;
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().clone()).filter(|_| !privileged);
    Ok(Confined { seccomp, capabilities, terminal_of: None, first })
}
