//! The agent: what one host does with what the managers tell it.
//!
//! [`Host`] is there from the daemon's start, in a cluster or not; [`Agent`] runs while the host is in one. Inside of
//! the agent four loops go round, each of them level-triggered: whatever happened, it looks at how things are and
//! does the next thing.
//!
//! - `session` holds the stream of assignments from one manager after the other, and says that we live;
//! - `reconcile` makes the kernel's networking what the assignment asks for, and repairs it;
//! - `tasks` makes the containers what the assignment asks for;
//! - `report` tells the managers what became of them.
//!
//! **What must hold.** A container's first process starts after its network namespace is wired and its resolver
//! listens. A namespace is removed after its container has ended. A host never acts on a lower generation than it has
//! acted on. Nothing that happens to this process, or to every manager, ends a container.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod check;
mod containers;
#[cfg(test)]
mod fixture;
mod host;
mod known;
mod logs;
mod memory;
mod ports;
mod reconcile;
mod report;
pub mod resolver;
mod scope;
mod session;
mod sessions;
mod tasks;

pub use agent::{Agent, AgentStatus, Membership};
pub use host::{Error, Host, HostConfig};
pub use logs::{Logs, logs_service};
pub use sessions::{Sessions, containers_service, local_containers_service};

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Some errors of others say their cause in their own text.
        let told = next.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = next.source();
    }
    text
}
