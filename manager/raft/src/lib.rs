//! Making it so: the managers agree on one log (Raft, by `openraft`) and keep it (`store`).
//!
//! The only crate that knows `openraft`. Raft: Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", 2014; pre-vote and membership changes as in Ongaro's dissertation.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
pub mod consensus;
pub mod files;
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
