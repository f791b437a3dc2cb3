//! A terminal with a program at it, as a person sits there: what is shown, what is typed, and how the terminal is set.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{ControlModes, InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::eventually;

/// What is typed is answered within this, also on a machine that does other things.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A session of its own, at a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    /// Open as long as the terminal is: how it is set outlives the program.
    slave: Option<OwnedFd>,
    child: Child,
    reader: JoinHandle<()>,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Of what is shown, so much was looked at.
    seen: usize,
    at_first: Mode,
}

/// How a terminal is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    input: InputModes,
    output: OutputModes,
    control: ControlModes,
    local: LocalModes,
}

impl Mode {
    /// Every key goes through as it is.
    pub fn is_raw(&self) -> bool {
        !self.local.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !self.input.contains(InputModes::ICRNL)
    }
}

impl Terminal {
    /// `rows` and `columns`: its size.
    pub(crate) fn run(command: &[OsString], rows: u16, columns: u16) -> anyhow::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        tcsetwinsize(&master, window(rows, columns))?;
        let at_first = mode(&master)?;
        // It begins a session, whose terminal this is.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(command)
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave.try_clone()?)
            .spawn()
            .with_context(|| format!("run {command:?} at a terminal"))?;
        let (shown, mut reader) = (Arc::new(Mutex::new(Vec::new())), File::from(master.try_clone()?));
        let screen = Arc::clone(&shown);
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            // Until nobody has the terminal open any more, which is an error.
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
            }
        });
        Ok(Self { master: File::from(master), slave: Some(slave), child, reader, shown, seen: 0, at_first })
    }

    pub fn type_in(&mut self, keys: &str) -> anyhow::Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Waits until that is shown, after all that was waited for before.
    pub fn until(&mut self, text: &str) -> anyhow::Result<()> {
        let found = eventually(&format!("{text:?} is shown"), ANSWERS_WITHIN, || {
            let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            let new = &shown[self.seen..];
            let at = new.windows(text.len()).position(|part| part == text.as_bytes());
            at.map(|at| at + text.len()).with_context(|| format!("shown: {}", String::from_utf8_lossy(new)))
        })?;
        self.seen += found;
        Ok(())
    }

    /// All of it.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Types a line of a shell, and waits until it answers so.
    pub fn ask(&mut self, line: &str, answer: &str) -> anyhow::Result<()> {
        self.type_in(&format!("{line}\n"))?;
        self.until(answer)
    }

    /// Its owner pulls at the window's corner.
    pub fn resize(&self, rows: u16, columns: u16) -> anyhow::Result<()> {
        Ok(tcsetwinsize(&self.master, window(rows, columns))?)
    }

    pub fn mode(&self) -> anyhow::Result<Mode> {
        mode(&self.master)
    }

    /// Waits until the terminal is the program's alone.
    pub fn until_raw(&self) -> anyhow::Result<()> {
        eventually("the terminal is raw", ANSWERS_WITHIN, || {
            let mode = self.mode()?;
            ensure!(mode.is_raw(), "{mode:?}");
            Ok(())
        })
    }

    /// Asks the program to end, by a signal.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a process")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for the program's end; then the terminal is as it was at first. The exit code, and all that was shown.
    pub fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let child = &mut self.child;
        let ended: anyhow::Result<ExitStatus> =
            eventually("it ends", ANSWERS_WITHIN, || child.try_wait()?.context("it runs"));
        let status = ended.with_context(|| format!("shown: {}", self.shown()))?;
        let mode = self.mode()?;
        drop(self.slave.take());
        eventually("all is shown", ANSWERS_WITHIN, || {
            ensure!(self.reader.is_finished(), "somebody still has the terminal open");
            Ok(())
        })?;
        let shown = self.shown();
        ensure!(mode == self.at_first, "the terminal was left as {mode:?}, shown: {shown}");
        Ok((status.code(), shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, or the story went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn mode(of: &impl std::os::fd::AsFd) -> anyhow::Result<Mode> {
    let set = tcgetattr(of)?;
    Ok(Mode { input: set.input_modes, output: set.output_modes, control: set.control_modes, local: set.local_modes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_size_and_an_owner_who_types() {
        let words = ["sh", "-c", "stty size; read line; echo got-$line; stty raw -echo; exit 3"].map(OsString::from);
        let mut terminal = Terminal::run(&words, 31, 101).unwrap();
        terminal.until("31 101").unwrap();
        assert!(!terminal.mode().unwrap().is_raw());
        terminal.ask("it", "got-it").unwrap();
        let left = terminal.end().unwrap_err().to_string();
        assert!(left.contains("was left as"), "{left}");
    }
}
