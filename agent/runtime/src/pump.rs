//! The loop of a supervisor: a process's output goes to the log and to all who are attached, what they say to its
//! standard input, until it ends. One thread, and nothing in it blocks.

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixListener},
    time::{Duration, Instant},
};

use crate::{
    client::{self, Client},
    ends::Ends,
    frame::Frame,
    log::{Lines, Log, LogStream},
    record::now_ms,
};

/// Read at once from a process's output; also the largest piece a client is told.
const READ_BYTES: usize = 64 << 10;

/// What is there to be read when a process has ended. Who writes more is another process that it left behind.
const LEFT_MAX_BYTES: usize = 1 << 20;

/// Input that waits for the process to read it. With more, nobody is heard.
const INPUT_MAX_BYTES: usize = 64 << 10;

/// Attached to one process at a time. Further ones are turned away.
const CLIENTS_MAX: usize = 64;

/// So long may a client be slow before it is dropped. The output waits meanwhile.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(1);

/// For clients to take what was said last.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Pump {
    ends: Ends,
    log: Option<Log>,
    lines: [Lines; 2],
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    input: VecDeque<u8>,
    end_of_input: bool,
    on_slow: Slow,
    kill_at: Option<Instant>,
}

/// What is done when a client does not take the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slow {
    /// It is dropped: it must not hold up a container.
    Drop,
    /// The output waits, for as long as it takes: the process is there for this client alone.
    Wait,
}

/// Who has something for us.
#[derive(Debug, Clone, Copy)]
enum Who {
    Process,
    Listener,
    Output(usize),
    Input,
    Client(usize),
}

impl Pump {
    pub(crate) fn new(ends: Ends, on_slow: Slow) -> Self {
        Self {
            ends,
            log: None,
            lines: [Lines::new(LogStream::Stdout), Lines::new(LogStream::Stderr)],
            listener: None,
            clients: Vec::new(),
            input: VecDeque::new(),
            end_of_input: false,
            on_slow,
            kill_at: None,
        }
    }

    pub(crate) fn log_to(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// It has only so long.
    pub(crate) fn kill_after(mut self, limit: Duration) -> Self {
        self.kill_at = Instant::now().checked_add(limit);
        self
    }

    /// Takes in all who come.
    pub(crate) fn listen(mut self, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(self)
    }

    pub(crate) fn add(&mut self, client: Client) {
        if self.clients.len() < CLIENTS_MAX {
            self.clients.push(client);
        }
    }

    /// Until the process ends, which is our child; its exit code.
    pub(crate) fn run(&mut self, pid: i32, pidfd: &OwnedFd) -> io::Result<i32> {
        let mut buffer = vec![0_u8; READ_BYTES];
        loop {
            let ready = self.poll(pidfd)?;
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.kill_at = None;
                kill(pid);
            }
            let ended = reap(pid)?;
            for (who, flags) in ready {
                match who {
                    // It was asked for already.
                    Who::Process => {}
                    Who::Listener => self.accept(),
                    Who::Output(n) => drop(self.copy(n, &mut buffer)),
                    Who::Input => self.feed(),
                    Who::Client(n) => self.attend(n, flags),
                }
            }
            self.dismiss();
            if let Some(code) = ended {
                self.take_the_rest(&mut buffer);
                return Ok(code);
            }
        }
    }

    /// Tells all clients of the end, and gives them time to take it.
    pub(crate) fn end(mut self, code: i32) {
        let deadline = Instant::now() + FAREWELL;
        for client in &mut self.clients {
            client.tell(&Frame::Exit(code));
        }
        self.listener = None;
        while self.clients.iter().any(|c| !c.has_all()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds: Vec<_> = self.clients.iter().map(|c| PollFd::new(&c.socket, c.interest(false))).collect();
            if left.is_zero() || poll(&mut fds, Some(&timespec(left))).is_err() {
                return;
            }
            let hung_up: Vec<bool> = fds.iter().map(|fd| hung_up(fd.revents())).collect();
            for (client, hung_up) in self.clients.iter_mut().zip(hung_up) {
                client.gone |= hung_up;
                client.flush();
            }
            self.clients.retain(|c| !c.has_all());
        }
    }

    fn poll(&self, pidfd: &OwnedFd) -> io::Result<Vec<(Who, PollFlags)>> {
        let slow = self.clients.iter().filter_map(|c| c.slow_since).min();
        let hear = self.input.len() < INPUT_MAX_BYTES;
        let mut who = vec![Who::Process];
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            who.push(Who::Listener);
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        for (n, output) in self.ends.outputs.iter().enumerate() {
            if let Some(output) = output.as_ref().filter(|_| slow.is_none()) {
                who.push(Who::Output(n));
                fds.push(PollFd::new(output, PollFlags::IN));
            }
        }
        if let Some(stdin) = self.ends.stdin.as_ref().filter(|_| !self.input.is_empty()) {
            who.push(Who::Input);
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        for (n, client) in self.clients.iter().enumerate() {
            who.push(Who::Client(n));
            fds.push(PollFd::new(&client.socket, client.interest(hear)));
        }
        let patience = match (slow, self.on_slow) {
            (Some(since), Slow::Drop) => Some(CLIENT_PATIENCE.saturating_sub(since.elapsed())),
            (Some(_), Slow::Wait) | (None, _) => None,
        };
        let life = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = patience.into_iter().chain(life).min().map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = who.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn accept(&mut self) {
        if let Some(listener) = &self.listener
            && let Ok((socket, _)) = listener.accept()
            && let Ok(client) = Client::new(socket)
        {
            self.add(client);
        }
    }

    /// One piece of output; the number of its bytes, none if there is nothing more now.
    fn copy(&mut self, n: usize, buffer: &mut [u8]) -> usize {
        let Some(output) = &mut self.ends.outputs[n] else {
            return 0;
        };
        let length = match output.read(buffer) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => return 0,
            // A terminal that nobody has open any more says EIO.
            Err(_) => 0,
        };
        if length == 0 {
            self.ends.outputs[n] = None;
            return 0;
        }
        let bytes = &buffer[..length];
        if let Some(log) = &mut self.log {
            let mut encoded = Vec::new();
            self.lines[n].push(bytes, now_ms(), &mut encoded);
            // A full disk costs lines, not the container.
            log.append(&encoded);
        }
        if !self.clients.is_empty() {
            let stream = if n == 0 { LogStream::Stdout } else { LogStream::Stderr };
            let frame = Frame::Output(stream, bytes.to_vec().into());
            self.clients.iter_mut().for_each(|client| client.tell(&frame));
        }
        length
    }

    /// After the end all is read that is there: in a container the kernel has killed all other writers by then.
    fn take_the_rest(&mut self, buffer: &mut [u8]) {
        for n in 0..self.ends.outputs.len() {
            let mut left = LEFT_MAX_BYTES;
            while left > 0 {
                match self.copy(n, buffer) {
                    0 => break,
                    length => left = left.saturating_sub(length),
                }
            }
        }
        if let Some(log) = &mut self.log {
            let mut encoded = Vec::new();
            self.lines.iter_mut().for_each(|lines| lines.finish(now_ms(), &mut encoded));
            log.append(&encoded);
        }
    }

    fn attend(&mut self, n: usize, flags: PollFlags) {
        let client = &mut self.clients[n];
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        let frames = if flags.contains(PollFlags::IN) { client.hear() } else { Vec::new() };
        client.gone |= hung_up(flags) && !flags.contains(PollFlags::IN);
        for frame in frames {
            match frame {
                Frame::Input(bytes) if self.ends.stdin.is_some() && !self.end_of_input => self.input.extend(bytes),
                // Of a terminal one types the end.
                Frame::EndOfInput => self.end_of_input = !self.ends.is_terminal,
                Frame::Resize { rows, columns } => self.ends.resize(rows, columns),
                // From now on it is nobody's.
                Frame::Leave => self.on_slow = Slow::Drop,
                // Nobody reads it; or it is not for us.
                Frame::Input(_) | Frame::Output(..) | Frame::Running | Frame::Failed(..) | Frame::Exit(_) => {}
            }
        }
        self.feed();
    }

    fn feed(&mut self) {
        while let Some(stdin) = &mut self.ends.stdin
            && !self.input.is_empty()
        {
            match stdin.write(self.input.as_slices().0) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The process reads no more.
                Err(_) => {
                    self.ends.stdin = None;
                    self.input.clear();
                }
            }
        }
        if self.end_of_input {
            self.ends.stdin = None;
        }
    }

    /// Lets those go who went, and those who are too slow.
    fn dismiss(&mut self) {
        let before = self.clients.len();
        let too_slow = |c: &Client| c.slow_since.is_some_and(|since| since.elapsed() >= CLIENT_PATIENCE);
        self.clients.retain(|c| !(c.gone || self.on_slow == Slow::Drop && too_slow(c)));
        if self.on_slow == Slow::Wait && self.clients.len() < before {
            // Nobody will ever write, and a terminal that nobody sits at hangs up.
            self.ends.stdin = None;
            self.input.clear();
            if self.ends.is_terminal {
                self.ends.outputs = [None, None];
            }
        }
    }
}

fn hung_up(flags: PollFlags) -> bool {
    flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// With the rest of its group, if it leads one. It is not reaped yet, so that its number is its own.
fn kill(process: i32) {
    let process = Pid::from_raw(process);
    if killpg(process, Signal::SIGKILL).is_err() {
        let _ = nix::sys::signal::kill(process, Signal::SIGKILL);
    }
}

/// Takes in all children that ended; the code of `process` if it is among them.
pub(crate) fn reap(process: i32) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid.as_raw() == process => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == process => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

const _: () = assert!(READ_BYTES <= crate::frame::PAYLOAD_MAX_BYTES && READ_BYTES < client::BUFFER_BYTES);
