//! What a user called by name or id.

use shoal_common::{Invalid, NodeId};
use shoal_state::{Container, Network, Node, Rejection, Service, State};

pub(super) fn service<'a>(state: &'a State, name: &str) -> Result<&'a Service, Rejection> {
    state.find_service(name).ok_or_else(|| unknown("service", name))
}

/// One of the cluster's, or of that host.
pub(super) fn network<'a>(state: &'a State, name: &str, on: NodeId) -> Result<&'a Network, Rejection> {
    state.find_network(name, Some(on)).ok_or_else(|| match name {
        "host" | "none" => {
            let expected = format!(
                "a network that is joined, left and removed: {name} is what a container has from its start, by \
                 shoal run --network {name}, and instead of networks; services have theirs only"
            );
            Invalid::new("network", name, expected).into()
        }
        _ => unknown("network", name),
    })
}

pub(super) fn container<'a>(state: &'a State, name: &str, on: NodeId) -> Result<&'a Container, Rejection> {
    state.find_container(name, on).ok_or_else(|| unknown("container", name))
}

pub(super) fn node<'a>(state: &'a State, name: &str) -> Result<&'a Node, Rejection> {
    state.find_node(name).ok_or_else(|| {
        let bearers: Vec<String> =
            state.nodes.values().filter(|n| n.description.hostname == name).map(|n| n.id.to_string()).collect();
        if bearers.is_empty() {
            unknown("node", name)
        } else {
            let expected = format!("an id, for several nodes have that host name: {}", bearers.join(", "));
            Invalid::new("node", name, expected).into()
        }
    })
}

/// All, or those that were named, in the order they were named in.
pub(super) fn each_or_all<'a, T>(
    names: &[String],
    all: impl Iterator<Item = &'a T>,
    find: impl Fn(&str) -> Result<&'a T, Rejection>,
) -> Result<Vec<&'a T>, Rejection> {
    if names.is_empty() { Ok(all.collect()) } else { names.iter().map(|name| find(name)).collect() }
}

pub(super) fn unknown(kind: &str, name: &str) -> Rejection {
    Rejection::NotFound { kind: kind.to_owned(), name: name.to_owned() }
}
