//! One host: on and off, and its daemon.

use rustix::process::Signal;
use std::{
    ffi::OsString,
    fmt::Display,
    fs,
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    cgroup, enter,
    init::{self, Kind},
    layout::{Layout, cannot, init_pid},
    name::HostName,
    network,
    process::Process,
    state::State,
};
use crate::failure::{Exit, Failure};

/// A daemon answers within this, or something is wrong with it.
const DAEMON_STARTS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// SIGKILL takes effect at once; what may take time is the kernel's tidying up.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// Of a daemon's log, when it does not start.
const TAIL_LINES: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    DaemonDown,
    Off,
}

impl Condition {
    pub(super) fn word(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::DaemonDown => "daemon down",
            Condition::Off => "off",
        }
    }
}

/// One host of a lab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) layout: &'a Layout,
    pub(super) name: HostName,
}

impl Host<'_> {
    pub(super) fn condition(&self) -> Result<Condition, Failure> {
        Ok(if self.init()?.is_none() {
            Condition::Off
        } else if self.daemon()?.is_none() {
            Condition::DaemonDown
        } else {
            Condition::Up
        })
    }

    /// The first process, if the host is on.
    pub(super) fn init(&self) -> Result<Option<Process>, Failure> {
        living(&init_pid(&self.layout.host(self.name)))
    }

    /// The daemon, if it is alive.
    pub(super) fn daemon(&self) -> Result<Option<Process>, Failure> {
        living(&self.layout.daemon_pid(self.name))
    }

    /// Switches the host on, without a daemon yet.
    pub(super) fn power_on(&self, state: &State) -> Result<(), Failure> {
        let (name, dir, data) = (self.name, self.layout.host(self.name), self.layout.data(self.name));
        fs::create_dir_all(&data).map_err(|e| cannot("make", &data, &e))?;
        let failed = |e| Failure::new(Exit::General, format!("cannot switch on host {name}: {e}"));
        let kind = if self.layout.cgroup(name).is_some() { Kind::Host } else { Kind::HostWithoutCgroups };
        let init = init::start(&dir, kind).map_err(failed)?;
        let switch = switch(self.layout)?;
        // What a host that lost its power a moment ago was plugged in with.
        network::unplug(&switch, name)?;
        network::plug(&switch, name, &init, state.bridge(name))
    }

    /// The cable first: a host without power sends no farewell to its peers.
    pub(super) fn power_off(&self) -> Result<(), Failure> {
        if let Some(switch) = living(&init_pid(&self.layout.switch()))? {
            network::unplug(&switch, self.name)?;
        }
        let dir = self.layout.host(self.name);
        let _held = init::hold(&dir)?;
        end(&init_pid(&dir), Signal::KILL, KILLED_WITHIN, self.name)?;
        self.layout.cgroup(self.name).map_or(Ok(()), |cgroup| cgroup::remove(&cgroup))
    }

    /// Starts the daemon, and waits until it answers.
    pub(super) fn start_daemon(&self, state: &State) -> Result<(), Failure> {
        let (layout, name) = (self.layout, self.name);
        let (socket, log, settings) = (layout.socket(name), layout.daemon_log(name), layout.settings(name));
        let mut args: Vec<OsString> = vec!["daemon".into()];
        for (flag, value) in [
            // Its own settings, and not the machine's.
            ("--config", if settings.exists() { settings.into() } else { "/dev/null".into() }),
            ("--data-dir", layout.data(name).into_os_string()),
            ("--socket", socket.clone().into_os_string()),
            ("--listen-addr", "0.0.0.0:2377".into()),
            ("--advertise-addr", name.v4().to_string().into()),
            // On the host's own /run: as on any host, it is lost with the power.
            ("--run-dir", "/run/shoal".into()),
        ] {
            args.extend([flag.into(), value]);
        }
        if let Some(cgroup) = layout.cgroup(name) {
            args.extend(["--cgroup-parent".into(), cgroup.into()]);
        }
        let begins_at = fs::metadata(&log).map_or(0, |m| m.len());
        let failed = |why: String| Failure::new(Exit::General, format!("the daemon of {name} did not start: {why}"));
        let ended = || failed(format!("it ended, with these last words:\n{}", tail(&log, begins_at)));
        let daemon = enter::start(&layout.host(name), &log, &state.daemon, &args);
        let daemon = daemon.map_err(|e| failed(e.to_string()))?.ok_or_else(ended)?;
        let pid_file = layout.daemon_pid(name);
        daemon.write(&pid_file).map_err(|e| cannot("write", &pid_file, &e))?;
        let deadline = Instant::now() + DAEMON_STARTS_WITHIN;
        while UnixStream::connect(&socket).is_err() {
            if !daemon.alive()? {
                return Err(ended());
            }
            if Instant::now() > deadline {
                let within = DAEMON_STARTS_WITHIN.as_secs();
                let words = tail(&log, begins_at);
                return Err(failed(format!(
                    "{} does not answer after {within} s; its log:\n{words}",
                    socket.display()
                )));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub(super) fn kill_daemon(&self) -> Result<(), Failure> {
        end(&self.layout.daemon_pid(self.name), Signal::KILL, KILLED_WITHIN, self.name)
    }

    pub(super) fn stop_daemon(&self) -> Result<(), Failure> {
        end(&self.layout.daemon_pid(self.name), Signal::TERM, STOPPED_WITHIN, self.name)
    }
}

/// The switch of a lab that is up.
pub(super) fn switch(layout: &Layout) -> Result<Process, Failure> {
    let gone = || {
        let lab = layout.lab();
        let message =
            format!("the switch of lab {lab} is gone (was the machine restarted?): run 'shoal lab down --name {lab}'");
        Failure::new(Exit::Conflict, message)
    };
    living(&init_pid(&layout.switch()))?.ok_or_else(gone)
}

/// Makes the switch and the network it is.
pub(super) fn power_on_switch(layout: &Layout) -> Result<(), Failure> {
    let dir = layout.switch();
    fs::create_dir_all(&dir).map_err(|e| cannot("make", &dir, &e))?;
    let failed = |e| Failure::new(Exit::General, format!("cannot start the lab's switch: {e}"));
    network::build_switch(&init::start(&dir, Kind::Switch).map_err(failed)?)
}

/// What is recorded in this file, if it is alive.
pub(super) fn living(pid_file: &Path) -> Result<Option<Process>, Failure> {
    let look = || match Process::read(pid_file)? {
        Some(process) if process.alive()? => Ok(Some(process)),
        Some(_) | None => Ok(None),
    };
    look().map_err(|e| cannot("look after the process of", pid_file, &e))
}

/// Ends what is recorded in this file, and forgets it.
pub(super) fn end(pid_file: &Path, signal: Signal, within: Duration, whose: impl Display) -> Result<(), Failure> {
    let Some(process) = living(pid_file)? else { return Ok(()) };
    match process.end(signal, within) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let (pid, secs) = (process.pid(), within.as_secs());
            Err(Failure::new(
                Exit::NotConverged,
                format!("process {pid} of {whose} still lives {secs} s after it was told to end"),
            ))
        }
        Err(e) => Err(cannot("end the process of", pid_file, &e)),
    }
}

/// The last lines that were written to a log since it had this length.
fn tail(log: &Path, since: u64) -> String {
    let text = fs::read(log).unwrap_or_default();
    let since = usize::try_from(since).unwrap_or(usize::MAX).min(text.len());
    let text = String::from_utf8_lossy(&text[since..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        0 => "(none)".to_owned(),
        n => lines[n.saturating_sub(TAIL_LINES)..].join("\n"),
    }
}
