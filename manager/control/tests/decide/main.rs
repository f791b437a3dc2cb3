//! `decide` against the real state: commands in, tasks out.

#![allow(clippy::unwrap_used)]

mod global;
mod lab;
mod liveness;
mod nodes;
mod properties;
mod replicated;
mod restart;
mod scheduler;
mod update;
