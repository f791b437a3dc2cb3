//! What a user called by name or id.

use shoal_common::{Invalid, NodeId};
use shoal_state::{Network, Node, Rejection, Service, State};

use super::status::Refusal;

pub(super) fn service<'a>(state: &'a State, name: &str) -> Result<&'a Service, Rejection> {
    state.find_service(name).ok_or_else(|| unknown("service", name))
}

/// One of the cluster's, or of that host.
pub(super) fn network<'a>(state: &'a State, name: &str, on: NodeId) -> Result<&'a Network, Rejection> {
    state.find_network(name, Some(on)).ok_or_else(|| match name {
        "host" | "none" => {
            let expected = format!(
                "a network's name or id: {name} is no network, but what run and create give a container in place of \
                 all networks, by --network {name}"
            );
            Invalid::new("network", name, expected).into()
        }
        _ => unknown("network", name),
    })
}

/// `host` and `none` are with every host, and no networks of the state: `why` is what of them cannot be done.
pub(super) fn refuse_stack(name: &str, why: impl Fn(String) -> Refusal) -> Result<(), Refusal> {
    if matches!(name, "host" | "none") { Err(why(name.to_owned())) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_with_a_stack_is_said_of_it_alone() {
        for name in ["host", "none"] {
            let refused = |why: fn(String) -> Refusal| refuse_stack(name, why).unwrap_err().to_string();
            let joined = refused(Refusal::StackJoined);
            assert!(joined.starts_with(&format!("network {name} cannot be joined")), "{joined}");
            assert!(joined.ends_with(&format!("--network {name}")), "{joined}");
            assert_eq!(
                refused(Refusal::StackLeft),
                format!("network {name} cannot be left: a container has it for good")
            );
        }
        assert_eq!(refuse_stack("bridge", Refusal::StackLeft), Ok(()));
    }
}
