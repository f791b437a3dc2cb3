//! Making it so: the managers agree on one log (Raft, by `openraft`) and keep it (sled).
//!
//! The only crate that knows `openraft` and `sled`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod consensus;
pub mod settings;

pub use consensus::{Consensus, Leadership, OpenError, ProposeError};
pub use settings::{Connector, Settings};
