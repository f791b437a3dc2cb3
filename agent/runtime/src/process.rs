//! A process that is surely the one we mean, even though pids are used again.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{fs, io, os::fd::OwnedFd};

use crate::record::Started;

/// A handle on the first process of a container, or `None` if it is gone.
pub(crate) fn open(started: &Started) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(started.pid) else {
        return Ok(None);
    };
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    // The handle was opened first: if the start time fits now, the handle is of that process.
    let same = start_ticks(started.pid)? == Some(started.start_ticks) && boot_id()? == started.boot_id;
    Ok(same.then_some(fd))
}

/// Another one after every boot.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// False if the process is gone.
pub(crate) fn signal(started: &Started, signal: i32) -> io::Result<bool> {
    let Some(fd) = open(started)? else {
        return Ok(false);
    };
    let signal = Signal::from_named_raw(signal)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no such signal"))?;
    match pidfd_send_signal(fd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// When a process started, in clock ticks since boot; `None` if there is no such process.
pub(crate) fn start_ticks(pid: i32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    // The second field is a name in parentheses that may hold anything; the 22nd is the 20th after it.
    Ok(stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_not_taken_for_the_process_that_had_it() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Started {
            pid,
            start_ticks: start_ticks(pid).unwrap().unwrap(),
            boot_id: boot_id().unwrap(),
            started_at_ms: 0,
        };
        assert!(open(&me).unwrap().is_some());
        assert!(open(&Started { start_ticks: me.start_ticks + 1, ..me.clone() }).unwrap().is_none());
        assert!(open(&Started { boot_id: String::new(), ..me }).unwrap().is_none());
    }
}
