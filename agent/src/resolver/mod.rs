//! The process that answers names to this host's containers, and listens at its published ports.
//!
//! It is a process of its own so that both go on while the daemon is down, restarts or is upgraded. The daemon
//! starts it, tells it the assignment and whom to serve, and replaces it when it has ended, when it does not answer
//! (`keeper`) and when it is of another build; it goes on with what it was told last when the daemon has gone. What is
//! not said again is not forgotten: a daemon that comes back finds out who is served, and stops those that should not be.
//!
//! It opens nothing of a container itself: the daemon sends it the sockets. So all that it has of a task is in one value
//! (`served`), and goes with it.

mod client;
mod keeper;
mod ports;
mod process;
mod served;
mod server;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(crate) use client::{Client, Error};

/// The first word of its command line: `shoal resolve RUN_DIR RESOLV_CONF`.
pub const VERB: &str = "resolve";

/// What the process does, until it is told to quit. Never from a thread of an async runtime.
pub fn resolve(run_dir: &Path, resolv_conf: &Path) -> ExitCode {
    match server::run(run_dir, resolv_conf) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error}"), "the resolver of this host ends");
            ExitCode::FAILURE
        }
    }
}

/// Ends the resolver of the host at `run_dir`, if there is one.
pub fn quit(run_dir: &Path) -> io::Result<()> {
    keeper::quit(run_dir)
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("resolver.sock")
}

fn lock(run_dir: &Path) -> PathBuf {
    run_dir.join("resolver.lock")
}
