//! A process that we started, known again later: its number alone is not enough, because numbers are used again.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use std::{
    fmt, fs, io,
    os::fd::OwnedFd,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

/// Number, start time in clock ticks since boot, and which boot that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    start: u64,
    boot: String,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let (_, start) = stat(pid.cast_signed())?.ok_or_else(|| io::Error::other(format!("process {pid} is gone")))?;
        Ok(Self { pid: pid.cast_signed(), start, boot: boot()? })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// A handle on it, if it is alive.
    pub(super) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 0) else { return Ok(None) };
        if self.boot != boot()? {
            return Ok(None);
        }
        // The handle first, the look second: what is looked at then is what the handle is on.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        Ok(match stat(self.pid)? {
            Some((state, start)) if start == self.start && !matches!(state, 'Z' | 'X') => Some(handle),
            Some(_) | None => None,
        })
    }

    pub(super) fn alive(&self) -> io::Result<bool> {
        Ok(self.open()?.is_some())
    }

    /// Sends the signal, and waits until the process ended. False: it did not in this time.
    pub(super) fn end(&self, signal: Signal, within: Duration) -> io::Result<bool> {
        let Some(handle) = self.open()? else { return Ok(true) };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(true),
            Err(e) => return Err(e.into()),
        }
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            // A handle is readable from its process's end on.
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The process that has this number in the innermost PID namespace of this one, if there still is one.
    pub(super) fn neighbour(&self, inner: i32) -> io::Result<Option<Self>> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let ours = namespace(&self.pid.to_string())?;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some((name, pid)) = name.to_str().and_then(|name| Some((name, name.parse().ok()?))) else { continue };
            // One that ends while it is looked at is not the one, or is gone.
            let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
            if innermost(&status) == Some(inner) && namespace(name).is_ok_and(|theirs| theirs == ours) {
                return Ok(Self::of(pid).ok());
            }
        }
        Ok(None)
    }

    /// What was written by [`Process::write`]; nothing if no file is there, or half of one.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("pid.new");
        fs::write(&draft, format!("{self}\n"))?;
        fs::rename(draft, path)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.start, self.boot)
    }
}

/// Not the text of a process record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotARecord;

impl FromStr for Process {
    type Err = NotARecord;

    fn from_str(s: &str) -> Result<Self, NotARecord> {
        let words: Vec<&str> = s.split_whitespace().collect();
        let [pid, start, boot] = words[..] else { return Err(NotARecord) };
        let (pid, start) = (pid.parse().map_err(|_| NotARecord)?, start.parse().map_err(|_| NotARecord)?);
        Ok(Self { pid, start, boot: boot.to_owned() })
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// State and start time, if there is such a process.
fn stat(pid: i32) -> io::Result<Option<(char, u64)>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => {
            parse_stat(&text).map(Some).ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat: {text}")))
        }
        // ESRCH: it ended between open and read.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// proc(5): the name, in parentheses, may contain anything; state is the third field, start time the 22nd.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// proc(5): `NSpid` has a process's numbers, the last one that of its own namespace.
fn innermost(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_confuse() {
        let text = "7 (a) Z 1 (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998 1 2 3";
        assert_eq!(parse_stat(text), Some(('S', 998)));
    }

    #[test]
    fn a_process_is_found_by_its_number_in_its_own_namespace() {
        assert_eq!(innermost("Name:\tx\nNSpid:\t812\t7\nState:\tS\n"), Some(7));
        let me = Process::of(std::process::id()).unwrap();
        let own = innermost(&fs::read_to_string("/proc/self/status").unwrap()).unwrap();
        assert_eq!(me.neighbour(own).unwrap(), Some(me.clone()));
    }

    #[test]
    fn a_record_survives_being_written_and_half_a_record_is_none() {
        let me = Process::of(std::process::id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("me.pid");
        assert_eq!(Process::read(&path).unwrap(), None);
        me.write(&path).unwrap();
        assert_eq!(Process::read(&path).unwrap(), Some(me.clone()));
        assert!(me.alive().unwrap());
        fs::write(&path, "12 ").unwrap();
        assert_eq!(Process::read(&path).unwrap(), None);
    }

    #[test]
    fn a_number_that_now_belongs_to_another_process_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = Process::of(child.id()).unwrap();
        let earlier = Process { start: real.start - 1, ..real.clone() };
        let other_boot = Process { boot: "another".to_owned(), ..real.clone() };
        for stranger in [earlier, other_boot] {
            assert!(!stranger.alive().unwrap());
            assert!(stranger.end(Signal::KILL, Duration::from_secs(1)).unwrap());
        }
        assert!(real.alive().unwrap(), "it was not killed for another's sake");
        assert!(real.end(Signal::KILL, Duration::from_secs(5)).unwrap());
        assert!(!real.alive().unwrap(), "a zombie is not alive");
        child.wait().unwrap();
    }
}
