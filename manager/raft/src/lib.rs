//! Making it so: the managers agree on one log (Raft, by `openraft`) and keep it (sled).
//!
//! The only crate that knows `openraft` and `sled`. Raft: Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", 2014; pre-vote and membership changes as in Ongaro's dissertation.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
pub mod consensus;
mod disk;
pub mod files;
mod keys;
mod lines;
mod log_store;
mod machine;
mod peers;
mod rt;
mod server;
pub mod settings;
mod snapshot;
#[cfg(test)]
mod suite;
mod types;

pub use consensus::{Consensus, Leadership, OpenError, ProposeError};
pub use server::{Member, Server, service};
pub use settings::{Connector, Settings};
