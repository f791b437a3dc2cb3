//! The managers' consensus in simulation: the code of this crate and of the state, over simulated time, network and
//! disks. A run is one thread and one seed, and the same seed gives the same run.
//!
//! What is real: openraft, the log and its files' formats, snapshots, the state machine, forwarding, reads, membership.
//! What is not: TLS, gRPC, the kernel, the daemon around it. `oracle.rs` says what must hold; `mutant.rs` has the faults
//! that show that it would be noticed.

mod cluster;
mod commands;
pub(crate) mod dice;
mod disk;
mod many;
pub(crate) mod mutant;
mod net;
pub(crate) mod oracle;
mod run;
pub mod watch;

pub use cluster::Counts;
pub use many::{Total, many};
pub use mutant::Mutant;
pub use run::{Plan, Report, run};
