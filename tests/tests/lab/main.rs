//! End to end: real daemons, real Raft and TLS, real links, real containers, real DNS packets.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod bare;
mod document;
mod first;
mod health;
mod ingress;
mod random;
mod refused;
mod rootless;
mod survive;
mod work;
