//! The shell of the control plane: it serves users and agents, and carries values between Raft and the pure crates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod seat;

pub use seat::{Manager, Seat, seat};
