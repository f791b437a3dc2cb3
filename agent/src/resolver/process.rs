//! The resolver's process as its daemon holds it: by a pidfd, so that a signal never reaches another process that has
//! been given the same number since.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid.as_raw_nonzero())
    }
}

impl Process {
    /// That listens at the other end of a connection, also if it has not accepted it yet. `None` if it has gone, or is
    /// in a PID namespace that this process does not see into.
    pub(super) fn behind(line: &impl AsFd) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(getsockopt(line, PeerCredentials)?.pid()) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // While the connection stands so does its listener, so the number was still its own when the pidfd was opened.
        let mut hung_up = [PollFd::new(line, PollFlags::RDHUP)];
        poll(&mut hung_up, Some(&Timespec::default()))?;
        let gone = hung_up[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR);
        Ok((!gone).then_some(Self { pid, fd }))
    }

    /// Waits for its end, which ends a stopped one too. Blocks. Whether it has ended.
    pub(super) fn kill(&self, limit: Duration) -> io::Result<bool> {
        match pidfd_send_signal(&self.fd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => self.ends_within(limit),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Blocks.
    pub(super) fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left)) {
                Ok(ended) => return Ok(ended > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
