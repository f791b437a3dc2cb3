//! The state from outside: what each command does, a story told whole, and the laws that no sequence breaks.
#![allow(clippy::unwrap_used)]

mod commands;
mod containers;
mod laws;
mod level;
mod ports;
mod projection;
mod story;
mod world;
