//! What was typed, as the specs that managers take. Checked here as well, so that a slip is told before anything
//! is sent: by the same conversions by which the managers check.

pub(crate) mod env;
mod health;
pub(crate) mod name;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod run;
pub(crate) mod service;

use std::collections::BTreeMap;

use crate::units::KeyValue;

fn map(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    pairs.iter().map(|p| (p.key.clone(), p.value.clone())).collect()
}
