//! The managers' word that a node is not of their cluster any more: a host ends all that the cluster runs on it.
//!
//! A status code alone is no such word. PERMISSION_DENIED is also what tonic makes of HTTP 403 and of some HTTP/2
//! errors, and any handler may return it for another reason. So the answer names the node, and the host compares that
//! with its own certificate. The cluster need not be named: a host speaks only to managers whose certificate is of its
//! own cluster's CA.

use shoal_common::NodeId;
use tonic::{Code, Status};

const NODE: &str = "shoal-removed-node";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    pub node: NodeId,
}

impl Removed {
    /// The word in an answer, if it is there.
    pub fn in_status(status: &Status) -> Option<Self> {
        let node = status.metadata().get(NODE)?.to_str().ok()?.parse().ok().map(NodeId)?;
        (status.code() == Code::PermissionDenied).then_some(Self { node })
    }
}

impl From<Removed> for Status {
    fn from(removed: Removed) -> Self {
        let mut status = Status::permission_denied(format!("{} was removed from the cluster", removed.node));
        status.metadata_mut().insert(NODE, removed.node.0.into());
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_counts() {
        let removed = Removed { node: NodeId(7) };
        let said = Status::from(removed);
        assert_eq!(said.message(), "node-7 was removed from the cluster");
        assert_eq!(Removed::in_status(&said), Some(removed));
        assert_eq!(Removed::in_status(&Status::permission_denied("node-7 was removed from the cluster")), None);

        let mut other_code = Status::unavailable("");
        *other_code.metadata_mut() = said.metadata().clone();
        assert_eq!(Removed::in_status(&other_code), None);
        for value in ["seven", "-1", ""] {
            let mut broken = said.clone();
            broken.metadata_mut().insert(NODE, value.parse().unwrap());
            assert_eq!(Removed::in_status(&broken), None, "{value}");
        }
    }
}
