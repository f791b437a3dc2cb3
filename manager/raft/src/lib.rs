//! Making it so: the managers agree on one log (Raft, by `openraft`) and keep it (`store`).
//!
//! The only crate that knows `openraft`. Raft: Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", 2014; pre-vote and membership changes as in Ongaro's dissertation.

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// Whether this fault of `sim::mutant` is at work. Without the feature `sim` it never is, and nothing of it is compiled.
macro_rules! mutant {
    ($($name:ident)|+) => {{
        #[cfg(feature = "sim")]
        let at_work = [$(crate::sim::Mutant::$name),+].into_iter().any(crate::sim::mutant::at_work);
        #[cfg(not(feature = "sim"))]
        let at_work = false;
        at_work
    }};
}

mod codec;
pub mod consensus;
pub mod files;
#[cfg(test)]
mod golden;
mod health;
mod lines;
mod log_store;
mod machine;
pub mod open;
mod peers;
mod rt;
mod sender;
mod server;
pub mod settings;
#[cfg(feature = "sim")]
pub mod sim;
mod snapshot;
pub mod space;
pub mod store;
#[cfg(test)]
mod suite;
mod types;

pub use consensus::{Consensus, Leadership, ProposeError};
pub use open::{OpenError, create};
pub use server::{Member, Server, service};
pub use settings::{Connector, Settings};
pub use store::{Code, Owner, Refusal};
