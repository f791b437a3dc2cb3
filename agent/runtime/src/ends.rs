//! Our ends of a process's standard streams: three pipes, or one terminal.

use rustix::{
    fs::{OFlags, Uid, fchown, open},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    pipe::{PipeFlags, pipe_with},
    pty::{OpenptFlags, ioctl_tiocgptpeer},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// None of them blocks. One that is `None` has ended or was never there.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<File>,
    /// Standard output and standard error; of a terminal only the first.
    pub(crate) outputs: [Option<File>; 2],
    pub(crate) is_terminal: bool,
}

/// The other ends, for the process.
#[derive(Debug)]
pub(crate) struct Theirs {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Ends {
    /// They belong to `uid`, so that the process may open `/dev/stdout`. Without `stdin` its input is empty.
    pub(crate) fn pipes(stdin: bool, uid: u32) -> io::Result<(Ends, Theirs)> {
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (our_stdin, their_stdin) = if stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            fchown(&read, Some(Uid::from_raw(uid)), None)?;
            (Some(unblocking(write)?), read)
        } else {
            (None, open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?)
        };
        for fd in [&their_stdout, &their_stderr] {
            fchown(fd, Some(Uid::from_raw(uid)), None)?;
        }
        let outputs = [Some(unblocking(stdout)?), Some(unblocking(stderr)?)];
        let ends = Ends { stdin: our_stdin, outputs, is_terminal: false };
        Ok((ends, Theirs { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr }))
    }

    /// Out of the master of a terminal, which then belongs to `uid`: soon enough for a process that waits to be
    /// started.
    pub(crate) fn terminal(master: OwnedFd, stdin: bool, uid: u32) -> io::Result<Ends> {
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        let master = unblocking(master)?;
        let stdin = if stdin { Some(master.try_clone()?) } else { None };
        Ok(Ends { stdin, outputs: [Some(master), None], is_terminal: true })
    }

    /// Nothing happens without a terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if self.is_terminal
            && let [Some(master), _] = &self.outputs
        {
            // A terminal that hung up has no size.
            let _ = tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
        }
    }
}

fn unblocking(fd: OwnedFd) -> io::Result<File> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(File::from(fd))
}

/// The socket on which a terminal's master arrives from inside the container.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Console {
    pub(crate) fn listen(dir: &Path) -> io::Result<Self> {
        let path = dir.join("console.sock");
        Ok(Self { listener: listen(&path)?, path })
    }

    /// To be called after the process was made: what it sent is then there.
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        let (socket, _) = self.listener.accept()?;
        fs::remove_file(&self.path)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        recvmsg(&socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        master.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no terminal came out of the container"))
    }
}

/// Listens at `path`, however long it is, in place of whoever did before.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    short(path, |short| UnixListener::bind(short))
}

pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    short(path, |short| UnixStream::connect(short))
}

/// The address of a socket has room for a hundred bytes, and a directory may be deeper than that.
fn short<T>(path: &Path, then: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a socket"));
    };
    let dir = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    then(&Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_be_deep() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("x".repeat(63));
        for _ in 0..2 {
            let listener = listen(&path).unwrap();
            connect(&path).unwrap();
            listener.accept().unwrap();
        }
    }
}
