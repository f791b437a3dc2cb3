//! The last steps of a new process in a container, and the streams that it is given.

use libcontainer::{
    capabilities::drop_privileges,
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Spec},
    seccomp::initialize_seccomp,
    syscall::syscall::create_syscall,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Uid, fchown},
    pipe::{PipeFlags, pipe_with},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{self, Command},
    sync::Arc,
};

use crate::{
    Size,
    ends::{Console, Ends},
    program::{self, Unrunnable},
    supervise::{Failure, os},
};

/// What runs in the new process once it is in the container.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    confined: Option<Confined>,
    /// Of its terminal, if it has one.
    size: Option<Size>,
    /// Where it says what is wrong with its program: libcontainer would pass on a text.
    fault: Option<Arc<OwnedFd>>,
}

/// libcontainer confines the first process of a container itself, and one that is added to it not by seccomp.
#[derive(Debug, Clone)]
pub(crate) struct Confined {
    pub(crate) seccomp: Option<LinuxSeccomp>,
    pub(crate) capabilities: LinuxCapabilities,
    /// Whose its terminal shall be, if it has one. We learn of it too late: it runs then.
    pub(crate) terminal_of: Option<Uid>,
    /// The first process of the container: while it lives, its pid was no other's, and we are where we meant to be.
    pub(crate) first: Arc<OwnedFd>,
}

impl Payload {
    pub(crate) fn first(size: Option<Size>) -> Self {
        Self { confined: None, size, fault: None }
    }

    pub(crate) fn added(confined: Confined, size: Option<Size>) -> Self {
        Self { confined: Some(confined), size, fault: None }
    }

    fn refuse(&self, why: &Unrunnable) -> ExecutorValidationError {
        if let Some(fault) = &self.fault {
            // Shorter than what a pipe takes at once. Nobody listens any more: then nobody asks why.
            let _ = rustix::io::write(fault, &serde_json::to_vec(why).unwrap_or_default());
        }
        ExecutorValidationError::ArgValidationError(why.reason.clone())
    }
}

impl Executor for Payload {
    /// With all capabilities still, as loading a filter needs one.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        if let Some(Confined { seccomp, capabilities, terminal_of, first }) = &self.confined {
            let refused = |what: &str| ExecutorValidationError::ArgValidationError(what.to_owned());
            let mut fds = [PollFd::new(&**first, PollFlags::IN)];
            match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => {}
                Ok(_) | Err(_) => return Err(refused("the container has ended")),
            }
            if terminal_of.is_some() {
                fchown(io::stdin(), *terminal_of, None)
                    .map_err(|e| refused(&format!("cannot own the terminal: {e}")))?;
            }
            if let Some(seccomp) = seccomp {
                initialize_seccomp(seccomp).map_err(|e| refused(&format!("cannot refuse system calls: {e}")))?;
            }
            drop_privileges(capabilities, &*create_syscall())
                .map_err(|e| refused(&format!("cannot drop capabilities: {e}")))?;
        }
        if let Some(Size { rows, columns }) = self.size {
            // Before it can ask; without a terminal there is nothing to be told.
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(io::stdin(), size);
        }
        let (program, path) = named(spec);
        program::find(program, path).map(drop).map_err(|why| self.refuse(&why))
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|p| p.args().as_ref());
        let (name, args) = args.and_then(|args| args.split_first()).ok_or(ExecutorError::InvalidArg)?;
        let error = match program::find(name, named(spec).1) {
            // It also gives back SIGPIPE its default action, which Rust takes at the start of every program.
            Ok(program) => program::refusal(name, &Command::new(program).arg0(name).args(args).exec()),
            Err(why) => why,
        };
        // It counts as started: only its own output and its exit code can tell any more.
        let _ = writeln!(io::stderr(), "{}", error.reason);
        process::exit(error.fault.exit_code())
    }
}

/// The program's name, and the directories that it is looked for in.
fn named(spec: &Spec) -> (&str, Option<&str>) {
    let process = spec.process().as_ref();
    let name = process.and_then(|p| p.args().as_ref()?.first()).map(String::as_str).unwrap_or_default();
    let path = process.and_then(|p| p.env().as_ref()?.iter().find_map(|one| one.strip_prefix("PATH=")));
    (name, path)
}

/// What a process wants of its standard streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    /// Whose they are.
    pub(crate) uid: u32,
}

impl Streams {
    /// Builds a process that has them, and keeps our ends. `dir` is for a socket.
    pub(crate) fn give<T>(
        self,
        dir: &Path,
        builder: ContainerBuilder,
        mut payload: Payload,
        build: impl FnOnce(ContainerBuilder) -> Result<T, LibcontainerError>,
    ) -> Result<(T, Ends), Failure> {
        let (fault, tell) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|e| os("make a pipe")(e.into()))?;
        payload.fault = Some(Arc::new(tell));
        let build = |builder: ContainerBuilder| build(builder).map_err(|e| unrunnable(fault, e));
        let builder = builder.with_executor(payload);
        let terminal = |e: io::Error| os("make a terminal")(e);
        if self.tty {
            let console = Console::listen(dir).map_err(terminal)?;
            let built = build(builder.with_console_socket(Some(&console.path)))?;
            let ends = console.receive().and_then(|master| Ends::terminal(master, self.stdin, self.uid));
            Ok((built, ends.map_err(terminal)?))
        } else {
            let (ends, theirs) = Ends::pipes(self.stdin, self.uid).map_err(os("make a pipe"))?;
            let builder = builder.with_stdin(theirs.stdin).with_stdout(theirs.stdout).with_stderr(theirs.stderr);
            Ok((build(builder)?, ends))
        }
    }
}

/// What the new process said of its program, or else what libcontainer says.
fn unrunnable(fault: OwnedFd, error: LibcontainerError) -> Failure {
    let mut said = Vec::new();
    // The other end may be open somewhere: what is there is all.
    let _ = File::from(fault).read_to_end(&mut said);
    serde_json::from_slice(&said).map_or(Failure::Container(error), Failure::Program)
}
