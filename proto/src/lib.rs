//! The wire. The only crate that defines message types, and the only place where they become values of
//! `shoal-common` ([`convert`]) and back.

pub mod access;
pub mod convert;

pub use access::{Call, Who};

/// Generated from `shoal/v1/*.proto`.
#[allow(clippy::all, missing_debug_implementations, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("shoal.v1");
}
