//! Whether a node meets a constraint. The scheduler decides by its own copy of these rules; a test of [`super::view`]
//! holds the two together.

use shoal_common::service::{Constraint, ConstraintKey};
use shoal_state::Node;

/// A label that a node does not have differs from every value.
pub(super) fn holds(constraint: &Constraint, node: &Node) -> bool {
    let value = constraint.value.as_str();
    let same = match &constraint.key {
        ConstraintKey::NodeId => node.id.to_string() == value,
        ConstraintKey::Hostname => node.description.hostname == value,
        ConstraintKey::Role => node.role.to_string() == value,
        ConstraintKey::PlatformOs => node.description.os == value,
        ConstraintKey::PlatformArch => arch(&node.description.arch) == arch(value),
        ConstraintKey::Label(label) => node.labels.get(label).is_some_and(|v| v == value),
    };
    same == constraint.equal
}

/// Images and Go say `amd64` where the kernel says `x86_64`.
fn arch(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}
