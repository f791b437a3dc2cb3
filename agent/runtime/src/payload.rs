//! The last steps of a new process in a container, and the streams that it is given.

use libcontainer::{
    capabilities::drop_privileges,
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Spec},
    seccomp::initialize_seccomp,
    syscall::syscall::create_syscall,
    workload::{Executor, ExecutorError, ExecutorValidationError, default::DefaultExecutor},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Uid, fchown},
};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::Command,
    sync::Arc,
};

use crate::{
    ends::{Console, Ends},
    supervise::{Failure, os},
};

/// What runs in the new process once it is in the container.
#[derive(Debug, Clone)]
pub(crate) struct Payload(Option<Confined>);

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
    pub(crate) fn first() -> Self {
        Self(None)
    }

    pub(crate) fn added(confined: Confined) -> Self {
        Self(Some(confined))
    }
}

impl Executor for Payload {
    /// With all capabilities still, as loading a filter needs one.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        if let Some(Confined { seccomp, capabilities, terminal_of, first }) = &self.0 {
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
        DefaultExecutor {}.validate(spec)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec.process().as_ref().and_then(|p| p.args().as_ref());
        let (program, args) = args.and_then(|args| args.split_first()).ok_or(ExecutorError::InvalidArg)?;
        // It also gives back SIGPIPE its default action, which Rust takes at the start of every program.
        let error = Command::new(program).args(args).exec();
        Err(ExecutorError::Other(format!("cannot run {program}: {error}")))
    }
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
        build: impl FnOnce(ContainerBuilder) -> Result<T, LibcontainerError>,
    ) -> Result<(T, Ends), Failure> {
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
