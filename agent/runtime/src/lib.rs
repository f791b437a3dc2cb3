//! The embedded container runtime: images, overlayfs root file systems, OCI containers, logs and exit codes.
//!
//! There is no other daemon. [`Runtime`] is the daemon's side: it keeps the image store, starts one small
//! *supervisor* process per container and reads what supervisors leave on disk. [`supervise()`] is that other
//! process: it builds the container, copies its output into the log, waits for it and writes down how it ended.
//! A supervisor lives in a session and a mount namespace of its own, so the daemon may be killed and started
//! again without the container noticing, and an exit code is known even if nobody was there to see it.
//!
//! A supervisor owns the pipes or the terminal of its container and serves those who attach on a socket of its own.
//! A process that is added to a container ([`Runtime::exec`]) has a supervisor too, which is known to one client only.
//!
//! Invariants:
//! - **A supervisor holds the lock on `live/ID` for as long as it lives**, from before it was started: so a free
//!   lock means that nobody will write about this container any more.
//! - **A container whose `exit.json` exists has no process left**, but for one that waits to be started again.
//! - **A container that is started again has ended as before until `exit.json` is gone**, which is removed after all
//!   was made and before the first process runs; only an end with a free lock is final.
//! - **Who is attached cannot hold up a container**: who takes nothing for a second is dropped.
//! - **An image is listed only when all its layers are whole and on disk.**
//! - **What cannot be read is set aside and reported, never deleted** ([`SetAside`]).
//!
//! Limits, known and accepted:
//! - Root is needed, if only of a user namespace. Devices are filtered by the device cgroup of v1 or a program of the
//!   kernel's on v2; where there is neither, the container gets no `CAP_MKNOD`. Everywhere a device is opened through the
//!   container's own `/dev` alone: its root file system and volumes are mounted `nodev`, and images have no devices.
//! - In a user namespace in which only root is mapped, all files of an image belong to root, its users have no further
//!   groups, and no other user can be run as. Without cgroups a limit is refused.
//! - After a reboot of the host a container counts as ended. Started again, it has all that it wrote before only if
//!   it was made `durable`.
//! - Output waits up to a second for a client that is slow, and so does then the container.
//! - Standard input that is kept open stays so when a client leaves without ending it.
//! - What is attached or added dies with the daemon's end of the socket: an added process goes on unheard, but for
//!   one with a terminal, which hangs up; whoever leaves such a session says so, and it goes on.
//! - A bind mount is of what is at the path at the start; what the host mounts below it later is not seen.
//! - A memory limit says nothing of swap.
//! - Whoever reads a log more slowly than it is rotated misses lines, and is told how many.
//! - A supervisor stays in the daemon's own cgroup: under systemd the unit needs `KillMode=process`.
//! - On cgroup v2 limits were not tried yet: the hosts at hand bind those controllers to v1.
//! - Compressed layer blobs are not kept once unpacked, so an image cannot be pushed from here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aside;
mod capabilities;
mod cgroup;
mod client;
mod config;
mod devices;
mod ends;
mod error;
mod exec;
mod exits;
mod frame;
mod hosts;
mod ids;
pub mod image;
mod json;
mod locked;
mod log;
mod logs;
mod mounts;
mod payload;
mod process;
mod program;
mod pump;
mod record;
mod rootfs;
mod runtime;
mod seccomp;
mod session;
mod spec;
mod stats;
mod supervise;
mod user;
mod volumes;

pub use aside::SetAside;
pub use config::{
    ContainerConfig, ContainerState, ContainerStatus, Exit, Fault, Mount, MountSource, Options, RuntimeConfig, Size,
};
pub use error::Error;
pub use exec::ExecConfig;
pub use image::{Image, ImageSummary, Images, Reference};
pub use log::{LogLine, LogStream};
pub use logs::LogOptions;
pub use runtime::Runtime;
pub use session::{Session, Stdin, Terminal};
pub use spec::PIDS_LIMIT_DEFAULT;
pub use stats::Stats;
pub use supervise::supervise;
pub use volumes::Volume;
