//! The shell of the control plane: it serves users and agents, and carries values between Raft and the pure crates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod api;
pub mod authority;
pub mod bootstrap;
pub mod ca;
pub mod checkpoint;
mod claims;
pub mod dispatcher;
pub mod leader;
mod peer;
pub mod seat;
mod stepping;

pub use dispatcher::Heard;
pub use seat::{Fault, Manager, Seat, seat};
pub use shoal_raft::{OpenError, space::Level};

fn removed(node: shoal_common::NodeId) -> tonic::Status {
    shoal_rt::Removed { node }.into()
}

/// The answer to a call that is refused.
fn refused<E: Into<api::status::Refusal>>(error: E) -> tonic::Status {
    tonic::Status::from(error.into())
}
