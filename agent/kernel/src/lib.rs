//! The hands of the data plane: the only crate that opens netlink, enters a network namespace and writes sysctls.
//!
//! [`Kernel::observe`] reads what is true into the [`World`](shoal_plan::World) that `shoal-plan` compares with what
//! is wanted; [`Kernel::apply_all`] does what that asks for; [`Kernel::changes`] says where to look again. Nothing is
//! decided here.
//!
//! Three facts of the kernel shape this crate. A netlink socket belongs to the namespace in which it was opened, so
//! there are sockets for each (`namespace`). Entering a namespace changes the thread, so it is done on threads that
//! end right after (`netns`). And the kernel answers while `send` still runs, so netlink is spoken synchronously
//! and in batches, on blocking threads ([`netlink`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
mod handle;
mod kernel;
mod monitor;
mod namespace;
pub mod netlink;
mod netns;
pub mod nft;
mod observe;
mod sysctl;
pub mod underlay;

pub use apply::OpError;
pub use handle::NetNs;
pub use kernel::{Error, Kernel, KernelConfig};
pub use monitor::Changes;
pub use netlink::Refusal;
pub use underlay::HostFacts;
