//! The embedded container runtime: images, overlayfs root file systems, OCI containers, logs and exit codes.
//!
//! There is no other daemon. [`Runtime`] is the daemon's side: it keeps the image store, starts one small
//! *supervisor* process per container and reads what supervisors leave on disk. [`supervise`] is that other
//! process: it builds the container, copies its output into the log, waits for it and writes down how it ended.
//! A supervisor lives in a session and a mount namespace of its own, so the daemon may be killed and started
//! again without the container noticing, and an exit code is known even if nobody was there to see it.
//!
//! Invariants:
//! - **A supervisor holds the lock on `live/ID` for as long as it lives**, from before it was started: so a free
//!   lock means that nobody will write about this container any more.
//! - **A container whose `exit.json` exists has no process left.**
//! - **An image is listed only when all its layers are whole and on disk.**
//!
//! Limits, known and accepted:
//! - Root is needed, if only of a user namespace. Device access is filtered by the device cgroup on cgroup v1 only;
//!   elsewhere the container gets no `CAP_MKNOD` instead.
//! - In a user namespace in which only root is mapped, all files of an image belong to root, its device nodes are left
//!   out, its users have no further groups, and no other user can be run as. Without cgroups a limit is refused.
//! - The seccomp profile is a list of refused system calls (those that Docker's profile refuses), not Docker's
//!   list of allowed ones.
//! - The root file system of a container lives as long as the container: after a reboot of the host it counts
//!   as ended, and is not started again.
//! - A memory limit says nothing of swap.
//! - Whoever follows a log that is rotated more than once in a tenth of a second misses what went by.
//! - A supervisor stays in the daemon's own cgroup: under systemd the unit needs `KillMode=process`.
//! - On cgroup v2 limits were not tried yet: the hosts at hand bind those controllers to v1.
//! - Compressed layer blobs are not kept once unpacked, so an image cannot be pushed from here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod atomic;
mod cgroup;
mod config;
mod error;
mod exits;
mod ids;
pub mod image;
mod log;
mod logs;
mod process;
mod record;
mod rootfs;
mod runtime;
mod seccomp;
mod spec;
mod supervise;
mod user;

pub use config::{ContainerConfig, ContainerState, ContainerStatus, Exit, RuntimeConfig};
pub use error::Error;
pub use image::{Image, ImageSummary, Images, Reference};
pub use log::{LogLine, LogStream};
pub use logs::LogOptions;
pub use runtime::Runtime;
pub use supervise::supervise;
