//! Where a task may go: the rules one by one, each with the name of its refusal.

use shoal_common::{
    NetworkId,
    container::PublishedPort,
    node::{Availability, Liveness},
    service::{Constraint, ConstraintKey, Placement, Protocol, PublishMode, ServiceSpec},
};
use shoal_state::Node;

use crate::board::Seat;

/// Why a node does not fit. The order is the order of the rules, and of the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    Down,
    Unknown,
    Drained,
    Paused,
    /// The index of the first constraint that does not hold.
    Constraint(usize),
    /// One that the node has no parent for.
    Network(NetworkId),
    Memory,
    Cpu,
    /// The first port of the node's own that somebody has.
    Port(u16, Protocol),
    /// `max_replicas_per_node`.
    Full,
}

/// What does not change while tasks are being placed.
pub(crate) fn standing(node: &Node, placement: &Placement) -> Result<(), Refusal> {
    match node.liveness {
        Liveness::Down => return Err(Refusal::Down),
        Liveness::Unknown => return Err(Refusal::Unknown),
        Liveness::Ready => {}
    }
    match node.availability {
        Availability::Drain => return Err(Refusal::Drained),
        Availability::Pause => return Err(Refusal::Paused),
        Availability::Active => {}
    }
    match unmet(node, placement) {
        Some(index) => Err(Refusal::Constraint(index)),
        None => Ok(()),
    }
}

/// What each further task uses up.
pub(crate) fn room(seat: &Seat<'_>, spec: &ServiceSpec) -> Result<(), Refusal> {
    let (left, needs) = (seat.left(), spec.resources.reservations);
    if let Some(attachment) = spec.networks.iter().find(|a| seat.beyond.contains(&a.network)) {
        return Err(Refusal::Network(attachment.network));
    }
    let mut ports = ports(spec);
    if let Some(port) = ports.find(|port| seat.ports.iter().any(|other| other.clashes(port))) {
        return Err(Refusal::Port(port.host_port, port.protocol));
    }
    if needs.memory_bytes > left.memory_bytes {
        Err(Refusal::Memory)
    } else if needs.nano_cpus > left.nano_cpus {
        Err(Refusal::Cpu)
    } else {
        Ok(())
    }
}

/// The ports that each task needs on its node.
pub(crate) fn ports(spec: &ServiceSpec) -> impl Iterator<Item = PublishedPort> {
    let named = spec.published(PublishMode::Host).filter_map(|p| Some((p.published?, p)));
    named.map(|(host_port, p)| PublishedPort {
        host_ip: None,
        host_port,
        container_port: p.target,
        protocol: p.protocol,
    })
}

/// The first constraint that does not hold of the node.
pub(crate) fn unmet(node: &Node, placement: &Placement) -> Option<usize> {
    placement.constraints.iter().position(|constraint| !holds(constraint, node))
}

/// A label that a node does not have differs from every value.
fn holds(constraint: &Constraint, node: &Node) -> bool {
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
