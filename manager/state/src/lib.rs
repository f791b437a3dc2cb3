//! What is true: the cluster's state as a pure function of the log.
//!
//! [`State::apply`] is the only way to change it. It reads no clock, no randomness, no environment, and iterates
//! in order only, so every manager that applied the same entries holds the same bytes. Addresses, VNIs, VIPs and
//! ids are taken here and nowhere else. [`assign::assignment`] projects what one node must know.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
pub mod assign;
mod changes;
pub mod check;
pub mod checkpoint;
pub mod command;
pub mod digest;
pub mod ipam;
mod level;
pub mod reply;
pub mod state;
pub mod table;
mod visible;

pub use assign::{View, assignment, network_mtu, view};
pub use check::violations;
pub use checkpoint::{Checkpoint, Verdict};
pub use command::{ClusterSettings, Command, ContainerReport, Proposal, RequestId, TaskChange, TaskReport};
pub use digest::digest;
pub use reply::{Outcome, Rejection, Reply};
pub use state::{Cluster, Container, Network, Node, Service, State, Task, called};
pub use table::Table;
