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

/// What to say of a host name that hides a public one: it is a name on the container's networks, as a whole.
pub(crate) fn hides_a_public_name(hostname: Option<&str>) -> Option<String> {
    let name = hostname.filter(|name| name.contains('.'))?;
    Some(format!(
        "hostname {name} is answered with this container's address on its networks: nobody there reaches a public {name}"
    ))
}

fn map(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    pairs.iter().map(|p| (p.key.clone(), p.value.clone())).collect()
}
